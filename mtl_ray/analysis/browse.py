"""Draws samples with their annotations: the content of a split, or what a network sees of it."""

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.annotations.annotation import AnnotationKind
from mtl_ray.experiment import ExperimentConfig, batch_fields, drawing_task
from mtl_ray.geometry.panels import beneath, grid, jpeg, shrunk
from mtl_ray.inference.files import free_name
from mtl_ray.inputs.image_header import MAX_PIXELS
from mtl_ray.loading.batch import Batch
from mtl_ray.loading.loader import Loader
from mtl_ray.samples import Sample, Vocabulary, image_sample, present
from mtl_ray.shards.split import open_split
from mtl_ray.tasks.optional import drawn_views

SHEET_COLUMNS, SHEET_ROWS = 5, 6
THUMB_PX = 360
"""Width of a panel on a contact sheet; a sample has a panel for each kind of annotation."""
DrawnSample = tuple[str, NDArray[np.uint8]]
"""A key, and the drawn image."""


def browse(
    uri: str, out: str, num: int, config: ExperimentConfig | None = None
) -> tuple[list[str], list[str]]:
    """Draws samples of a split and contact sheets of them.

    Args:
        uri: of a split.
        out: folder or URI for the images; they are named after the samples' keys.
        num: number of samples, evenly spaced in the split. With a config, the first samples in the
            order of training, where samples may repeat.
        config: draw what the network sees: the canvas after ``data.augment``, with its targets
            (masks if a head reads them).

    Returns:
        The names of the images, and those of the contact sheets.

    Raises:
        ValueError: if the split cannot be read.
    """
    kinds = max(1, len(open_split(uri).vocabulary.classes))
    columns = max(1, round(SHEET_COLUMNS / kinds))
    drawn = _originals(uri, num) if config is None else _augmented(uri, num, config)
    names: list[str] = []
    sheets: list[str] = []
    taken: set[str] = set()
    while page := list(islice(drawn, columns * SHEET_ROWS)):
        for key, picture in page:
            names.append(free_name(_stem(key), taken))
            storage.write(storage.join(out, names[-1]), jpeg(picture))
        sheets.append(free_name(f"contact-sheet-{len(sheets) + 1:02d}", taken))
        thumbs = [shrunk(picture, THUMB_PX * kinds) for _, picture in page]
        storage.write(
            storage.join(out, sheets[-1]), jpeg(grid(thumbs, columns, [key for key, _ in page]))
        )
    return names, sheets


def _originals(uri: str, num: int) -> Iterator[DrawnSample]:
    split = open_split(uri)
    layout = split.manifest.layout
    shown = layout.inputs[0]
    rows = np.unique(
        np.linspace(0, split.num_samples - 1, min(num, split.num_samples)).round().astype(np.int64)
    )
    for row in rows.tolist():
        sample = next(split.read(row, row + 1))
        if shown.name not in sample.inputs:
            raise ValueError(f"sample {sample.key} of {uri} has no {shown.noun}")
        try:
            image = shown.show(shown.decode(sample.inputs[shown.name], MAX_PIXELS))
        except ValueError as error:
            raise ValueError(f"sample {sample.key} of {uri}: {error}") from None
        yield sample.key, panels(image, sample, split.vocabulary, layout.plugins)


def _augmented(uri: str, num: int, config: ExperimentConfig) -> Iterator[DrawnSample]:
    loader = Loader(
        config.data.training_on(uri),
        seed=config.runtime.seed,
        fields=batch_fields(config.model.heads),
    )
    split = open_split(uri)
    kind = config.data.canvas.input
    slots = ((batch, slot) for batch in loader for slot in range(len(batch)))
    for batch, slot in islice(slots, num):
        arrays = {name: values[slot].numpy() for name, values in batch.inputs.items()}
        image = kind.show_arrays(arrays)
        if image is None:
            raise ValueError(
                f"a {kind.noun} is not drawn as the network sees it; browse without the config"
            )
        yield (
            batch.keys[slot],
            panels(
                image, _as_sample(batch, slot, split.annotations), loader.vocabulary, config.plugins
            ),
        )


def panels(
    image: NDArray[np.uint8], sample: Sample, vocabulary: Vocabulary, plugins: tuple[str, ...] = ()
) -> NDArray[np.uint8]:
    """An image for each kind of annotation that a task draws, side by side, or the image alone;
    below them what the sample's cameras saw.
    """
    tasks = {
        kind: task
        for kind in vocabulary.classes
        if (task := drawing_task(kind, plugins)) is not None
    }
    if not tasks:
        return image
    drawn = [task.draw_ground_truth(image, sample, vocabulary) for task in tasks.values()]
    titles = [kind if kind in sample.annotations else f"{kind}: not annotated" for kind in tasks]
    views = [view for task in tasks.values() for view in drawn_views(task, sample, vocabulary)]
    if len(drawn) == 1 and next(iter(tasks)) in sample.annotations:
        return beneath(np.asarray(drawn[0], np.uint8), views)
    return beneath(grid(drawn, len(drawn), titles), views)


def _as_sample(batch: Batch, slot: int, kinds: Mapping[str, AnnotationKind[Any, Any]]) -> Sample:
    """What the network sees in one slot, as a Sample in its frame."""
    annotated = {
        kind: target for kind, target in batch.targets.items() if target["annotated"][slot]
    }
    values = {
        kind: kinds[kind].from_batch({name: value[slot].numpy() for name, value in each.items()})
        for kind, each in annotated.items()
    }
    if "image" not in batch.inputs:
        return Sample(key=batch.keys[slot], inputs={}, annotations=present(values))
    height, width = batch.inputs["image"].shape[2:]
    return image_sample(
        key=batch.keys[slot], image=b"", height=height, width=width
    ).with_annotations(**values)


def _stem(key: str) -> str:
    """A key as a file name: folders joined, without the image suffix and special characters."""
    bare = re.sub(r"\.(jpe?g|png|bmp|webp|tiff?|gif|p[gp]m)$", "", key, flags=re.IGNORECASE)
    return re.sub(r"[^A-Za-z0-9._-]+", "_", bare).strip("._-")[-120:] or "sample"
