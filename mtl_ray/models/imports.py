"""Weight files, and tensors of another program's network under the names of a part of this one.

A module of a trunk or a head that can be filled from published checkpoints has the method
``imported`` (``Importing``). Most parts have the names of the published network after a prefix, so
that one rule is enough.
"""

import io
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import safetensors.torch
import torch
from torch import Tensor

from mtl_ray import storage

Program = Literal["openmmlab", "torchvision", "huggingface"]
"""The program that wrote a checkpoint: OpenMMLab 2.x and 3.x, torchvision, or Hugging Face's
transformers.
"""


class Imported(NamedTuple):
    """A tensor, and the names in the file of the tensors that it is made of."""

    value: Tensor
    sources: tuple[str, ...]


@runtime_checkable
class Importing(Protocol):
    """A module with parameters that other programs publish."""

    def imported(self, program: Program, tensors: Mapping[str, Tensor]) -> dict[str, Imported]:
        """The tensors of this module by its own names.

        Args:
            program: that wrote the file.
            tensors: all tensors of the file, under its names.

        Returns:
            What the file has of this module; empty if it has nothing. The caller checks that all
            parameters are there and have their shapes.
        """
        ...


@dataclass(frozen=True, slots=True)
class Rename:
    """One rule.

    Attributes:
        pattern: of a whole name in the file.
        to: the name in the module, with groups as in ``re.Match.expand``.
        change: of the value, such as another order of its rows.
    """

    pattern: str
    to: str
    change: Callable[[Tensor], Tensor] | None = None


def renamed(tensors: Mapping[str, Tensor], rules: Iterable[Rename]) -> dict[str, Imported]:
    """Applies to each tensor the first rule that matches its name; others are left out.

    Raises:
        ValueError: if two tensors of the file get the same name.
    """
    compiled = [(re.compile(rule.pattern), rule) for rule in rules]
    found: dict[str, Imported] = {}
    for name, value in tensors.items():
        for pattern, rule in compiled:
            if match := pattern.fullmatch(name):
                to = match.expand(rule.to)
                if to in found:
                    raise ValueError(f"{found[to].sources[0]} and {name} are both {to}")
                changed = value if rule.change is None else rule.change(value)
                found[to] = Imported(changed, (name,))
                break
    return found


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Imported]:
    """The tensors whose names begin with a prefix, without it: of modules with the published
    names.
    """
    return renamed(tensors, [Rename(re.escape(prefix) + r"(.*)", r"\1")])


def read_safetensors(data: bytes, name: str) -> dict[str, Tensor]:
    """The tensors of a file of safetensors.

    Args:
        data: the file.
        name: of the file, for the message.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        return dict(safetensors.torch.load(data))
    except (safetensors.SafetensorError, KeyError) as error:  # KeyError: a dtype torch lacks
        raise ValueError(f"{name} is damaged: {error}") from error


def read_state_dict(uri: str) -> Mapping[str, Tensor]:
    """The tensors of a weight file by name; no code in it is run.

    Raises:
        ValueError: if it is damaged, or holds more than tensors and plain values.
    """
    data = storage.read(uri)
    if uri.endswith(".safetensors"):
        return read_safetensors(data, uri)
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types on damaged data
        raise ValueError(
            f"{uri} is damaged, or holds more than tensors and plain values. Fix: python -m "
            f"jobs.weights wash {uri} OUT.safetensors writes its tensors alone, or says what is "
            "wrong"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
            break
    tensors = {
        name: value
        for name, value in (state.items() if isinstance(state, Mapping) else ())
        if isinstance(value, Tensor)
    }
    if not tensors:
        raise ValueError(f"{uri} holds no tensors by name")
    return tensors
