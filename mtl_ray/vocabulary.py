"""The JSON form of a Vocabulary, the same in manifests, checkpoints and bundles, and what its
keypoint names say about mirroring.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from mtl_ray.samples import Annotation, Vocabulary

MAX_CLASSES = 1_000_000
"""Longer lists of classes are refused: a damaged file, not a dataset."""

_WORD = re.compile(r"[^\W\d_]+|\d+")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_KIND = re.compile(r"[a-z][a-z0-9_]{0,63}")
_SIDE = re.compile("left|right")
_INDEX = re.compile(r"\s*\d{1,9}\s*", re.ASCII)
_OTHER_SIDE = {"left": "right", "right": "left", "l": "r", "r": "l"}


def mirror_of(names: Sequence[str]) -> tuple[int, ...]:
    """For each keypoint the index of the one it becomes when the image is flipped from left to
    right.

    The side may be a word or a letter, in any case and at any place: ``left_eye``, ``Left Eye``,
    ``lefteye``, ``EyeLeft``, ``L. Eye``, ``eye-l``, ``LEye``, ``leye``. Whole words are trusted
    before letters that stand alone, and those before a first or last letter. A keypoint stays
    itself if no other name, or more than one, differs from its own in the side only; the result is
    its own inverse.
    """
    words = [_words(name) for name in names]
    keys = ["".join(parts) for parts in words]
    counts = Counter(keys)
    mirror = list(range(len(names)))
    for other_names in (_other_by_word, _other_by_letter, _other_by_glued_letter):
        free = {
            key: index
            for index, key in enumerate(keys)
            if counts[key] == 1 and mirror[index] == index
        }
        wanted = {
            index: [free[other] for other in other_names(words[index]) if other in free]
            for index in free.values()
        }
        for index, others in wanted.items():
            partner = next(
                (other for other in others if index in wanted[other] and mirror[other] == other),
                None,
            )
            if mirror[index] == index and partner is not None:
                mirror[index], mirror[partner] = partner, index
    return tuple(mirror)


def _words(name: str) -> tuple[str, ...]:
    return tuple(part.casefold() for word in _WORD.findall(name) for part in _HUMP.split(word))


def _other_by_word(words: Sequence[str]) -> Iterator[str]:
    """The name with every ``left`` and ``right`` exchanged, then with one of them."""
    key = "".join(words)
    yield _SIDE.sub(lambda side: _OTHER_SIDE[side[0]], key)
    for side in _SIDE.finditer(key):
        yield key[: side.start()] + _OTHER_SIDE[side[0]] + key[side.end() :]


def _other_by_letter(words: Sequence[str]) -> Iterator[str]:
    """The same for the letters ``l`` and ``r`` that are words of their own."""
    yield "".join(_OTHER_SIDE.get(word, word) if len(word) == 1 else word for word in words)
    for place, word in enumerate(words):
        if word in ("l", "r"):
            yield "".join((*words[:place], _OTHER_SIDE[word], *words[place + 1 :]))


def _other_by_glued_letter(words: Sequence[str]) -> Iterator[str]:
    """The same for an ``l`` or ``r`` that is the first or last letter of a longer word (MPII's
    ``lsho``, the corner ``fl``).
    """
    for place, word in enumerate(words):
        if len(word) < 2 or _SIDE.search(word):
            continue
        before, after = "".join(words[:place]), "".join(words[place + 1 :])
        if word[0] in "lr":
            yield before + _OTHER_SIDE[word[0]] + word[1:] + after
        if word[-1] in "lr":
            yield before + word[:-1] + _OTHER_SIDE[word[-1]] + after


def skeleton_of(pairs: object, keypoints: int) -> tuple[tuple[int, int], ...]:
    """Pairs of keypoints, counted from 0, for drawing: of pairs that count from 1 as COCO does,
    or else from 0; none if neither fits.
    """
    found: list[tuple[int, int]] = []
    for pair in pairs if isinstance(pairs, list | tuple) else ():
        if (
            not isinstance(pair, list | tuple)
            or len(pair) != 2
            or not all(_is_index(index) for index in pair)
        ):
            return ()
        found.append((int(pair[0]), int(pair[1])))
    indices = {index for pair in found for index in pair}
    for first in (1, 0):
        if all(first <= index < keypoints + first for index in indices):
            return tuple((one - first, other - first) for one, other in found)
    return ()


def _is_index(value: object) -> bool:
    if isinstance(value, str):
        return _INDEX.fullmatch(value) is not None
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1


def vocabulary_to_json(vocabulary: Vocabulary) -> dict[str, Any]:
    """A mapping of lists, strings and numbers that ``vocabulary_from_json`` reads back equal."""
    return {
        "classes": {kind: list(names) for kind, names in vocabulary.classes.items()},
        "exclusive_labels": vocabulary.exclusive_labels,
        "keypoints": list(vocabulary.keypoints),
        "skeleton": [list(pair) for pair in vocabulary.skeleton],
        "mirror": list(vocabulary.mirror),
        "colours": {
            kind: [list(colour) for colour in colours]
            for kind, colours in vocabulary.colours.items()
        },
        "category_ids": {kind: list(ids) for kind, ids in vocabulary.category_ids.items()},
    }


def vocabulary_from_json(data: object) -> Vocabulary:
    """The Vocabulary that was written.

    Raises:
        ValueError: if it is not one: a value of another type, an unknown kind of annotation, lists
            that do not fit together.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"a vocabulary must be a mapping, not {type(data).__name__}")
    keypoints = _row(data.get("keypoints", []), str, "keypoints")
    vocabulary = Vocabulary(
        classes=_by_kind(data, "classes", str),
        exclusive_labels=_checked(data.get("exclusive_labels", False), bool, "exclusive_labels"),
        keypoints=keypoints,
        skeleton=_skeleton(data, keypoints),
        mirror=_row(data.get("mirror", []), int, "mirror"),
        colours={
            kind: tuple(
                cast(tuple[int, int, int], colour) for colour in _rows(colours, 3, "colours")
            )
            for kind, colours in _kinds(data, "colours").items()
        },
        category_ids=_by_kind(data, "category_ids", int),
    )
    _check_sizes(vocabulary)
    return vocabulary


def _check_sizes(vocabulary: Vocabulary) -> None:
    """Colours and category ids stand one to a class, mirrors one to a keypoint, and indices
    point at something.
    """
    for name, columns in (
        ("colours", vocabulary.colours),
        ("category_ids", vocabulary.category_ids),
    ):
        for kind, column in columns.items():
            if len(column) != len(vocabulary.classes.get(kind, ())):
                raise ValueError(
                    f"the vocabulary has {len(column)} {name} for "
                    f"{len(vocabulary.classes.get(kind, ()))} classes of {kind}"
                )
    if vocabulary.mirror and len(vocabulary.mirror) != len(vocabulary.keypoints):
        raise ValueError(
            f"the vocabulary has {len(vocabulary.mirror)} mirror indices for "
            f"{len(vocabulary.keypoints)} keypoints"
        )
    if any(not 0 <= index < len(vocabulary.keypoints) for index in vocabulary.mirror):
        raise ValueError(
            f"the vocabulary's mirror names a keypoint beyond its {len(vocabulary.keypoints)}"
        )


def _skeleton(data: Mapping[str, Any], keypoints: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """The pairs of a skeleton; none if they name a keypoint that is not there, as old splits of
    damaged annotations do.
    """
    pairs = [cast(tuple[int, int], pair) for pair in _rows(data.get("skeleton", []), 2, "skeleton")]
    return (
        tuple(pairs) if all(0 <= index < len(keypoints) for pair in pairs for index in pair) else ()
    )


def _kinds(data: Mapping[str, Any], name: str) -> dict[Annotation, Any]:
    value = _checked(data.get(name, {}), dict, name)
    odd = [kind for kind in value if not (isinstance(kind, str) and _KIND.fullmatch(kind))]
    if odd:
        raise ValueError(f"the vocabulary's {name} has {odd[0]!r}, which is no kind of annotation")
    return cast(dict[Annotation, Any], value)


def _by_kind(data: Mapping[str, Any], name: str, item: type) -> dict[Annotation, tuple[Any, ...]]:
    return {kind: _row(values, item, name) for kind, values in _kinds(data, name).items()}


def _row(values: object, item: type, name: str) -> tuple[Any, ...]:
    items = _checked(values, list, name)
    if len(items) > MAX_CLASSES:
        raise ValueError(
            f"the vocabulary's {name} has {len(items)} entries, more than {MAX_CLASSES}"
        )
    return tuple(_checked(value, item, name) for value in items)


def _rows(values: object, width: int, name: str) -> list[tuple[int, ...]]:
    rows = [_row(row, int, name) for row in _checked(values, list, name)]
    if any(len(row) != width for row in rows):
        raise ValueError(f"each entry of the vocabulary's {name} needs {width} numbers")
    return rows


def _checked(value: object, expected: type, name: str) -> Any:
    if type(value) is not expected:
        raise ValueError(
            f"the vocabulary's {name} should hold {expected.__name__}, found {type(value).__name__}"
        )
    return value
