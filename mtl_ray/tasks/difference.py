"""The difference between two predictions of one image: figures that every task computes, and checks
for all tasks.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Fields = Mapping[str, NDArray[Any]]
"""The output arrays of one head for one image, by name."""
Sides = tuple[str, str]
"""The names of the first and the second in messages, such as torch and the bundle."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How two predictions are compared.

    Attributes:
        frame: of the sample; positions are compared in canvas pixels. None for an input without
            positions.
        sides: the names of the two.
        score_threshold: objects with a lower score and without a partner are not reported.
        cut: the lists may end among equal scores, which have no order; the arrays, whose padding
            tells whether they do, have been compared before.
    """

    frame: Any
    sides: Sides
    score_threshold: float = 0.0
    cut: bool = False


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The difference between two predictions of one image.

    Attributes:
        unit: what is compared: boxes, pixels, labels.
        compared: their number.
        max_px: largest difference of a coordinate, in ``length_unit``; None without positions.
        max_rel: the same divided by the size of the first number (numbers below 1 count as 1).
        max_score: largest difference of a score; None without scores.
        agreeing, count: the number of equal items, and of all compared items.
        length_unit: of coordinates: px, or m.
        alone: a sentence for each object without a partner.
        incomparable: a sentence for each field that cannot be compared; the figures are then
            invalid.
    """

    unit: str
    compared: int = 0
    max_px: float | None = None
    max_rel: float = 0.0
    max_score: float | None = None
    agreeing: int = 0
    count: int = 0
    length_unit: str = "px"
    alone: tuple[str, ...] = ()
    incomparable: tuple[str, ...] = ()

    def with_positions(
        self, first: NDArray[Any], second: NDArray[Any], reach: float
    ) -> "Difference":
        """Adds positions in pixels, clipped to ``reach`` outside the canvas. NaN makes the figures
        NaN.
        """
        first, second = (
            np.clip(side.astype(np.float64), -reach, 2 * reach) for side in (first, second)
        )
        apart = np.abs(first - second)
        relative = apart / np.maximum(np.abs(first), 1)
        most = float(np.max(apart, initial=self.max_px or 0.0))
        return replace(self, max_px=most, max_rel=float(np.max(relative, initial=self.max_rel)))

    def with_scores(self, first: NDArray[Any], second: NDArray[Any]) -> "Difference":
        """Adds scores. NaN makes the figure NaN."""
        apart = np.abs(first.astype(np.float64) - second)
        return replace(self, max_score=float(np.max(apart, initial=self.max_score or 0.0)))

    def with_agreeing(self, agreeing: int, count: int) -> "Difference":
        """Adds items that are equal or not."""
        return replace(self, agreeing=self.agreeing + agreeing, count=self.count + count)


def fields_of(prediction: Any) -> dict[str, NDArray[Any]]:
    """The fields of a prediction as arrays, without those that are None.

    They come from the dataclass, so that ``field_faults`` reports a new field that is not compared.
    """
    values = {each.name: getattr(prediction, each.name) for each in dataclasses.fields(prediction)}
    return {name: np.asarray(value) for name, value in values.items() if value is not None}


def field_faults(
    first: Fields,
    second: Fields,
    known: Sequence[str],
    sides: Sides,
    per_object: Sequence[str] = (),
) -> tuple[str, ...]:
    """A sentence for each field that is unknown, that only one side has, or whose shapes differ.

    Args:
        first: the fields of one image.
        second: the same of the other side.
        known: the fields that the task compares.
        sides: the names of the two.
        per_object: the fields with a row for each object, whose number may differ between the
            sides. The first of them defines the number of rows; a side without objects need not
            have the others.
    """
    of_objects = (
        per_object if per_object and per_object[0] in first and per_object[0] in second else ()
    )
    return tuple(_faults(first, second, known, sides, of_objects))


def _faults(
    first: Fields,
    second: Fields,
    known: Sequence[str],
    sides: Sides,
    per_object: Sequence[str],
) -> Iterator[str]:
    counts = [len(side[per_object[0]]) for side in (first, second)] if per_object else [0, 0]
    for name in sorted(first.keys() | second.keys()):
        if name not in known:
            yield f"{name!r} is a field that cannot be compared (known fields: {', '.join(known)})"
        elif name not in first or name not in second:
            if name not in per_object or counts[int(name in first)]:
                yield f"only {sides[int(name in second)]} has {name!r}"
        elif name in per_object:
            if (
                first[name].shape[1:] != second[name].shape[1:]
                or [len(first[name]), len(second[name])] != counts
            ):
                yield f"{name!r} has the shapes {first[name].shape} and {second[name].shape}"
        elif first[name].shape != second[name].shape:
            yield f"{name!r} has the shapes {first[name].shape} and {second[name].shape}"
