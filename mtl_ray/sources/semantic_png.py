"""Semantic segmentation as pictures and index PNGs: SegNet's CamVid, ADE20K, the folders of OpenMMLab, lists of ids."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from mtl_ray import storage
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.sources.class_names import find_class_names, numbered
from mtl_ray.sources.config import SemanticPng
from mtl_ray.sources.folders import stamps_of
from mtl_ray.sources.index_png import load_index_png, palette_of, read_index_png
from mtl_ray.sources.picture import read_picture
from mtl_ray.sources.semantic_pairs import Pair, find_pairs
from mtl_ray.sources.source import Reading, Source, UnreadableError, fingerprint_of


@dataclass(frozen=True, slots=True)
class _Layout:
    root: str
    num_classes: int
    ignore: tuple[int, ...]


def open_semantic_png(config: SemanticPng) -> Source:
    """Lists the pairs of a split.

    Raises:
        FileNotFoundError: if neither a list nor folders of the split are found.
    """
    root = storage.absolute(config.root)
    pairs, rejects = find_pairs(root, config.split, config.images, config.labels)
    names = find_class_names(root, config.classes)
    if names is None:
        names = _numbered_classes(root, config, pairs)
    colours = palette_of(storage.join(root, pairs[0].label), len(names)) if pairs else ()
    stamps = [*stamps_of(root, (pair.image for pair in pairs)), *stamps_of(root, (pair.label for pair in pairs))]
    return Source(
        vocabulary=Vocabulary(classes={"semantic": names}, colours={"semantic": colours} if colours else {}),
        records=pairs,
        reader=partial(_read, _Layout(root, len(names), config.ignore)),
        rejects=tuple(rejects),
        fingerprint=fingerprint_of([*names, str(config.ignore), *(f"{pair.image}\t{pair.label}" for pair in pairs), *stamps]),
    )


def _numbered_classes(root: str, config: SemanticPng, pairs: list[Pair]) -> tuple[str, ...]:
    """A class for each value up to the highest that the maps of any split have: those that lie in folders named alike."""
    folders = {pair.label.rpartition("/")[0].replace(config.split, "*") for pair in pairs}
    fs, path = storage.filesystem(root)
    maps = sorted({str(found) for folder in folders for found in fs.glob(f"{path}/{folder}/*") if str(found).lower().endswith(".png")})
    with ThreadPoolExecutor(4) as pool:
        highest = max(pool.map(lambda name: _highest(str(fs.unstrip_protocol(name)), config.ignore), maps), default=0)
    return numbered(highest)


def _highest(uri: str, ignore: tuple[int, ...]) -> int:
    try:
        values = np.flatnonzero(np.bincount(load_index_png(uri, uri).ravel()))
    except UnreadableError:
        return 0  # the reader rejects the map
    return int(values[~np.isin(values, ignore)].max(initial=0))


def _read(layout: _Layout, pair: Pair) -> Reading:
    picture = read_picture(storage.join(layout.root, pair.image), pair.image)
    semantic, rejects = read_index_png(storage.join(layout.root, pair.label), pair.label, picture, layout.num_classes, layout.ignore)
    return Sample(key=pair.key, image=picture.data, height=picture.height, width=picture.width, semantic=semantic), rejects
