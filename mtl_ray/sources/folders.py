"""Files, lists and images in the folder of a dataset, local or in a bucket."""

import posixpath
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from mtl_ray import storage
from mtl_ray.sources.source import SkippedItem

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2"),
    *(".png", ".webp", ".avif", ".gif", ".tif", ".tiff"),
    *(".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm"),
)
"""Suffixes of image files."""
LISTED_AGAIN = "listed more than once, used once"
"""Note on an entry that a list repeats."""

_AT_A_TIME = 16
"""Number of small files read at the same time; in a bucket each request has a latency."""


def subfolders(uri: str) -> list[str]:
    """Names of the folders directly in a folder, sorted, hidden ones left out; empty if there is
    no such folder.
    """
    return [name for name in storage.folders(uri) if not name.startswith(".")]


def find_list(root: str, split: str, folders: Sequence[str]) -> str:
    """The file SPLIT.txt in the first of some folders of the root that has one.

    Raises:
        FileNotFoundError: saying which lists there are.
    """
    lists = [
        storage.join(root, folder, name)
        for folder in folders
        for name in storage.names(storage.join(root, folder))
        if name.endswith(".txt")
    ]
    for uri in lists:
        if uri.rpartition("/")[2] == f"{split}.txt":
            return uri
    shown = ", ".join(uri.removeprefix(root).lstrip("/") for uri in lists)
    raise FileNotFoundError(
        f"there is no list {split}.txt in {root} or its {', '.join(filter(None, folders))}; lists "
        f"there: {shown or 'none'}"
    )


def read_lines(uri: str) -> list[str]:
    """The lines of a text file that are not empty, stripped.

    Raises:
        ValueError: if it is not text.
    """
    try:
        return [
            line.strip()
            for line in storage.read(uri).decode("utf-8-sig").splitlines()
            if line.strip()
        ]
    except UnicodeDecodeError:
        raise ValueError(f"{uri} is not UTF-8 text") from None


def read_ids(
    uri: str, root: str, known: Container[str] = ()
) -> tuple[list[str], list[SkippedItem]]:
    """The first word of each line of a list, without duplicates, and a note on each duplicate.

    Args:
        uri: the list.
        root: the dataset, for the skipped items.
        known: ids that may contain blanks: a line that is one of them, or an image name, is used as
            a whole.
    """
    entries = Counter(
        line if line in known or is_image(line) else line.split()[0] for line in read_lines(uri)
    )
    file = uri.removeprefix(root).lstrip("/")
    return list(entries), [
        SkippedItem(file, name, f"{LISTED_AGAIN}: {count} times", note=True)
        for name, count in entries.items()
        if count > 1
    ]


def read_each(uris: Mapping[str, str]) -> dict[str, bytes]:
    """The contents of many small files by key, read in parallel; missing files are left out."""
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        contents = dict(zip(uris, pool.map(_read_if_there, uris.values()), strict=True))
    return {key: content for key, content in contents.items() if content is not None}


def _read_if_there(uri: str) -> bytes | None:
    try:
        return storage.read(uri)
    except FileNotFoundError:
        return None


def stamps_of(root: str, paths: Iterable[str]) -> list[str]:
    """A text per file that changes when the file changes; empty for a missing file.

    Args:
        root: the folder.
        paths: of the files in it.
    """
    wanted = [posixpath.normpath(path) for path in paths]
    # prefix of path parts, not of letters
    above = "/".join(posixpath.commonprefix([path.split("/")[:-1] for path in wanted]))
    found = storage.stamps(storage.join(root, above) if above else root) if wanted else {}
    return [found.get(storage.join(root, path), "") for path in wanted]


def images_in(uri: str) -> list[str]:
    """The images below a folder, as paths in it, sorted."""
    names = (found.removeprefix(uri).lstrip("/") for found in storage.files(uri))
    return sorted(name for name in names if is_image(name))


def images_by_stem(uri: str) -> dict[str, str]:
    """The images below a folder, as paths in it, by the same paths without their suffixes."""
    return {name.rpartition(".")[0]: name for name in images_in(uri)}


def is_image(name: str) -> bool:
    """Whether a file name has the suffix of an image and the file is not hidden."""
    last = name.rpartition("/")[2]
    return not last.startswith(".") and last.lower().endswith(SUFFIXES)


# Notes of a listing: images without annotations, annotations without images, other files.


NEGATIVE = "image without an annotation file, used as one without objects"
NOT_USED = "image without an annotation file, not used"
ORPHAN = "annotation file without an image"
PASSED_OVER = "file passed over for its suffix"
_OF_SYSTEMS = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r"})
_FOLDERS_OF_SYSTEMS = frozenset({"__macosx", "@eadir", "$recycle.bin"})


def negatives(images: Iterable[str]) -> list[SkippedItem]:
    """A note on each image that has no annotation file."""
    return [SkippedItem(image, "", NEGATIVE, note=True) for image in images]


def not_used(images: Iterable[str]) -> list[SkippedItem]:
    """A note on each image without an annotation file, in formats where negatives have one too."""
    return [SkippedItem(image, "", NOT_USED, note=True) for image in images]


def orphans(files: Iterable[str]) -> list[SkippedItem]:
    """A note on each annotation file that belongs to no image."""
    return [SkippedItem(file, "", ORPHAN, note=True) for file in files]


def passed_over(
    names: Iterable[str], prefix: str = "", expected: tuple[str, ...] = ()
) -> list[SkippedItem]:
    """A note on each file in a folder of images that is not an image; hidden and system files are
    ignored.

    Args:
        names: paths in the folder.
        prefix: of the folder, for the note.
        expected: lower-case suffixes of other files of the format.
    """
    found = (
        name
        for name in names
        if not is_image(name) and not is_of_a_system(name) and not name.lower().endswith(expected)
    )
    return [
        SkippedItem(prefix + name, "", f"{PASSED_OVER}: {_suffix(name)}", note=True)
        for name in found
    ]


def is_of_a_system(name: str) -> bool:
    """Whether a file is hidden or made by an operating system: ``._a.jpg``, ``.DS_Store``,
    ``Thumbs.db``.
    """
    *folders, last = name.lower().split("/")
    hidden = any(part.startswith(".") for part in (*folders, last))
    return hidden or last in _OF_SYSTEMS or not _FOLDERS_OF_SYSTEMS.isdisjoint(folders)


def _suffix(name: str) -> str:
    """``a.jpg.txt`` -> ``.jpg.txt``; ``a.heic`` -> ``.heic``."""
    stem, dot, end = name.rpartition("/")[2].rpartition(".")
    inner = stem.rpartition(".")[2] if "." in stem else ""
    both = f".{inner}.{end}" if is_image(f"x.{inner}") else f".{end}"
    return both.lower() if dot else "none"
