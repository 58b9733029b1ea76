"""``mask_rcnn`` equals the paper."""

from typing import Any

import pytest
import torch

from mtl_ray.tasks.detection.two_stage.config import CascadeRoi, MaskRcnnHead
from mtl_ray.tasks.detection.two_stage.faster_rcnn import FasterRcnn
from tests.tasks.detection.slow_two_stage import branch, numbered, pooled, slow_losses
from tests.tasks.detection.test_faster_rcnn import parameters, published
from tests.tasks.detection.two_stage_cases import (
    SMALL,
    context,
    features,
    proposals_of,
    small_head,
    targets,
)

MASK = {"size": 4, "convs": 1, "channels": 8}
STAGES = [{"iou": 0.4}, {"iou": 0.5, "weight": 0.5}]


def small(**roi: Any) -> FasterRcnn:
    return small_head(MaskRcnnHead, roi=SMALL["roi"] | roi, mask=MASK)


def test_the_published_network_has_as_many_parameters() -> None:
    with torch.device("meta"):
        head = published(MaskRcnnHead, 256, 80)
    assert parameters(head.roi_head.mask_head) == 2_643_280
    assert parameters(head.roi_head) == 16_949_985
    assert MaskRcnnHead.fields == {"masks"}
    assert MaskRcnnHead.mask_frame == "box"


@pytest.mark.parametrize("stages", [STAGES[:1], STAGES])
def test_losses_are_those_of_the_paper(stages: list[dict[str, float]]) -> None:
    head = small(stages=stages)
    maps, ctx, some = features(), context(), targets()
    with torch.no_grad():
        terms = head.losses(maps, some, ctx)
        proposals = proposals_of(head, maps, ctx, training=True)
        expected = slow_losses(head, list(maps.values()), some, proposals, ctx.valid_hw)
    assert sum(name.endswith("mask") for name in expected) == len(stages)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name][0] / terms[name][1], value, msg=name)


@pytest.mark.parametrize("stages", [STAGES[:1], STAGES])
def test_masks_are_those_of_the_detected_boxes(stages: list[dict[str, float]]) -> None:
    head = small(stages=stages)
    maps, ctx = features(), context()
    with torch.no_grad():
        found = head.predict(maps, ctx)
        boxes = [
            each[score > 0] for each, score in zip(found["boxes"], found["scores"], strict=True)
        ]
        regions = pooled(list(maps.values()), head.strides, numbered(boxes), 4, head)
        masks = torch.stack(
            [branch(head, "mask_head", i)(regions).sigmoid() for i in range(len(stages))]
        ).mean(0)
    assert found["masks"].shape == (2, 100, 8, 8)
    start = 0
    for i, of_image in enumerate(boxes):
        count = len(of_image)
        labels = found["classes"][i, :count]
        own = masks[start : start + count][torch.arange(count), labels]
        torch.testing.assert_close(found["masks"][i, :count], own)
        assert not found["masks"][i, count:].any()
        start += count
    assert start > 20


def test_objects_without_a_mask_add_no_mask_loss() -> None:
    head = small()
    some = targets()
    some["has_mask"].zero_()
    terms = head.losses(features(), some, context())
    assert terms["mask"][0] == 0
    assert terms["mask"][1] == 0
    assert terms["box"][1] > 0
    terms["mask"][0].backward()
    gradients = [each.grad for each in head.roi_head.mask_head.parameters()]
    assert all(each is not None and not each.any() for each in gradients)


def test_padding_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU the regions that are padding are computed, too."""
    head = small()
    maps, ctx, some = features(), context(), targets()
    with torch.no_grad():
        terms, found = head.losses(maps, some, ctx), head.predict(maps, ctx)
        monkeypatch.setattr(FasterRcnn, "_compact", lambda *_: False)
        for name, (value, count) in head.losses(maps, some, ctx).items():
            torch.testing.assert_close(value, terms[name][0])
            assert count == terms[name][1]
        for name, value in head.predict(maps, ctx).items():
            torch.testing.assert_close(value, found[name])


def test_cascade_mask_rcnn_is_a_matter_of_options() -> None:
    stages = [
        {"iou": stage.iou, "stds": list(stage.stds), "weight": stage.weight}
        for stage in CascadeRoi().stages
    ]
    with torch.device("meta"):
        roi = {"stages": stages, "class_agnostic": True}
        head = published(MaskRcnnHead, 256, 80, roi=roi)
    assert parameters(head.roi_head) == 41_948_415 + 3 * 2_643_280
