"""Finding one's way in the folder of a data set, wherever it lies."""

from collections.abc import Iterable

from mtl_ray import storage

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
"""Ends of file names that are taken for pictures."""


def subfolders(uri: str) -> list[str]:
    """Names of the folders directly in a folder, sorted, hidden ones left out; empty if there is no such folder."""
    fs, path = storage.filesystem(uri)
    try:
        entries = fs.ls(path, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    names = (entry["name"].rstrip("/").rpartition("/")[2] for entry in entries if entry["type"] == "directory")
    return sorted(name for name in names if not name.startswith("."))


def first_existing(root: str, candidates: Iterable[str]) -> str | None:
    """The first of some relative paths at which there is something, as a URI; None if there is nothing at any."""
    for candidate in candidates:
        uri = storage.join(root, candidate) if candidate else root
        if storage.exists(uri):
            return uri
    return None


def read_lines(uri: str) -> list[str]:
    """The lines of a text file that are not empty, stripped."""
    return [line.strip() for line in storage.read(uri).decode().splitlines() if line.strip()]


def pictures_by_stem(uri: str) -> dict[str, str]:
    """The pictures below a folder: their paths in it, by the same path without its suffix."""
    names = (found.removeprefix(uri).lstrip("/") for found in storage.files(uri))
    return {name.rpartition(".")[0]: name for name in names if is_picture(name)}


def is_picture(name: str) -> bool:
    """Whether a file's name is that of a picture; hidden files are none."""
    last = name.rpartition("/")[2]
    return not last.startswith(".") and last.lower().endswith(SUFFIXES)
