"""Several splits read as one: their classes are brought together by name."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mtl_ray.samples import IGNORE_INDEX, Annotation, Vocabulary

_log = logging.getLogger(__name__)
_Value = TypeVar("_Value")
_KINDS: tuple[Annotation, ...] = ("labels", "instances", "semantic")


@dataclass(frozen=True, slots=True)
class Recoding:
    """What the class indices of one split become in the joined vocabulary.

    Attributes:
        labels, instances: (C,) int64.
        semantic: (256,) uint8; IGNORE_INDEX for every value that is no class.
    """

    labels: NDArray[np.int64]
    instances: NDArray[np.int64]
    semantic: NDArray[np.uint8]


def join_vocabularies(vocabularies: Sequence[Vocabulary], uris: Sequence[str]) -> tuple[Vocabulary, list[Recoding]]:
    """One vocabulary for all, and for each what its indices become.

    The classes of a kind of annotation are the union by name, in the order in which they first appear. A class that only some
    of the splits know is reported in the log: where a split does not know it, its images count as images without it.

    Raises:
        ValueError: if two splits have different keypoints.
    """
    classes = {kind: _union(kind, vocabularies, uris) for kind in _KINDS if any(kind in each.classes for each in vocabularies)}
    colours, numbers = {}, {}
    for kind, names in classes.items():
        if found := _by_name([(each.classes.get(kind, ()), each.colours.get(kind, ())) for each in vocabularies], names):
            colours[kind] = found
        ids = _by_name([(each.classes.get(kind, ()), each.category_ids.get(kind, ())) for each in vocabularies], names)
        if ids and len(set(ids)) == len(ids):
            numbers[kind] = ids
    posed = [each for each in vocabularies if each.keypoints]
    for each in posed[1:]:
        if each.keypoints != posed[0].keypoints:
            raise ValueError(f"the splits have different keypoints: {', '.join(posed[0].keypoints)} and {', '.join(each.keypoints)}")
    joined = Vocabulary(
        classes=classes,
        exclusive_labels=all(each.exclusive_labels for each in vocabularies if "labels" in each.classes) and "labels" in classes,
        keypoints=posed[0].keypoints if posed else (),
        skeleton=posed[0].skeleton if posed else (),
        mirror=posed[0].mirror if posed else (),
        colours=colours,
        category_ids=numbers,
    )
    return joined, [_recoding(each, joined) for each in vocabularies]


def _union(kind: Annotation, vocabularies: Sequence[Vocabulary], uris: Sequence[str]) -> tuple[str, ...]:
    known = {uri: each.classes[kind] for uri, each in zip(uris, vocabularies, strict=True) if kind in each.classes}
    union = tuple(dict.fromkeys(name for names in known.values() for name in names))
    for uri, names in known.items():
        if lacking := [name for name in union if name not in names]:
            _log.warning("%s: its %s do not know %s; its images count as images without them", uri, kind, ", ".join(lacking))
    return union


def _by_name(per_split: Sequence[tuple[tuple[str, ...], tuple[_Value, ...]]], names: tuple[str, ...]) -> tuple[_Value, ...]:
    """What each name stands for, by the first split that says so; empty if one of them stands for nothing."""
    found: dict[str, _Value] = {}
    for own_names, values in per_split:
        for name, value in zip(own_names, values, strict=False):
            found.setdefault(name, value)
    return tuple(found[name] for name in names) if all(name in found for name in names) else ()


def _recoding(own: Vocabulary, joined: Vocabulary) -> Recoding:
    def indices(kind: Annotation) -> NDArray[np.int64]:
        return np.array([joined.classes[kind].index(name) for name in own.classes.get(kind, ())], np.int64)

    semantic = np.full(256, IGNORE_INDEX, np.uint8)
    semantic[: len(indices("semantic"))] = indices("semantic")
    return Recoding(indices("labels"), indices("instances"), semantic)
