"""IDX files of MNIST (LeCun et al., http://yann.lecun.com/exdb/mnist): one of grey images, one
of labels.
"""

import gzip
import math
import re
import struct
import zlib
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.samples import Vocabulary, image_sample
from mtl_ray.sources.class_names import find_class_names, numbered_classes
from mtl_ray.sources.config import Idx
from mtl_ray.sources.source import Reading, SkippedItem, Source, fingerprint_of, unknown_class

_ALIASES = {"val": ("val", "t10k", "test"), "test": ("test", "t10k")}
"""MNIST's test split is called t10k."""
_BYTES = 8
"""The code of unsigned bytes in the header."""


def open_idx(config: Idx) -> Source:
    """Reads both files of a split; the records hold the images.

    Raises:
        FileNotFoundError: if there is no such pair.
        ValueError: if a file is damaged, or the numbers of images and labels differ.
    """
    root = storage.absolute(config.root)
    images, labels = (
        _load(root, config.split, kind, dimensions)
        for kind, dimensions in (("images", 3), ("labels", 1))
    )
    if len(images) != len(labels):
        raise ValueError(
            f"{root}: the split {config.split!r} has {len(images)} images but {len(labels)} labels"
        )
    if 0 in images.shape[1:]:
        raise ValueError(
            f"{root}: the images of the split {config.split!r} are {images.shape[2]} x "
            f"{images.shape[1]} pixels"
        )
    names = find_class_names(root, config.classes) or _numbers(root)
    skipped = [
        SkippedItem(f"{config.split}-labels", f"{row}", unknown_class(labels[row]))
        for row in np.flatnonzero(labels >= len(names))
    ]
    return Source(
        vocabulary=Vocabulary(classes={"labels": names}, exclusive_labels=True),
        records=[
            (int(row), int(labels[row]), images[row].tobytes())
            for row in np.flatnonzero(labels < len(names))
        ],
        reader=partial(_read, config.split, *images.shape[1:]),
        skipped=tuple(skipped),
        fingerprint=fingerprint_of([*names, images.tobytes(), labels.tobytes()]),
    )


def _load(root: str, split: str, kind: str, dimensions: int) -> NDArray[np.uint8]:
    """The array in the file of a split, such as ``train-images-idx3-ubyte.gz``."""
    present = [name for name in storage.names(root) if re.search(r"idx\d", name)]
    for start in _ALIASES.get(split, (split,)):
        found = [name for name in present if name.startswith(f"{start}-{kind}")]
        if found:
            return _parse(
                storage.read(storage.join(root, found[0])), storage.join(root, found[0]), dimensions
            )
    raise FileNotFoundError(
        f"{root} has no IDX file {split}-{kind}-idx{dimensions}-ubyte; it has "
        f"{', '.join(present) or 'none'}"
    )


def _parse(data: bytes, uri: str, dimensions: int) -> NDArray[np.uint8]:
    try:
        content = gzip.decompress(data) if uri.endswith(".gz") else data
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{uri} is damaged: {error}") from None
    start = 4 + 4 * dimensions
    if (
        len(content) < start
        or content[:2] != b"\0\0"
        or content[2] != _BYTES
        or content[3] != dimensions
    ):
        raise ValueError(f"{uri} is not an IDX file of unsigned bytes in {dimensions} dimension(s)")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    values = np.frombuffer(content, np.uint8, offset=start)
    if values.size != math.prod(shape):
        raise ValueError(
            f"{uri} is cut short: its header says {' x '.join(map(str, shape))}, {values.size} "
            "bytes follow"
        )
    return values.reshape(shape)


def _numbers(root: str) -> tuple[str, ...]:
    """Class names 0 to the highest label of any split."""
    files = [name for name in storage.names(root) if re.search(r"labels.*idx1", name)]
    return numbered_classes(
        max(
            int(_parse(storage.read(storage.join(root, name)), name, 1).max(initial=0))
            for name in files
        )
    )


def _read(split: str, height: int, width: int, record: tuple[int, int, bytes]) -> Reading:
    row, label, pixels = record
    encoded, data = cv2.imencode(".png", np.frombuffer(pixels, np.uint8).reshape(height, width))
    assert encoded
    labels = np.array([label], np.int64)
    return image_sample(
        key=f"{split}/{row:06d}.png",
        image=data.tobytes(),
        height=height,
        width=width,
        labels=labels,
    ), []
