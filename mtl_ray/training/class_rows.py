"""The rows of a head that belong to its classes, moved to a head with other classes by name."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from mtl_ray.artifact import Artifact
from mtl_ray.experiment import ModelConfig, build_model
from mtl_ray.inference.stored_config import read_network, read_vocabulary
from mtl_ray.models.head import GroupedOutput
from mtl_ray.models.model import Model
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.head_classes import head_vocabulary, numbered_vocabulary

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClassRows:
    """Where a tensor has something for each class.

    Attributes:
        axis: of the tensor.
        each: how many rows a class has.
        beside: rows that belong to no class: at the end, such as the background's, or ``grouped``.
        outer: True if the rows of a class lie together (4 box sides of each class); False if the
            classes lie together (of each anchor).
        grouped: the rows beside are divided among the anchors, before their classes (a box).
    """

    axis: int
    each: int
    beside: int
    outer: bool
    grouped: bool = False


def find_class_rows(model: Model, larger: Model, classes: int) -> dict[str, ClassRows]:
    """The tensors of the heads of a model that depend on the number of classes.

    Args:
        model: with ``classes`` classes.
        larger: the same with one more.
        classes: of ``model``.

    Raises:
        ValueError: if it is unclear which rows are whose.
    """
    found = {}
    for name, rows in _rows(model, larger, classes).items():
        if rows is None:
            raise ValueError(f"{name}: it is unknown which of its rows belong to which class")
        found[name] = rows
    return found


def _rows(model: Model, larger: Model, classes: int) -> dict[str, ClassRows | None]:
    """See ``find_class_rows``; None where it is unclear which rows are whose."""
    other = larger.state_dict()
    found: dict[str, ClassRows | None] = {}
    for name, value in model.state_dict().items():
        axes = [i for i, size in enumerate(value.shape) if size != other[name].shape[i]]
        if not axes:
            continue
        axis = axes[0]
        each = other[name].shape[axis] - value.shape[axis]
        beside = value.shape[axis] - each * classes
        layer = model.get_submodule(name.rpartition(".")[0])
        linear, grouped = isinstance(layer, nn.Linear), isinstance(layer, GroupedOutput)
        clear = len(axes) == 1 and beside >= 0 and (each == 1 or beside == 0 or grouped)
        found[name] = ClassRows(axis, each, beside, linear, grouped) if clear else None
    return found


def count_classes(found: Mapping[str, Tensor], model: Model, larger: Model, classes: int) -> int:
    """How many classes the tensors of a file have.

    Args:
        found: by the names of the model.
        model: with ``classes`` classes.
        larger: the same with one more.
        classes: of ``model``.

    Returns:
        ``classes`` if no tensor tells.
    """
    own = model.state_dict()
    for name, rows in find_class_rows(model, larger, classes).items():
        value = found.get(name)
        if value is None or value.dim() != own[name].dim():
            continue
        count, rest = divmod(value.shape[rows.axis] - rows.beside, rows.each)
        if rest == 0 and count > 0:
            return count
    return classes


def move_rows(old: Tensor, new: Tensor, rows: ClassRows, places: Sequence[int | None]) -> Tensor:
    """The rows of each class at their new places.

    Args:
        old: of the file.
        new: of the network; it keeps the rows of classes that the file does not have.
        rows: where both have their classes.
        places: of each new class its old index, or None.
    """
    before = (old.shape[rows.axis] - rows.beside) // rows.each
    pairs = [(place, index) for index, place in enumerate(places) if place is not None]
    one = _by_class(old, rows, before)
    out = new.clone()
    view = _by_class(out, rows, len(places))  # a view of out
    if pairs:
        theirs, ours = (torch.tensor(each) for each in zip(*pairs, strict=True))
        view[:, ours] = one[:, theirs].to(new.dtype)
    if rows.grouped:
        kept = rows.beside // rows.each
        _groups(out, rows)[:, :kept] = _groups(old, rows)[:, :kept].to(new.dtype)
    elif rows.beside:
        out.narrow(rows.axis, out.shape[rows.axis] - rows.beside, rows.beside).copy_(
            old.narrow(rows.axis, old.shape[rows.axis] - rows.beside, rows.beside)
        )
    return out


def _groups(value: Tensor, rows: ClassRows) -> Tensor:
    """(each, rows of an anchor, ...) as a view of a tensor."""
    moved = value.movedim(rows.axis, 0)
    return moved.view(rows.each, -1, *moved.shape[1:])


def _by_class(value: Tensor, rows: ClassRows, classes: int) -> Tensor:
    """(each, classes, ...) as a view of a tensor."""
    if rows.grouped:
        return _groups(value, rows)[:, -classes:]
    kept = value.narrow(rows.axis, 0, rows.each * classes).movedim(rows.axis, 0)
    if rows.outer:
        return kept.view(classes, rows.each, *kept.shape[1:]).transpose(0, 1)
    return kept.view(rows.each, classes, *kept.shape[1:])


def without_own_classes(network: ModelConfig) -> ModelConfig:
    """The network with heads that learn all classes."""
    heads = {name: replace(cast(Any, head), classes=None) for name, head in network.heads.items()}
    return replace(network, heads=heads)


def find_places(own: Sequence[str], names: Sequence[str]) -> list[int | None]:
    """Of each class of ``own`` its index among ``names``, or None; capital letters, hyphens and
    underscores do not count.
    """
    plain = {_plain(name): place for place, name in enumerate(names)}
    return [plain.get(_plain(name)) for name in own]


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


class OtherClasses(NamedTuple):
    """A head whose classes in a checkpoint are others, or in another order.

    Attributes:
        number: of classes in the checkpoint.
        places: of each class of the head its index there, or None.
    """

    number: int
    places: list[int | None]


def find_other_classes(
    opened: Artifact, network: ModelConfig, vocabulary: Vocabulary
) -> dict[str, OtherClasses]:
    """The heads whose classes are not those of a checkpoint, by name; a warning names the classes
    that the checkpoint does not have.

    Args:
        opened: the checkpoint. If its network cannot be read, a warning says so.
        network: whose heads are compared with those of the same name.
        vocabulary: of the network.
    """
    try:
        stored = read_network(opened)
        classes = read_vocabulary(opened, stored.vocabulary)
    except (ValueError, FileNotFoundError) as error:
        _log.warning(
            "load_from: the classes of the checkpoint cannot be read, so their rows keep their "
            "places: %s",
            error,
        )
        return {}
    found: dict[str, OtherClasses] = {}
    for name, head in network.heads.items():
        other = stored.model.heads.get(name)
        if other is None or other.annotation != head.annotation:
            continue
        own = head_vocabulary(head, vocabulary, name).classes.get(head.annotation, ())
        theirs = head_vocabulary(other, classes, name).classes.get(head.annotation, ())
        if own == theirs:
            continue
        places = find_places(own, theirs)
        found[name] = OtherClasses(len(theirs), places)
        if new := [each for each, place in zip(own, places, strict=True) if place is None]:
            _log.warning(
                "load_from: %d of the %d classes of head %s are not in %s and start from random "
                "weights: %s",
                *(len(new), len(own), name, opened.uri, ", ".join(new)),
            )
    return found


def move_classes(
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    network: ModelConfig,
    others: Mapping[str, OtherClasses],
) -> dict[str, Tensor]:
    """The tensors of a checkpoint with the rows of classes where a model has them.

    Args:
        tensors: of the checkpoint.
        model: which keeps its own rows of classes that the checkpoint does not have.
        network: the config of ``model``.
        others: see ``find_other_classes``.

    Returns:
        All but the tensors of which no class is there, or of which it is unclear which rows belong
        to which class.
    """
    if not others:
        return dict(tensors)
    every, count = without_own_classes(network.without_pretrained()), 3
    with torch.random.fork_rng(devices=[]):  # the random weights to come stay the same
        small, large = (
            build_model(every, numbered_vocabulary(every.heads.values(), number))
            for number in (count, count + 1)
        )
    own, moved = model.state_dict(), dict(tensors)
    for name, rows in _rows(small, large, count).items():
        other = others.get(name.removeprefix("heads.").partition(".")[0])
        if other is None or name not in tensors or name not in own:
            continue
        if rows is None:
            _log.warning("load_from: %s: it is unknown which rows belong to which class", name)
            del moved[name]
        elif set(other.places) == {None}:
            del moved[name]
        elif _fits(tensors[name], own[name], rows, other):
            moved[name] = move_rows(tensors[name], own[name], rows, other.places)
    return moved


def _fits(old: Tensor, new: Tensor, rows: ClassRows, other: OtherClasses) -> bool:
    """Whether two tensors differ in nothing but the number of classes."""
    shapes = [list(old.shape), list(new.shape)]
    counts = [shape.pop(rows.axis) for shape in shapes if len(shape) > rows.axis]
    wanted = [rows.each * count + rows.beside for count in (other.number, len(other.places))]
    return counts == wanted and shapes[0] == shapes[1]
