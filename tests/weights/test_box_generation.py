"""Detectors of MMDetection3D 0.x give the same boxes after their import."""

import math

import pytest
import torch
from torch import Tensor

from mtl_ray.tasks.lidar.anchors import with_direction
from mtl_ray.weights.box_generation import find_generation, upgraded_boxes
from mtl_ray.weights.original import find_program, read_original
from mtl_ray.weights.weights import Weights

SIZES = ((0.8, 0.6, 1.73), (3.9, 1.6, 1.56))
CLASSES, WIDTH = 2, 6


def head(numbers: int = 7) -> dict[str, Tensor]:
    torch.manual_seed(0)
    rows = {"cls": 4 * CLASSES, "reg": 4 * numbers, "dir_cls": 8}
    return {
        f"bbox_head.conv_{name}.{part}": torch.randn(
            count, *([WIDTH, 1, 1] if part == "weight" else [])
        )
        for name, count in rows.items()
        for part in ("weight", "bias")
    }


def outputs(tensors: dict[str, Tensor], value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of one cell: logits (4, classes), offsets (4, 7), directions (4, 2)."""
    found = (
        tensors[f"bbox_head.conv_{name}.weight"][:, :, 0, 0] @ value
        + tensors[f"bbox_head.conv_{name}.bias"]
        for name in ("cls", "reg", "dir_cls")
    )
    logits, offsets, directions = found
    return logits.view(4, CLASSES), offsets.view(4, -1), directions.view(4, 2)


def test_old_weights_give_the_same_boxes() -> None:
    """Every anchor by the formulas of 0.x, in the frame of 1.x, against those of 1.x."""
    old = head()
    new, notes = upgraded_boxes(old, {"mmdet3d_version": "0.18.1"}, None)
    assert "0.x" in notes[0]
    value = torch.randn(WIDTH)
    logits, offsets, directions = outputs(new, value)
    old_logits, old_offsets, old_directions = outputs(old, value)
    for index, (length, width, height) in enumerate(SIZES):
        for rotation in range(2):
            mine, theirs = 2 * index + rotation, 2 * index + 1 - rotation
            torch.testing.assert_close(logits[mine], old_logits[theirs])
            diagonal = math.hypot(length, width)
            a, b = old_offsets[theirs].tolist(), offsets[mine].tolist()
            # 0.x: x, y, z, log width, log length, log height, yaw from -y, clockwise
            old_yaw = (0, 1.57)[1 - rotation] + a[6]
            heading = int(old_directions[theirs].argmax())  # 0: yaw within [0, pi)
            old_yaw = old_yaw - math.floor(old_yaw / math.pi) * math.pi + math.pi * heading
            yaw = torch.tensor((0, 1.57)[rotation] + b[6])
            found = with_direction(yaw, directions[mine].argmax(), -math.pi / 2)
            assert abs(math.remainder(float(found) - (-old_yaw - math.pi / 2), 2 * math.pi)) < 1e-4
            box = [diagonal * b[0], diagonal * b[1], height * b[2]]
            box += [math.exp(b[3]) * length, math.exp(b[4]) * width, math.exp(b[5]) * height]
            wanted = [diagonal * a[0], diagonal * a[1], height * a[2]]
            wanted += [math.exp(a[4]) * length, math.exp(a[3]) * width, math.exp(a[5]) * height]
            assert box == pytest.approx(wanted, rel=1e-4)


def test_old_centres_give_the_same_boxes() -> None:
    torch.manual_seed(0)
    prefix = "pts_bbox_head.task_heads.0."
    old = {
        f"{prefix}{name}": torch.randn(*shape)
        for name, shape in {
            "dim.1.weight": (3, WIDTH),
            "dim.1.bias": (3,),
            "rot.1.weight": (2, WIDTH),
            "rot.1.bias": (2,),
            "rot.0.conv.weight": (4, WIDTH),
            "height.1.weight": (1, WIDTH),
        }.items()
    }
    new, _ = upgraded_boxes(old, {}, 0)
    value = torch.randn(WIDTH)
    width, length, height = (
        old[f"{prefix}dim.1.weight"] @ value + old[f"{prefix}dim.1.bias"]
    ).tolist()
    found = new[f"{prefix}dim.1.weight"] @ value + new[f"{prefix}dim.1.bias"]
    assert found.tolist() == pytest.approx([length, width, height], rel=1e-5)
    sine, cosine = (old[f"{prefix}rot.1.weight"] @ value + old[f"{prefix}rot.1.bias"]).tolist()
    mine = (new[f"{prefix}rot.1.weight"] @ value + new[f"{prefix}rot.1.bias"]).tolist()
    turned = -math.atan2(sine, cosine) - math.pi / 2
    assert abs(math.remainder(math.atan2(*mine) - turned, 2 * math.pi)) < 1e-5
    for name in ("rot.0.conv.weight", "height.1.weight"):
        assert torch.equal(new[prefix + name], old[prefix + name])


@pytest.mark.parametrize(
    ("meta", "generation"),
    [
        ({"mmdet3d_version": "0.17.3"}, 0),
        ({"mmdet3d_version": "1.0.0rc0"}, 1),
        ({"mmdet3d_version": "1.4.0"}, 1),
        ({"mmengine_version": "0.7.0", "cfg": "x"}, 1),
        ({"config": "anchor_generator=dict(sizes=[[0.6, 0.8, 1.73], [1.6, 3.9, 1.56]])"}, 0),
        ({"config": "sizes=[[3.9, 1.6, 1.56]]"}, 1),
        ({"config": "sizes=[[1, 1, 1]]"}, None),
        ({}, None),
        ({"mmdet3d_version": ["x"]}, None),
    ],
)
def test_a_file_tells_its_generation(meta: dict[str, object], generation: int | None) -> None:
    assert find_generation(meta) == generation


def test_a_file_that_does_not_tell_is_asked_for() -> None:
    tensors = head()
    assert find_program(tensors) == "openmmlab"
    with pytest.raises(ValueError, match="--generation 0 or --generation 1"):
        read_original(Weights(tensors, None, {}, {}), "openmmlab")
    same = read_original(Weights(tensors, None, {}, {}), "openmmlab", generation=1)
    assert all(torch.equal(same.tensors[name], tensors[name]) for name in tensors)
    changed = read_original(Weights(tensors, None, {}, {}), "openmmlab", generation=0)
    assert not torch.equal(
        changed.tensors["bbox_head.conv_reg.bias"], tensors["bbox_head.conv_reg.bias"]
    )
    assert changed.notes


def test_detectors_of_images_are_not_asked() -> None:
    tensors = {"bbox_head.conv_cls.weight": torch.zeros(4, 2, 1, 1)}
    assert upgraded_boxes(tensors, {}, None) == (tensors, ())
