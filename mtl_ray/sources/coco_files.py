"""Finds the annotation file and the images of a split in a COCO folder."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mtl_ray import storage
from mtl_ray.sources.folders import is_image, is_of_a_system, stamps_of, subfolders
from mtl_ray.sources.paths import Tree, inside

_TRIED = 20
"""Number of listed images that are searched in each candidate folder."""
_SPLITS = (
    "trainval",
    "train",
    "training",
    "validation",
    "valid",
    "val",
    "minival",
    "testing",
    "test",
    "dev",
    "eval",
    "unlabeled",
)


def find_annotations(root: str, split: str, keypoints: bool) -> str:
    """The JSON file of a split: the usual names, in the root and in each of its folders.

    Args:
        root: the dataset.
        split: part of the file name.
        keypoints: whether to use the file of person keypoints.

    Raises:
        FileNotFoundError: saying which JSON files there are.
        ValueError: if several fit.
    """
    known = _json_files(root)
    prefix = "person_keypoints" if keypoints else "instances"
    patterns = [
        rf"{prefix}_{re.escape(split)}\d*\.json",
        rf"(annotations|labels)?_?{re.escape(split)}\d*\.json",
    ]
    patterns += [rf"lvis_v[\d.]+_{re.escape(split)}\.json"]
    patterns += [
        rf"{re.escape(split)}/_?annotations(\.coco)?\.json",
        r"_?annotations(\.coco)?\.json|instances(_default)?\.json",
    ]
    patterns += [r"(result|labels|coco)\.json"]
    for pattern in patterns:
        found = [uri for uri in known if re.search(rf"/({pattern})$", uri, re.IGNORECASE)]
        if len(found) > 1:
            raise ValueError(
                f"several files could be the annotations of {split!r}, name one with "
                f"--annotations: {', '.join(found)}"
            )
        if found:
            return found[0]
    shown = ", ".join(uri.removeprefix(root).lstrip("/") for uri in known[:12]) or "none"
    raise FileNotFoundError(
        f"no annotations of the split {split!r} in {root}; name them with --annotations; JSON "
        f"files there: {shown}"
    )


def annotations_alike(root: str, uri: str, split: str) -> list[str]:
    """The files of the other splits: those whose names differ only in the name of the split."""
    name = uri.removeprefix(root)
    parts = re.split(rf"(?<![A-Za-z]){re.escape(split)}\d*(?![A-Za-z])", name)
    bare = len(parts) > 1 and name.rpartition("/")[2].removesuffix(".json") in (
        split,
        *re.findall(rf"{re.escape(split)}\d*", name),
    )
    # a file beside train.json may be anything, such as results.json
    between = _split_like(split) if bare else "[^/]+"
    pattern = between.join(map(re.escape, parts))
    return [
        other
        for other in _json_files(root)
        if other != uri and re.fullmatch(pattern, other.removeprefix(root))
    ]


def _split_like(split: str) -> str:
    """A pattern of names of other splits: the usual names, and this name with another number."""
    usual = "|".join(map(re.escape, (*_SPLITS, split.rstrip("0123456789"))))
    return rf"(?:{usual})[-_]?(?:{'|'.join(_SPLITS)})?\d*"


def find_image_folder(
    root: str,
    annotations: str,
    split: str,
    images: Sequence[Mapping[str, Any]],
    *,
    needed: bool = True,
) -> str:
    """The folder that holds the first listed images; if no name matches exactly, the folder with
    the most matches.

    Args:
        root: the dataset.
        annotations: URI of the file that lists them.
        split: part of the usual names.
        images: image entries, each with a ``file_name``.
        needed: False if missing images are allowed; then the default is the root.

    Raises:
        FileNotFoundError: if there is none.
    """
    year = "".join(re.findall(rf"{re.escape(split)}(\d+)\.json$", annotations))
    likely = [
        f"{split}{year}",
        f"images/{split}{year}",
        f"images/{split}",
        split,
        "images",
        "JPEGImages",
        "",
    ]
    below = [
        name
        for first in subfolders(root)
        for name in (first, *(f"{first}/{second}" for second in subfolders(f"{root}/{first}")))
    ]
    folders = [
        storage.join(root, name) if name else root for name in dict.fromkeys([*likely, *below])
    ]
    folders.append(annotations.rpartition("/")[0])
    names = [str(image["file_name"]) for image in images[:_TRIED]]
    plain = [path for path in map(_plain, names) if path]
    for folder in folders:
        if any(storage.exists(storage.join(folder, path)) for path in plain):
            return folder
    found = _with_most(root, folders, names)
    if found or not needed:
        return found or root
    looked_for = names[0] if names else "nothing"
    raise FileNotFoundError(
        f"the images that {annotations} lists are in no folder of {root} (such as {looked_for}); "
        "name it with --images"
    )


def _plain(name: str) -> str:
    """A name as a path; empty if it leaves its folder."""
    try:
        return inside(name) if "\\" not in name else ""
    except ValueError:
        return ""


def _with_most(root: str, folders: Sequence[str], names: Sequence[str]) -> str:
    """The first folder with the most files whose path ends match; empty if there is none."""
    files = [
        path
        for path in (uri.removeprefix(root).lstrip("/") for uri in storage.files(root))
        if is_image(path)
    ]
    above = {
        "/".join(path.split("/")[:depth]) for path in files for depth in range(path.count("/") + 1)
    }
    usual = [
        folder.removeprefix(root).lstrip("/")
        for folder in folders
        if folder == root or folder.startswith(f"{root}/")
    ]
    best, most = "", 0
    for folder in dict.fromkeys([*usual, *sorted(above, key=lambda path: (path.count("/"), path))]):
        start = f"{folder}/" if folder else ""
        tree = Tree(root, [path.removeprefix(start) for path in files if path.startswith(start)])
        if (count := sum(tree.find(name) is not None for name in names)) > most:
            best, most = storage.join(root, folder) if folder else root, count
    return best


def find_each(images: str, names: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The file of each name, relative to the folder of the images: an exact match, else a match by
    ``Tree``.

    A name without a file keeps its own path, without the parts that leave the folder.

    Returns:
        The paths by name, and the stamps of files by path.
    """
    plain = {name: path for name in names if (path := _plain(name))}
    stamps = dict(zip(plain.values(), stamps_of(images, plain.values()), strict=True))
    strange = [name for name in names if not stamps.get(plain.get(name, ""))]
    tree = Tree(images) if strange else None
    fits = {name: tree.find(name) for name in strange} if tree is not None else {}
    found = {name: path for name, path in fits.items() if path is not None and not stamps.get(path)}
    stamps |= dict(zip(found.values(), stamps_of(images, found.values()), strict=True))
    return {name: found.get(name) or plain.get(name) or _inner(name) for name in names}, stamps


def leads_out(name: str) -> bool:
    """Whether a name is absolute or leaves its folder."""
    try:
        inside(name)
    except ValueError:
        return True
    return False


def _inner(name: str) -> str:
    """A path without drive, root and parent steps."""
    steps = name.replace("\\", "/").partition("://")[2] or name.replace("\\", "/")
    return "/".join(
        step
        for step in re.sub(r"^[A-Za-z]:", "", steps).replace("\0", "").split("/")
        if step not in ("", ".", "..")
    )


def _json_files(root: str) -> list[str]:
    """The JSON files in a folder and its subfolders, without system files (``._train.json``,
    ``__MACOSX``).
    """
    folders = [
        root,
        *(storage.join(root, name) for name in subfolders(root) if not is_of_a_system(f"{name}/x")),
    ]
    found = [(folder, name) for folder in folders for name in storage.names(folder)]
    return [
        storage.join(folder, name)
        for folder, name in found
        if name.lower().endswith(".json") and not name.startswith("._")
    ]
