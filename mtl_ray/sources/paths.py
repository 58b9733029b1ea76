"""Finds files of a dataset by names as programs write them: with backslashes, percent signs or
extra folders.
"""

import posixpath
import re
import unicodedata
from collections.abc import Iterable
from urllib.parse import unquote

from mtl_ray import storage

LEAVES = "the path leaves the image root"


def inside(name: str) -> str:
    """A relative path in normal form: slashes, no "." and no "..".

    Raises:
        ValueError: if it is absolute, or leaves the folder that it is relative to.
    """
    path = posixpath.normpath(name.replace("\\", "/"))
    if (
        path.startswith("/")
        or path == ".."
        or path.startswith("../")
        or re.match(r"[A-Za-z]:", path)
        or "\0" in path
    ):
        raise ValueError(f"{LEAVES}: {name!r}")
    return path


class Tree:
    """The files below a folder, listed once.

    A name is looked up as it is written; then with slashes for backslashes, decoded percent signs
    and composed or decomposed accents; then without its first folders, one after the other (a
    drive, a server, the folder of a project on another machine); and with letters of the other case
    where only one file is meant. Nothing outside the folder is ever found.

    Args:
        root: the folder.
        paths: of its files, relative to it; by default it is listed.
    """

    def __init__(self, root: str, paths: Iterable[str] | None = None) -> None:
        listed = (
            (uri.removeprefix(root).lstrip("/") for uri in storage.files(root))
            if paths is None
            else paths
        )
        self._paths = frozenset(listed)
        self._plain: dict[str, str] = {}
        self._any_case: dict[str, set[str]] = {}
        for path in sorted(self._paths):
            self._plain.setdefault(_composed(path), path)
            self._any_case.setdefault(_composed(path).casefold(), set()).add(path)

    def __contains__(self, path: str) -> bool:
        return path in self._paths

    def find(self, name: str) -> str | None:
        """The relative path of the file that a name refers to; None if there is none."""
        if name in self._paths:
            return name
        decoded = _slashes(unquote(name))
        for written in dict.fromkeys((_slashes(name), decoded, decoded.strip())):
            steps = [step for step in written.split("/") if step not in ("", ".")]
            for first in range(len(steps)):
                if ".." in (rest := steps[first:]) and rest[0] == "..":
                    continue
                if found := self._one(posixpath.normpath("/".join(rest))):
                    return found
        return None

    def _one(self, path: str) -> str | None:
        if found := self._plain.get(_composed(path)):
            return found
        alike = self._any_case.get(_composed(path).casefold(), set())
        return next(iter(alike)) if len(alike) == 1 else None


def _slashes(name: str) -> str:
    """A name with slashes; of a URL or a local-files link (Label Studio:
    ``/data/local-files/?d=...``) the path.
    """
    name = name.replace("\\", "/")
    if "local-files/?d=" in name:
        return name.partition("?d=")[2].partition("&")[0]
    if "://" in name:
        return name.partition("://")[2].partition("?")[0].partition("#")[0]
    return name


def _composed(path: str) -> str:
    """Accents as one character, as most systems write them and macOS does not (Unicode NFC)."""
    return unicodedata.normalize("NFC", path)
