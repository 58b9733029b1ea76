"""Where in its folder a COCO set has the annotations and the pictures of a split."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mtl_ray import storage
from mtl_ray.sources.folders import subfolders

_TRIED = 20
"""So many of the listed pictures are looked for in every folder that could be theirs."""


def find_annotations(root: str, split: str, keypoints: bool) -> str:
    """The JSON file of a split: the usual names, in the root and in each of its folders.

    Args:
        root: the data set.
        split: part of the name.
        keypoints: whether to take the file of people's keypoints.

    Raises:
        FileNotFoundError: saying which JSON files there are.
        ValueError: if several fit.
    """
    known = _json_files(root)
    prefix = "person_keypoints" if keypoints else "instances"
    patterns = [rf"{prefix}_{re.escape(split)}\d*\.json", rf"(annotations|labels)?_?{re.escape(split)}\d*\.json"]
    patterns += [rf"lvis_v[\d.]+_{re.escape(split)}\.json"]
    patterns += [rf"{re.escape(split)}/_?annotations(\.coco)?\.json", r"_?annotations(\.coco)?\.json|instances(_default)?\.json"]
    for pattern in patterns:
        found = [uri for uri in known if re.search(rf"/({pattern})$", uri)]
        if len(found) > 1:
            raise ValueError(f"several files could be the annotations of {split!r}, name one with --annotations: {', '.join(found)}")
        if found:
            return found[0]
    shown = ", ".join(uri.removeprefix(root).lstrip("/") for uri in known[:12]) or "none"
    raise FileNotFoundError(f"no annotations of the split {split!r} in {root}; name them with --annotations; JSON files there: {shown}")


def annotations_alike(root: str, uri: str, split: str) -> list[str]:
    """The files of the other splits: those called as this one is but for the split's name."""
    name = uri.removeprefix(root)
    parts = re.split(rf"(?<![A-Za-z]){re.escape(split)}\d*(?![A-Za-z])", name)
    pattern = "[^/]+".join(map(re.escape, parts))
    return [other for other in _json_files(root) if other != uri and re.fullmatch(pattern, other.removeprefix(root))]


def find_images(root: str, annotations: str, split: str, images: Sequence[Mapping[str, Any]]) -> str:
    """The folder in which the first of the listed pictures lie.

    Raises:
        FileNotFoundError: if there is none.
    """
    year = "".join(re.findall(rf"{re.escape(split)}(\d+)\.json$", annotations))
    likely = [f"{split}{year}", f"images/{split}{year}", f"images/{split}", split, "images", "JPEGImages", ""]
    below = [name for first in subfolders(root) for name in (first, *(f"{first}/{second}" for second in subfolders(f"{root}/{first}")))]
    folders = [storage.join(root, name) if name else root for name in dict.fromkeys([*likely, *below])]
    for folder in [*folders, annotations.rpartition("/")[0]]:
        if any(storage.exists(storage.join(folder, str(image["file_name"]))) for image in images[:_TRIED]):
            return folder
    looked_for = images[0]["file_name"] if images else "nothing"
    raise FileNotFoundError(
        f"the pictures that {annotations} lists are in no folder of {root} (such as {looked_for}); name it with --images"
    )


def _json_files(root: str) -> list[str]:
    """The JSON files in a folder and in the folders in it."""
    folders = [root, *(storage.join(root, name) for name in subfolders(root))]
    return [storage.join(folder, name) for folder in folders for name in storage.names(folder) if name.endswith(".json")]
