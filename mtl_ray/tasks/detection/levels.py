"""Levels of a feature pyramid by name, and which sizes of anchors and objects are for them."""

from typing import Protocol, runtime_checkable

from mtl_ray.tasks.task import AnyHead

STRIDES_OF_AN_ANCHOR = 3.75
"""The size of an anchor in strides of its level, in the middle. The nine published anchors of YOLOv3 (Redmon and Farhadi 2018, section 2.3)
all go to their published levels if this is between 3.70 and 3.78: levels of stride 8, 16 and 32 then meet at 42 and 85 pixels."""
FITTING_STRIDES = (1.25, 11.0)
"""Sizes of anchors in strides of their level: the published ones have 1.4 to 10.9."""


def stride_of(level: str) -> int:
    """Canvas pixels per cell of a level that is called after its number: P3 has stride 8."""
    return int(2 ** int("".join(letter for letter in level if letter.isdigit())))


@runtime_checkable
class AnchoredHead(AnyHead, Protocol):
    """The config of a head with anchors of a size in canvas pixels."""

    def anchor_sides(self) -> tuple[float, float]:
        """Square roots of the areas of the smallest and the largest anchor, in canvas pixels."""
        ...

    def anchor_advice(self, name: str) -> str:
        """How the anchors of the head that is called ``name`` are made smaller."""
        ...


def anchored(head: AnyHead) -> AnchoredHead | None:
    """A head with its anchors, or None for one that has none."""
    return head if isinstance(head, AnchoredHead) else None
