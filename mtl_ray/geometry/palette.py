"""Colours of classes, to be told apart also by the colour-blind."""

import colorsys
from collections.abc import Sequence

Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

_FIRST: tuple[Colour, ...] = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
"""Okabe and Ito, Color Universal Design, 2008, without black."""
_GOLDEN = 0.61803398875
_LIGHTNESS = (0.62, 0.42, 0.78)


def colours_of(count: int, own: Sequence[Colour] = ()) -> tuple[Colour, ...]:
    """``count`` colours: ``own`` where there are as many, else seven that all eyes tell apart and then hues spread evenly."""
    if len(own) >= count:
        return tuple(own[:count])
    return tuple(_FIRST[index] if index < len(_FIRST) else _generated(index - len(_FIRST)) for index in range(count))


def is_light(colour: Colour) -> bool:
    """Whether black is easier to read upon a colour than white: by the contrast ratio of WCAG 2.1 (gamma taken as 2.2)."""
    red, green, blue = ((value / 255) ** 2.2 for value in colour)
    return bool(0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18)


def _generated(index: int) -> Colour:
    hue = (0.05 + index * _GOLDEN) % 1.0
    red, green, blue = colorsys.hls_to_rgb(hue, _LIGHTNESS[index % 3], 0.65)
    return round(red * 255), round(green * 255), round(blue * 255)
