"""ATSS and generalized focal loss against loops over images, objects and anchors."""

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou, generalized_box_iou_loss, sigmoid_focal_loss

from mtl_ray.models.head import Context
from mtl_ray.tasks.detection.dense.assign import assign_adaptively, valid_cells
from mtl_ray.tasks.detection.dense.atss import Atss
from mtl_ray.tasks.detection.dense.boxes import decode_offsets, encode_offsets
from mtl_ray.tasks.detection.dense.config import AtssHead, GflHead
from mtl_ray.tasks.detection.dense.gfl import Gfl
from tests.tasks.detection.dense_cases import build, context_of, features_of, objects, scatter

CANVAS = (128, 160)
VALID = [(128, 160), (90, 100)]


def anchors_of(sizes: Sequence[tuple[int, int]], strides: Sequence[int], scale: float) -> Tensor:
    rows = []
    for (height, width), stride in zip(sizes, strides, strict=True):
        half = stride * scale / 2
        for y in range(height):
            for x in range(width):
                rows.append(
                    [x * stride - half, y * stride - half, x * stride + half, y * stride + half]
                )
    return torch.tensor(rows)


def by_hand(
    anchors: Tensor, counts: Sequence[int], boxes: Tensor, valid: Tensor, nearest: int
) -> list[int | None]:
    """The object of each anchor of one image, as algorithm 1 of the paper has it."""
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    best: list[tuple[float, int] | None] = [None] * len(anchors)
    for place, box in enumerate(boxes):
        middle = (box[:2] + box[2:]) / 2
        candidates: list[int] = []
        start = 0
        for count in counts:
            level = [i for i in range(start, start + count) if valid[i]]
            level.sort(key=lambda i: float((centres[i] - middle).square().sum().sqrt()))
            candidates += level[:nearest]
            start += count
        if len(candidates) < 2:
            continue
        iou = box_iou(anchors[candidates], box[None])[:, 0]
        limit = iou.mean() + iou.std()
        for i, value in zip(candidates, iou, strict=True):
            x, y = centres[i]
            inside = min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 0.01
            found = best[i]
            if value >= limit and inside and (found is None or float(value) > found[0]):
                best[i] = (float(value), place)
    return [None if found is None else found[1] for found in best]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), number=st.integers(0, 5), small=st.booleans())
def test_assignment_is_that_of_the_paper(seed: int, number: int, small: bool) -> None:
    """Also on maps with fewer cells than candidates, and with padding."""
    sizes = [(2, 3), (1, 2), (1, 1)] if small else [(8, 10), (4, 5), (2, 3)]
    strides = (8, 16, 32)
    draw = torch.Generator().manual_seed(seed)
    corner = torch.rand(1, number, 2, generator=draw) * 40
    boxes = torch.cat([corner, corner + 3 + torch.rand(1, number, 2, generator=draw) * 40], dim=2)
    anchors = anchors_of(sizes, strides, 4.0)
    counts = [height * width for height, width in sizes]
    valid = valid_cells(sizes, strides, torch.tensor([[20, 40]]))
    wanted = torch.rand(1, number, generator=draw) < 0.8
    match, positive = assign_adaptively(anchors, counts, boxes, wanted, valid)
    kept = wanted[0].nonzero()[:, 0]
    expected = by_hand(anchors, counts, boxes[0, kept], valid[0], 9)
    found = [int(i) if real else None for i, real in zip(match[0], positive[0], strict=True)]
    assert found == [None if each is None else int(kept[each]) for each in expected]


def test_cells_of_padding_beyond_a_multiple_of_32_do_not_count() -> None:
    valid = valid_cells([(16, 20), (4, 5)], (8, 32), torch.tensor([[128, 160], [90, 100]]))
    assert valid[0].all()
    fine, coarse = valid[1, :320].view(16, 20), valid[1, 320:].view(4, 5)
    assert fine[:12, :16].all()
    assert int(fine.sum()) == 12 * 16
    assert int(coarse.sum()) == 3 * 4


def test_a_single_candidate_has_no_spread_and_no_nan() -> None:
    """sfzhang15/ATSS issue 24: the standard deviation of one number is NaN."""
    anchors = torch.tensor([[-16.0, -16, 16, 16]])
    boxes = torch.tensor([[[-10.0, -10, 20, 20]]])
    match = assign_adaptively(anchors, [1], boxes, torch.tensor([[True]]), torch.tensor([[True]]))
    assert not match.positive.any()


def atss() -> Atss:
    head = build(AtssHead(channels=16, convs=1, norm_groups=4), 16, 5)
    assert isinstance(head, Atss)
    scatter(head)
    return head


def gfl() -> Gfl:
    head = build(GflHead(channels=16, convs=1, norm_groups=4), 16, 5)
    assert isinstance(head, Gfl)
    scatter(head)
    return head


def test_atss_losses_one_by_one() -> None:
    head, features = atss(), features_of(16, CANVAS)
    context, targets = context_of(CANVAS, VALID), objects(4)
    raw = head.raw(features)
    boxes = decode_offsets(raw.deltas, raw.anchors, (0.1, 0.1, 0.2, 0.2))
    valid = valid_cells(head.sizes(features), head.strides, context.valid_hw)
    counts = [height * width for height, width in head.sizes(features)]
    sums = torch.zeros(3)
    number, share = 0.0, 0.0
    for row in range(2):
        gt = targets["boxes"][row, targets["present"][row]]
        found = by_hand(raw.anchors, counts, gt, valid[row], 9)
        number += max(1, sum(each is not None for each in found))
        for i, each in enumerate(found):
            if not valid[row, i]:
                continue
            label = torch.zeros(5)
            if each is not None:
                label[targets["classes"][row, each]] = 1
                x, y = (raw.anchors[i, :2] + raw.anchors[i, 2:]) / 2
                left, top, right, bottom = gt[each].tolist()
                sides = [float(v) for v in (x - left, right - x, y - top, bottom - y)]
                centre = (min(sides[:2]) / max(sides[:2]) * min(sides[2:]) / max(sides[2:])) ** 0.5
                share += centre
                sums[1] += 2 * centre * generalized_box_iou_loss(boxes[row, i], gt[each]).item()
                sums[2] += F.binary_cross_entropy_with_logits(
                    raw.centre[row, i], torch.tensor(centre)
                ).item()
            sums[0] += sigmoid_focal_loss(raw.logits[row, i], label, 0.25, 2.0).sum().item()
    terms = head.losses(features, targets, context)
    assert number > 4
    for place, (name, count) in enumerate(
        (("class", number), ("box", share), ("centerness", number))
    ):
        torch.testing.assert_close(terms[name][0], sums[place], rtol=1e-3, atol=1e-4)
        assert float(terms[name][1]) == pytest.approx(count, rel=1e-4)
    arrays = head.target_arrays(features, targets, context)
    assert set(arrays["target_labels"].unique().tolist()) <= {-1, 0, 1, 2, 3, 4, 5}
    assert torch.equal(arrays["target_labels"] == -1, ~valid)
    assert arrays["target_labels_l0"].shape == (2 * 16 * 20,)


def test_gfl_losses_one_by_one() -> None:
    head, features = gfl(), features_of(16, CANVAS)
    context, targets = context_of(CANVAS, VALID), objects(4)
    raw = head.raw(features)
    sizes = head.sizes(features)
    anchors = anchors_of(sizes, head.strides, 8.0)
    valid = valid_cells(sizes, head.strides, context.valid_hw)
    sums = torch.zeros(3)
    share = 0.0
    bins = torch.arange(17.0)
    for row in range(2):
        gt = targets["boxes"][row, targets["present"][row]]
        found = by_hand(anchors, [h * w for h, w in sizes], gt, valid[row], 9)
        for i, each in enumerate(found):
            if not valid[row, i]:
                continue
            target = torch.zeros(5)
            scores = raw.logits[row, i].sigmoid()
            if each is not None:
                stride, (x, y) = raw.strides[i, 0], raw.points[i]
                left, top, right, bottom = (raw.bins[row, i].softmax(dim=1) * bins).sum(
                    dim=1
                ) * stride
                box = torch.stack([x - left, y - top, x + right, y + bottom])
                target[targets["classes"][row, each]] = box_iou(box[None], gt[each][None])[0, 0]
                weight = float(scores.max())
                share += weight
                sums[1] += 2 * weight * generalized_box_iou_loss(box, gt[each]).item()
                sides = torch.stack(
                    [x - gt[each, 0], y - gt[each, 1], gt[each, 2] - x, gt[each, 3] - y]
                )
                for side, logits in zip(
                    (sides / stride).clamp(0, 15.9), raw.bins[row, i], strict=True
                ):
                    low = int(side)
                    log = logits.log_softmax(dim=0)
                    loss = -(low + 1 - side) * log[low] - (side - low) * log[low + 1]
                    sums[2] += 0.25 * weight * float(loss) / 4
            cross = F.binary_cross_entropy_with_logits(raw.logits[row, i], target, reduction="none")
            sums[0] += float((cross * (target - scores).abs() ** 2).sum())
    terms = head.losses(features, targets, context)
    for place, name in enumerate(("class", "box", "dfl")):
        torch.testing.assert_close(terms[name][0], sums[place], rtol=1e-3, atol=1e-4)
    assert float(terms["box"][1]) == pytest.approx(share, rel=1e-4)
    assert terms["box"][1] == terms["dfl"][1]


def test_classes_that_an_image_does_not_know_give_gfl_no_weight() -> None:
    head, features, targets = gfl(), features_of(16, CANVAS), objects(4)
    head.gfl_cls.bias.data[4] = 20.0
    targets["known_classes"][:, 4] = False
    targets["present"] &= targets["classes"] != 4
    terms = head.losses(features, targets, context_of(CANVAS, VALID))
    head.gfl_cls.bias.data[4] = -20.0
    others = head.losses(features, targets, context_of(CANVAS, VALID))
    for name, (value, count) in terms.items():
        torch.testing.assert_close(value, others[name][0])
        torch.testing.assert_close(count, others[name][1])


@pytest.mark.parametrize("make", [atss, gfl])
def test_degenerate_boxes_and_tiny_maps_give_no_nan(make: type[Atss | Gfl]) -> None:
    head = make()
    targets = objects(0, (32, 40))
    targets["boxes"][0, 0, 2:] = targets["boxes"][0, 0, :2]
    terms = head.losses(
        features_of(16, (32, 40)), targets, context_of((32, 40), [(32, 40), (9, 9)])
    )
    total = torch.stack([value / count.clamp(min=1) for value, count in terms.values()]).sum()
    total.backward()
    assert total.isfinite()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in head.parameters())


def test_the_numbers_of_parameters_are_the_published_ones() -> None:
    counts = [
        sum(each.numel() for each in build(config, 256, 80).parameters())
        for config in (AtssHead(), GflHead())
    ]
    assert counts == [4_918_618, 5_063_833]


@pytest.mark.parametrize("make", [atss, gfl])
def test_names_are_those_of_openmmlab(make: type[Atss | Gfl]) -> None:
    head = make()
    tensors = {f"bbox_head.{name}": value for name, value in head.state_dict().items()}
    names = {"cls_convs.0.conv.weight", "reg_convs.0.gn.bias", "scales.4.scale"}
    assert names <= set(head.state_dict())
    found = head.imported("openmmlab", {**tensors, "neck.lateral_convs.0.conv.bias": torch.ones(1)})
    assert found.keys() == head.state_dict().keys()
    assert head.imported("huggingface", tensors) == {}


def test_offsets_are_written_as_they_are_read() -> None:
    boxes, anchors = objects(1)["boxes"][:, :3], objects(2)["boxes"][0, :3]
    stds = (0.1, 0.1, 0.2, 0.2)
    torch.testing.assert_close(
        decode_offsets(encode_offsets(boxes, anchors, stds), anchors, stds), boxes
    )


def test_a_box_is_at_most_62_times_larger_or_smaller_than_its_anchor() -> None:
    """As MMDetection decodes: the logarithm of the scale is limited on both sides."""
    anchors = torch.tensor([[0.0, 0.0, 100.0, 100.0]]).expand(2, 4)
    offsets = torch.tensor([[[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, -9.0, -9.0]]])
    boxes = decode_offsets(offsets, anchors)
    sides = boxes[..., 2:] - boxes[..., :2]
    torch.testing.assert_close(sides, torch.tensor([[[6250.0] * 2, [1.6] * 2]]))


def test_candidates_carry_their_level() -> None:
    head = atss()
    context = Context(inputs={"image": torch.zeros(2, 3, *CANVAS), "valid_hw": torch.tensor(VALID)})
    with torch.no_grad():
        levels = head.candidates(features_of(16, CANVAS), context)["levels"]
    assert levels.sum(dim=1).tolist() == list(AtssHead().level_sizes(CANVAS))
    assert (levels.sum(dim=0) == 1).all()
