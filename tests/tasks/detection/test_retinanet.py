"""RetinaNet with the options of the published networks: against torchvision's, and the anchors and
rules of OpenMMLab's.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import retinanet as published
from torchvision.models.detection.image_list import ImageList

from mtl_ray.tasks.detection.dense.config import RetinaNetHead
from mtl_ray.tasks.detection.dense.matching import match_anchors
from mtl_ray.tasks.detection.dense.retinanet import RetinaNet
from tests.tasks.detection.dense_cases import (
    LEVELS,
    STRIDES,
    build,
    context_of,
    features_of,
    fill,
    objects,
)

CANVAS = (96, 160)
PAIRS = {"score_threshold": 0.05, "iou_threshold": 0.5, "rank": "pair", "threshold_on": "class"}
OPENMMLAB: dict[str, Any] = {
    "levels": LEVELS,
    "anchor_order": "ratio",
    "anchor_offset": 0.0,
    "norm": "none",
    "box_loss": "l1",
    "box_weight": 1.0,
    "forced_to": "last",
    "ignore_padding": True,
    "select": PAIRS,
}
TORCHVISION = OPENMMLAB | {
    "anchor_rule": "torchvision",
    "forced_to": "own",
    "ignore_padding": False,
}


def head_of(width: int, classes: int, **options: Any) -> RetinaNet:
    head = build(RetinaNetHead(**options), width, classes)
    assert isinstance(head, RetinaNet)
    return head


def original_of(norm: bool) -> published.RetinaNetHead:
    """torchvision's head for five classes and its background, with scores that vary."""
    torch.manual_seed(0)
    layer = (lambda width: torch.nn.GroupNorm(32, width)) if norm else None
    original = published.RetinaNetHead(64, 9, 6, norm_layer=layer).eval()
    torch.nn.init.normal_(original.classification_head.cls_logits.weight, std=0.03)
    torch.nn.init.normal_(original.classification_head.cls_logits.bias, mean=-2.0)
    torch.nn.init.normal_(original.regression_head.bbox_reg.weight, std=0.03)
    return original


class Detector:
    """What ``RetinaNet.postprocess_detections`` reads of its network."""

    score_thresh, nms_thresh, topk_candidates, detections_per_img = 0.05, 0.5, 1000, 10_000
    box_coder = published.det_utils.BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))


@pytest.mark.parametrize("norm", [False, True])
def test_torchvisions_network_gives_the_same(norm: bool) -> None:
    original = original_of(norm)
    head = head_of(
        64, 5, **TORCHVISION | {"channels": 64, "convs": 4, "norm": "group" if norm else "none"}
    )
    fill(head, "torchvision", {f"head.{k}": v for k, v in original.state_dict().items()})
    features, sizes = features_of(64, CANVAS), [CANVAS, (70, 100)]
    octaves = tuple((4 * s, int(4 * s * 2 ** (1 / 3)), int(4 * s * 2 ** (2 / 3))) for s in STRIDES)
    generator = published.AnchorGenerator(octaves, ((0.5, 1.0, 2.0),) * 5)
    with torch.no_grad():
        outputs = original(list(features.values()))
        anchors = generator(ImageList(torch.zeros(2, 3, *CANVAS), sizes), list(features.values()))
        context = context_of(CANVAS, sizes)
        logits, offsets, ours = head.raw(features, context)
        torch.testing.assert_close(ours, anchors[0])
        torch.testing.assert_close(logits, outputs["cls_logits"][..., 1:])
        torch.testing.assert_close(offsets, outputs["bbox_regression"])
        counts = [9 * each.shape[2] * each.shape[3] for each in features.values()]
        outputs["cls_logits"][..., 0] = -20.0  # its background, which ours does not have
        expected = published.RetinaNet.postprocess_detections(
            Detector(),
            {name: list(value.split(counts, dim=1)) for name, value in outputs.items()},
            [list(each.split(counts)) for each in anchors],
            sizes,
        )
        found = head.predict(features, context)
    for row, one in enumerate(expected):
        real = (one["boxes"][:, 2:] > one["boxes"][:, :2]).all(dim=1)
        torch.testing.assert_close(found["scores"][row, :80], one["scores"][real][:80])
        torch.testing.assert_close(
            found["boxes"][row, :80], one["boxes"][real][:80], rtol=0, atol=1e-2
        )
        assert torch.equal(found["classes"][row, :80] + 1, one["labels"][real][:80])


def test_torchvisions_losses_are_the_same() -> None:
    """Its normaliser is that of each image, so one image at a time."""
    original = original_of(norm=False)
    head = head_of(64, 6, **TORCHVISION | {"channels": 64, "convs": 4})
    fill(head, "torchvision", {f"head.{k}": v for k, v in original.state_dict().items()})
    features, targets = features_of(64, CANVAS), objects(3, CANVAS)
    targets["known_classes"] = torch.ones(2, 6, dtype=torch.bool)
    outputs = original(list(features.values()))
    context = context_of(CANVAS, [CANVAS, CANVAS])
    _, _, anchors = head.raw(features, context)
    for row in range(2):
        one = {name: value[row : row + 1] for name, value in targets.items()}
        terms = head.losses(
            {name: value[row : row + 1] for name, value in features.items()},
            one,
            context_of(CANVAS, [CANVAS]),
        )
        real = one["present"][0]
        boxes = one["boxes"][0, real]
        matches = published.det_utils.Matcher(0.5, 0.4, allow_low_quality_matches=True)(
            published.box_ops.box_iou(boxes, anchors)
        )
        expected = original.compute_loss(
            [{"boxes": boxes, "labels": one["classes"][0, real]}],
            {name: value[row : row + 1] for name, value in outputs.items()},
            [anchors],
            [matches],
        )
        for name, key in (("class", "classification"), ("box", "bbox_regression")):
            value, count = terms[name]
            torch.testing.assert_close(value / count, expected[key], rtol=1e-4, atol=1e-5)


def test_the_anchors_are_openmmlabs() -> None:
    """Centres at i * stride, all sizes of a ratio (height / width) together."""
    head = head_of(16, 2, **OPENMMLAB | {"channels": 16, "convs": 0})
    _, _, anchors = head.raw(features_of(16, CANVAS), context_of(CANVAS, [CANVAS] * 2))
    sides = anchors[:9, 2:] - anchors[:9, :2]
    areas = torch.tensor([32.0**2 * 4 ** (k / 3) for k in range(3)])
    torch.testing.assert_close(sides.prod(dim=1), areas.repeat(3))
    torch.testing.assert_close(
        sides[:, 1] / sides[:, 0], torch.tensor([0.5, 1, 2]).repeat_interleave(3)
    )
    torch.testing.assert_close(
        (anchors[9:18, :2] + anchors[9:18, 2:]) / 2, torch.tensor([[8.0, 0]]).expand(9, 2)
    )


def test_the_number_of_parameters_is_the_published_one() -> None:
    head = head_of(256, 80, **OPENMMLAB | {"channels": 256, "convs": 4})
    assert sum(each.numel() for each in head.parameters()) == 6_463_220


def openmmlab_tensors(head: RetinaNet) -> dict[str, Tensor]:
    """The weights of a head under OpenMMLab's names."""
    renamed = {}
    for name, value in head.state_dict().items():
        for tower, (convs, last) in {
            "class_tower": ("cls_convs", "retina_cls"),
            "box_tower": ("reg_convs", "retina_reg"),
        }.items():
            if name.startswith(f"{tower}.output"):
                renamed[f"bbox_head.{last}.{name.rsplit('.', 1)[1]}"] = value
            elif name.startswith(f"{tower}.convs"):
                _, _, place, kind = name.split(".")
                renamed[f"bbox_head.{convs}.{place}.conv.{kind}"] = value
    return renamed


def test_a_head_with_another_order_of_anchors_gives_the_same_boxes() -> None:
    head = head_of(16, 2, **OPENMMLAB | {"channels": 16, "convs": 1})
    other = head_of(16, 2, **OPENMMLAB | {"channels": 16, "convs": 1, "anchor_order": "size"})
    fill(other, "openmmlab", openmmlab_tensors(head))
    features, context = features_of(16, CANVAS), context_of(CANVAS, [CANVAS] * 2)
    with torch.no_grad():
        logits, offsets, anchors = head.eval().raw(features, context)
        others = other.raw(features, context)
    order = torch.arange(len(anchors)).view(-1, 3, 3).transpose(1, 2).flatten()
    torch.testing.assert_close(logits[:, order], others[0])
    torch.testing.assert_close(offsets[:, order], others[1])
    torch.testing.assert_close(anchors[order], others[2])


def test_the_rules_for_an_anchor_that_is_the_best_of_several_objects() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [100, 100, 110, 110]])
    boxes = torch.tensor([[[0.0, 0, 10, 5], [0, 0, 10, 8], [0, 0, 10, 3]]])
    wanted = torch.ones(1, 3, dtype=torch.bool)
    found = {
        rule: int(match_anchors(anchors, boxes, wanted, forced_to=rule).object[0, 0])
        for rule in ("first", "last", "own")
    }
    assert found == {"first": 0, "last": 2, "own": 1}


def test_anchors_of_padding_are_neither_positive_nor_negative() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 9, 10], [50, 50, 60, 60]])
    boxes = torch.tensor([[[0.0, 0, 10, 10]]])
    valid = torch.tensor([[False, True, True]])
    found = match_anchors(anchors, boxes, torch.tensor([[True]]), valid=valid)
    assert found.positive[0].tolist() == [False, True, False]
    assert found.negative[0].tolist() == [False, False, True]


@pytest.mark.parametrize("loss", ["l1", "smooth_l1"])
def test_losses_of_offsets_vanish_at_the_object(loss: str) -> None:
    head = head_of(16, 2, **OPENMMLAB | {"channels": 16, "convs": 0, "box_loss": loss})
    anchors, boxes = objects(0)["boxes"][0, :3], objects(1)["boxes"][:, :3]
    from mtl_ray.tasks.detection.dense.boxes import encode_offsets

    exact = encode_offsets(boxes, anchors)
    assert not head.box_loss(exact, anchors, boxes).any()
    moved = head.box_loss(exact + 0.5, anchors, boxes)
    expected = 4 * 0.5 if loss == "l1" else 4 * (0.5 - 0.5 / 9)
    torch.testing.assert_close(moved, torch.full_like(moved, expected))
