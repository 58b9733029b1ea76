"""The best and the worst clouds of stored predictions: a table of all, and drawings of some."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.analysis.executor import Executor
from mtl_ray.analysis.paired import Pairs
from mtl_ray.analysis.results import (
    PICTURES_OF_A_TASK,
    ImageResult,
    Results,
    named_drawings,
    remove_older,
    write_table,
)
from mtl_ray.evaluation.data import SplitData, class_converter
from mtl_ray.geometry.panels import grid, jpeg
from mtl_ray.inputs.image_header import MAX_PIXELS
from mtl_ray.inputs.points import POINTS
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.shards.split import open_split
from mtl_ray.tasks.head_classes import HeadClasses
from mtl_ray.tasks.lidar.confusion import ConfusionRule, near_pairs
from mtl_ray.tasks.lidar.decode import Detections3d
from mtl_ray.tasks.lidar.matching import NOTHING, serial_choice
from mtl_ray.tasks.lidar.nuscenes.columns import NuscenesFrame, join_nuscenes
from mtl_ray.tasks.lidar.nuscenes.frames import nuscenes_frame
from mtl_ray.tasks.task import HeadKind

OVERLAPS = (0.3, 0.5, 0.7)
"""From above; the score of a cloud is the mean over them."""


class _Work(NamedTuple):
    row: int
    found: Detections3d
    line: ImageResult
    uri: str


class _Shown(NamedTuple):
    split: str
    head: HeadKind
    vocabulary: Vocabulary
    show_score: float


def cloud_results(
    pairs: Pairs,
    name: str,
    out: str,
    executor: Executor,
    *,
    topk: int = 20,
    min_score: float = 0.0,
    show_score: float = 0.3,
) -> Results:
    """Scores all clouds, draws some from above, and writes images.json, images.csv, good/, bad/.

    Args:
        pairs: predictions and ground truth.
        name: of the head.
        out: folder or URI.
        executor: runs the drawing.
        topk: number of best and of worst clouds to draw; none is drawn as both, nor one without
            objects.
        min_score: detections with a lower score are ignored.
        show_score: detections with a lower score are not drawn.

    Raises:
        ValueError: if there is nothing to score, or a cloud cannot be read.
    """
    if not isinstance(pairs.data, SplitData):
        raise ValueError("results of clouds need a split, which has their points")
    head = pairs.stored.heads[name]
    classes = HeadClasses.of(head, pairs.stored.vocabulary)
    names = classes.vocabulary.classes["boxes_3d"]
    rows: list[int] = []
    keys: list[str] = []
    kept: list[Detections3d] = []
    frames: list[NuscenesFrame] = []
    for row, (whole, found) in enumerate(pairs):
        sample = classes.sample(whole)
        value = sample.annotations.get("boxes_3d")
        if value is None or found is None:
            continue
        above = _above(found[name], min_score)
        calibration = sample.inputs["points"].calibration
        rows.append(row)
        keys.append(sample.key)
        kept.append(above)
        frames.append(nuscenes_frame(value, above, names, calibration))
    if not frames:
        raise ValueError("the data has no cloud with annotated objects and predictions")
    scores = frame_scores(frames, len(names))
    table = tuple(map(_line, keys, scores.tolist(), frames, kept))
    places = [place for place in range(len(rows)) if not math.isnan(scores[place])]
    ranked = sorted(places, key=lambda place: (round(table[place].score, 6), place))
    count = min(topk, len(ranked) // 2)
    bad = named_drawings(ranked[:count], table, storage.join(out, "bad"))
    good = named_drawings(ranked[len(ranked) - count :], table, storage.join(out, "good"))
    write_table(out, table)
    for folder, drawn in (("bad", bad), ("good", good)):
        remove_older(storage.join(out, folder), {each.uri for each in drawn})
    works = [
        _Work(rows[each.place], kept[each.place], table[each.place], each.uri)
        for each in (*bad, *good)
    ]
    split = storage.absolute(pairs.data.split.uri)
    shown = _Shown(split, head, pairs.stored.vocabulary, show_score)
    batches = [
        works[start : start + PICTURES_OF_A_TASK]
        for start in range(0, len(works), PICTURES_OF_A_TASK)
    ]
    executor(partial(_draw_all, shown), batches, "draw")
    hidden = sum(int((work.found.scores < show_score).sum()) for work in works)
    return Results(table=table, good=good, bad=bad, without_picture=0, hidden=hidden)


def _above(found: Detections3d, score: float) -> Detections3d:
    kept = found.scores >= score
    return replace(
        found,
        boxes=found.boxes[kept],
        scores=found.scores[kept],
        classes=found.classes[kept],
        velocity=None if found.velocity is None else found.velocity[kept],
    )


def _line(key: str, score: float, frame: NuscenesFrame, found: Detections3d) -> ImageResult:
    return ImageResult(
        image=key,
        score=0.0 if math.isnan(score) else score,
        num_truth=int((frame.gt.state == 0).sum()),
        num_predicted=len(found.scores),
    )


def frame_scores(frames: Sequence[NuscenesFrame], num_classes: int) -> NDArray[np.float64]:
    """(N,) average precision of each cloud, over the classes that it has and ``OVERLAPS``; NaN
    without an object to find. Objects that do not count (``Columns.state``) are left out, with the
    detections on them.
    """
    gt = join_nuscenes([each.gt for each in frames])
    found = join_nuscenes([each.found for each in frames])
    found = found.take(found.state == 0)
    order = np.lexsort((-found.scores, found.classes, found.frames))  # best first of each group
    found = found.take(order)
    counts = gt.state == 0
    size = len(frames) * num_classes
    total = np.bincount(gt.frames[counts] * num_classes + gt.classes[counts], minlength=size)
    group = found.frames * num_classes + found.classes
    detection, place, overlap = near_pairs(gt, found, ConfusionRule(overlap=OVERLAPS[0]))
    same = found.classes[detection] == gt.classes[place]
    detection, place, overlap = detection[same], place[same], overlap[same]
    by_turn = np.lexsort((place, -overlap, detection))
    detection, place, overlap = detection[by_turn], place[by_turn], overlap[by_turn]
    precision = np.zeros(size)
    for least in OVERLAPS:
        fits = overlap >= least
        pair = serial_choice(detection[fits], place[fits], len(found), len(gt))
        hit = pair != NOTHING
        useless = hit.copy()
        useless[hit] = ~counts[place[fits][pair[hit]]]
        precision += _average_precision(hit[~useless], group[~useless], total)
    by_frame = (precision / len(OVERLAPS)).reshape(-1, num_classes)
    wanted = total.reshape(-1, num_classes) > 0
    with np.errstate(invalid="ignore"):
        return np.asarray((by_frame * wanted).sum(axis=1) / wanted.sum(axis=1), np.float64)


def _average_precision(
    hit: NDArray[np.bool_], group: NDArray[np.int64], total: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Area under the precision-recall curve of each group; detections are sorted by group and
    score.
    """
    found = np.zeros(len(total))
    ends = np.searchsorted(group, np.arange(len(total)), side="right")
    starts = np.searchsorted(group, np.arange(len(total)), side="left")
    for each in np.flatnonzero((total > 0) & (ends > starts)):
        right = np.cumsum(hit[starts[each] : ends[each]])
        precision = right / np.arange(1, len(right) + 1)
        best = np.maximum.accumulate(precision[::-1])[::-1]
        found[each] = best[hit[starts[each] : ends[each]]].sum() / total[each]
    return found


def _draw_all(shown: _Shown, works: Sequence[_Work]) -> int:
    """Draws some clouds; returns their number."""
    data = SplitData(open_split(shown.split))
    convert, _ = class_converter(data, shown.vocabulary)
    classes = HeadClasses.of(shown.head, shown.vocabulary)
    for work in works:
        (sample,) = data.samples(work.row, work.row + 1, images=True)
        _draw(shown, classes.vocabulary, classes.sample(convert(sample)), work)
    return len(works)


def _draw(shown: _Shown, vocabulary: Vocabulary, sample: Sample, work: _Work) -> None:
    """Ground truth and predictions side by side, from above."""
    image = POINTS.show(POINTS.decode(sample.inputs["points"], MAX_PIXELS))
    task, found, line = shown.head.task, work.found, work.line
    panels = [
        task.draw_ground_truth(image, sample, vocabulary),
        task.draw_prediction(image, found, vocabulary, shown.show_score),
    ]
    drawn = int((found.scores >= shown.show_score).sum())
    titles = [
        f"{line.image}: {line.num_truth} to find",
        f"{drawn} of {len(found.scores)} drawn (>= {shown.show_score:g}), score {line.score:.3f}",
    ]
    storage.write(work.uri, jpeg(grid(panels, 2, titles)))
