"""The rows of a head that belong to its classes, moved to a head with other classes by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtl_ray.models.model import Model


@dataclass(frozen=True, slots=True)
class ClassRows:
    """Where a tensor has something for each class.

    Attributes:
        axis: of the tensor.
        each: how many rows a class has.
        beside: rows at the end that belong to no class, such as the background's.
        outer: True if the rows of a class lie together (4 box sides of each class); False if the
            classes lie together (of each anchor).
    """

    axis: int
    each: int
    beside: int
    outer: bool


def find_class_rows(model: Model, larger: Model, classes: int) -> dict[str, ClassRows]:
    """The tensors of the heads of a model that depend on the number of classes.

    Args:
        model: with ``classes`` classes.
        larger: the same with one more.
        classes: of ``model``.

    Raises:
        ValueError: if it is unclear which rows are whose.
    """
    other, found = larger.state_dict(), {}
    for name, value in model.state_dict().items():
        axes = [i for i, size in enumerate(value.shape) if size != other[name].shape[i]]
        if not axes:
            continue
        axis = axes[0]
        each = other[name].shape[axis] - value.shape[axis]
        beside = value.shape[axis] - each * classes
        layer = model.get_submodule(name.rpartition(".")[0])
        if len(axes) > 1 or beside < 0 or (each > 1 and beside):
            raise ValueError(f"{name}: it is unknown which of its rows belong to which class")
        found[name] = ClassRows(axis, each, beside, isinstance(layer, nn.Linear))
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
    if rows.beside:
        out.narrow(rows.axis, out.shape[rows.axis] - rows.beside, rows.beside).copy_(
            old.narrow(rows.axis, old.shape[rows.axis] - rows.beside, rows.beside)
        )
    return out


def _by_class(value: Tensor, rows: ClassRows, classes: int) -> Tensor:
    """(each, classes, ...) as a view of a tensor."""
    kept = value.narrow(rows.axis, 0, rows.each * classes).movedim(rows.axis, 0)
    if rows.outer:
        return kept.view(classes, rows.each, *kept.shape[1:]).transpose(0, 1)
    return kept.view(rows.each, classes, *kept.shape[1:])
