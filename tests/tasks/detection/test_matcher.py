"""Hungarian matching and the losses of sets, against slow loops."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou

from mtl_ray.models.head import Context
from mtl_ray.tasks.detection.query.matcher import (
    MatchCosts,
    SetTargets,
    generalized_iou,
    match_queries,
    matching_costs,
    to_xyxy,
)
from mtl_ray.tasks.detection.query.set_losses import (
    box_losses,
    counted_queries,
    layer_targets,
    query_focal_loss,
    set_targets,
    softmax_loss,
    target_classes,
)

SIZE = torch.tensor([[200.0, 100, 200, 100], [96, 64, 96, 64]])


def objects(seed: int = 0, images: int = 2, most: int = 4, classes: int = 3) -> SetTargets:
    draw = torch.Generator().manual_seed(seed)
    centre = 0.3 + 0.4 * torch.rand(images, most, 2, generator=draw)
    side = 0.1 + 0.4 * torch.rand(images, most, 2, generator=draw)
    return SetTargets(
        classes=torch.randint(0, classes, (images, most), generator=draw),
        boxes=torch.cat([centre, side], dim=-1),
        present=torch.rand(images, most, generator=draw) < 0.7,
        size=SIZE[:images],
    )


def predictions(
    seed: int = 0, layers: int = 2, images: int = 2, queries: int = 6, classes: int = 4
) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed + 1)
    logits = torch.randn(layers, images, queries, classes, generator=draw) * 2
    boxes = torch.rand(layers, images, queries, 4, generator=draw) * 0.8 + 0.05
    return logits, boxes


def slow_class_cost(logits: Tensor, label: int, kind: str) -> float:
    if kind == "softmax":
        return -float(logits.softmax(dim=0)[label])
    p = logits[label].sigmoid().double()
    as_object = -0.25 * (1 - p) ** 2 * p.log()
    as_background = -0.75 * p**2 * (1 - p).log()
    return float(as_object - as_background)


@pytest.mark.parametrize("kind", ["softmax", "focal"])
def test_a_cost_is_the_sum_of_class_distance_and_overlap(kind: str) -> None:
    logits, boxes = predictions()
    targets = objects()
    rule = MatchCosts(kind=kind, class_weight=1.5, box_weight=5.0, iou_weight=2.0)  # type: ignore[arg-type]
    found = matching_costs(logits, boxes, targets, rule)
    assert found.shape == (2, 2, 6, 4)
    for layer, image, query, place in itertools.product(range(2), range(2), range(6), range(4)):
        box, wanted = boxes[layer, image, query], targets.boxes[image, place]
        first, second = (
            box_convert(each[None] * SIZE[image], "cxcywh", "xyxy") for each in (box, wanted)
        )
        cost = (
            1.5
            * slow_class_cost(logits[layer, image, query], int(targets.classes[image, place]), kind)
            + 5 * float((box - wanted).abs().sum())
            - 2 * float(generalized_box_iou(first, second))
        )
        assert float(found[layer, image, query, place]) == pytest.approx(cost, abs=1e-4)


def best_by_trying(costs: Tensor) -> float:
    """The least cost of any assignment of the objects (columns) to different queries (rows)."""
    queries, count = costs.shape
    if count > queries:
        return best_by_trying(costs.t())
    return min(
        sum(float(costs[row, column]) for column, row in enumerate(rows))
        for rows in itertools.permutations(range(queries), count)
    )


@given(seed=st.integers(0, 1000), queries=st.integers(1, 5), most=st.integers(1, 5))
def test_the_assignment_costs_least(seed: int, queries: int, most: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    costs = torch.randn(2, 3, queries, most, generator=draw)
    present = torch.rand(3, most, generator=draw) < 0.6
    (matched,) = match_queries([costs], present)
    for layer, image in itertools.product(range(2), range(3)):
        row, there = matched[layer, image], present[image].nonzero()[:, 0]
        chosen = row[row >= 0]
        assert len(chosen) == min(len(there), queries)
        assert len(set(chosen.tolist())) == len(chosen)
        assert set(chosen.tolist()) <= set(there.tolist())
        if len(there):
            total = sum(float(costs[layer, image, q, o]) for q, o in enumerate(row) if o >= 0)
            assert total == pytest.approx(best_by_trying(costs[layer, image][:, there]), abs=1e-5)


def test_the_order_of_objects_does_not_matter() -> None:
    costs = torch.randn(3, 2, 7, 4)
    present = torch.tensor([[True, True, True, False], [True, True, True, True]])
    order = torch.tensor([2, 0, 3, 1])
    (matched,) = match_queries([costs], present)
    (moved,) = match_queries([costs[..., order]], present[:, order])
    assert torch.equal(torch.where(moved >= 0, order[moved.clamp(min=0)], -1), matched)


def test_all_layers_are_matched_in_one_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    transfers = []
    cpu = Tensor.cpu
    monkeypatch.setattr(Tensor, "cpu", lambda each: transfers.append(each.shape) or cpu(each))
    costs = [torch.randn(6, 2, 5, 3), torch.randn(1, 2, 40, 3)]
    present = torch.tensor([[True, False, True], [True, True, True]])
    together = match_queries(costs, present)
    assert len(transfers) == 1
    assert [each.shape for each in together] == [(6, 2, 5), (1, 2, 40)]
    for each, cost in zip(together, costs, strict=True):
        assert torch.equal(each, match_queries([cost], present)[0])


def test_costs_that_are_no_numbers_do_not_stop_the_training() -> None:
    logits, boxes = predictions()
    logits[0, 0, 0], boxes[1, 1, 2] = torch.nan, torch.inf
    targets = objects()._replace(present=torch.ones(2, 4, dtype=torch.bool))
    costs = matching_costs(logits, boxes, targets, MatchCosts(kind="focal", class_weight=2.0))
    (matched,) = match_queries([costs], targets.present)
    assert ((matched >= 0).sum(dim=-1) == 4).all()


def test_overlaps_are_torchvisions_and_finite_for_empty_boxes() -> None:
    first = box_convert(torch.rand(20, 4) + 0.1, "cxcywh", "xyxy") * 50
    second = box_convert(torch.rand(30, 4) + 0.1, "cxcywh", "xyxy") * 50
    torch.testing.assert_close(
        generalized_iou(first[:, None], second[None]), generalized_box_iou(first, second)
    )
    empty = torch.zeros(1, 4)
    assert generalized_iou(empty, empty).isfinite().all()
    assert generalized_iou(empty, first[:1]).isfinite().all()


def test_losses_are_those_of_a_loop() -> None:
    logits, boxes = predictions()
    targets = objects(seed=3)
    rule = MatchCosts(kind="softmax", class_weight=1.0)
    (matched,) = match_queries([matching_costs(logits, boxes, targets, rule)], targets.present)
    counted = torch.ones_like(matched, dtype=torch.bool)
    labels = target_classes(matched, targets, 3)
    cross = softmax_loss(logits, labels, counted, 0.1)
    known = torch.tensor([[True, True, True], [True, False, True]])
    focal = query_focal_loss(logits[..., :3], labels, counted, known)
    of_boxes = box_losses(boxes, matched, targets)
    for layer in range(2):
        entropy = weights = distance = overlap = focused = 0.0
        for image, query in itertools.product(range(2), range(6)):
            place = int(matched[layer, image, query])
            label = 3 if place < 0 else int(targets.classes[image, place])
            assert int(labels[layer, image, query]) == label
            weight = 0.1 if place < 0 else 1.0
            row = logits[layer, image, query]
            entropy += weight * float(F.cross_entropy(row[None], torch.tensor([label])))
            weights += weight
            for each in range(3):
                p = row[each].sigmoid()
                share = 0.25 * (1 - p) ** 2 * -p.log()
                other = 0.75 * p**2 * -(1 - p).log()
                focused += float(known[image, each]) * float(share if each == label else other)
            if place >= 0:
                box, wanted = boxes[layer, image, query], targets.boxes[image, place]
                distance += float((box - wanted).abs().sum())
                first, second = (
                    box_convert(each[None] * SIZE[image], "cxcywh", "xyxy")
                    for each in (box, wanted)
                )
                overlap += 1 - float(generalized_box_iou(first, second))
        positives = int((matched[layer] >= 0).sum())
        assert float(cross.total[layer]) == pytest.approx(entropy, rel=1e-5)
        assert float(cross.divisor[layer]) == pytest.approx(weights, rel=1e-5)
        assert float(focal.total[layer]) == pytest.approx(focused, rel=1e-4)
        assert float(of_boxes["box"].total[layer]) == pytest.approx(distance, rel=1e-5)
        assert float(of_boxes["iou"].total[layer]) == pytest.approx(overlap, rel=1e-5)
        assert int(focal.divisor[layer]) == int(of_boxes["box"].divisor[layer]) == positives


def raw_targets() -> dict[str, Tensor]:
    """One image with an object, a crowd region and padding of the batch."""
    return {
        "boxes": torch.tensor([[[10.0, 10, 30, 30], [40, 0, 80, 60], [0, 0, 0, 0]]]),
        "classes": torch.tensor([[1, 0, 0]]),
        "present": torch.tensor([[True, True, False]]),
        "crowd": torch.tensor([[False, True, False]]),
        "annotated": torch.tensor([True]),
        "known_classes": torch.ones(1, 2, dtype=torch.bool),
    }


def test_boxes_are_relative_to_the_image_without_padding() -> None:
    context = Context(inputs={"valid_hw": torch.tensor([[50, 80]], dtype=torch.int32)})
    found = set_targets(raw_targets(), context)
    assert found.present.tolist() == [[True, False, False]]
    assert found.size.tolist() == [[80, 50, 80, 50]]
    torch.testing.assert_close(found.boxes[0, 0], torch.tensor([0.25, 0.4, 0.25, 0.4]))
    torch.testing.assert_close(
        to_xyxy(found.boxes[0]) * found.size, raw_targets()["boxes"][0], rtol=0, atol=1e-4
    )


def test_predictions_in_a_crowd_have_no_class_loss_unless_they_have_an_object() -> None:
    targets = raw_targets()
    size = torch.tensor([[80.0, 60, 80, 60]])
    inside, outside = [0.7, 0.5, 0.1, 0.1], [0.2, 0.3, 0.1, 0.1]
    boxes = torch.tensor([[[inside, outside, inside]]])
    matched = torch.tensor([[[-1, -1, 0]]])
    assert counted_queries(boxes, matched, targets, size).tolist() == [[[False, True, True]]]
    targets["annotated"][0] = False
    assert not counted_queries(boxes, matched, targets, size).any()


def test_targets_of_a_layer_are_told() -> None:
    targets = objects()
    matched = torch.tensor([[[-1, 2, 0], [1, -1, -1]], [[0, -1, -1], [-1, -1, 3]]])
    counted = torch.ones_like(matched, dtype=torch.bool)
    counted[0, 0, 0] = False
    arrays = layer_targets(matched, counted, targets, 3, ["d0_", ""])
    labels = arrays["d0_target_labels"]
    assert labels[0].tolist() == [-1, int(targets.classes[0, 2]), int(targets.classes[0, 0])]
    assert arrays["target_labels"][1].tolist() == [3, 3, int(targets.classes[1, 3])]
    boxes = arrays["target_boxes"][1]
    assert not boxes[:2].any()
    wanted = box_convert(targets.boxes[1, 3] * SIZE[1], "cxcywh", "xyxy")
    torch.testing.assert_close(boxes[2], wanted)
