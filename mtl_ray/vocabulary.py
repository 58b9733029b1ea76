"""The JSON form of a Vocabulary, the same in manifests, checkpoints and bundles."""

from collections.abc import Mapping
from typing import Any, cast, get_args

from mtl_ray.samples import Annotation, Vocabulary

MAX_CLASSES = 1_000_000
"""Longer lists of classes are refused: a damaged file, not a data set."""


def vocabulary_to_json(vocabulary: Vocabulary) -> dict[str, Any]:
    """A mapping of lists, strings and numbers that ``vocabulary_from_json`` reads back equal."""
    return {
        "classes": {kind: list(names) for kind, names in vocabulary.classes.items()},
        "exclusive_labels": vocabulary.exclusive_labels,
        "keypoints": list(vocabulary.keypoints),
        "skeleton": [list(pair) for pair in vocabulary.skeleton],
        "mirror": list(vocabulary.mirror),
        "colours": {kind: [list(colour) for colour in colours] for kind, colours in vocabulary.colours.items()},
        "category_ids": {kind: list(ids) for kind, ids in vocabulary.category_ids.items()},
    }


def vocabulary_from_json(data: object) -> Vocabulary:
    """The Vocabulary that was written.

    Raises:
        ValueError: if it is not one: a value of another type, an unknown kind of annotation, lists that do not fit together.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"a vocabulary must be a mapping, not {type(data).__name__}")
    vocabulary = Vocabulary(
        classes=_by_kind(data, "classes", str),
        exclusive_labels=_checked(data.get("exclusive_labels", False), bool, "exclusive_labels"),
        keypoints=_row(data.get("keypoints", []), str, "keypoints"),
        skeleton=tuple(cast(tuple[int, int], pair) for pair in _rows(data.get("skeleton", []), 2, "skeleton")),
        mirror=_row(data.get("mirror", []), int, "mirror"),
        colours={
            kind: tuple(cast(tuple[int, int, int], colour) for colour in _rows(colours, 3, "colours"))
            for kind, colours in _kinds(data, "colours").items()
        },
        category_ids=_by_kind(data, "category_ids", int),
    )
    _check_sizes(vocabulary)
    return vocabulary


def _check_sizes(vocabulary: Vocabulary) -> None:
    """Colours and category ids stand one to a class, mirrors one to a keypoint, and indices point at something."""
    for name, columns in (("colours", vocabulary.colours), ("category_ids", vocabulary.category_ids)):
        for kind, column in columns.items():
            if len(column) != len(vocabulary.classes.get(kind, ())):
                raise ValueError(f"the vocabulary has {len(column)} {name} for {len(vocabulary.classes.get(kind, ()))} classes of {kind}")
    if vocabulary.mirror and len(vocabulary.mirror) != len(vocabulary.keypoints):
        raise ValueError(f"the vocabulary has {len(vocabulary.mirror)} mirror indices for {len(vocabulary.keypoints)} keypoints")
    indices = [*vocabulary.mirror, *(index for pair in vocabulary.skeleton for index in pair)]
    if any(not 0 <= index < len(vocabulary.keypoints) for index in indices):
        raise ValueError(f"the vocabulary's skeleton or mirror names a keypoint beyond its {len(vocabulary.keypoints)}")


def _kinds(data: Mapping[str, Any], name: str) -> dict[Annotation, Any]:
    value = _checked(data.get(name, {}), dict, name)
    unknown = [kind for kind in value if kind not in get_args(Annotation)]
    if unknown:
        raise ValueError(f"the vocabulary's {name} has the unknown kind of annotation {unknown[0]!r}")
    return cast(dict[Annotation, Any], value)


def _by_kind(data: Mapping[str, Any], name: str, item: type) -> dict[Annotation, tuple[Any, ...]]:
    return {kind: _row(values, item, name) for kind, values in _kinds(data, name).items()}


def _row(values: object, item: type, name: str) -> tuple[Any, ...]:
    items = _checked(values, list, name)
    if len(items) > MAX_CLASSES:
        raise ValueError(f"the vocabulary's {name} has {len(items)} entries, more than {MAX_CLASSES}")
    return tuple(_checked(value, item, name) for value in items)


def _rows(values: object, width: int, name: str) -> list[tuple[int, ...]]:
    rows = [_row(row, int, name) for row in _checked(values, list, name)]
    if any(len(row) != width for row in rows):
        raise ValueError(f"each entry of the vocabulary's {name} needs {width} numbers")
    return rows


def _checked(value: object, expected: type, name: str) -> Any:
    if type(value) is not expected:
        raise ValueError(f"the vocabulary's {name} should hold {expected.__name__}, found {type(value).__name__}")
    return value
