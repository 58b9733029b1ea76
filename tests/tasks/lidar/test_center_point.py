"""Targets, losses and boxes of ``center_point`` against slow code, and the selection of objects."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from mtl_ray.inputs.points import PointCanvas
from mtl_ray.models.head import Context
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.lidar.center_point import heatmap_focal_loss
from mtl_ray.tasks.lidar.centres import peak_radius
from mtl_ray.tasks.lidar.config import NUSCENES_GROUPS, CenterPointHead
from mtl_ray.tasks.lidar.select import (
    AnchorSelection,
    CentreSelection,
    select_anchors,
    select_centres,
)

CANVAS = PointCanvas(type="points", minimum=(-8, -8, -3), maximum=(8, 8, 1), voxel=(0.25, 0.25, 4))
NAMES = ("a", "b", "c")
STRIDE, SIDE = 2, 32


def head_of(**options: Any) -> Any:
    torch.manual_seed(0)
    config = CenterPointHead(shared_channels=8, branch_channels=8, **options)
    vocabulary = Vocabulary(classes={"boxes_3d": NAMES})
    return config.build(vocabulary, {"BEV": 4}, {"BEV": STRIDE})


def targets_of(count: int, seed: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    place = (torch.rand(1, count, 3, generator=draw) - 0.5) * torch.tensor([15.9, 15.9, 2])
    sizes = torch.exp(torch.randn(1, count, 3, generator=draw) * 0.5 + 0.5)
    yaw = (torch.rand(1, count, 1, generator=draw) * 2 - 1) * math.pi
    return {
        "boxes": torch.cat([place, sizes, yaw], dim=2),
        "classes": torch.randint(0, 3, (1, count), generator=draw),
        "velocity": torch.randn(1, count, 2, generator=draw),
        "has_velocity": torch.arange(count)[None] % 2 == 0,
        "present": torch.ones(1, count, dtype=torch.bool),
        "annotated": torch.ones(1, dtype=torch.bool),
        "known_classes": torch.ones(1, 3, dtype=torch.bool),
    }


def slow_radius(length: float, width: float, overlap: float) -> float:
    total, area = length + width, length * width
    first = (total + math.sqrt(total**2 - 4 * area * (1 - overlap) / (1 + overlap))) / 2
    second = (2 * total + math.sqrt(4 * total**2 - 16 * (1 - overlap) * area)) / 2
    b = -2 * overlap * total
    third = (b + math.sqrt(b**2 - 16 * overlap * (overlap - 1) * area)) / 2
    return min(first, second, third)


def slow_heat(targets: dict[str, Tensor], group: tuple[str, ...]) -> np.ndarray:
    """Peaks drawn one after the other."""
    heat = np.zeros((len(group), SIDE, SIDE))
    for box, label in zip(
        targets["boxes"][0].tolist(), targets["classes"][0].tolist(), strict=True
    ):
        if NAMES[label] not in group:
            continue
        cell = 0.25 * STRIDE
        radius = max(2, int(slow_radius(box[3] / cell, box[4] / cell, 0.1)))
        column, row = int((box[0] + 8) / cell), int((box[1] + 8) / cell)
        sigma = (2 * radius + 1) / 6
        for y in range(max(0, row - radius), min(SIDE, row + radius + 1)):
            for x in range(max(0, column - radius), min(SIDE, column + radius + 1)):
                away = (x - column) ** 2 + (y - row) ** 2
                place = group.index(NAMES[label]), y, x
                heat[place] = max(heat[place], math.exp(-away / (2 * sigma**2)))
    return heat


@pytest.mark.parametrize("seed", range(3))
def test_heat_maps_and_numbers_are_the_published_ones(seed: int) -> None:
    groups = (("b",), ("c", "a"))
    head = head_of(groups=groups)
    targets = targets_of(9, seed)
    arrays = head.target_arrays(
        {"BEV": torch.zeros(1, 4, SIDE, SIDE)}, targets, Context(inputs={}, canvas=CANVAS)
    )
    for index, group in enumerate(groups):
        np.testing.assert_allclose(
            arrays[f"target_heatmap{index}"][0].numpy(), slow_heat(targets, group), atol=1e-5
        )
    for place, box in enumerate(targets["boxes"][0].tolist()):
        x, y = ((each + 8) / 0.5 for each in box[:2])
        moving = place % 2 == 0
        wanted = [
            *(x - int(x), y - int(y), box[2]),
            *(math.log(side) for side in box[3:6]),
            *(math.sin(box[6]), math.cos(box[6])),
            *(targets["velocity"][0, place].tolist() if moving else (0, 0)),
        ]
        assert arrays["target_values"][0, place].tolist() == pytest.approx(wanted, abs=1e-5)
        assert arrays["target_cells"][0, place] == int(y) * SIDE + int(x)


def test_a_centre_just_before_the_map_belongs_to_its_first_cells() -> None:
    """The published code rounds the cell towards 0."""
    head = head_of()
    targets = targets_of(2, 0)
    targets["boxes"][0, :, :2] = torch.tensor([(-8.2, -7.9), (-8.6, -7.9)])
    arrays = head.target_arrays(
        {"BEV": torch.zeros(1, 4, SIDE, SIDE)}, targets, Context(inputs={}, canvas=CANVAS)
    )
    assert (arrays["target_labels"][0] < len(NAMES)).tolist() == [True, False]
    assert arrays["target_cells"][0, 0] == 0
    assert arrays["target_values"][0, 0, 0] == pytest.approx(-0.4, abs=1e-5)


def test_targets_are_made_without_a_warning_of_torch() -> None:
    """Every training would show it."""
    head = head_of()
    features = {"BEV": torch.zeros(1, 4, SIDE, SIDE)}
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            head.target_arrays(features, targets_of(9, 0), Context(inputs={}, canvas=CANVAS))
    finally:
        torch.set_warn_always(False)


def test_the_radius_is_cornernets_as_centerpoint_has_it() -> None:
    sizes = torch.rand(50, 2) * 20 + 0.1
    found = peak_radius(sizes[:, 0], sizes[:, 1], 0.1)
    wanted = [slow_radius(length, width, 0.1) for length, width in sizes.tolist()]
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=1e-4, atol=1e-4)


def test_the_focal_loss_is_that_of_the_formula() -> None:
    logits, heat = torch.randn(40) * 4, torch.rand(40)
    heat[:5] = 1
    for logit, wanted, found in zip(logits, heat, heatmap_focal_loss(logits, heat), strict=True):
        score = min(max(1 / (1 + math.exp(-float(logit))), 1e-4), 1 - 1e-4)
        value = (
            -((1 - score) ** 2) * math.log(score)
            if wanted == 1
            else -((1 - float(wanted)) ** 4) * score**2 * math.log(1 - score)
        )
        assert float(found) == pytest.approx(value, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("velocity", [True, False])
def test_a_network_that_knows_the_answer_gives_the_boxes_back(velocity: bool) -> None:
    head = head_of(velocity=velocity, select=CentreSelection(candidates=20))
    targets = targets_of(5, 4)
    context = Context(inputs={}, canvas=CANVAS)
    features = {"BEV": torch.zeros(1, 4, SIDE, SIDE)}
    arrays = head.target_arrays(features, targets, context)
    parts = {"reg": (0, 2), "height": (2, 3), "dim": (3, 6), "rot": (6, 8), "vel": (8, 10)}
    numbers = torch.zeros(1, 10, SIDE * SIDE)
    numbers[0, :, arrays["target_cells"][0]] = arrays["target_values"][0].T
    grid = numbers.view(1, 10, SIDE, SIDE)
    maps = []
    for index in range(3):
        found = {
            name: grid[:, low:high]
            for name, (low, high) in parts.items()
            if velocity or name != "vel"
        }
        peak = arrays[f"target_heatmap{index}"] == 1
        maps.append({**found, "heatmap": torch.where(peak, 3.0, -9.0)})
    head.maps = lambda _: maps
    made = {name: each[0].numpy() for name, each in head.predict(features, context).items()}
    assert made["scores"].shape == (60,)
    prediction = head.config.detections(made)
    assert (prediction.velocity is not None) == velocity
    order = np.argsort(prediction.boxes[:, 0])
    wanted = np.argsort(targets["boxes"][0, :, 0].numpy())
    np.testing.assert_allclose(
        prediction.boxes[order], targets["boxes"][0].numpy()[wanted], atol=1e-4
    )
    assert prediction.classes[order].tolist() == targets["classes"][0].numpy()[wanted].tolist()


def test_only_known_velocities_are_learnt() -> None:
    head = head_of()
    features, context = {"BEV": torch.randn(1, 4, SIDE, SIDE)}, Context(inputs={}, canvas=CANVAS)
    targets = targets_of(6, 2)
    first = head.losses(features, targets, context)
    hidden = ~targets["has_velocity"][0]
    targets["velocity"][0, hidden] = 1e6
    second = head.losses(features, targets, context)
    assert all(torch.equal(first[name][0], second[name][0]) for name in first)
    targets["velocity"][0, ~hidden] += 1
    third = head.losses(features, targets, context)
    assert any(not torch.equal(first[name][0], third[name][0]) for name in first)


def test_groups_are_nuscenes_or_one_for_each_class() -> None:
    config = CenterPointHead()
    ten = [name for group in NUSCENES_GROUPS for name in group]
    assert config.grouped(ten[::-1]) == NUSCENES_GROUPS
    assert config.grouped(("Car", "Bus")) == (("Bus",), ("Car",))


def test_groups_name_the_classes_that_are_learnt() -> None:
    head = head_of(groups=(("a",), ("b", "tram")))
    with pytest.raises(ValueError, match=r"tram is no class of the data and c is not named"):
        head.losses(
            {"BEV": torch.zeros(1, 4, SIDE, SIDE)},
            targets_of(2, 0),
            Context(inputs={}, canvas=CANVAS),
        )
    with pytest.raises(ValidationError, match="each class once"):
        CenterPointHead(groups=(("a",), ("a",)))


def boxes_at(*places: tuple[float, float]) -> np.ndarray:
    return np.array([[x, y, 0, 4, 2, 1.5, 0] for x, y in places], np.float32)


def test_classes_of_anchors_do_not_suppress_each_other() -> None:
    arrays = {
        "boxes": boxes_at((0, 0), (0.5, 0), (20, 0), (30, 0)),
        "scores": np.array([[0.9, 0.6], [0.8, 0.2], [0.3, 0.05], [0.1, 0.1]], np.float32),
    }
    found = select_anchors(arrays, AnchorSelection())
    assert found.classes.tolist() == [0, 1, 0]
    np.testing.assert_allclose(found.scores, [0.9, 0.6, 0.3])
    assert found.boxes[:, 0].tolist() == [0, 0, 20]
    best = select_anchors(arrays, AnchorSelection(max_detections=1))
    assert best.scores.tolist() == pytest.approx([0.9])


def test_groups_are_suppressed_by_squared_distance_or_overlap() -> None:
    arrays = {
        "boxes": np.concatenate(
            [boxes_at((0, 0), (1.9, 0), (2.1, 0)), boxes_at((0, 0), (70, 0), (1, 0))]
        ),
        "scores": np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.1], np.float32),
        "classes": np.array([0, 1, 0, 2, 2, 2]),
    }
    circle = CentreSelection(candidates=3, suppression="circle", radii=(4, 1))
    assert select_centres(arrays, circle).scores.tolist() == pytest.approx([0.9, 0.7, 0.6, 0.5])
    near = CentreSelection(candidates=3, limits=(-61.2, -61.2, -10, 61.2, 61.2, 10))
    assert select_centres(arrays, near).scores.tolist() == pytest.approx([0.9, 0.6])
    with pytest.raises(ValueError, match="radii has 3 numbers, and there are 2 groups"):
        select_centres(arrays, CentreSelection(candidates=3, suppression="circle", radii=(1, 2, 3)))


def test_nothing_is_selected_of_a_diverged_network() -> None:
    arrays = {
        "boxes": np.full((3, 7), np.inf, np.float32),
        "scores": np.full(3, 0.9, np.float32),
        "classes": np.zeros(3, np.int64),
    }
    assert len(select_centres(arrays, CentreSelection(candidates=3)).boxes) == 0
    arrays["scores"] = arrays["scores"][:, None]
    assert len(select_anchors(arrays, AnchorSelection()).boxes) == 0
