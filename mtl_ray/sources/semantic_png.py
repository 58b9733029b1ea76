"""Semantic segmentation as pictures and index PNGs: SegNet's CamVid, ADE20K, the folders of OpenMMLab, lists of ids."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.sources.cityscapes_labels import COLOURS, SEMANTIC, train_ids
from mtl_ray.sources.class_names import find_class_names, numbered
from mtl_ray.sources.config import SemanticPng
from mtl_ray.sources.folders import stamps_of
from mtl_ray.sources.index_png import load_index_png, meaning_of, palette_of, read_colour_map, read_index_png
from mtl_ray.sources.map_values import MapValues, read_map_values
from mtl_ray.sources.picture import USUAL_RULE, ImageRule, read_picture
from mtl_ray.sources.semantic_pairs import Pair, find_pairs
from mtl_ray.sources.source import Reading, Source, UnreadableError, fingerprint_of


@dataclass(frozen=True, slots=True)
class _Layout:
    root: str
    meaning: tuple[int, ...]
    colours: Mapping[tuple[int, ...], int] | None = None


def open_semantic_png(config: SemanticPng, rule: ImageRule = USUAL_RULE) -> Source:
    """Lists the pairs of a split.

    Raises:
        FileNotFoundError: if neither a list nor folders of the split are found.
    """
    root = storage.absolute(config.root)
    pairs, rejects = find_pairs(root, config.split, config.images, config.labels)
    if sum(map(bool, (config.reduce_zero_label, config.label_ids, config.values))) > 1 or (config.values and config.classes):
        raise ValueError("reduce_zero_label counts classes from value 1, label_ids and values say what stands for each: give one of them")
    values = read_map_values(storage.absolute(config.values)) if config.values else None
    known = values.names if values else SEMANTIC if config.label_ids else find_class_names(root, config.classes)
    names = known or _numbered_classes(root, config, pairs)
    first = 1 if config.reduce_zero_label else 0
    meaning = _meaning(config, len(names), first, values)
    colours: tuple[tuple[int, int, int], ...] = ()
    if values or config.label_ids:
        colours = values.colours if values else COLOURS
    elif pairs:
        colours = palette_of(storage.join(root, pairs[0].label), first + len(names))[first:]
    said = [repr(sorted(values.classes.items()))] if values else []
    stamps = [*stamps_of(root, (pair.image for pair in pairs)), *stamps_of(root, (pair.label for pair in pairs))]
    return Source(
        vocabulary=Vocabulary(classes={"semantic": names}, colours={"semantic": colours} if colours else {}),
        records=pairs,
        reader=partial(_read, _Layout(root, tuple(meaning.tolist()), values.classes if values and values.in_colour else None)),
        rejects=tuple(rejects),
        fingerprint=fingerprint_of([*names, str(config.ignore), *said, *(f"{pair.image}\t{pair.label}" for pair in pairs), *stamps]),
    )


def _meaning(config: SemanticPng, num_classes: int, first: int, values: MapValues | None) -> NDArray[np.int16]:
    if values:
        meaning = meaning_of(0, config.ignore)
        for value, index in () if values.in_colour else values.classes.items():
            meaning[value[0]] = index
        return meaning
    if config.label_ids:
        return train_ids(np.arange(256, dtype=np.int32)).astype(np.int16)
    return meaning_of(num_classes, config.ignore, first)


def _numbered_classes(root: str, config: SemanticPng, pairs: list[Pair]) -> tuple[str, ...]:
    """A class for each value up to the highest that the maps of any split have: those that lie in folders named alike."""
    folders = {pair.label.rpartition("/")[0].replace(config.split, "*") for pair in pairs}
    fs, path = storage.filesystem(root)
    maps = sorted({str(found) for folder in folders for found in fs.glob(f"{path}/{folder}/*") if str(found).lower().endswith(".png")})
    with ThreadPoolExecutor(4) as pool:
        highest = max(pool.map(lambda name: _highest(str(fs.unstrip_protocol(name)), config.ignore), maps), default=0)
    return numbered(max(highest - 1, 0) if config.reduce_zero_label else highest)


def _highest(uri: str, ignore: tuple[int, ...]) -> int:
    try:
        values = np.flatnonzero(np.bincount(load_index_png(uri, uri).ravel()))
    except UnreadableError:
        return 0  # the reader rejects the map
    return int(values[~np.isin(values, ignore)].max(initial=0))


def _read(layout: _Layout, pair: Pair) -> Reading:
    picture = read_picture(storage.join(layout.root, pair.image), pair.image)
    uri = storage.join(layout.root, pair.label)
    if layout.colours is not None:
        semantic, rejects = read_colour_map(uri, pair.label, picture, layout.colours)
    else:
        semantic, rejects = read_index_png(uri, pair.label, picture, np.array(layout.meaning, np.int16))
    return Sample(key=pair.key, image=picture.data, height=picture.height, width=picture.width, semantic=semantic), rejects
