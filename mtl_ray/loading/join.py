"""Several splits read as one: their classes are joined by name."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.annotation import ClassMapper
from mtl_ray.layout import ANNOTATIONS
from mtl_ray.samples import Annotation, Vocabulary

_log = logging.getLogger(__name__)
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class LabelSpace:
    """What the class indices of one split become in the joined vocabulary, by kind of annotation.

    Attributes:
        mappers: for every kind of the joined vocabulary; of no class where the split does not
            annotate the kind.
        known_classes: (C,) bool: which classes of the joined vocabulary the split annotates.
    """

    mappers: Mapping[Annotation, ClassMapper]
    known_classes: Mapping[Annotation, NDArray[np.bool_]]

    @staticmethod
    def of(own: Vocabulary, joined: Vocabulary) -> "LabelSpace":
        """The label space of a split with the vocabulary ``own``."""
        mappers = {
            kind: ClassMapper.between(own.classes.get(kind, ()), names)
            for kind, names in joined.classes.items()
        }
        known = {
            kind: np.isin(names, own.classes.get(kind, ()))
            for kind, names in joined.classes.items()
        }
        return LabelSpace(mappers, known)


def join_vocabularies(
    vocabularies: Sequence[Vocabulary], uris: Sequence[str]
) -> tuple[Vocabulary, list[LabelSpace]]:
    """One vocabulary for all, and for each what its indices become.

    The classes of a kind of annotation are the union by name, in the order in which they first
    appear. A class that only some of the splits know is reported in the log: images of the others
    say nothing about it.

    Raises:
        ValueError: if two splits have different keypoints.
    """
    classes = {kind: _union(kind, vocabularies, uris) for kind in _ordered(vocabularies)}
    colours, numbers = {}, {}
    for kind, names in classes.items():
        if found := _by_name(
            [(each.classes.get(kind, ()), each.colours.get(kind, ())) for each in vocabularies],
            names,
        ):
            colours[kind] = found
        ids = _by_name(
            [
                (each.classes.get(kind, ()), each.category_ids.get(kind, ()))
                for each in vocabularies
            ],
            names,
        )
        if ids and len(set(ids)) == len(ids):
            numbers[kind] = ids
    posed = [each for each in vocabularies if each.keypoints]
    for each in posed[1:]:
        if each.keypoints != posed[0].keypoints:
            raise ValueError(
                f"the splits have different keypoints: {', '.join(posed[0].keypoints)} and "
                f"{', '.join(each.keypoints)}"
            )
    joined = Vocabulary(
        classes=classes,
        exclusive_labels=all(
            each.exclusive_labels for each in vocabularies if "labels" in each.classes
        )
        and "labels" in classes,
        keypoints=posed[0].keypoints if posed else (),
        skeleton=posed[0].skeleton if posed else (),
        mirror=posed[0].mirror if posed else (),
        colours=colours,
        category_ids=numbers,
    )
    return joined, [LabelSpace.of(each, joined) for each in vocabularies]


def _ordered(vocabularies: Sequence[Vocabulary]) -> list[Annotation]:
    """The kinds of all vocabularies: built-in ones in their usual order, so that a joined
    vocabulary does not depend on the splits'.
    """
    found = dict.fromkeys(kind for each in vocabularies for kind in each.classes)
    usual = [kind.name for kind in ANNOTATIONS if kind.name in found]
    return [*usual, *(kind for kind in found if kind not in usual)]


def _union(
    kind: Annotation, vocabularies: Sequence[Vocabulary], uris: Sequence[str]
) -> tuple[str, ...]:
    known = {
        uri: each.classes[kind]
        for uri, each in zip(uris, vocabularies, strict=True)
        if kind in each.classes
    }
    union = tuple(dict.fromkeys(name for names in known.values() for name in names))
    for uri, names in known.items():
        if lacking := [name for name in union if name not in names]:
            _log.warning(
                "%s: its %s do not know %s; its samples say nothing about them",
                uri,
                kind,
                ", ".join(lacking),
            )
    return union


def _by_name(
    per_split: Sequence[tuple[tuple[str, ...], tuple[_Value, ...]]], names: tuple[str, ...]
) -> tuple[_Value, ...]:
    """What each name stands for, by the first split that says so; empty if one of them stands
    for nothing.
    """
    found: dict[str, _Value] = {}
    for own_names, values in per_split:
        for name, value in zip(own_names, values, strict=False):
            found.setdefault(name, value)
    return tuple(found[name] for name in names) if all(name in found for name in names) else ()
