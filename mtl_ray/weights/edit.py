"""Edits weights: renames tensors, removes tensors, changes the top-level key.

Also edits and upgrades files of weights.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from mtl_ray.weights.foreign import upgraded_tensors
from mtl_ray.weights.read import read_weights
from mtl_ray.weights.weights import Weights
from mtl_ray.weights.write import check_ending, write_weights


@dataclass(frozen=True, slots=True)
class RenameRule:
    r"""A rule that renames tensors.

    Attributes:
        kind: ``prefix`` replaces ``old`` at the start of a name; ``part`` everywhere in a name;
            ``pattern`` replaces each match of the regular expression ``old``, and ``new`` may refer
            to groups (``\1``).
        old, new: the text to replace, and its replacement.
    """

    kind: Literal["prefix", "part", "pattern"]
    old: str
    new: str

    def __post_init__(self) -> None:
        if not self.old:
            raise ValueError(
                f"a rule of kind {self.kind} needs a text to replace; to add a prefix, use the "
                "pattern '^'"
            )
        if self.kind == "pattern":
            try:
                re.compile(self.old)
            except re.error as error:
                raise ValueError(f"{self.old!r} is not a regular expression: {error}") from error

    def apply(self, name: str) -> str:
        """The new name."""
        if self.kind == "prefix":
            return self.new + name[len(self.old) :] if name.startswith(self.old) else name
        if self.kind == "part":
            return name.replace(self.old, self.new)
        try:
            return re.sub(self.old, self.new, name)
        except (re.error, IndexError) as error:
            raise ValueError(
                f"{self.new!r} is not a valid replacement for the regular expression {self.old!r}: "
                f"{error}"
            ) from error


@dataclass(frozen=True, slots=True)
class EditedWeights:
    """The result of an edit.

    Attributes:
        weights: the edited weights.
        renamed: (old name, new name) of each renamed tensor.
        removed: names of the removed tensors.
    """

    weights: Weights
    renamed: tuple[tuple[str, str], ...] = ()
    removed: tuple[str, ...] = ()


def rename(weights: Weights, rules: Sequence[RenameRule]) -> EditedWeights:
    """Renames tensors: applies the rules in order, each to the result of the one before.

    Raises:
        ValueError: if a rule changes nothing, or two tensors would get the same name.
    """
    names = {name: name for name in weights.tensors}
    for rule in rules:
        changed = {old: rule.apply(now) for old, now in names.items()}
        if changed == names:
            example = next(iter(names.values()))
            raise ValueError(f"no name has the {rule.kind} {rule.old!r} (a name: {example})")
        names = changed
    tensors = _under(weights.tensors, names)
    renamed = tuple((old, new) for old, new in names.items() if old != new)
    return EditedWeights(replace(weights, tensors=tensors), renamed=renamed)


def wash(
    weights: Weights, keep: Sequence[str] = (), drop: Sequence[str] = (), *, strip: bool = False
) -> EditedWeights:
    """Keeps the tensors whose names start with a prefix of ``keep`` (all, if it is empty) and with
    none of ``drop``.

    Of the other entries only ``meta`` stays. With ``strip`` the prefix of ``keep`` is removed from
    the names.

    Raises:
        ValueError: if no name has a prefix, no tensor is left, or two tensors would get the same
            name.
    """
    for prefix in (*keep, *drop):
        if not any(name.startswith(prefix) for name in weights.tensors):
            raise ValueError(
                f"no name starts with {prefix!r}; they start with "
                f"{', '.join(first_parts(weights.tensors))}"
            )
    names = {}
    for name in weights.tensors:
        kept_by = [each for each in keep if name.startswith(each)]
        if (kept_by or not keep) and not name.startswith(tuple(drop)):
            names[name] = name.removeprefix(max(kept_by, key=len, default="")) if strip else name
    if not names:
        raise ValueError("no tensor would be left")
    if empty := [name for name, new in names.items() if not new]:
        raise ValueError(
            f"{empty[0]!r} would get an empty name: give the prefix without its last part"
        )
    washed = replace(
        weights,
        tensors=_under(weights.tensors, names),
        rest={k: v for k, v in weights.rest.items() if k == "meta"},
    )
    renamed = tuple((old, new) for old, new in names.items() if old != new)
    return EditedWeights(
        washed, renamed, tuple(name for name in weights.tensors if name not in names)
    )


def wrap(weights: Weights, key: str) -> Weights:
    """Moves the tensors to another top-level key.

    With an empty key they become the top level, and the other entries are removed.

    Raises:
        ValueError: if the key is that of another entry.
    """
    if key in weights.rest:
        raise ValueError(f"the file has another entry {key!r} beside its weights")
    return replace(weights, key=key, rest=weights.rest if key else {})


def first_parts(names: Mapping[str, object]) -> list[str]:
    """The distinct first parts of dotted names, at most 12."""
    return list(
        dict.fromkeys(name.partition(".")[0] + ("." if "." in name else "") for name in names)
    )[:12]


def _under(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors under their new names."""
    found: dict[str, str] = {}
    for old, new in names.items():
        if new in found:
            raise ValueError(f"{found[new]!r} and {old!r} would both get the name {new!r}")
        found[new] = old
    return {new: tensors[old] for new, old in found.items()}


def edit_file(
    source: str, to: str, edit: Callable[[Weights], EditedWeights], *, key: str | None = None
) -> EditedWeights:
    """Reads weights, edits them and writes them.

    A .pth keeps the top-level key and the other entries.

    Args:
        source: any URI that ``read_weights`` reads.
        to: the new file; its ending sets the format.
        edit: the edit to apply.
        key: the top-level key of the weights; found automatically by default.

    Raises:
        ValueError: if there are no weights, the ending of ``to`` is unknown, or the edit raises it.
    """
    check_ending(to)
    edited = edit(read_weights(source, key))
    write_weights(to, edited.weights.tensors, key=edited.weights.key, rest=edited.weights.rest)
    return edited


def upgrade_file(
    source: str,
    to: str,
    classes: int = 81,
    version: str | None = None,
    *,
    key: str | None = None,
    compat: bool = False,
) -> tuple[str, ...]:
    """Upgrades a file of a detector from MMDetection 1.x to 2.x.

    Names stay those of OpenMMLab; other entries are kept.

    Args:
        source: any URI that ``read_weights`` reads.
        to: the new file.
        classes: of the old model, with the background.
        version: of MMDetection that wrote the file, if the file does not contain it.
        key: the top-level key of the weights; found automatically by default.
        compat: apply the rules of MMDetection's tool, including its faults, to any version.

    Returns:
        A sentence for each change. If there is none, the weights are written unchanged.
    """
    weights = read_weights(source, key)
    tensors, notes = upgraded_tensors(weights, classes, version, compat=compat)
    check_ending(to)
    write_weights(to, tensors, key=weights.key, rest=weights.rest)
    return notes
