"""Anchors, their targets and losses against slow code that follows the published rules."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtl_ray.inputs.points import PointCanvas
from mtl_ray.models.head import Context
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.lidar.anchor_3d import AnchorDetector
from mtl_ray.tasks.lidar.anchors import (
    anchors_of,
    decode,
    direction_bins,
    encode,
    match_anchors_3d,
    with_direction,
)
from mtl_ray.tasks.lidar.config import Anchor3dHead

CANVAS = PointCanvas(
    type="points",
    minimum=(0, -39.68, -3),
    maximum=(69.12, 39.68, 1),
    voxel=(0.16, 0.16, 4),
)
SIZES: list[dict[str, Any]] = [
    {"size": [0.8, 0.6, 1.73], "bottom": -0.6, "positive": 0.5, "negative": 0.35},
    {"size": [1.76, 0.6, 1.73], "bottom": -0.6, "positive": 0.5, "negative": 0.35},
    {"size": [3.9, 1.6, 1.56], "bottom": -1.78},
]
NAMES = ("Pedestrian", "Cyclist", "Car")
NAMED = [{**size, "classes": [name]} for size, name in zip(SIZES, NAMES, strict=True)]


def head_of(*anchors: dict[str, Any], names: tuple[str, ...] = NAMES, **options: Any) -> Any:
    config = Anchor3dHead(anchors=anchors, **options)
    torch.manual_seed(0)
    return config.build(Vocabulary(classes={"boxes_3d": names}), {"BEV": 4}, {"BEV": 2})


def targets_of(boxes: Tensor, classes: Tensor) -> dict[str, Tensor]:
    count = boxes.shape[:2]
    return {
        "boxes": boxes,
        "classes": classes,
        "velocity": torch.zeros(*count, 2),
        "has_velocity": torch.zeros(count, dtype=torch.bool),
        "present": torch.ones(count, dtype=torch.bool),
        "annotated": torch.ones(count[0], dtype=torch.bool),
        "known_classes": torch.ones(count[0], 3, dtype=torch.bool),
    }


def objects(count: int, seed: int, reach: float = 8.0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    sizes = torch.tensor([each["size"] for each in SIZES])
    classes = torch.randint(0, 3, (count,), generator=draw)
    place = torch.rand(count, 3, generator=draw) * torch.tensor([reach, reach, 2.0]) - 1
    scale = torch.exp(0.2 * torch.randn(count, 3, generator=draw))
    yaw = (torch.rand(count, 1, generator=draw) * 2 - 1) * math.pi
    return torch.cat([place, sizes[classes] * scale, yaw], dim=1), classes


def test_the_first_anchors_of_pointpillars_are_the_published_ones() -> None:
    config = Anchor3dHead(anchors=SIZES)
    anchors = anchors_of(config, CANVAS.grid, (248, 216), torch.device("cpu"))
    found = anchors.boxes(torch.arange(12))
    first = [(0.16, -39.52, -0.6 + 1.73 / 2, 0.8, 0.6, 1.73, yaw) for yaw in (0, 1.57)]
    torch.testing.assert_close(found[:2], torch.tensor(first))
    assert found[4:6, 3].tolist() == pytest.approx([3.9, 3.9])
    assert found[4, 2] == pytest.approx(-1.78 + 0.78)
    assert found[6, 0] == pytest.approx(0.48)
    last = anchors.boxes(torch.tensor(anchors.total - 1))
    assert last[:2].tolist() == pytest.approx([69.12 - 0.16, 39.52])


def test_anchors_of_second_stand_on_both_ends_of_the_range() -> None:
    config = Anchor3dHead(anchors=SIZES, centres="range", extent=(0, -40, 70.4, 40))
    anchors = anchors_of(config, CANVAS.grid, (200, 176), torch.device("cpu"))
    assert (anchors.x[0], anchors.x[-1]) == (0, pytest.approx(70.4))
    assert (anchors.y[0], anchors.y[-1]) == (-40, 40)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_offsets_are_told_and_read_back(seed: int) -> None:
    boxes, _ = objects(6, seed)
    anchors, _ = objects(6, seed + 1)
    torch.testing.assert_close(decode(encode(boxes, anchors), anchors), boxes, rtol=1e-5, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(yaw=st.floats(-10, 10), turned=st.booleans(), offset=st.sampled_from([-math.pi / 2, 0.7854]))
def test_a_yaw_is_known_by_its_half_and_its_direction(
    yaw: float, turned: bool, offset: float
) -> None:
    real = torch.tensor([yaw])
    bins = direction_bins(real, offset)
    found = with_direction(real + math.pi * turned, bins, offset)
    away = math.remainder(float(found) - yaw, 2 * math.pi)
    assert abs(away) < 1e-4 or abs(abs(away) - math.pi) < 1e-4
    edge = abs(math.remainder(yaw - offset, math.pi))
    assert edge < 1e-4 or abs(away) < 1e-4


def slow_match(
    anchors: np.ndarray, boxes: np.ndarray, positive: float, negative: float
) -> list[int]:
    """Max-IoU assignment with the boxes turned to the nearer axis, anchor by anchor."""

    def corners(box: np.ndarray) -> tuple[float, float, float, float]:
        yaw = abs(box[6] - math.floor(box[6] / math.pi + 0.5) * math.pi)
        x, y = (box[4], box[3]) if yaw > math.pi / 4 else (box[3], box[4])
        return box[0] - x / 2, box[1] - y / 2, box[0] + x / 2, box[1] + y / 2

    def iou(one: np.ndarray, other: np.ndarray) -> float:
        a, b = corners(one), corners(other)
        width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
        height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
        areas = one[3] * one[4] + other[3] * other[4]
        return width * height / (areas - width * height)

    table = np.array([[iou(box, anchor) for anchor in anchors] for box in boxes])
    found = []
    for column in table.T:
        best = int(column.argmax())
        found.append(best if column[best] >= positive else -1 if column[best] < negative else -2)
    for row, overlaps in enumerate(table):
        if overlaps.max() >= negative:
            for place in np.flatnonzero(np.abs(overlaps - overlaps.max()) < 1e-6):
                found[place] = row
    return found


@pytest.mark.parametrize("seed", range(4))
def test_anchors_are_matched_by_the_published_rule(seed: int) -> None:
    canvas = PointCanvas(type="points", minimum=(0, 0, -3), maximum=(8, 8, 1), voxel=(0.5, 0.5, 4))
    config = Anchor3dHead(anchors=NAMED)
    anchors = anchors_of(config, canvas.grid, (8, 8), torch.device("cpu"))
    boxes, classes = objects(6, seed)
    allowed = torch.nn.functional.one_hot(classes, 3).bool()
    found = match_anchors_3d(anchors, config.anchors, boxes, allowed).view(64, 3, 2)
    every = anchors.boxes(torch.arange(anchors.total)).view(64, 3, 2, 7).double().numpy()
    for place, spec in enumerate(config.anchors):
        own = torch.nonzero(allowed[:, place]).squeeze(1)
        chosen = (
            slow_match(
                every[:, place].reshape(-1, 7),
                boxes[own].double().numpy(),
                spec.positive,
                spec.negative,
            )
            if len(own)
            else [-1] * 128
        )
        wanted = [int(own[each]) if each >= 0 else each for each in chosen]
        assert found[:, place].flatten().tolist() == wanted
    assert (found >= 0).any()


def test_losses_are_those_of_the_formulas() -> None:
    canvas = PointCanvas(type="points", minimum=(0, 0, -3), maximum=(8, 8, 1), voxel=(0.5, 0.5, 4))
    head: AnchorDetector = head_of(*NAMED)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter.requires_grad_(False), std=0.3)
    boxes, classes = objects(5, 3)
    targets = targets_of(boxes[None], classes[None])
    features, context = {"BEV": torch.randn(1, 4, 8, 8)}, Context(inputs={}, canvas=canvas)
    terms = head.losses(features, targets, context)
    arrays = head.target_arrays(features, targets, context)
    logits, offsets, directions, _ = head.raw(features, context)
    labels = arrays["target_labels"][0].tolist()
    focal = box = cross = 0.0
    for place, label in enumerate(labels):
        if label < 0:
            continue
        for column in range(3):
            score = 1 / (1 + math.exp(-float(logits[0, place, column])))
            focal += (
                -0.25 * (1 - score) ** 2 * math.log(score)
                if column == label
                else -0.75 * score**2 * math.log(1 - score)
            )
        if label < 3:
            own, wanted = offsets[0, place].tolist(), arrays["target_offsets"][0, place].tolist()
            errors = [abs(a - b) for a, b in zip(own[:6], wanted[:6], strict=True)]
            for error in [*errors, abs(math.sin(own[6] - wanted[6]))]:
                box += error - 1 / 18 if error > 1 / 9 else error**2 * 4.5
            chosen = int(arrays["target_directions"][0, place])
            cross -= float(directions[0, place].log_softmax(0)[chosen])
    positives = sum(0 <= label < 3 for label in labels)
    assert positives >= 3
    found = {name: (float(value), int(count)) for name, (value, count) in terms.items()}
    assert found["class"] == (pytest.approx(focal, rel=1e-4), positives)
    assert found["box"] == (pytest.approx(2 * box, rel=1e-4), positives)
    assert found["direction"] == (pytest.approx(0.2 * cross, rel=1e-4), positives)


def test_a_network_that_knows_the_answer_gives_the_boxes_back() -> None:
    canvas = PointCanvas(type="points", minimum=(0, 0, -3), maximum=(8, 8, 1), voxel=(0.5, 0.5, 4))
    head: AnchorDetector = head_of(*NAMED)
    boxes, classes = objects(3, 5, reach=7)
    targets = targets_of(boxes[None], classes[None])
    features, context = {"BEV": torch.zeros(1, 4, 8, 8)}, Context(inputs={}, canvas=canvas)
    arrays = head.target_arrays(features, targets, context)
    every = anchors_of(head.config, canvas.grid, (8, 8), torch.device("cpu"))
    labels = arrays["target_labels"]
    logits = torch.nn.functional.one_hot(labels.clamp(0, 3), 4)[..., :3].float() * 20 - 10
    logits[labels < 0] = -10
    directions = torch.nn.functional.one_hot(arrays["target_directions"], 2).float()

    def as_map(values: Tensor) -> Tensor:
        return values.reshape(1, 8, 8, -1).permute(0, 3, 1, 2)

    maps = as_map(logits), as_map(arrays["target_offsets"]), as_map(directions)
    head.outputs = lambda _: maps  # type: ignore[method-assign]
    found = head.predict(features, context)
    prediction = head.config.detections({name: each[0].numpy() for name, each in found.items()})
    matched = sorted({each for each in head.assign(every, targets)[0].tolist() if each >= 0})
    assert len(prediction.boxes) == len(matched) > 0
    for box, label in zip(boxes[matched], classes[matched], strict=True):
        near = np.abs(prediction.boxes[:, :6] - box[:6].numpy()).max(axis=1)
        place = int(near.argmin())
        assert near[place] < 1e-4
        assert prediction.classes[place] == label
        turn = math.remainder(float(prediction.boxes[place, 6] - box[6]), 2 * math.pi)
        assert abs(turn) < 1e-4


@pytest.mark.parametrize(
    ("anchors", "says"),
    [
        (NAMED[:2], "Car is not named"),
        ([*NAMED, {**NAMED[0], "classes": ["Tram"]}], "Tram is no class of the data"),
    ],
)
def test_anchors_name_the_classes_that_are_learnt(anchors: list[Any], says: str) -> None:
    head = head_of(*anchors)
    targets = targets_of(*(each[None] for each in objects(2, 1)))
    with pytest.raises(ValueError, match=says):
        head.losses({"BEV": torch.zeros(1, 4, 8, 8)}, targets, Context(inputs={}, canvas=CANVAS))
