"""What a file of weights holds: named tensors, under which key of it, and whatever else."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

_PLAIN = (str, bytes, int, float, bool, complex, type(None), torch.Size, torch.dtype, torch.device)
_NOTHING = object()
KEYS = ("state_dict", "model_state_dict", "model_state", "model", "blobs", "net", "network", "params", "weights", "module")
"""Under which of these other programs keep their weights; the first that is there and holds tensors counts."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Named tensors and where they stand.

    Attributes:
        tensors: by name, on the CPU, in the order of the file.
        key: the top-level key under which they are; empty if the file is nothing but tensors.
        rest: the other top-level entries, plain values (tensors, numbers, texts, containers of them).
        left: what the file holds besides and cannot be carried over, each as a sentence.
    """

    tensors: dict[str, Tensor]
    key: str = ""
    rest: dict[str, Any] = field(default_factory=dict)
    left: tuple[str, ...] = ()

    def size(self) -> tuple[int, int]:
        """Numbers and bytes of all tensors."""
        return sum(tensor.numel() for tensor in self.tensors.values()), sum(tensor.nbytes for tensor in self.tensors.values())


def find_weights(content: Any, uri: str, key: str | None = None) -> Weights:
    """The named tensors of what a file holds.

    Args:
        content: as read.
        uri: for the error.
        key: the top-level key of the tensors; without it the usual ones are looked for. Empty: the file itself.

    Raises:
        ValueError: if there are none; it names the top-level keys.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{uri} holds a {type(content).__name__}, not named tensors")
    if key is None:
        key = next((each for each in KEYS if isinstance(content.get(each), Mapping) and _tensors(content[each])[0]), "")
    if key and not isinstance(content.get(key), Mapping):
        raise ValueError(f"{uri} has no named tensors under {key!r}; its top-level keys: {_keys(content)}")
    tensors, others = _tensors(content[key] if key else content)
    if not tensors:
        raise ValueError(f"{uri} holds no named tensors; its top-level keys: {_keys(content)}")
    lost = [f"{name} ({type(value).__name__}), which is no tensor" for name, value in others.items()]
    rest = {str(name): value for name, value in content.items() if name != key} if key else {}
    try:
        return Weights(tensors, key, _plain_entries(rest, "", lost, {}), tuple(lost))
    except RecursionError:
        raise ValueError(f"{uri}: what stands beside its tensors is nested too deeply") from None


def _keys(content: Mapping[Any, Any]) -> str:
    names = [str(name) for name in content]
    return ", ".join(names[:12]) + (f", ... ({len(names)})" if len(names) > 12 else "") or "none"


def _tensors(content: Mapping[Any, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, others = {}, {}
    for name, value in content.items():
        tensor = as_tensor(value)
        if tensor is None:
            others[str(name)] = value
        else:
            tensors[str(name)] = tensor
    return tensors, others


def as_tensor(value: Any) -> Tensor | None:
    """A tensor of a tensor or an array of numbers; None of anything else."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc" and value.dtype != np.longdouble:
        return torch.from_numpy(np.array(value, value.dtype.newbyteorder("="), order="C"))  # a copy; torch wants its own byte order
    return None


def _plain_entries(content: Mapping[Any, Any], place: str, lost: list[str], done: dict[int, Any]) -> dict[Any, Any]:
    """What can be written so that any reader of plain values reads it back; the rest is named in ``lost``.

    ``done`` has, by identity, what stands there several times: containers that share others could be unfolded without an end.
    """
    kept = {}
    for name, value in content.items():
        plain = _plain(value, f"{place}{name}", lost, done)
        if plain is not _NOTHING:
            kept[name] = plain
    return kept


def _plain(value: Any, place: str, lost: list[str], done: dict[int, Any]) -> Any:
    if id(value) not in done:
        done[id(value)] = _made_plain(value, place, lost, done)
    return done[id(value)]


def _made_plain(value: Any, place: str, lost: list[str], done: dict[int, Any]) -> Any:
    tensor = as_tensor(value)
    if tensor is not None:
        return tensor
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (dict, OrderedDict):
        return _plain_entries(value, place + ".", lost, done)
    if type(value) in (list, tuple, set):
        items = [_plain(item, place, lost, done) for item in value]
        return type(value)(item for item in items if item is not _NOTHING)
    if type(value) in _PLAIN:
        return value
    lost.append(f"{place}, an object of the program that wrote it")
    return _NOTHING
