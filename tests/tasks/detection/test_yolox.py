"""The head ``yolox``."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtl_ray.models.head import Context
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.detection.dynamic.assign import assign_sim_ota
from mtl_ray.tasks.detection.dynamic.config import YoloxHead
from mtl_ray.tasks.detection.dynamic.matching import CandidatePoints
from mtl_ray.tasks.detection.dynamic.yolox import offset_targets
from tests.tasks.detection.slow_assign import iou, matched, sim_ota_cost, sim_ota_possible
from tests.tasks.head_cases import batch_of, images, inputs_of, model_of, scattered

STRIDES = {"P3": 8, "P4": 16}
THREE = Vocabulary(classes={"instances": ("a", "b", "c")})


def small_head(**options: Any) -> Any:
    torch.manual_seed(0)
    config = YoloxHead(levels=("P3", "P4"), channels=8, **options)
    return scattered_head(config.build(THREE, dict.fromkeys(STRIDES, 8), STRIDES))


def scattered_head(head: Any) -> Any:
    for each in head.parameters():
        torch.nn.init.normal_(each, std=0.3)
    return head.eval()


def a_batch(objects: int = 3) -> tuple[dict[str, Tensor], dict[str, Tensor], Context]:
    """Features, targets and context of two images of 48 x 64."""
    draw = torch.Generator().manual_seed(1)
    features = {
        level: torch.randn(2, 8, 48 // s, 64 // s, generator=draw) for level, s in STRIDES.items()
    }
    corner = torch.rand(2, objects, 2, generator=draw) * 30
    side = 4 + 20 * torch.rand(2, objects, 2, generator=draw)
    present = torch.ones(2, objects, dtype=torch.bool)
    present[1, 1:] = False
    targets = {
        "boxes": torch.cat([corner, corner + side], dim=2),
        "classes": torch.randint(0, 3, (2, objects), generator=draw),
        "present": present,
        "crowd": torch.zeros(2, objects, dtype=torch.bool),
        "annotated": torch.ones(2, dtype=torch.bool),
        "known_classes": torch.ones(2, 3, dtype=torch.bool),
    }
    return features, targets, Context(inputs=inputs_of(images(2, (48, 64)), (48, 64)))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), stride=st.sampled_from([4, 8]))
def test_the_assignment_is_that_of_plain_loops(seed: int, stride: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij")
    xy = (torch.stack([x, y], dim=-1).reshape(-1, 2) + 0.5) * stride
    corner = torch.rand(3, 2, generator=draw) * 4 * stride
    gts = torch.cat([corner, corner + 2 + 3 * stride * torch.rand(3, 2, generator=draw)], dim=1)
    labels = torch.randint(0, 3, (3,), generator=draw)
    predicted = torch.cat([xy - 6, xy + 6], dim=1) + torch.randn(36, 4, generator=draw) * 3
    scores = torch.rand(36, 3, generator=draw) * 0.98 + 0.01
    boxes, points = predicted.tolist(), xy.tolist()
    costs = [
        [
            sim_ota_cost(share, box, px, py, stride, gt, int(label), 1.5)
            for share, box, (px, py) in zip(scores.tolist(), boxes, points, strict=True)
        ]
        for gt, label in zip(gts.tolist(), labels, strict=True)
    ]
    overlaps = [[iou(box, gt) for box in boxes] for gt in gts.tolist()]
    possible = [sim_ota_possible(px, py, stride, gts.tolist(), 1.5) for px, py in points]
    expected = matched(costs, overlaps, possible, 10)
    targets = {
        "boxes": gts[None],
        "classes": labels[None],
        "present": torch.ones(1, 3, dtype=torch.bool),
        "crowd": torch.zeros(1, 3, dtype=torch.bool),
        "annotated": torch.ones(1, dtype=torch.bool),
    }
    found = assign_sim_ota(
        scores[None],
        predicted[None],
        CandidatePoints(xy, torch.full((36,), float(stride))),
        targets,
        radius=1.5,
        topk=10,
        overlap_cost=3.0,
        class_cost=1.0,
    )
    # float32 rounds costs above 1e5 to 1/128: equal ones may be chosen in another order
    near = {i for i, each in enumerate(expected) if each is not None and costs[each][i] < 1e5}
    outer = {i for i in range(36) if bool(found.positive[0, i])} - near
    assert all(costs[int(found.object[0, i])][i] >= 1e5 for i in outer)
    assert int(found.positive.sum()) == sum(each is not None for each in expected)
    for i in near:
        assert bool(found.positive[0, i])
        assert int(found.object[0, i]) == expected[i]
        exact = iou(boxes[i], gts[int(found.object[0, i])].tolist())
        assert float(found.overlap[0, i]) == pytest.approx(exact, abs=1e-5)


def test_losses_are_those_of_single_candidates() -> None:
    head, (features, targets, context) = small_head(l1_from=0), a_batch()
    with torch.no_grad():
        outputs, terms = head.outputs(features), head.losses(features, targets, context)
        assigned, boxes = head.assign(outputs, targets), outputs.boxes()
    sums = dict.fromkeys(terms, 0.0)
    for row in range(2):
        for i in range(len(outputs.corners)):
            positive = bool(assigned.positive[row, i])
            sums["objectness"] += float(
                F.binary_cross_entropy_with_logits(
                    outputs.objectness[row, i], torch.tensor(float(positive))
                )
            )
            if positive:
                number = int(assigned.object[row, i])
                gt, label = targets["boxes"][row, number], int(targets["classes"][row, number])
                overlap = iou(boxes[row, i].tolist(), gt.tolist())
                sums["box"] += 5 * (1 - overlap**2)
                wanted = torch.zeros(3)
                wanted[label] = overlap
                sums["class"] += float(
                    F.binary_cross_entropy_with_logits(
                        outputs.logits[row, i], wanted, reduction="sum"
                    )
                )
                stride = float(outputs.strides[i])
                centre = (gt[:2] + gt[2:]) / 2
                offsets = [*((centre - outputs.corners[i]) / stride), *((gt[2:] - gt[:2]) / stride)]
                logs = torch.stack([*offsets[:2], offsets[2].log(), offsets[3].log()])
                sums["l1"] += float((outputs.offsets[row, i] - logs).abs().sum())
    positives = int(assigned.positive.sum())
    assert positives > 2
    for name, (value, count) in terms.items():
        assert float(value) == pytest.approx(sums[name], rel=1e-4), name
        assert int(count) == positives


def test_offsets_count_from_the_corner_of_a_cell() -> None:
    head, (features, targets, _) = small_head(), a_batch()
    with torch.no_grad():
        for each in head.multi_level_conv_reg:
            each.weight.zero_()
            each.bias.zero_()
        outputs = head.outputs(features)
    boxes = outputs.boxes()[0]
    assert boxes[8 * 2 + 5].tolist() == [40 - 4, 16 - 4, 40 + 4, 16 + 4]
    assert boxes[-1].tolist() == [48 - 8, 32 - 8, 48 + 8, 32 + 8]
    gt_boxes = targets["boxes"][:, :1].expand(-1, len(boxes), 4)
    offsets = offset_targets(gt_boxes, outputs.corners, outputs.strides)
    torch.testing.assert_close(
        outputs._replace(offsets=offsets).boxes(), gt_boxes, rtol=1e-4, atol=1e-4
    )


def test_the_l1_loss_is_on_from_a_step_on() -> None:
    features, targets, context = a_batch()
    with torch.no_grad():
        terms = {
            step: small_head(l1_from=10).losses(features, targets, replace(context, step=step))
            for step in (9, 10)
        }
        assert "l1" not in small_head().losses(features, targets, context)
    assert terms[9]["l1"][0] == 0
    assert terms[10]["l1"][0] > 0
    assert terms[9]["l1"][1] == terms[10]["l1"][1] > 0


def test_only_the_best_class_of_a_candidate_is_a_detection() -> None:
    model = scattered(model_of("yolox", select={"rank": "pair", "best_class": True}))
    head: Any = model.heads["yolox"]
    with torch.no_grad():
        features, context = model.prepare(inputs_of(images(1), (64, 96)))
        found, candidates = head.predict(features, context), head.candidates(features, context)
    joint = candidates["scores"] * candidates["objectness"][..., None]
    best = joint.amax(dim=2)[0]
    assert (found["scores"] > 0).any()
    for score, label in zip(found["scores"][0], found["classes"][0], strict=True):
        if score > 0:
            place = int((best - score).abs().argmin())
            assert float(best[place]) == pytest.approx(float(score), rel=1e-5)
            assert int(joint[0, place].argmax()) == int(label)


def test_an_unknown_class_is_no_background() -> None:
    """A candidate that looks like a class that the dataset does not annotate has no objectness
    loss.
    """
    head, (features, targets, context) = small_head(), a_batch()
    with torch.no_grad():
        for each in head.multi_level_conv_cls:
            each.bias[1] += 100
        targets["present"] &= False
        assert head.losses(features, targets, context)["objectness"][0] > 0
        targets["known_classes"][:, 1] = False
        assert head.losses(features, targets, context)["objectness"][0] == 0


def test_nothing_is_learnt_from_a_crowd() -> None:
    model, batch = scattered(model_of("yolox")), batch_of(2)
    target = batch.targets["instances"]
    target["boxes"][:, 0] = torch.tensor([-1.0, -1, 97, 65])
    target["crowd"][:, 0] = True
    with torch.no_grad():
        assert all(value == 0 and count == 0 for value, count in model.losses(batch).values())


def test_published_defaults() -> None:
    config = YoloxHead()
    assert (config.select.score_threshold, config.select.iou_threshold) == (0.01, 0.65)
    assert config.select.best_class
    assert config.select.candidates is None
    assert (config.box_weight, config.class_weight, config.objectness_weight) == (5, 1, 1)
    assert config.l1_from is None
