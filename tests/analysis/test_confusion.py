"""Confusion by both rules is what plain loops count; labels and pixels have one too."""

import csv
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from jobs.analyze.confusion import main
from mtl_ray.analysis.confusion import (
    compat_confusion,
    confusion_table,
    object_confusion,
    row_percent,
)
from mtl_ray.analysis.paired import read_paired
from mtl_ray.evaluation.charts import confusion_figure
from mtl_ray.evaluation.predictions_file import to_table, write_arrow
from mtl_ray.geometry.boxes import iou_matrix
from mtl_ray.inference.predictor import head_of
from mtl_ray.inputs.decode import decode_semantic
from mtl_ray.samples import Sample, Vocabulary, image_sample
from mtl_ray.shards.split import open_split
from mtl_ray.tasks.charts import Confusion
from mtl_ray.tasks.classification.decode import LabelScores
from mtl_ray.tasks.detection.columns import ScoredImage
from mtl_ray.tasks.detection.confusion import detection_confusion
from mtl_ray.tasks.segmentation.decode import SemanticMap
from tests.analysis.coco_json import NAMES, write_coco_json
from tests.evaluation.conftest import png, write_split
from tests.tasks.random_objects import detections, instances, random_images

LEFT, RIGHT = [10.0, 10, 60, 60], [100.0, 100, 180, 180]


def plain_compat(
    images: list[ScoredImage], classes: int, score: float, iou: float
) -> NDArray[np.int64]:
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    for image in images:
        overlap = iou_matrix(image.predicted.boxes_xyxy, image.ground_truth.boxes_xyxy)
        seen = [0] * len(image.ground_truth)
        for i, label in enumerate(image.predicted.classes):
            matches = 0
            for j, wanted in enumerate(image.ground_truth.classes):
                if image.predicted.scores[i] >= score and overlap[i, j] >= iou:
                    matches += 1
                    seen[j] += wanted == label
                    counts[wanted, label] += 1
            if image.predicted.scores[i] >= score and not matches:
                counts[classes, label] += 1
        for j, wanted in enumerate(image.ground_truth.classes):
            counts[wanted, classes] += not seen[j]
    return counts


def plain_one_to_one(
    images: list[ScoredImage], classes: int, score: float, iou: float
) -> NDArray[np.int64]:
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    for image in images:
        gt, found = image.ground_truth, image.predicted
        overlap = iou_matrix(found.boxes_xyxy, gt.boxes_xyxy)
        order = [
            int(i) for i in np.argsort(-found.scores, kind="stable") if found.scores[i] >= score
        ]
        partner: dict[int, int] = {}
        for same in (True, False):
            for i in order:
                free = [
                    (-overlap[i, j], j)
                    for j in range(len(gt))
                    if not gt.crowd[j]
                    and j not in partner.values()
                    and overlap[i, j] >= iou
                    and (gt.classes[j] == found.classes[i]) == same
                ]
                if free and i not in partner:
                    partner[i] = min(free)[1]
        for i in order:
            inside = [
                covered(found.boxes_xyxy[i], gt.boxes_xyxy[j])
                for j in range(len(gt))
                if gt.crowd[j] and gt.classes[j] == found.classes[i]
            ]
            if i in partner:
                counts[gt.classes[partner[i]], found.classes[i]] += 1
            elif not any(share >= iou for share in inside):
                counts[classes, found.classes[i]] += 1
        for j in range(len(gt)):
            counts[gt.classes[j], classes] += not gt.crowd[j] and j not in partner.values()
    return counts


def covered(box: NDArray[np.float32], crowd: NDArray[np.float32]) -> float:
    wide, high = (float(min(box[i + 2], crowd[i + 2]) - max(box[i], crowd[i])) for i in (0, 1))
    return max(wide, 0) * max(high, 0) / float((box[2] - box[0]) * (box[3] - box[1]))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    score=st.sampled_from([0.0, 0.3, 0.7]),
    iou=st.sampled_from([0.3, 0.5, 0.75]),
)
def test_both_rules_are_what_plain_loops_count(seed: int, score: float, iou: float) -> None:
    images = random_images(seed, count=5)
    compat = compat_confusion(images, ("a", "b", "c"), min_score=score, min_iou=iou)
    np.testing.assert_array_equal(compat.counts, plain_compat(images, 3, score, iou))
    np.testing.assert_array_equal(
        detection_confusion(images, ("a", "b", "c"), min_score=score, min_iou=iou).counts,
        plain_one_to_one(images, 3, score, iou),
    )


def test_rows_add_up_to_the_objects_one_to_one_only() -> None:
    image = ScoredImage(
        "a",
        300,
        300,
        instances([LEFT, RIGHT], [0, 0]),
        detections([LEFT, LEFT, RIGHT], [0.9, 0.8, 0.7], [0, 0, 1]),
    )
    assert detection_confusion([image], ("a", "b")).counts.tolist() == [
        [1, 1, 0],
        [0, 0, 0],
        [1, 0, 0],
    ]
    compat = compat_confusion([image], ("a", "b"), min_score=0.3, min_iou=0.5)
    assert compat.counts.tolist() == [[2, 1, 1], [0, 0, 0], [0, 0, 0]]
    shares = row_percent(compat.counts)
    assert shares[0].tolist() == [50, 25, 25]
    assert np.isnan(shares[1:]).all()


def test_the_table_of_classes() -> None:
    found = Confusion(
        names=("a", "b", "background"),
        counts=np.array([[6, 1, 3], [0, 0, 0], [2, 0, 0]]),
        unit="objects",
    )
    assert confusion_table(found)[0] == ("a", 10, 8, 6, 0.75, 0.6, pytest.approx(12 / 18))
    assert np.isnan(confusion_table(found)[1][5])
    assert len(confusion_table(found)) == 2


def test_the_job_writes_numbers_and_a_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = random_images(5, count=15, classes=5)
    data, predictions = write_coco_json(tmp_path, images)
    out = tmp_path / "out"
    for extra, rule in (([], plain_one_to_one), (["--compat"], plain_compat)):
        assert (
            main(
                [
                    predictions,
                    "--data",
                    data,
                    "--out",
                    str(out),
                    "--score-thr",
                    "0.2",
                    "--iou-thr",
                    "0.6",
                    *extra,
                ]
            )
            == 0
        )
        written = json.loads((out / "confusion.json").read_text())
        assert written["classes"] == [*NAMES, "background"]
        assert written["counts"] == rule(images, 5, 0.2, 0.6).tolist()
    rows = list(csv.reader((out / "confusion.csv").read_text().splitlines()))
    assert [row[1:] for row in rows[1:]] == [
        [str(count) for count in row] for row in written["counts"]
    ]
    assert (out / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(csv.reader((out / "classes.csv").read_text().splitlines()))) == 6
    assert "precision" in capsys.readouterr().out
    with pytest.raises(ValueError, match="IoU threshold"):
        main([predictions, "--data", data, "--out", str(out), "--iou-thr", "0"])


def test_the_other_programs_precision_decides_at_the_threshold() -> None:
    """A box that overlaps half of another one: in float32 by 0.5, in float64 by a little less."""
    wanted, box = [13 / 7, 0, 13 / 7 + 2.6, 1], [13 / 7, 0, 13 / 7 + 1.3, 1]
    gt = replace(instances([wanted]), boxes_xyxy=np.array([wanted]))
    image = ScoredImage("a", 9, 9, gt, detections([box], [0.9]))
    exact = iou_matrix(image.predicted.boxes_xyxy.astype(np.float64), gt.boxes_xyxy)[0, 0]
    assert exact < 0.5
    assert compat_confusion([image], ("a",), min_score=0.3, min_iou=0.5).counts.tolist() == [
        [1, 0],
        [0, 0],
    ]


def test_the_title_of_a_single_class_is_inside_the_figure() -> None:
    """Where the panel is narrow."""
    found = Confusion(
        names=("c" * 40, "background"),
        counts=np.eye(2, dtype=np.int64),
        unit="objects",
        note="MMDetection's rule, IoU 0.5, score 0.3",
    )
    figure = confusion_figure("boxes", found)
    figure.draw_without_rendering()
    title = figure.get_suptitle()
    assert "score 0.3" in title
    edges = np.array(
        next(text for text in figure.texts if text.get_text() == title).get_window_extent().extents
    )
    assert (edges[:2] >= 0).all()
    assert (edges[2:] <= figure.bbox.extents[2:]).all()


def test_suppression_first_leaves_scores_with_their_boxes(tmp_path: Path) -> None:
    image = ScoredImage(
        "a.jpg",
        200,
        260,
        instances([LEFT, RIGHT], [0, 1]),
        detections([LEFT, LEFT, LEFT, RIGHT], [0.9, 0.8, 0.7, 0.6], [0, 0, 1, 1]),
    )
    data, predictions = write_coco_json(tmp_path, random_images(5, count=1, classes=5))
    paired = read_paired(predictions, data)
    one = type(paired)(**{**vars(paired), "images": (image,)})
    counts = object_confusion(one, nms_iou=0.5).counts
    assert (int(counts[0, 0]), int(counts[1, 1]), int(counts[5, 1]), int(counts.sum())) == (
        1,
        1,
        1,
        3,
    )


LABELS = ("cat", "dog", "kite")
MAPS = ("sky", "road")


def other_heads(
    folder: Path,
) -> tuple[list[Sample], list[NDArray[np.float32]], list[NDArray[np.uint8]], str]:
    """A split with labels and class maps, and what was predicted of it."""
    rng = np.random.default_rng(3)
    samples, scores, maps = [], [], []
    for number in range(9):
        semantic = rng.integers(0, 2, (8, 10)).astype(np.uint8)
        semantic[0, 0] = 255
        picture = png(np.zeros((8, 10, 3), np.uint8))
        samples.append(
            image_sample(
                key=f"{number}.png",
                image=picture,
                height=8,
                width=10,
                labels=np.array([number % 3]),
                semantic=png(semantic),
            )
        )
        scores.append(rng.dirichlet([1, 1, 1]).astype(np.float32))
        maps.append(rng.integers(0, 2, (8, 10)).astype(np.uint8))
    vocabulary = Vocabulary(classes={"labels": LABELS, "semantic": MAPS}, exclusive_labels=True)
    return samples, scores, maps, write_split(folder / "split", samples, vocabulary)


def test_labels_and_pixels_are_confused_too(tmp_path: Path) -> None:
    samples, scores, maps, split = other_heads(tmp_path)
    heads = {"label": head_of("linear"), "map": head_of("fcn"), "tags": head_of("multilabel")}
    found = [
        {
            "label": LabelScores(scores=s, exclusive=True),
            "map": SemanticMap(classes=m),
            "tags": LabelScores(scores=s, exclusive=False),
        }
        for s, m in zip(scores, maps, strict=True)
    ]
    uri = str(tmp_path / "p.arrow")
    write_arrow(
        uri,
        to_table(samples, found, heads),
        heads,
        Vocabulary(classes={"labels": LABELS, "semantic": MAPS}, exclusive_labels=True),
    )
    expected = {
        "label": (
            LABELS,
            confusion_matrix(
                [i % 3 for i in range(9)], [int(s.argmax()) for s in scores], labels=[0, 1, 2]
            ),
        ),
        "map": (MAPS, pixel_counts(samples, maps)),
    }
    order = {sample.key: i for i, sample in enumerate(open_split(split).read(0, 9))}
    pickles = {
        "label": [
            {"pred_score": torch.tensor(s), "img_path": f"/a/{i}.png"} for i, s in enumerate(scores)
        ],
        "map": [maps[int(key[0])].astype(np.int64) for key in order],
    }
    for head, (names, counts) in expected.items():
        (tmp_path / f"{head}.pkl").write_bytes(pickle.dumps(pickles[head]))
        for file, extra in ((uri, ["--head", head]), (str(tmp_path / f"{head}.pkl"), [])):
            assert main([file, "--data", split, "--out", str(tmp_path / "out"), *extra]) == 0
            written = json.loads((tmp_path / "out" / "confusion.json").read_text())
            assert tuple(written["classes"]) == names
            assert written["counts"] == counts.tolist()
    with pytest.raises(ValueError, match="any number of labels"):
        main([uri, "--data", split, "--out", str(tmp_path / "out"), "--head", "tags"])
    with pytest.raises(ValueError, match="no head nose"):
        main([uri, "--data", split, "--out", str(tmp_path / "out"), "--head", "nose"])


def pixel_counts(samples: list[Sample], maps: list[NDArray[np.uint8]]) -> NDArray[np.int64]:
    counts = np.zeros((2, 2), np.int64)
    for sample, predicted in zip(samples, maps, strict=True):
        gt = decode_semantic(sample.semantic or b"")
        for a in range(2):
            for b in range(2):
                counts[a, b] += int(((gt == a) & (predicted == b)).sum())
    return counts
