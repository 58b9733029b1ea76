"""Weighted boxes fusion is what the paper's loop gives, and files of every kind become one."""

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.analyze.fuse import main
from mtl_ray.analysis.paired import read_paired
from mtl_ray.geometry.boxes import iou_matrix
from mtl_ray.tasks.detection.decode import Detections
from mtl_ray.tasks.detection.fuse import Confidence, Fusion, fuse
from tests.analysis.coco_json import CATEGORIES, NAMES, write_coco_json
from tests.analysis.mmdet_pickles import entries_3x
from tests.tasks.random_objects import detections, random_images

Box = tuple[float, float, list[float], int]
"""Weighted score, weight, corners, model."""


def plain(models: list[Detections], rule: Fusion) -> list[tuple[int, float, list[float]]]:
    """Class, score and corners of each cluster, one box after another."""
    result = []
    for label in range(3):
        boxes: list[Box] = []
        for number, (found, weight) in enumerate(zip(models, rule.weights, strict=True)):
            for corners, score, own in zip(
                found.boxes_xyxy.tolist(),
                found.scores.tolist(),
                found.classes.tolist(),
                strict=True,
            ):
                if own == label and score >= rule.least:
                    boxes.append((score * weight, weight, corners, number))
        clusters: list[list[Box]] = []
        for box in sorted(boxes, key=lambda each: -each[0]):
            overlap = [
                float(iou_matrix(np.array([box[2]]), np.array([mean(cluster)]))[0, 0])
                for cluster in clusters
            ]
            if overlap and max(overlap) > rule.iou:
                clusters[overlap.index(max(overlap))].append(box)
            else:
                clusters.append([box])
        result += [(label, confidence(cluster, rule), mean(cluster)) for cluster in clusters]
    return sorted(result, key=lambda each: -each[1])


def mean(cluster: list[Box]) -> list[float]:
    total = sum(score for score, *_ in cluster)
    return [
        sum(score * corners[side] for score, _, corners, _ in cluster) / total for side in range(4)
    ]


def confidence(cluster: list[Box], rule: Fusion) -> float:
    scores, everyone = [score for score, *_ in cluster], sum(rule.weights)
    if rule.confidence == "max":
        return max(scores) / max(rule.weights)
    if rule.confidence == "avg":
        return sum(scores) / len(scores) * min(len(scores), len(rule.weights)) / everyone
    own = sum(weight for _, weight, _, _ in cluster)
    found = sum(rule.weights[number] for number in {number for *_, number in cluster})
    if rule.confidence == "box_and_model_avg":
        return sum(scores) / own * found / everyone
    return sum(scores) / (own + everyone - found)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(get_args(Confidence)),
    least=st.sampled_from((0.0, 0.3)),
)
def test_clusters_are_those_of_a_plain_loop(seed: int, kind: Confidence, least: float) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 60, (6, 2))
    models = []
    for _ in range(3):
        place = rng.integers(0, 6, rng.integers(0, 9))
        start = corners[place] + rng.normal(0, 2, (len(place), 2))
        boxes = np.concatenate([start, start + rng.uniform(18, 26, (len(place), 2))], axis=1)
        models.append(
            detections(
                boxes.tolist(), rng.uniform(0.05, 1, len(place)).tolist(), (place % 3).tolist()
            )
        )
    rule = Fusion(weights=(1.0, 2.0, 0.5), iou=0.5, least=least, confidence=kind)
    expected, found = plain(models, rule), fuse(models, rule)
    assert found.scores.tolist() == pytest.approx([score for _, score, _ in expected])
    assert found.classes.tolist() == [label for label, *_ in expected]
    assert found.boxes_xyxy == pytest.approx(np.array([box for *_, box in expected]).reshape(-1, 4))


def test_one_model_by_itself_loses_only_what_overlaps() -> None:
    """And what two models agree on has the mean of their scores, what one alone found half of
    its own.
    """
    alone = detections([[0, 0, 10, 10], [50, 50, 60, 60]], [0.8, 0.6])
    same = fuse([alone], Fusion(weights=(3.0,)))
    assert same.scores == pytest.approx(alone.scores)
    both = fuse([alone, detections([[0, 0, 10, 10]], [0.4])], Fusion(weights=(1.0, 1.0)))
    assert both.scores == pytest.approx([0.6, 0.3])


@pytest.mark.parametrize("out", ["fused.json", "fused.arrow"])
def test_files_of_several_kinds_become_one(
    out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each with its own order of classes, which names join; a model fused with itself finds what
    it found.
    """
    images = [
        image._replace(predicted=_apart(image.predicted))
        for image in random_images(3, count=8, classes=5)
    ]
    data, results = write_coco_json(tmp_path, images)
    listed = np.array([[name for _, name, _ in CATEGORIES].index(name) for name in NAMES])
    by_key = {
        image.key: image._replace(
            predicted=replace(image.predicted, classes=listed[image.predicted.classes])
        )
        for image in images
    }
    order = [entry["file_name"] for entry in json.loads(Path(data).read_text())["images"]]
    (tmp_path / "r.pkl").write_bytes(
        pickle.dumps(entries_3x([by_key[key] for key in order], masks=False))
    )
    fused = str(tmp_path / out)
    assert (
        main(
            [results, str(tmp_path / "r.pkl"), "--data", data, "--iou-thr", "0.99", "--out", fused]
        )
        == 0
    )
    assert "8 images" in capsys.readouterr().out
    before, after = read_paired(results, data), read_paired(fused, data)
    for one, other in zip(before.images, after.images, strict=True):
        names = [
            [before.names[label] for label in image.predicted.classes] for image in (one, other)
        ]
        assert names[0] == names[1]
        assert other.predicted.scores == pytest.approx(one.predicted.scores, abs=1e-6)
        assert other.predicted.boxes_xyxy == pytest.approx(one.predicted.boxes_xyxy, abs=1e-3)


def test_a_fused_box_has_the_mask_of_the_best_box_of_its_cluster() -> None:
    first = replace(
        detections([[0, 0, 10, 10], [50, 50, 60, 60]], [0.5, 0.9]), masks=(b"low", b"alone")
    )
    second = replace(detections([[0, 0, 10, 11]], [0.8]), masks=(b"high",))
    rule = Fusion(weights=(1.0, 1.0))
    assert fuse([first, second], rule).masks == (b"high", b"alone")
    assert fuse([first, detections([], [])], rule).masks == (b"alone", b"low")
    assert fuse([first, replace(second, masks=None)], rule).masks is None
    weighted = fuse([first, second], replace(rule, weights=(2.0, 1.0)))
    assert weighted.masks == (b"low", b"alone")


@pytest.mark.parametrize("out", ["fused.json", "fused.arrow"])
def test_masks_of_files(out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model fused with itself keeps its masks; with one without masks, nothing has any."""
    images = [
        image._replace(predicted=_apart(image.predicted))
        for image in random_images(3, count=8, classes=5)
    ]
    data, results = write_coco_json(tmp_path, images)
    fused = str(tmp_path / out)
    arguments = ["--data", data, "--iou-thr", "0.99", "--out", fused]
    assert main([results, results, *arguments]) == 0
    before, after = (read_paired(each, data, kind="segm") for each in (results, fused))
    for one, other in zip(before.images, after.images, strict=True):
        assert (one.predicted.masks or ()) == (other.predicted.masks or ())
    entries = json.loads(Path(results).read_text())
    bare = [{key: each[key] for key in each if key != "segmentation"} for each in entries]
    (tmp_path / "bare.json").write_text(json.dumps(bare))
    capsys.readouterr()
    assert main([results, str(tmp_path / "bare.json"), *arguments]) == 0
    assert "not all files have masks" in capsys.readouterr().out
    assert all(image.predicted.masks is None for image in read_paired(fused, data).images)


def _apart(found: Detections) -> Detections:
    """Best first, with scores that are all different."""
    scores = np.linspace(0.9, 0.1, len(found), dtype=np.float32)
    return replace(found, scores=scores)


def test_what_cannot_be_fused_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, results = write_coco_json(tmp_path, random_images(3, count=2, classes=5))
    with pytest.raises(SystemExit) as stopped:
        main(
            [results, results, "--data", data, "--weights", "1", "--out", str(tmp_path / "f.json")]
        )
    assert stopped.value.code == 2
    assert "1 numbers for 2 files" in capsys.readouterr().err
    with pytest.raises(ValueError, match="above 0"):
        main([results, "--data", data, "--weights", "0", "--out", str(tmp_path / "f.json")])
    with pytest.raises(ValueError, match="between 0 and 1"):
        main([results, "--data", data, "--iou-thr", "1", "--out", str(tmp_path / "f.json")])
    with pytest.raises(ValueError, match=r"\.json"):
        main([results, "--data", data, "--out", str(tmp_path / "f.pkl")])
