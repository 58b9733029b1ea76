"""Named tensors under other names, fewer of them, or under another key."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from mtl_ray.weights.weights import Weights


@dataclass(frozen=True, slots=True)
class Rule:
    r"""How names change.

    Attributes:
        kind: ``prefix``: names that begin with ``old``; ``part``: every place where it stands in a name; ``pattern``: every place that
            the regular expression matches, where ``new`` may refer to groups (``\1``).
        old, new: what goes and what comes.
    """

    kind: Literal["prefix", "part", "pattern"]
    old: str
    new: str

    def __post_init__(self) -> None:
        if not self.old:
            raise ValueError(f"a rule of kind {self.kind} needs something to look for; to add a prefix, use the pattern '^'")
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
            raise ValueError(f"{self.new!r} does not go with the regular expression {self.old!r}: {error}") from error


@dataclass(frozen=True, slots=True)
class Edited:
    """What came of an edit.

    Attributes:
        weights: the result.
        renamed: (old name, new name) of each tensor whose name changed.
        removed: names that are gone.
    """

    weights: Weights
    renamed: tuple[tuple[str, str], ...] = ()
    removed: tuple[str, ...] = ()


def rename(weights: Weights, rules: Sequence[Rule]) -> Edited:
    """Gives tensors other names: each rule, in their order, upon what the one before left.

    Raises:
        ValueError: if a rule changes nothing, or two tensors would have one name.
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
    return Edited(replace(weights, tensors=tensors), renamed=renamed)


def wash(weights: Weights, keep: Sequence[str] = (), drop: Sequence[str] = (), *, strip: bool = False) -> Edited:
    """Keeps the tensors whose names begin with one of ``keep`` (all, if there are none) and with none of ``drop``.

    Of what stands beside them only ``meta`` stays. With ``strip`` the prefix by which a tensor was kept is taken away from its name.

    Raises:
        ValueError: if a prefix fits no name, nothing is left, or two tensors would have one name.
    """
    for prefix in (*keep, *drop):
        if not any(name.startswith(prefix) for name in weights.tensors):
            raise ValueError(f"no name begins with {prefix!r}; they begin with {', '.join(beginnings(weights.tensors))}")
    names = {}
    for name in weights.tensors:
        kept_by = [each for each in keep if name.startswith(each)]
        if (kept_by or not keep) and not name.startswith(tuple(drop)):
            names[name] = name.removeprefix(max(kept_by, key=len, default="")) if strip else name
    if not names:
        raise ValueError("nothing would be left")
    if empty := [name for name, new in names.items() if not new]:
        raise ValueError(f"of {empty[0]!r} no name would be left: give the prefix without its last part")
    washed = replace(weights, tensors=_under(weights.tensors, names), rest={k: v for k, v in weights.rest.items() if k == "meta"})
    renamed = tuple((old, new) for old, new in names.items() if old != new)
    return Edited(washed, renamed, tuple(name for name in weights.tensors if name not in names))


def wrap(weights: Weights, key: str) -> Weights:
    """Puts the tensors under another top-level key; empty: they become the top level, and what stood beside them goes.

    Raises:
        ValueError: if something else stands under that key.
    """
    if key in weights.rest:
        raise ValueError(f"the file has another entry {key!r} beside its weights")
    return replace(weights, key=key, rest=weights.rest if key else {})


def beginnings(names: Mapping[str, object]) -> list[str]:
    """The first parts of dotted names, each once."""
    return list(dict.fromkeys(name.partition(".")[0] + ("." if "." in name else "") for name in names))[:12]


def _under(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors under the new names of their old ones."""
    found: dict[str, str] = {}
    for old, new in names.items():
        if new in found:
            raise ValueError(f"{found[new]!r} and {old!r} would both be called {new!r}")
        found[new] = old
    return {new: tensors[old] for new, old in found.items()}
