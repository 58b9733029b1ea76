"""Levels of a feature pyramid by name, and which sizes of anchors and objects are for them."""

STRIDES_OF_AN_ANCHOR = 3.75
"""The size of an anchor in strides of its level, in the middle. The nine published anchors of YOLOv3 (Redmon and Farhadi 2018, section 2.3)
all go to their published levels if this is between 3.70 and 3.78: levels of stride 8, 16 and 32 then meet at 42 and 85 pixels."""
FITTING_STRIDES = (1.25, 11.0)
"""Sizes of anchors in strides of their level: the published ones have 1.4 to 10.9."""


def stride_of(level: str) -> int:
    """Canvas pixels per cell of a level that is called after its number: P3 has stride 8."""
    return int(2 ** int("".join(letter for letter in level if letter.isdigit())))
