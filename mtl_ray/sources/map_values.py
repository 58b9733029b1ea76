"""What stands for the classes in semantic maps where it is not their index: other values, or colours."""

from collections.abc import Mapping
from dataclasses import dataclass

from mtl_ray import storage
from mtl_ray.samples import IGNORE_INDEX
from mtl_ray.sources.folders import read_lines

NO_CLASS = "-"
"""The name of what is not to be learned."""
_COLOUR = 3


@dataclass(frozen=True, slots=True)
class MapValues:
    """The content of a file of values.

    Attributes:
        names: of the classes, in the order in which they first occur.
        classes: the class index of each value or colour (red, green, blue), ``IGNORE_INDEX`` for none.
        colours: the first colour of each class, or nothing.
    """

    names: tuple[str, ...]
    classes: Mapping[tuple[int, ...], int]
    colours: tuple[tuple[int, int, int], ...]

    @property
    def in_colour(self) -> bool:
        """True where maps are coloured pictures."""
        return bool(self.colours)


def read_map_values(uri: str) -> MapValues:
    """Reads lines "value name" or "red green blue name"; several may have the same name, which may have blanks.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line is neither, or something is there twice.
    """
    if not storage.exists(uri):
        raise FileNotFoundError(f"there is no file of values {uri}")
    lines = [line.split() for line in read_lines(uri)]
    width = _COLOUR if lines and all(len(line) > _COLOUR and all(map(_is_byte, line[:_COLOUR])) for line in lines) else 1
    names: dict[str, int] = {}
    classes: dict[tuple[int, ...], int] = {}
    colours: list[tuple[int, int, int]] = []
    for line in lines:
        if len(line) <= width or not all(map(_is_byte, line[:width])):
            raise ValueError(
                f"{uri}: {' '.join(line)!r} is neither 'value name' nor 'red green blue name', from 0 to 255, as all lines must be"
            )
        key, name = tuple(map(int, line[:width])), " ".join(line[width:])
        if key in classes:
            raise ValueError(f"{uri}: {' '.join(line[:width])} is there twice")
        if width == _COLOUR and name != NO_CLASS and name not in names:
            colours.append((key[0], key[1], key[2]))
        classes[key] = IGNORE_INDEX if name == NO_CLASS else names.setdefault(name, len(names))
    if not names or len(names) >= IGNORE_INDEX:
        raise ValueError(f"{uri} names {len(names)} classes; it must name from 1 to {IGNORE_INDEX - 1}")
    return MapValues(tuple(names), classes, tuple(colours))


def _is_byte(word: str) -> bool:
    return word.isdecimal() and int(word) <= 255
