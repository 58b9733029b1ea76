"""FCOS against the original network, torchvision's, and plain loops."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection import fcos as published
from torchvision.models.detection.image_list import ImageList

from mtl_ray.models.head import Context
from mtl_ray.tasks.detection.dense.assign import assign_points
from mtl_ray.tasks.detection.dense.config import FcosHead
from mtl_ray.tasks.detection.dense.fcos import Fcos
from tests.tasks.detection.dense_cases import (
    LEVELS,
    STRIDES,
    build,
    context_of,
    features_of,
    fill,
    targets_of,
)

REFERENCES = Path(__file__).parents[3].parent / "shared" / "data" / "heads_reference"
TRICKS: dict[str, Any] = {
    "center_sampling": True,
    "norm_on_bbox": True,
    "centerness_on_reg": True,
    "conv_bias": True,
    "box_loss": "giou",
}


def head_of(width: int, classes: int, **options: Any) -> Fcos:
    head = build(FcosHead(**options), width, classes)
    assert isinstance(head, Fcos)
    return head


def test_the_number_of_parameters_is_the_published_one() -> None:
    counts = [
        sum(each.numel() for each in head_of(256, 80, **options).parameters())
        for options in ({}, TRICKS)
    ]
    assert counts == [4_918_618, 4_920_666]


@pytest.mark.skipif(not REFERENCES.exists(), reason="needs ../shared/data/heads_reference")
def test_the_original_network_gives_the_same() -> None:
    with np.load(REFERENCES / "fcos.npz") as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file if file[name].dtype != "<U33"}
        names = file["gradnorm_names"].tolist()
    head = head_of(64, 5, channels=64, convs=2)
    tensors = torch.load(REFERENCES / "fcos.pth", weights_only=True)
    fill(head, "openmmlab", {k: v for k, v in tensors.items() if k.startswith("bbox_head.")})
    features = {level: arrays[f"p{i}"] for i, level in enumerate(LEVELS)}
    context = Context(
        inputs={"image": arrays["image"], "valid_hw": arrays["img_shape"].to(torch.int32)}
    )
    for name, value in head.raw_outputs(features, context).items():
        torch.testing.assert_close(value, arrays[name], rtol=1e-4, atol=1e-5)
    targets = targets_of(
        [arrays[f"gt{i}_boxes"] for i in range(2)], [arrays[f"gt{i}_labels"] for i in range(2)], 5
    )
    found = head.target_arrays(features, targets, context)
    for i in range(5):
        assert torch.equal(found[f"target_labels_l{i}"], arrays[f"target_labels_l{i}"])
        positive = arrays[f"target_labels_l{i}"] < 5
        torch.testing.assert_close(
            found[f"target_ltrb_l{i}"][positive], arrays[f"target_ltrb_l{i}"][positive]
        )
    assert torch.equal(found["points"], arrays["points"])
    losses = {
        name: value / count
        for name, (value, count) in head.losses(features, targets, context).items()
    }
    for name, key in (("class", "cls"), ("box", "bbox"), ("centerness", "centerness")):
        torch.testing.assert_close(losses[name], arrays[f"loss_{key}"], rtol=1e-4, atol=0)
    torch.stack(list(losses.values())).sum().backward()
    parameters = dict(head.named_parameters())
    norms = [float(parameters[each.removeprefix("bbox_head.")].grad.norm()) for each in names]
    np.testing.assert_allclose(norms, arrays["gradnorm"], rtol=1e-3)
    with torch.no_grad():
        predicted = head.predict(features, context)
    for row in range(2):
        torch.testing.assert_close(
            predicted["boxes"][row], arrays[f"b{row}_boxes"], rtol=0, atol=1e-2
        )
        torch.testing.assert_close(predicted["scores"][row], arrays[f"b{row}_scores"])
        assert torch.equal(predicted["classes"][row], arrays[f"b{row}_labels"])


def test_torchvisions_network_gives_the_same() -> None:
    """On a canvas whose highest levels are padded, where its strides are not powers of two."""
    torch.manual_seed(0)
    original = published.FCOSHead(256, 1, num_classes=6, num_convs=1).eval()
    for each in (original.classification_head.cls_logits, original.regression_head.bbox_ctrness):
        torch.nn.init.normal_(each.weight, std=0.03)
        torch.nn.init.normal_(each.bias, std=0.5)
    head = head_of(
        256,
        5,
        convs=1,
        norm_on_bbox=True,
        centerness_on_reg=True,
        conv_bias=True,
        points="torchvision",
        select={
            "score_threshold": 0.2,
            "iou_threshold": 0.6,
            "rank": "pair",
            "score": "geometric_mean",
        },
    )
    fill(head, "torchvision", {f"head.{k}": v for k, v in original.state_dict().items()})
    canvas = (96, 160)
    features = features_of(256, canvas)
    images = torch.zeros(2, 3, *canvas)
    anchors = published.AnchorGenerator(tuple((s,) for s in STRIDES), ((1.0,),) * 5)
    sizes = [canvas, (70, 100)]
    with torch.no_grad():
        outputs = original(list(features.values()))
        boxes = anchors(ImageList(images, sizes), list(features.values()))
        counts = [each.shape[2] * each.shape[3] for each in features.values()]
        expected = published.FCOS.postprocess_detections(
            _Detector(),
            {name: list(value.split(counts, dim=1)) for name, value in outputs.items()},
            [list(each.split(counts)) for each in boxes],
            sizes,
        )
        found = head.predict(features, context_of(canvas, sizes))
    for row, one in enumerate(expected):
        # torchvision also lists boxes without area, and the class 0 is its background
        real = (one["boxes"][:, 2:] > one["boxes"][:, :2]).all(dim=1) & (one["labels"] > 0)
        number = int((found["scores"][row] > 0).sum())
        assert number > 20  # of at most 100
        torch.testing.assert_close(found["scores"][row, :20], one["scores"][real][:20])
        torch.testing.assert_close(
            found["boxes"][row, :20], one["boxes"][real][:20], rtol=0, atol=1e-2
        )
        assert torch.equal(found["classes"][row, :20] + 1, one["labels"][real][:20])


class _Detector:
    """What ``FCOS.postprocess_detections`` reads of its network."""

    score_thresh, nms_thresh, topk_candidates, detections_per_img = 0.2, 0.6, 1000, 1000
    box_coder = published.det_utils.BoxLinearCoder(normalize_by_size=True)


def by_hand(
    points: Tensor, reach: Tensor, ranges: Tensor, boxes: Tensor, wanted: Tensor
) -> list[int | None]:
    """The object of each point of one image."""
    result: list[int | None] = []
    for (x, y), near, (low, high) in zip(
        points.tolist(), reach.tolist(), ranges.tolist(), strict=True
    ):
        fitting = []
        for place, (left, top, right, bottom) in enumerate(boxes.tolist()):
            sides = (x - left, y - top, right - x, bottom - y)
            middle = abs(x - (left + right) / 2) < near and abs(y - (top + bottom) / 2) < near
            if wanted[place] and min(sides) > 0 and low <= max(sides) <= high and middle:
                fitting.append(((right - left) * (bottom - top), place))
        result.append(min(fitting)[1] if fitting else None)
    return result


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), objects=st.integers(0, 6), sampling=st.booleans())
def test_a_point_learns_the_smallest_object_of_its_range(
    seed: int, objects: int, sampling: bool
) -> None:
    draw = torch.Generator().manual_seed(seed)
    points = torch.randint(0, 30, (40, 2), generator=draw).float() + 0.5
    # whole numbers, so that distances reach the limits of a range exactly
    corner = torch.randint(0, 20, (1, objects, 2), generator=draw).float() + 0.5
    side = torch.randint(0, 20, (1, objects, 2), generator=draw).float()
    boxes = torch.cat([corner, corner + side], dim=2)
    wanted = torch.rand(1, objects, generator=draw) < 0.8
    ranges = torch.tensor([[-1.0, 8.0]] * 20 + [[8.0, torch.inf]] * 20)
    reach = torch.full((40,), 4.25 if sampling else torch.inf)
    match, positive = assign_points(points, reach, ranges, boxes, wanted)
    expected = by_hand(points, reach, ranges, boxes[0], wanted[0])
    assert [
        int(i) if real else None for i, real in zip(match[0], positive[0], strict=True)
    ] == expected


def test_boxes_do_not_leave_the_valid_part_of_the_canvas() -> None:
    torch.manual_seed(0)
    head = head_of(16, 3, channels=16, convs=0, norm_groups=4).eval()
    torch.nn.init.normal_(head.conv_cls.bias)
    torch.nn.init.constant_(head.conv_reg.bias, 4.0)
    valid = torch.tensor([[64, 96], [40, 50]])
    with torch.no_grad():
        found = head.predict(features_of(16, (64, 96)), context_of((64, 96), [(64, 96), (40, 50)]))
    assert (found["scores"] > 0).any(dim=1).all()
    assert (found["boxes"] <= valid.flip(1).repeat(1, 2)[:, None]).all()
    assert found["boxes"][1, :, 2].max() == 50
