"""Which picture a JSON file of labelme belongs to, wherever it was when it was annotated."""

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mtl_ray.sources.paths import Tree, inside


@dataclass(frozen=True, slots=True)
class Place:
    """Where a picture is.

    Attributes:
        key: its path in the root; where it is not there, the path that it would have.
        present: whether there is such a file.
        as_said: whether it lies at the very place that the JSON file says.
        fault: why the name cannot be looked for; nothing if it can.
    """

    key: str
    present: bool
    as_said: bool = False
    fault: str = ""


class ImageFinder:
    """Finds pictures by what JSON files say: relative to the file, else beside it, else anywhere below the root, never outside.

    No picture that lies where one file says is given to another file.

    Args:
        images: paths of pictures in the root.
        named: ``imagePath`` of every JSON file in the root, by the file's path.
    """

    def __init__(self, images: Iterable[str], named: Mapping[str, str]) -> None:
        self._images = frozenset(images)
        self._tree = Tree("", self._images)
        self._by_stem = {posixpath.splitext(path)[0]: path for path in sorted(self._images, reverse=True)}
        self._named = {file: name.replace("\\", "/").rstrip("/") for file, name in named.items()}
        self._as_said = {path for file in named if (path := self._said(file)[0]) in self._images}
        self.taken = {place.key for file in named if (place := self.find(file)).present}

    def find(self, file: str) -> Place:
        """The place of the picture of a JSON file."""
        said, fault = self._said(file)
        if said in self._images:
            return Place(said, present=True, as_said=True)
        named, own = self._named[file], posixpath.splitext(file)[0]
        name = posixpath.basename(named)
        beside = posixpath.join(posixpath.dirname(file), name) if name not in ("", ".", "..") else own
        found = self._near(said) or self._near(beside) or self._tree.find(named) or self._by_stem.get(own)
        if found and found not in self._as_said:
            return Place(found, present=True)
        return Place(said or beside, present=False, fault=fault)

    def _near(self, path: str) -> str | None:
        """The picture of this name, be it written in another way, in the same folder."""
        found = self._tree.find(path)
        return found if found is not None and posixpath.dirname(found) == posixpath.dirname(path) else None

    def _said(self, file: str) -> tuple[str, str]:
        """The path that a file says, in the root; or nothing, and why."""
        named = self._named[file]
        if not named:
            return "", "it names no image, and none of its own name is beside it"
        try:
            if named[1:2] == ":":
                inside(named)
            return inside(posixpath.join(posixpath.dirname(file), named)), ""
        except ValueError as error:
            return "", str(error)
