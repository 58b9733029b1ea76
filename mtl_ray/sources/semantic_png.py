"""Semantic segmentation as pictures and index PNGs: SegNet's CamVid, ADE20K, the folders of OpenMMLab, lists of ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial


from mtl_ray import storage
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.sources.class_names import find_class_names, numbered
from mtl_ray.sources.config import SemanticPng
from mtl_ray.sources.folders import first_existing, pictures_by_stem, read_lines
from mtl_ray.sources.index_png import load_index_png, read_index_png
from mtl_ray.sources.picture import read_picture
from mtl_ray.sources.source import Reading, Reject, Source, Unreadable, fingerprint_of


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
    pairs, rejects = _pairs(root, config)
    names = find_class_names(root, config.classes) or _numbered_classes(root, config.ignore)
    return Source(
        vocabulary=Vocabulary(classes={"semantic": names}),
        records=pairs,
        reader=partial(_read, _Layout(root, len(names), config.ignore)),
        rejects=tuple(rejects),
        fingerprint=fingerprint_of([*names, str(config.ignore), *(name for pair in pairs for name in pair)]),
    )


def _pairs(root: str, config: SemanticPng) -> tuple[list[tuple[str, str]], list[Reject]]:
    listed = first_existing(root, [f"{config.split}.txt"])
    assert listed
    return [tuple(line.split()[:2]) for line in read_lines(listed)], []


def _numbered_classes(root: str, ignore: Sequence[int]) -> tuple[str, ...]:
    return numbered(11)


def _read(layout: _Layout, pair: tuple[str, str]) -> Reading:
    image, label = pair
    picture = read_picture(storage.join(layout.root, image), image)
    semantic, rejects = read_index_png(storage.join(layout.root, label), label, picture, layout.num_classes, layout.ignore)
    return Sample(key=image, image=picture.data, height=picture.height, width=picture.width, semantic=semantic), rejects
