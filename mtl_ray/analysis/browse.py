"""Samples drawn with their annotations, into files: to see what a split holds, and what a network will see of it."""

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.experiment import ExperimentConfig, drawing_task
from mtl_ray.geometry.pictures import grid, jpeg, shrunk
from mtl_ray.inference.files import free_name
from mtl_ray.inputs.decode import decode_image
from mtl_ray.loading.batch import Batch
from mtl_ray.loading.config import SplitConfig
from mtl_ray.loading.loader import Loader
from mtl_ray.samples import Instances, Sample, Vocabulary, image_sample
from mtl_ray.shards.split import open_split

SHEET_COLUMNS, SHEET_ROWS = 5, 6
THUMB_PX = 360
"""Of one panel on a contact sheet; a sample has a panel for each kind of annotation, side by side."""
Drawn = tuple[str, NDArray[np.uint8]]
"""A key, and a picture."""


def browse(uri: str, out: str, num: int, config: ExperimentConfig | None = None) -> tuple[list[str], list[str]]:
    """Draws samples of a split and contact sheets of them.

    Args:
        uri: of a split.
        out: folder or URI for the pictures; they are named after the samples' keys.
        num: how many; evenly spread over the split, all of them if it has fewer. With a config, the first of the training order,
            in which a sample may come again.
        config: draw what the network sees: the canvas after ``data.augment``, with its targets.

    Returns:
        The names of the pictures, and those of the contact sheets.

    Raises:
        ValueError: if the split cannot be read.
    """
    panels = len(open_split(uri).vocabulary.classes)
    columns = max(1, round(SHEET_COLUMNS / panels))
    drawn = _originals(uri, num) if config is None else _augmented(uri, num, config)
    names: list[str] = []
    sheets: list[str] = []
    taken: set[str] = set()
    while page := list(islice(drawn, columns * SHEET_ROWS)):
        for key, picture in page:
            names.append(free_name(_stem(key), taken))
            storage.write(storage.join(out, names[-1]), jpeg(picture))
        sheets.append(free_name(f"contact-sheet-{len(sheets) + 1:02d}", taken))
        thumbs = [shrunk(picture, THUMB_PX * panels) for _, picture in page]
        storage.write(storage.join(out, sheets[-1]), jpeg(grid(thumbs, columns, [key for key, _ in page])))
    return names, sheets


def _originals(uri: str, num: int) -> Iterator[Drawn]:
    split = open_split(uri)
    rows = np.unique(np.linspace(0, split.num_samples - 1, min(num, split.num_samples)).round().astype(np.int64))
    for row in rows.tolist():
        sample = next(split.read(row, row + 1))
        try:
            image = decode_image(sample.image)
        except ValueError as error:
            raise ValueError(f"sample {sample.key} of {uri}: {error}") from None
        yield sample.key, panels(image, sample, split.vocabulary)


def _augmented(uri: str, num: int, config: ExperimentConfig) -> Iterator[Drawn]:
    loader = Loader(replace(config.data, train=SplitConfig(uri=uri)), seed=config.runtime.seed)
    slots = ((batch, slot) for batch in loader for slot in range(len(batch)))
    for batch, slot in islice(slots, num):
        image = np.ascontiguousarray(batch.inputs["image"][slot].numpy().transpose(1, 2, 0))
        yield batch.keys[slot], panels(image, _as_sample(batch, slot), loader.vocabulary)


def panels(image: NDArray[np.uint8], sample: Sample, vocabulary: Vocabulary) -> NDArray[np.uint8]:
    """A picture for each kind of annotation, side by side."""
    drawn = [drawing_task(kind).draw_ground_truth(image, sample, vocabulary) for kind in vocabulary.classes]
    known = {"labels": sample.labels, "instances": sample.instances, "semantic": sample.semantic}
    titles = [kind if known[kind] is not None else f"{kind}: not annotated" for kind in vocabulary.classes]
    if len(drawn) == 1 and known[next(iter(vocabulary.classes))] is not None:
        return np.asarray(drawn[0], np.uint8)
    return grid(drawn, len(drawn), titles)


def _as_sample(batch: Batch, slot: int) -> Sample:
    """What the network sees in one slot, as a Sample in canvas pixels."""
    targets = {kind: target for kind, target in batch.targets.items() if target["annotated"][slot]}
    labels = instances = semantic = None
    if "labels" in targets:
        labels = np.flatnonzero(targets["labels"]["present"][slot].numpy())
    if "semantic" in targets:
        semantic = bytes(cv2.imencode(".png", targets["semantic"]["classes"][slot].numpy())[1])
    if "instances" in targets:
        target = targets["instances"]
        present = target["present"][slot].numpy()
        boxes = target["boxes"][slot].numpy()[present]
        count = len(boxes)
        instances = Instances(
            boxes_xyxy=boxes,
            classes=target["classes"][slot].numpy()[present],
            ids=np.full(count, -1),
            areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
            crowd=target["crowd"][slot].numpy()[present],
            difficult=np.zeros(count, np.bool_),
            truncated=np.zeros(count, np.bool_),
        )
    height, width = batch.inputs["image"].shape[2:]
    key = batch.keys[slot]
    return image_sample(key=key, image=b"", height=height, width=width, labels=labels, instances=instances, semantic=semantic)


def _stem(key: str) -> str:
    """A key as the name of a file: its folders joined, no suffix of a picture, no characters with a meaning of their own."""
    bare = re.sub(r"\.(jpe?g|png|bmp|webp|tiff?|gif|p[gp]m)$", "", key, flags=re.IGNORECASE)
    return re.sub(r"[^A-Za-z0-9._-]+", "_", bare).strip("._-")[-120:] or "sample"
