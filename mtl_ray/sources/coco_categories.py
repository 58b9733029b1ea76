"""Categories of a COCO dataset as classes: the same for all splits, without unused roots,
duplicates merged.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtl_ray.samples import Vocabulary
from mtl_ray.sources.json_values import identity, shown
from mtl_ray.sources.source import SkippedItem
from mtl_ray.vocabulary import mirror_of, skeleton_of

Key = int | str
"""An id: an integer or a text."""

ROOT_DROPPED = "unused root category dropped"
MERGED = "categories of one name merged"
SKELETON_DROPPED = "skeleton dropped"
_NAMES = 12


@dataclass(frozen=True, kw_only=True)
class Categories:
    """The categories of a dataset.

    Attributes:
        names: of all categories, by id.
        index: class indices by category id; several ids may share an index.
        vocabulary: the classes and their keypoints.
        notes: notes on dropped and merged categories.
    """

    names: Mapping[Key, str]
    index: Mapping[Key, int]
    vocabulary: Vocabulary
    notes: tuple[SkippedItem, ...]


def read_categories(
    parts: Sequence[tuple[str, Mapping[str, Any]]], wanted: Sequence[str] | None, file: str
) -> Categories:
    """The categories of all splits, so that a split without one of them has the same class indices.

    Args:
        parts: URI and content of each file, the split's own first.
        wanted: names of the classes in order; None for all.
        file: name of the split's annotation file, for notes.

    Raises:
        ValueError: if an entry has no id or name, splits disagree, or a wanted name is missing.
    """
    found = _merged(parts)
    names = {key: str(category["name"]) for key, category in found.items()}
    roots = (
        _unused_roots(found, _used(content for _, content in parts))
        if wanted is None
        else set[Key]()
    )
    notes = [
        SkippedItem(
            file,
            f"category {key} ({names[key]})",
            f"{ROOT_DROPPED}: others name it as their supercategory",
            note=True,
        )
        for key in roots
    ]
    by_name: dict[str, list[Key]] = defaultdict(list)
    for key in sorted(found.keys() - roots, key=lambda key: (isinstance(key, str), key)):
        by_name[names[key]].append(key)
    notes += [
        SkippedItem(file, f"categories {', '.join(map(str, keys))}", f"{MERGED}: {name}", note=True)
        for name, keys in by_name.items()
        if len(keys) > 1
    ]
    classes = tuple(by_name) if wanted is None else tuple(wanted)
    if missing := [name for name in classes if name not in by_name]:
        more = ", ..." if len(by_name) > _NAMES else ""
        raise ValueError(
            f"{parts[0][0]} has no category {missing[0]!r}; it has "
            f"{', '.join(sorted(by_name)[:_NAMES])}{more}"
        )
    vocabulary, note = _vocabulary(
        classes,
        [[found[key] for key in by_name[name]] for name in classes],
        [by_name[name][0] for name in classes],
    )
    index = {key: number for number, name in enumerate(classes) for key in by_name[name]}
    return Categories(
        names=names,
        index=index,
        vocabulary=vocabulary,
        notes=(*notes, *(SkippedItem(file, "categories", text, note=True) for text in note)),
    )


def _merged(parts: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[Key, Mapping[str, Any]]:
    found: dict[Key, Mapping[str, Any]] = {}
    for uri, content in parts:
        for place, category in enumerate(content["categories"]):
            key = _checked(category, f"{uri}: categories[{place}]")
            known = found.setdefault(key, category)
            if str(known["name"]) != str(category["name"]):
                other = "one split" if uri != parts[0][0] else "one entry"
                raise ValueError(
                    f"category {key} is {known['name']!r} in {other} and {category['name']!r} in "
                    "another"
                )
    return found


def _checked(category: Any, where: str) -> Key:
    """The id of a category; raises a ValueError if it has no id or no name."""
    if not isinstance(category, dict):
        raise ValueError(f"{where} is {shown(category)}, not an entry with an id and a name")
    key, name = identity(category.get("id")), category.get("name")
    if key is None:
        raise ValueError(f"{where} has no id that is a number or a text: {shown(category)}")
    if isinstance(name, bool) or not isinstance(name, str | int | float) or not str(name).strip():
        raise ValueError(f"{where} (id {key}) has no name; give each category a name")
    return key


def _used(contents: Iterable[Mapping[str, Any]]) -> Counter[Key | None]:
    """Number of annotations of each category."""
    annotations = (annotation for content in contents for annotation in content["annotations"])
    return Counter(
        identity(annotation.get("category_id"))
        for annotation in annotations
        if isinstance(annotation, dict)
    )


def _unused_roots(
    found: Mapping[Key, Mapping[str, Any]], used: Mapping[Key | None, int]
) -> set[Key]:
    """Unused categories that others name as supercategory (Roboflow writes one for the whole
    dataset).
    """
    above: dict[str, set[Key]] = defaultdict(set)
    for key, category in found.items():
        if isinstance(category.get("supercategory"), str):
            above[category["supercategory"]].add(key)
    roots = {
        key
        for key, category in found.items()
        if key not in used and above.get(str(category["name"]), set()) - {key}
    }
    return roots if len(roots) < len(found) else set()


def _vocabulary(
    classes: tuple[str, ...], categories: Sequence[Sequence[Mapping[str, Any]]], ids: Sequence[Key]
) -> tuple[Vocabulary, list[str]]:
    """The vocabulary, and notes on its skeleton."""
    having = [category for alike in categories for category in alike if _keypoints_of(category)]
    if len({_keypoints_of(category) for category in having}) > 1:
        raise ValueError(
            "the categories have different keypoints; convert them apart with --classes"
        )
    keypoints = _keypoints_of(having[0]) if having else ()
    written = having[0].get("skeleton") if having else None
    skeleton = skeleton_of(written, len(keypoints))
    notes = (
        [f"{SKELETON_DROPPED}: it does not join pairs of the {len(keypoints)} keypoints"]
        if written and not skeleton
        else []
    )
    vocabulary = Vocabulary(
        classes={"instances": classes},
        keypoints=keypoints,
        skeleton=skeleton,
        mirror=mirror_of(keypoints),
        category_ids={"instances": tuple(key for key in ids if isinstance(key, int))}
        if all(isinstance(key, int) for key in ids)
        else {},
    )
    return vocabulary, notes


def _keypoints_of(category: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of a category's keypoints; empty if they are not a list of names or numbers."""
    names = category.get("keypoints")
    if not isinstance(names, list) or not all(
        isinstance(name, str | int | float) for name in names
    ):
        return ()
    return tuple(map(str, names))
