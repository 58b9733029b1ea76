"""How far two predictions of one image are apart: figures that every task fills in, and what all of them have to check."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Fields = Mapping[str, NDArray[Any]]
"""What one head gives for one image, by name."""
Sides = tuple[str, str]
"""What the first and the second are called in sentences, such as torch and the bundle."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How two predictions are compared.

    Attributes:
        frame: of the sample; positions are compared in the pixels of its canvas. None for an input without positions.
        sides: what the two are called.
        score_threshold: an object with a lower score that has no partner is not told.
    """

    frame: Any
    sides: Sides
    score_threshold: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far two predictions of one image are apart.

    Attributes:
        unit: what is compared one by one: boxes, pixels, labels.
        compared: how many of them.
        max_px: largest difference of a coordinate; None where there are no positions.
        max_rel: the same divided by the size of the first number (numbers below 1 count as 1).
        max_score: largest difference of a score; None where there are no scores.
        agreeing, count: so many things of all that are equal or not are equal.
        alone: a sentence for each object of the one that has no partner in the other.
        incomparable: a sentence for each field that cannot be compared; the figures mean nothing then.
    """

    unit: str
    compared: int = 0
    max_px: float | None = None
    max_rel: float = 0.0
    max_score: float | None = None
    agreeing: int = 0
    count: int = 0
    alone: tuple[str, ...] = ()
    incomparable: tuple[str, ...] = ()

    def with_positions(self, first: NDArray[Any], second: NDArray[Any], reach: float) -> "Difference":
        """And positions in pixels, which beyond ``reach`` outside the canvas count as at its edge. NaN makes the figures NaN."""
        first, second = (np.clip(side.astype(np.float64), -reach, 2 * reach) for side in (first, second))
        apart = np.abs(first - second)
        relative = apart / np.maximum(np.abs(first), 1)
        most = float(np.max(apart, initial=self.max_px or 0.0))
        return replace(self, max_px=most, max_rel=float(np.max(relative, initial=self.max_rel)))

    def with_scores(self, first: NDArray[Any], second: NDArray[Any]) -> "Difference":
        """And scores. NaN makes the figure NaN."""
        apart = np.abs(first.astype(np.float64) - second)
        return replace(self, max_score=float(np.max(apart, initial=self.max_score or 0.0)))

    def with_agreeing(self, agreeing: int, count: int) -> "Difference":
        """And things that are equal or not."""
        return replace(self, agreeing=self.agreeing + agreeing, count=self.count + count)


def fields_of(prediction: Any) -> dict[str, NDArray[Any]]:
    """The fields of a prediction as arrays, without those that are None.

    They are listed from the dataclass, so that one that is added later and that nobody compares is found by ``field_faults``.
    """
    values = {each.name: getattr(prediction, each.name) for each in dataclasses.fields(prediction)}
    return {name: np.asarray(value) for name, value in values.items() if value is not None}


def field_faults(first: Fields, second: Fields, known: Sequence[str], sides: Sides, per_object: Sequence[str] = ()) -> tuple[str, ...]:
    """A sentence for each field that is unknown, that only one side has, or whose shapes do not fit.

    Args:
        first: the fields of one image, by the one.
        second: the same by the other.
        known: the fields that the task compares.
        sides: what the two are called.
        per_object: the fields with a row for each object, of which the two may have different numbers: as many as rows of the first
            of these fields. A side without objects need not have the others.
    """
    of_objects = per_object if per_object and per_object[0] in first and per_object[0] in second else ()
    return tuple(_faults(first, second, known, sides, of_objects))


def _faults(first: Fields, second: Fields, known: Sequence[str], sides: Sides, per_object: Sequence[str]) -> Iterator[str]:
    counts = [len(side[per_object[0]]) for side in (first, second)] if per_object else [0, 0]
    for name in sorted(first.keys() | second.keys()):
        if name not in known:
            yield f"{name!r} is a field that cannot be compared (known here: {', '.join(known)})"
        elif name not in first or name not in second:
            if name not in per_object or counts[int(name in first)]:
                yield f"only {sides[int(name in second)]} gives {name!r}"
        elif name in per_object:
            if first[name].shape[1:] != second[name].shape[1:] or [len(first[name]), len(second[name])] != counts:
                yield f"{name!r} has the shapes {first[name].shape} and {second[name].shape}"
        elif first[name].shape != second[name].shape:
            yield f"{name!r} has the shapes {first[name].shape} and {second[name].shape}"
