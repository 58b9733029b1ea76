"""Lists of class names: from a file that the user names, or one that lies in the data set."""

from collections.abc import Iterable

from mtl_ray import storage
from mtl_ray.sources.folders import read_lines

USUAL_FILES = ("classes.txt", "class_names.txt")


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
    """Names for the labels that occur: themselves, sorted; if all are numbers, every number from 0 to the highest."""
    found = set(labels)
    if found and all(label.isdecimal() for label in found):
        return numbered(max(map(int, found)))
    return tuple(sorted(found))


def numbered(highest: int) -> tuple[str, ...]:
    """Names for classes of which only the numbers 0 to ``highest`` are known."""
    return tuple(str(number) for number in range(highest + 1))


def index_of(names: Iterable[str]) -> dict[str, int]:
    """Class indices by name, and by number where a number is not itself a name."""
    by_name = {name: number for number, name in enumerate(names)}
    return {str(number): number for number in by_name.values()} | by_name
