"""What is always said of a listing: images without annotations, the other way round, files that are neither, what is listed again."""

from collections.abc import Iterable

from mtl_ray.sources.folders import is_image
from mtl_ray.sources.source import SkippedItem

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
    """A note on each image that nobody annotated, in formats where a negative has an annotation file, too."""
    return [SkippedItem(image, "", NOT_USED, note=True) for image in images]


def orphans(files: Iterable[str]) -> list[SkippedItem]:
    """A note on each annotation file that belongs to no image."""
    return [SkippedItem(file, "", ORPHAN, note=True) for file in files]


def passed_over(names: Iterable[str], prefix: str = "", expected: tuple[str, ...] = ()) -> list[SkippedItem]:
    """A note on each file in a folder of images that is taken for none; hidden files and those of operating systems do not count.

    Args:
        names: paths in the folder.
        prefix: of the folder, for the note.
        expected: suffixes in lower case of files that the format has there.
    """
    found = (name for name in names if not is_image(name) and not is_of_a_system(name) and not name.lower().endswith(expected))
    return [SkippedItem(prefix + name, "", f"{PASSED_OVER}: {_suffix(name)}", note=True) for name in found]


def is_of_a_system(name: str) -> bool:
    """Whether a file is hidden, or there for an operating system only: ``._a.jpg``, ``.DS_Store``, ``Thumbs.db``."""
    *folders, last = name.lower().split("/")
    hidden = any(part.startswith(".") for part in (*folders, last))
    return hidden or last in _OF_SYSTEMS or not _FOLDERS_OF_SYSTEMS.isdisjoint(folders)


def _suffix(name: str) -> str:
    """``a.jpg.txt`` -> ``.jpg.txt``; ``a.heic`` -> ``.heic``."""
    stem, dot, end = name.rpartition("/")[2].rpartition(".")
    inner = stem.rpartition(".")[2] if "." in stem else ""
    both = f".{inner}.{end}" if is_image(f"x.{inner}") else f".{end}"
    return both.lower() if dot else "none"
