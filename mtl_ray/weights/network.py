"""Whole networks of other programs: backbone, necks and heads of a config filled from one file,
every tensor of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from mtl_ray.experiment import ExperimentConfig, ModelConfig, build_model
from mtl_ray.models.imports import Imported, Program
from mtl_ray.models.model import Model
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.head_classes import head_vocabulary, numbered_vocabulary
from mtl_ray.training.class_rows import (
    count_classes,
    find_class_rows,
    find_places,
    move_rows,
    without_own_classes,
)
from mtl_ray.weights.colours import with_colours, with_style
from mtl_ray.weights.original import Original
from mtl_ray.weights.parts import imported_part, parts_of
from mtl_ray.weights.targets import data_vocabulary

BACKGROUND = "__background__"
"""The first class in torchvision's lists of names (``weights.meta["categories"]``)."""
_LISTED = 20
"""Most names in an error."""


@dataclass(frozen=True, slots=True)
class ImportedNetwork:
    """A network with the weights of another program.

    Attributes:
        program: that wrote the file.
        config: with the mean, standard deviation and strides of a ResNet of the original, where the
            file says them.
        vocabulary: the classes of the network.
        tensors: all of the network, under its names.
        sources: by tensor the names of the file that it was made of.
        unused: names of the file that nothing was made of.
        random: by head its classes that the file does not have; their rows are random.
        notes: what the user must know, a sentence each.
    """

    program: Program
    config: ExperimentConfig
    vocabulary: Vocabulary
    tensors: dict[str, Tensor]
    sources: Mapping[str, tuple[str, ...]]
    unused: tuple[str, ...]
    random: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]


def import_network(
    original: Original,
    config: ExperimentConfig,
    *,
    classes: int | tuple[str, ...] | None = None,
    compat: bool = False,
    partial: bool = False,
) -> ImportedNetwork:
    """Fills the network of a config.

    Args:
        original: the file.
        config: of the network. Its classes are those of its data; without data those of the file.
            Its mean, standard deviation and strides of a ResNet are those of the file, where the
            file says them.
        classes: of the file: their names, or only their number; by default as the file says.
        compat: keep the order of the colour channels.
        partial: take layers that the network has only in part, with a note.

    Raises:
        ValueError: if nothing fits, the network is not filled whole, or it has a layer of the file
            only in part and would not equal the original.
    """
    notes = list(original.notes)
    config = replace(config, model=with_style(config.model, original, notes))
    names = classes if isinstance(classes, tuple) else original.classes
    if original.program == "torchvision" and names is not None and names[0] == BACKGROUND:
        names = names[1:]
    count = classes if isinstance(classes, int) else None if names is None else len(names)
    network = without_own_classes(config.model.without_pretrained())
    if count is None:
        count = _count(network, original)
    theirs = _vocabulary(network, names, count)
    model = build_model(network, theirs)
    filled = _fill(model, original, config)
    used = filled.used
    wanted = data_vocabulary(config)
    random: dict[str, tuple[str, ...]] = {}
    if halved := _halved(original, filled):
        if not partial:
            raise ValueError(
                f"{halved}, so the network would not equal the original. Fix: set that option, or "
                "--partial of jobs.weights import takes it all the same"
            )
        notes.append(halved)
    if wanted is not None:
        filled_tensors, random = _to_classes(filled.tensors, model, config, wanted, names, count)
        filled = filled._replace(tensors=filled_tensors)
        if names is None:
            notes.append("the file does not name its classes: they are taken in the data's order")
    elif names is None:
        notes.append("the file does not name its classes: they are called by number")
    config = with_colours(filled.tensors, model, original, config, notes, compat=compat)
    return ImportedNetwork(
        original.program,
        config,
        theirs if wanted is None else wanted,
        filled.tensors,
        filled.sources,
        tuple(name for name in original.tensors if name not in used),
        random,
        tuple(notes),
    )


def finds_heads(original: Original, config: ExperimentConfig) -> bool:
    """Whether a file has something of a head of a config."""
    network = without_own_classes(config.model.without_pretrained())
    if not network.heads:
        return False
    model = build_model(network, numbered_vocabulary(network.heads.values(), 2))
    return any(
        part.prefix.startswith("heads.") and imported_part(part, original)
        for part in parts_of(model)
    )


class _Filled(NamedTuple):
    tensors: dict[str, Tensor]
    sources: dict[str, tuple[str, ...]]

    @property
    def used(self) -> frozenset[str]:
        """All names of the file that something was made of."""
        return frozenset(name for names in self.sources.values() for name in names)


def _vocabulary(network: ModelConfig, names: tuple[str, ...] | None, count: int) -> Vocabulary:
    numbered = numbered_vocabulary(network.heads.values(), count)
    if names is None:
        return numbered
    return replace(numbered, classes=dict.fromkeys(numbered.classes, names))


def _count(network: ModelConfig, original: Original) -> int:
    """The number of classes of a file that does not say it."""
    small, large = (
        build_model(network, numbered_vocabulary(network.heads.values(), count)) for count in (2, 3)
    )
    found = {
        part.prefix + name: value.value
        for part in parts_of(small)
        if part.prefix.startswith("heads.")
        for name, value in imported_part(part, original).items()
    }
    count = count_classes(found, small, large, 2)
    # a row of the background, which the network gives up when it knows the number of classes
    dense = any(name.startswith("head.classification_head.") for name in original.tensors)
    return count - 1 if original.program == "torchvision" and dense else count


def _fill(model: Model, original: Original, config: ExperimentConfig) -> _Filled:
    """All tensors of a model.

    Raises:
        ValueError: if one is not in the file, or has another shape there.
    """
    own = model.state_dict()
    found: dict[str, Imported] = {}
    for part in parts_of(model):
        found |= {part.prefix + name: each for name, each in imported_part(part, original).items()}
    found = {name: each for name, each in found.items() if name in own}
    if not found:
        example = ", ".join(list(original.tensors)[:3])
        raise ValueError(
            f"nothing of this file of {original.program} fits the network of the config (it has "
            f"{example}, ...)"
        )
    missing = [
        name for name in own if name not in found and not name.endswith("num_batches_tracked")
    ]
    unequal = [
        f"{each.sources[0] if each.sources else name} is {tuple(each.value.shape)} and {name} "
        f"{tuple(own[name].shape)}"
        for name, each in found.items()
        if each.value.shape != own[name].shape
    ]
    if missing or unequal:
        said = [f"{len(missing)} tensors are not in it: {_list(missing)}"] if missing else []
        said += [f"{len(unequal)} have another shape: {_list(unequal)}"] if unequal else []
        raise ValueError(
            f"this file of {original.program} does not fill the network of the config: "
            + "; ".join(said)
        )
    # copies: the same tensor of a file may have several places
    tensors = {
        name: found[name].value.detach().to(value.dtype, copy=True) if name in found else value
        for name, value in own.items()
    }
    return _Filled(tensors, {name: each.sources for name, each in found.items()})


def _halved(original: Original, filled: _Filled) -> str | None:
    """What to say of layers of the file that the network has only in part, if there are any."""
    used = filled.used
    layers = {name.rpartition(".")[0] for name in used}
    beside = [
        name
        for name in original.tensors
        if name not in used
        and name.rpartition(".")[0] in layers
        and not name.endswith("num_batches_tracked")
    ]
    if not beside:
        return None
    return (
        f"{len(beside)} tensors without a place belong to layers that are used ({_list(beside)}): "
        "an option of the config, such as a bias, differs"
    )


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _to_classes(
    tensors: dict[str, Tensor],
    model: Model,
    config: ExperimentConfig,
    wanted: Vocabulary,
    names: tuple[str, ...] | None,
    count: int,
) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]]]:
    """The tensors for the classes of the data, and of each head the classes without a partner."""
    torch.manual_seed(config.runtime.seed)
    new = build_model(config.model.without_pretrained(), wanted).state_dict()
    network = without_own_classes(config.model.without_pretrained())
    more = _vocabulary(network, None if names is None else (*names, "\0"), count + 1)
    rows = find_class_rows(model, build_model(network, more), count)
    random: dict[str, tuple[str, ...]] = {}
    moved = dict(tensors)
    for name, head in config.model.heads.items():
        own = head_vocabulary(head, wanted, name).classes[head.annotation]
        places = _places(own, names, count, name)
        if None in places:
            random[name] = tuple(
                each for each, place in zip(own, places, strict=True) if place is None
            )
        for tensor, of_classes in rows.items():
            if tensor.startswith(f"heads.{name}."):
                moved[tensor] = move_rows(tensors[tensor], new[tensor], of_classes, places)
    return moved, random


def _places(
    own: tuple[str, ...], names: tuple[str, ...] | None, count: int, head: str
) -> list[int | None]:
    """Of each class of a head its index in the file, or None."""
    if names is None:
        if len(own) != count:
            raise ValueError(
                f"the file has {count} classes and does not name them, head {head!r} has "
                f"{len(own)}. Fix: --classes FILE with their names"
            )
        return list(range(count))
    places = find_places(own, names)
    if all(place is None for place in places):
        raise ValueError(
            f"no class of head {head!r} ({_list(own)}) is among those of the file ({_list(names)})"
        )
    return places
