"""Predictions on variants of an image come back to the image and become one."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import jobs.predict
from mtl_ray.export.bundle import export
from mtl_ray.export.config import ExportConfig
from mtl_ray.geometry.masks import decode_rle, encode_rle
from mtl_ray.inference.config import TtaConfig, parse_tta
from mtl_ray.inference.predictor import Predictions, Predictor, open_predictor
from mtl_ray.inference.tta import AugmentedPredictor, open_with_tta
from mtl_ray.inputs.image import Canvas
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.classification.decode import LabelScores
from mtl_ray.tasks.classification.task import ClassificationTask
from mtl_ray.tasks.detection.decode import Detections
from mtl_ray.tasks.detection.fuse import fused_variants, suppress_models
from mtl_ray.tasks.detection.options import Selection
from mtl_ray.tasks.detection.task import DETECTION
from tests.inference.tiny import HEADS, images, write_checkpoint
from tests.tasks.random_objects import random_images

CANVAS = Canvas(height=64, width=96)
SEVERAL = TtaConfig(scales=(0.75, 1.0, 1.5))
PLAIN_HEADS = {name: HEADS[name] for name in ("boxes", "labels")}


class Seeing:
    """Finds the one coloured rectangle of an image, as a network that is never wrong would: its
    box, its mask, its two upper corners as keypoints and the side where it is as the label.
    """

    vocabulary = Vocabulary(classes={"instances": ("a",), "labels": ("x", "y")}, mirror=(1, 0))
    plugins = ()

    def __init__(self, canvas: Canvas = CANVAS) -> None:
        self.canvas = canvas
        self.heads = {
            "boxes": SimpleNamespace(task=DETECTION, annotation="instances", classes=None),
            "labels": SimpleNamespace(task=ClassificationTask(), annotation="labels", classes=None),
        }
        self.asked: list[tuple[int, int]] = []

    def with_canvas(self, canvas: Canvas) -> "Seeing":
        made = Seeing(canvas)
        made.asked = self.asked
        return made

    def predict(self, raws: Any) -> list[Predictions]:
        self.asked += [(self.canvas.height, self.canvas.width)] * len(raws)
        return [self._one(raw) for raw in raws]

    def _one(self, raw: NDArray[np.uint8]) -> Predictions:
        rows, columns = np.nonzero(raw[..., 0])
        x1, y1, x2, y2 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        # the left half is found with another score than the right one
        score = 0.5 + 0.4 * float(x1 + x2 < raw.shape[1])
        return {
            "boxes": Detections(
                boxes_xyxy=np.array([[x1, y1, x2, y2]], np.float32),
                scores=np.array([score], np.float32),
                classes=np.zeros(1, np.int64),
                masks=(encode_rle(raw[..., 0] > 0),),
                keypoints=np.array([[[x1, y1, 0.9], [x2, y1, 0.8]]], np.float32),
            ),
            "labels": LabelScores(scores=np.array([score, 1 - score], np.float32), exclusive=True),
        }


def rectangle(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(20, 90, 2).tolist()
    x1, y1 = int(rng.integers(width - 4)), int(rng.integers(height - 4))
    x2, y2 = int(rng.integers(x1 + 2, width + 1)), int(rng.integers(y1 + 2, height + 1))
    image = np.zeros((height, width, 3), np.uint8)
    image[y1:y2, x1:x2] = 200
    return image, np.array([[x1, y1, x2, y2]], np.float32)


@given(st.integers(0, 10_000), st.sampled_from(["wbf", "nms"]))
@settings(max_examples=40, deadline=None)
def test_what_is_found_in_a_mirrored_image_comes_back_to_the_image(seed: int, fuse: str) -> None:
    image, box = rectangle(seed)
    config = TtaConfig(scales=(1.0, 1.5), fuse=fuse)  # type: ignore[arg-type]
    found = AugmentedPredictor(Seeing(), config).predict([image])[0]  # type: ignore[arg-type]
    objects = found["boxes"]
    assert len(objects) == 1
    assert np.abs(objects.boxes_xyxy - box).max() < 1e-4
    assert objects.boxes_xyxy.dtype == objects.scores.dtype == np.float32
    assert (decode_rle(objects.masks[0], *image.shape[:2]) == (image[..., 0] > 0)).all()
    points = objects.keypoints[0, :, :2]
    assert (points == [[box[0, 0], box[0, 1]], [box[0, 2], box[0, 1]]]).all()
    plain = Seeing().predict([image, np.ascontiguousarray(image[:, ::-1])])
    mean = np.mean([each["labels"].scores for each in plain], axis=0)
    assert found["labels"].scores == pytest.approx(mean)
    scores = [float(each["boxes"].scores[0]) for each in plain]
    expected = max(scores) if fuse == "nms" else np.mean(scores)
    assert objects.scores[0] == pytest.approx(expected, abs=1e-6)


def test_each_scale_is_a_canvas_that_differs_by_multiples_of_32() -> None:
    seeing = Seeing()
    config = TtaConfig(flip=False, scales=(0.2, 1.0, 1.0, 1.4))
    AugmentedPredictor(seeing, config).predict([rectangle(0)[0]])  # type: ignore[arg-type]
    assert seeing.asked == [(32, 32), (64, 96), (96, 128)]


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_suppression_keeps_what_no_better_box_of_its_class_overlaps(seed: int) -> None:
    variants = [image.predicted for image in random_images(seed, count=3)]
    found = suppress_models(variants, 0.4)
    boxes = np.concatenate([each.boxes_xyxy for each in variants])
    scores = np.concatenate([each.scores for each in variants])
    classes = np.concatenate([each.classes for each in variants])
    kept: list[int] = []
    for row in np.argsort(-scores, kind="stable").tolist():
        rivals = [other for other in kept if classes[other] == classes[row]]
        if all(overlap(boxes[row], boxes[other]) <= 0.4 for other in rivals):
            kept.append(row)
    assert (np.sort(found.scores) == np.sort(scores[kept])).all()
    assert (np.diff(found.scores) <= 0).all()


def overlap(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    common = float(sides.clip(0).prod())
    areas = [float((each[2:] - each[:2]).prod()) for each in (one, other)]
    return common / max(sum(areas) - common, 1e-9)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_checkpoint(tmp_path_factory.mktemp("tta") / "checkpoint", PLAIN_HEADS))


def exported(trained: str, to: Path, size: str) -> str:
    config = ExportConfig(size=size, samples=2, min_agree=0.95)  # type: ignore[arg-type]
    export(trained, str(to), config)
    return str(to)


def differ(one: Predictor, other: Predictor) -> float:
    """The largest difference of any score, or infinity if something is not there."""
    found = [0.0]
    for ours, theirs in zip(one.predict(images()), other.predict(images()), strict=True):
        for name in ("boxes", "labels"):
            scores = np.sort(ours[name].scores), np.sort(theirs[name].scores)
            if len(scores[0]) != len(scores[1]):
                return float("inf")
            found.append(float(np.abs(scores[0] - scores[1]).max(initial=0)))
    return max(found)


def test_a_bundle_says_with_variants_what_its_checkpoint_says(trained: str, tmp_path: Path) -> None:
    dynamic, fixed = (exported(trained, tmp_path / size, size) for size in ("dynamic", "fixed"))
    ours = AugmentedPredictor(open_predictor(trained), SEVERAL)
    theirs = AugmentedPredictor(open_predictor(dynamic, threads=1), SEVERAL)
    assert differ(ours, theirs) < 1e-3
    assert differ(ours, open_predictor(trained)) > 1e-3, "the variants count"
    flips = TtaConfig()
    ours = AugmentedPredictor(open_predictor(trained), flips)
    theirs = AugmentedPredictor(open_predictor(fixed, threads=1), flips)
    assert differ(ours, theirs) < 1e-3
    with pytest.raises(ValueError, match=r"was not checked at"):
        AugmentedPredictor(open_predictor(fixed, threads=1), SEVERAL)


def test_no_more_detections_than_before(trained: str) -> None:
    plain = open_predictor(trained).predict(images())
    for one, many in zip(plain, open_with_tta(trained, "flip").predict(images()), strict=True):
        assert len(many["boxes"]) <= 20
        assert len(one["boxes"]) <= 20


def test_one_variant_and_nothing_to_suppress_changes_nothing(trained: str) -> None:
    config = TtaConfig(flip=False, fuse="nms", iou=0.999)
    plain = open_predictor(trained)
    same = AugmentedPredictor(plain, config)
    for one, other in zip(plain.predict(images()), same.predict(images()), strict=True):
        if len(np.unique(one["boxes"].boxes_xyxy, axis=0)) < len(one["boxes"]):
            continue  # the edge of a small image has made boxes equal
        assert (one["boxes"].boxes_xyxy == other["boxes"].boxes_xyxy).all()
        assert (one["boxes"].scores == other["boxes"].scores).all()
        assert (one["labels"].scores == other["labels"].scores).all()


def test_the_config_of_a_checkpoint_says_it_unless_the_command_line_does(tmp_path: Path) -> None:
    uri = write_checkpoint(tmp_path / "plain", PLAIN_HEADS)
    text = (uri / "config.yaml").read_text()
    assert "tta" in text
    asked = text.replace("tta: null", "tta: {flip: true, scales: [1.0, 2.0]}")
    assert asked != text
    again = str(
        write_checkpoint(tmp_path / "asked", PLAIN_HEADS, **{"config__yaml": asked.encode()})
    )
    assert not isinstance(open_with_tta(str(uri), None), AugmentedPredictor)
    found = open_with_tta(again, None)
    assert isinstance(found, AugmentedPredictor)
    assert found.config == TtaConfig(scales=(1.0, 2.0))
    assert not isinstance(open_with_tta(again, "none"), AugmentedPredictor)


def test_class_maps_and_served_models_at_other_sizes_are_refused_in_words(checkpoint: str) -> None:
    with pytest.raises(ValueError, match=r"'semantic' predicts none for each class"):
        open_with_tta(checkpoint, "flip")

    served = Seeing()
    plain = SimpleNamespace(
        canvas=served.canvas,
        heads=served.heads,
        vocabulary=served.vocabulary,
        plugins=(),
        predict=served.predict,
    )
    AugmentedPredictor(plain, TtaConfig())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="predicts at its own size"):
        AugmentedPredictor(plain, SEVERAL)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("flip", TtaConfig()),
        ("scales=0.8:1:1.2", TtaConfig(flip=False, scales=(0.8, 1.0, 1.2))),
        ("flip,scales=2,fuse=nms,iou=0.6", TtaConfig(scales=(2.0,), fuse="nms", iou=0.6)),
        ("none", None),
    ],
)
def test_the_option_is_read(text: str, config: TtaConfig | None) -> None:
    assert parse_tta(text) == config
    assert config is None or parse_tta(str(config)) == config


@pytest.mark.parametrize(
    "text", ["", "flop", "flip=1", "scales=", "scales=a", "scales=0", "iou=2", "fuse=soft", "iou"]
)
def test_an_option_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--tta"):
        parse_tta(text)


def test_predict_takes_the_option(trained: str, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), images()[2])
    arguments = [trained, str(tmp_path / "a.png"), "--score-thr", "0"]
    answers = []
    for name, tta in (("plain", "none"), ("tta", "flip,scales=1:1.5")):
        out = tmp_path / name
        assert jobs.predict.main([*arguments, "--out", str(out), "--tta", tta]) == 0
        answers.append(json.loads((out / "predictions.json").read_text())["predictions"][0])
    assert answers[0]["heads"]["labels"] != answers[1]["heads"]["labels"]


def test_boxes_that_a_head_keeps_apart_are_not_joined_unless_asked() -> None:
    """Their IoU is 0.6."""
    found = Detections(
        boxes_xyxy=np.array([[0, 0, 80, 10], [20, 0, 100, 10]], np.float32),
        scores=np.array([0.9, 0.8], np.float32),
        classes=np.zeros(2, np.int64),
    )
    for fuse in ("wbf", "nms"):
        rule = TtaConfig(fuse=fuse)  # type: ignore[arg-type]
        lenient = SimpleNamespace(select=Selection(iou_threshold=0.65))
        strict = SimpleNamespace(select=Selection(iou_threshold=0.5))
        never = SimpleNamespace(select=Selection(iou_threshold=1.0, suppression="soft_nms"))
        heads = (lenient, strict, never, SimpleNamespace())
        counts = [len(fused_variants([found, found], rule, head)) for head in heads]
        assert counts == [2, 1, 1, 1]
        asked = TtaConfig(fuse=fuse, iou=0.55)  # type: ignore[arg-type]
        assert len(fused_variants([found, found], asked, lenient)) == 1
