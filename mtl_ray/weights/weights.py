"""The content of a file of weights: named tensors, their top-level key, and the other entries."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

_PLAIN = (str, bytes, int, float, bool, complex, type(None), torch.Size, torch.dtype, torch.device)
_NOTHING = object()
KEYS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "blobs",
    "net",
    "network",
    "params",
    "weights",
    "module",
)
"""Keys under which other programs store their weights; the first one that holds tensors is used."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Named tensors, their key, and the other entries.

    Attributes:
        tensors: by name, on the CPU, in the order of the file.
        key: the top-level key of the tensors; empty if the file holds only tensors.
        rest: the other top-level entries, as plain values (tensors, numbers, strings, containers of
            them).
        left: a sentence about each entry that cannot be kept.
    """

    tensors: dict[str, Tensor]
    key: str = ""
    rest: dict[str, Any] = field(default_factory=dict)
    left: tuple[str, ...] = ()

    def size(self) -> tuple[int, int]:
        """Number of elements and of bytes of all tensors."""
        return sum(tensor.numel() for tensor in self.tensors.values()), sum(
            tensor.nbytes for tensor in self.tensors.values()
        )


def find_weights(content: Any, uri: str, key: str | None = None) -> Weights:
    """Finds the named tensors in the content of a file.

    Args:
        content: of the file.
        uri: for the error.
        key: the top-level key of the tensors; by default the usual keys are tried. Empty: the top
            level itself.

    Raises:
        ValueError: if there are none; the message names the top-level keys.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{uri} holds a {type(content).__name__}, not named tensors")
    if key is None:
        key = next(
            (
                each
                for each in KEYS
                if isinstance(content.get(each), Mapping) and _tensors(content[each])[0]
            ),
            "",
        )
    if key and not isinstance(content.get(key), Mapping):
        raise ValueError(
            f"{uri} has no named tensors under {key!r}; its top-level keys: {_keys(content)}"
        )
    tensors, others = _tensors(content[key] if key else content)
    if not tensors:
        raise ValueError(f"{uri} holds no named tensors; its top-level keys: {_keys(content)}")
    lost = [
        f"{name} ({type(value).__name__}), which is not a tensor" for name, value in others.items()
    ]
    rest = {str(name): value for name, value in content.items() if name != key} if key else {}
    try:
        return Weights(tensors, key, _plain_entries(rest, "", lost, {}), tuple(lost))
    except RecursionError:
        raise ValueError(f"{uri}: the entries beside its tensors are nested too deeply") from None


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
    """Converts a tensor or an array of numbers to a tensor; None for anything else."""
    if isinstance(value, Tensor):
        return value.detach()
    if (
        isinstance(value, np.ndarray)
        and value.dtype.kind in "biufc"
        and value.dtype != np.longdouble
    ):
        # a copy; torch needs the native byte order
        return torch.from_numpy(np.array(value, value.dtype.newbyteorder("="), order="C"))
    return None


def _plain_entries(
    content: Mapping[Any, Any], place: str, lost: list[str], done: dict[int, Any]
) -> dict[Any, Any]:
    """The entries that any reader of plain values can read; the others are named in ``lost``.

    ``done`` maps ids to values that were converted already: nested containers that share parts
    could otherwise grow without end.
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
