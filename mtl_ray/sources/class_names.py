"""Lists of class names: from a file that the user names, or one that lies in the data set."""

from collections.abc import Iterable, Mapping

from mtl_ray import storage
from mtl_ray.sources.folders import read_lines

USUAL_FILES = ("classes.txt", "class_names.txt")
MOST_CLASSES = 100_000
"""A class number from here on is taken for a mistake, and not for the last of so many classes."""
_DIGITS = 9


def read_class_names(uri: str) -> tuple[str, ...]:
    """The names in a file, one a line; empty lines are passed over.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is empty or no text, or a name is there twice.
    """
    try:
        names = tuple(read_lines(uri))
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file of class names {uri}") from None
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        raise ValueError(f"{uri} must have one class name a line; " + (f"{twice[0]!r} is there twice" if twice else "it is empty"))
    return names


def find_class_names(root: str, classes: str | None) -> tuple[str, ...] | None:
    """The names in the file ``classes`` (relative to the working directory) or, failing that, in ``ROOT/classes.txt``, if there is one."""
    if classes is not None:
        return read_class_names(storage.absolute(classes))
    for name in USUAL_FILES:
        if storage.exists(storage.join(root, name)):
            return read_class_names(storage.join(root, name))
    return None


def collect(labels: Iterable[str]) -> tuple[str, ...]:
    """Names for the labels that occur: themselves, sorted; if all are whole numbers, every number from 0 to the highest."""
    found = set(labels)
    plain = {plain_number(label) for label in found}
    if found and all(label.isdecimal() and int(label) < MOST_CLASSES for label in plain):
        return numbered(max(map(int, plain)))
    return tuple(sorted(found))


def plain_number(label: str) -> str:
    """A whole number as a person writes it, where it is written as a decimal: ``1.0`` and ``1.000e+00`` become ``1``."""
    if label.isdecimal():
        return label if len(label) > _DIGITS else str(int(label))
    try:
        number = float(label)
    except ValueError:
        return label
    return str(int(number)) if number == number // 1 and abs(number) < MOST_CLASSES else label


def numbered(highest: int) -> tuple[str, ...]:
    """Names for classes of which only the numbers 0 to ``highest`` are known."""
    return tuple(str(number) for number in range(highest + 1))


def index_of(names: Iterable[str]) -> dict[str, int]:
    """Class indices by name, and by number where a number is not itself a name."""
    by_name = {name: number for number, name in enumerate(names)}
    return {str(number): number for number in by_name.values()} | by_name


def find_class(index: Mapping[str, int], label: str) -> int | None:
    """The class of a label: by its name, or by a number, be it written as a decimal; None where there is none."""
    return index[label] if label in index else index.get(plain_number(label))
