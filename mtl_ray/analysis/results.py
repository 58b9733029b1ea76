"""Finds the best and the worst images of stored predictions: a table of all, and drawings of
some.
"""

import csv
import io
import json
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from mtl_ray import storage
from mtl_ray.analysis.executor import Executor
from mtl_ray.analysis.image_scores import image_scores
from mtl_ray.analysis.paired import Paired
from mtl_ray.analysis.picture_source import PictureSource
from mtl_ray.geometry.panels import grid, jpeg
from mtl_ray.inference.files import free_name
from mtl_ray.samples import Vocabulary, image_sample
from mtl_ray.tasks.detection.columns import ScoredImage
from mtl_ray.tasks.detection.draw import draw_detections, draw_objects

IMAGES_OF_A_TASK = 500
PICTURES_OF_A_TASK = 5
_PICTURE = re.compile(r".+_[01]\.\d{3}(-\d+)?\.jpg")


@dataclass(frozen=True, kw_only=True)
class ImageResult:
    """One line of the table.

    Attributes:
        image: its file name.
        score: mean average precision of this image (see ``image_scores``); 0 if there is nothing to
            find.
        num_truth: objects to find.
        num_predicted: detections.
    """

    image: str
    score: float
    num_truth: int
    num_predicted: int


class DrawnResult(NamedTuple):
    """A drawing: the index of the image, and the URI of the file."""

    place: int
    uri: str


@dataclass(frozen=True, kw_only=True)
class Results:
    """The results.

    Attributes:
        table: in the order of the data.
        good: the best images, the best last.
        bad: the worst images, the worst first.
        without_picture: number of these whose image file is missing.
        hidden: number of their detections that are not drawn because of a low score.
    """

    table: tuple[ImageResult, ...]
    good: tuple[DrawnResult, ...]
    bad: tuple[DrawnResult, ...]
    without_picture: int
    hidden: int


def results(
    paired: Paired,
    out: str,
    executor: Executor,
    *,
    topk: int = 20,
    show_score: float = 0.3,
    compat: bool = False,
) -> Results:
    """Scores all images, draws some, and writes images.json, images.csv, good/ and bad/.

    Args:
        paired: predictions and ground truth.
        out: folder or URI.
        executor: runs the work.
        topk: number of best and of worst images to draw; no image is drawn as both. Images without
            objects are not drawn.
        show_score: detections with a lower score are not drawn.
        compat: as MMDetection 3.x: crowds count like other objects, and images without objects are
            among the worst.

    Raises:
        ValueError: if an image cannot be read.
    """
    images = paired.images
    parts = [
        images[start : start + IMAGES_OF_A_TASK]
        for start in range(0, len(images), IMAGES_OF_A_TASK)
    ]
    scores = np.concatenate(executor(partial(image_scores, crowd_counts=compat), parts, "score"))
    table = tuple(_line(paired, place, scores[place], compat) for place in range(len(images)))
    ranked = _ranked(
        paired,
        [place for place in range(len(images)) if compat or not math.isnan(scores[place])],
        table,
    )
    count = min(topk, len(ranked) // 2)
    bad, good = (
        named_drawings(places, table, storage.join(out, name))
        for places, name in ((ranked[:count], "bad"), (ranked[len(ranked) - count :], "good"))
    )
    write_table(out, table)
    for name, drawn in (("bad", bad), ("good", good)):
        remove_older(storage.join(out, name), {each.uri for each in drawn})
    shown = _Shown(paired.pictures, paired.vocabulary, show_score, compat)
    works = [
        _Work(images[each.place], paired.rows[each.place], table[each.place], each.uri)
        for each in (*bad, *good)
    ]
    batches = [
        works[start : start + PICTURES_OF_A_TASK]
        for start in range(0, len(works), PICTURES_OF_A_TASK)
    ]
    without = sum(executor(partial(_draw_all, shown), batches, "draw"))
    hidden = sum(int((work.image.predicted.scores < show_score).sum()) for work in works)
    return Results(table=table, good=good, bad=bad, without_picture=without, hidden=hidden)


def _ranked(paired: Paired, places: Sequence[int], table: Sequence[ImageResult]) -> list[int]:
    """The worst first; equal ones (up to rounding errors) in the order of the data."""
    listed = {key: number for number, key in enumerate(paired.file_names)}
    return sorted(
        places, key=lambda place: (round(table[place].score, 6), listed[paired.images[place].key])
    )


def _line(paired: Paired, place: int, score: float, compat: bool) -> ImageResult:
    image = paired.images[place]
    optional = (
        image.ground_truth.difficult
        if compat
        else image.ground_truth.difficult | image.ground_truth.crowd
    )
    return ImageResult(
        image=paired.file_names[image.key],
        score=0.0 if math.isnan(score) else float(score),
        num_truth=int((~optional).sum()),
        num_predicted=len(image.predicted),
    )


def named_drawings(
    places: Sequence[int], table: Sequence[ImageResult], folder: str
) -> tuple[DrawnResult, ...]:
    """A file in ``folder`` for each of some lines, with the name of the image and its score."""
    taken: set[str] = set()
    stems = (
        table[place].image.rpartition("/")[2].rpartition(".")[0] or table[place].image
        for place in places
    )
    names = (
        free_name(f"{stem}_{table[place].score:.3f}", taken)
        for stem, place in zip(stems, places, strict=True)
    )
    return tuple(
        DrawnResult(place, storage.join(folder, name))
        for place, name in zip(places, names, strict=True)
    )


def remove_older(folder: str, drawn: Collection[str]) -> None:
    """Removes drawings of an earlier analysis, which could be confused with those of this one."""
    for name in storage.names(folder):
        uri = storage.join(folder, name)
        if _PICTURE.fullmatch(name) and uri not in drawn:
            storage.remove(uri)


def write_table(out: str, table: Sequence[ImageResult]) -> None:
    """Writes images.json and images.csv."""
    rows = [vars(line) for line in table]
    storage.write(
        storage.join(out, "images.json"),
        (json.dumps(rows, indent=1, allow_nan=False) + "\n").encode(),
    )
    text = io.StringIO()
    writer = csv.DictWriter(text, list(ImageResult.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    storage.write(storage.join(out, "images.csv"), text.getvalue().encode())


class _Shown(NamedTuple):
    pictures: PictureSource
    vocabulary: Vocabulary
    show_score: float
    compat: bool


class _Work(NamedTuple):
    image: ScoredImage
    row: int
    line: ImageResult
    uri: str


def _draw_all(shown: _Shown, works: Sequence[_Work]) -> int:
    """Draws some images; returns how many image files are missing."""
    return [_draw(shown, work) for work in works].count(False)


def _draw(shown: _Shown, work: _Work) -> bool:
    """Draws ground truth and predictions side by side.

    False if the image is missing, so they are drawn on grey.
    """
    image, line = work.image, work.line
    pixels, there = shown.pictures.read(work.row, line.image, _size(image), exact=image.height > 0)
    sample = image_sample(
        key=image.key,
        image=b"",
        height=pixels.shape[0],
        width=pixels.shape[1],
        instances=image.ground_truth,
    )
    panels = [
        draw_objects(pixels, sample, shown.vocabulary),
        draw_detections(pixels, image.predicted, shown.vocabulary, shown.show_score),
    ]
    hidden = int((image.predicted.scores < shown.show_score).sum())
    found = (
        f"{len(image.predicted) - hidden} of {len(image.predicted)} drawn (>= {shown.show_score:g})"
        if hidden
        else f"{len(image.predicted)} predicted"
    )
    titles = [f"{line.image}: {line.num_truth} to find", f"{found}, score {line.score:.3f}"]
    storage.write(work.uri, jpeg(grid(panels, 2, titles)))
    return there


def _size(image: ScoredImage) -> tuple[int, int]:
    """Height and width; if the annotation file lacks them, a size that holds all boxes."""
    if image.height > 0 and image.width > 0:
        return image.height, image.width
    corners = np.concatenate(
        [np.ones((1, 2)), image.ground_truth.boxes_xyxy[:, 2:], image.predicted.boxes_xyxy[:, 2:]]
    ).max(axis=0)
    return math.ceil(corners[1]), math.ceil(corners[0])
