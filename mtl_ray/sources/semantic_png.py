"""Semantic segmentation with images and index PNGs: CamVid, ADE20K, OpenMMLab folders, lists of
ids.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.samples import Vocabulary, image_sample
from mtl_ray.sources.cityscapes_maps import COLOURS, SEMANTIC, train_ids
from mtl_ray.sources.class_names import find_class_names, numbered_classes
from mtl_ray.sources.config import SemanticPng
from mtl_ray.sources.folders import stamps_of
from mtl_ray.sources.image_reading import ABSENT, USUAL_RULE, ImageRule, read_image
from mtl_ray.sources.index_png import (
    LOOKED_AT,
    check_meaning,
    load_index_png,
    load_values,
    map_colours,
    map_values,
    meaning_of,
    palette_of,
    values_in,
)
from mtl_ray.sources.semantic_pairs import MapValues, Pair, find_pairs, read_map_values
from mtl_ray.sources.source import Reading, SkippedItem, Source, fingerprint_of

BINARY = ("background", "foreground")
"""The classes of maps with only the values 0 and 255, as many programs write binary masks."""
_BINARY_NOTE = "maps of the values 0 and 255 only, read as background and foreground"


@dataclass(frozen=True, slots=True)
class _Layout:
    root: str
    rule: ImageRule
    meaning: tuple[int, ...]
    colours: Mapping[tuple[int, ...], int] | None = None


def open_semantic_png(config: SemanticPng, rule: ImageRule = USUAL_RULE) -> Source:
    """Lists the pairs of a split.

    Raises:
        FileNotFoundError: if neither a list nor folders of the split are found.
        ValueError: if options exclude each other, or no value of the maps is a class.
    """
    root = storage.absolute(config.root)
    if sum(map(bool, (config.reduce_zero_label, config.label_ids, config.values))) > 1 or (
        config.values and config.classes
    ):
        raise ValueError(
            "reduce_zero_label, label_ids and values (or classes) exclude each other; give one of "
            "them"
        )
    pairs, skipped = find_pairs(
        root, config.split, config.images, config.labels, needed=rule.needed
    )
    values = read_map_values(storage.absolute(config.values)) if config.values else None
    if values or config.label_ids:
        names, binary = values.names if values else SEMANTIC, False
    else:
        names, binary = _names(config, root, pairs, find_class_names(root, config.classes), rule)
    first = 1 if config.reduce_zero_label else 0
    meaning = _meaning(config, len(names), first, values, binary=binary)
    colour_map = values.classes if values and values.in_colour else None
    if colour_map is None:
        check_meaning([storage.join(root, pair.label) for pair in pairs], meaning, rule.max_pixels)
    colours: tuple[tuple[int, int, int], ...] = ()
    if values or config.label_ids:
        colours = values.colours if values else COLOURS
    elif pairs and not binary:
        colours = palette_of(storage.join(root, pairs[0].label), first + len(names))[first:]
    said = [repr(sorted(values.classes.items()))] if values else []
    stamps = [
        *stamps_of(root, (pair.image for pair in pairs)),
        *stamps_of(root, (pair.label for pair in pairs)),
    ]
    return Source(
        vocabulary=Vocabulary(
            classes={"semantic": names}, colours={"semantic": colours} if colours else {}
        ),
        records=pairs,
        reader=partial(_read, _Layout(root, rule, tuple(meaning.tolist()), colour_map)),
        skipped=(
            *skipped,
            *([SkippedItem(pairs[0].label, "", _BINARY_NOTE, note=True)] if binary else []),
        ),
        fingerprint=fingerprint_of(
            [
                *names,
                str(config.ignore),
                *said,
                *(f"{pair.image}\t{pair.label}" for pair in pairs),
                *stamps,
            ]
        ),
    )


def _names(
    config: SemanticPng,
    root: str,
    pairs: list[Pair],
    known: tuple[str, ...] | None,
    rule: ImageRule,
) -> tuple[tuple[str, ...], bool]:
    """The class names, and whether maps are binary (255 is class 1).

    Raises:
        ValueError: if the maps are binary and the number of class names is not 2.
    """
    own = [storage.join(root, pair.label) for pair in pairs[:LOOKED_AT]]
    if known and not _is_binary(values_in(own, rule.max_pixels), config):
        return known, False
    present = values_in(_maps_of_all_splits(root, config, pairs), rule.max_pixels)
    if _is_binary(present, config):
        if known and len(known) != len(BINARY):
            raise ValueError(
                f"the maps of {root} have the values 0 and 255 only, and 255 means 'no class' "
                "(--ignore), so that nothing could be "
                f"learned; Fix: two names in the file of classes, not {len(known)}, or --values "
                "with lines '0 NAME' and '255 NAME'"
            )
        return known or BINARY, True
    if known:
        return known, False
    counted = np.flatnonzero(present)
    highest = int(counted[~np.isin(counted, config.ignore)].max(initial=0))
    return numbered_classes(max(highest - 1, 0) if config.reduce_zero_label else highest), False


def _is_binary(present: NDArray[np.bool_], config: SemanticPng) -> bool:
    return (
        np.flatnonzero(present).tolist() == [0, 255]
        and 0 not in config.ignore
        and not config.reduce_zero_label
    )


def _meaning(
    config: SemanticPng, num_classes: int, first: int, values: MapValues | None, *, binary: bool
) -> NDArray[np.int16]:
    if values:
        meaning = meaning_of(0, config.ignore)
        for value, index in () if values.in_colour else values.classes.items():
            meaning[value[0]] = index
        return meaning
    if config.label_ids:
        return train_ids(np.arange(256, dtype=np.int32)).astype(np.int16)
    meaning = meaning_of(num_classes, config.ignore, first)
    if binary:
        meaning[255] = 1
    return meaning


def _maps_of_all_splits(root: str, config: SemanticPng, pairs: list[Pair]) -> list[str]:
    """The index PNGs of all splits: those in folders whose names differ only in the split."""
    folders = {pair.label.rpartition("/")[0] for pair in pairs}
    alike = re.compile(
        "|".join(
            sorted("[^/]*".join(map(re.escape, folder.split(config.split))) for folder in folders)
        )
        or "(?!)"
    )
    found = {uri: uri.removeprefix(root).lstrip("/") for uri in storage.files(root)}
    return [
        uri
        for uri, path in found.items()
        if path.lower().endswith(".png") and alike.fullmatch(path.rpartition("/")[0])
    ]


def _read(layout: _Layout, pair: Pair) -> Reading:
    uri, limit = storage.join(layout.root, pair.label), layout.rule.max_pixels
    if layout.colours is not None:
        values = load_values(uri, pair.label, mode="RGB", max_pixels=limit)
    else:
        values = load_index_png(uri, pair.label, limit)
    stated = (values.shape[0], values.shape[1])
    image = read_image(storage.join(layout.root, pair.image), pair.image, layout.rule, stated)
    if layout.colours is not None:
        semantic, skipped = map_colours(values, pair.label, image, layout.colours)
    else:
        semantic, skipped = map_values(
            values, pair.label, image, np.array(layout.meaning, np.int16)
        )
    absent = [] if image.data else [SkippedItem(pair.key, "", ABSENT, note=True)]
    sample = image_sample(
        key=pair.key, image=image.data, height=image.height, width=image.width, semantic=semantic
    )
    return sample, [*skipped, *absent]
