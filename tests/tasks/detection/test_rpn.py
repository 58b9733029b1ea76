"""The first stage of two-stage heads: anchors, matching, sampling, proposals."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import box_iou, clip_boxes_to_image, nms

from mtl_ray.tasks.detection.two_stage.config import FasterRcnnHead, RpnOptions
from mtl_ray.tasks.detection.two_stage.matching import (
    MatchRule,
    Sampling,
    decode_boxes,
    encode_boxes,
    in_crowds,
    match_candidates,
    sample,
)
from mtl_ray.tasks.detection.two_stage.rpn import anchor_corners
from tests.tasks.detection.two_stage_cases import context, features, small_head, targets

RULE = MatchRule(0.5, 0.3, 0.25)


def boxes_of(*shape: int, seed: int) -> Tensor:
    """Boxes on whole pixels, so that equal overlaps occur."""
    draw = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 12, (*shape, 2), generator=draw)
    size = torch.randint(2, 10, (*shape, 2), generator=draw)
    return torch.cat([corner, corner + size], dim=-1).float()


def test_anchors_are_those_of_torchvision_if_they_are_rounded() -> None:
    config = RpnOptions(rounded_anchors=True, anchor_scales=(8.0, 10.0))
    theirs = AnchorGenerator(
        sizes=((32, 40), (64, 80)), aspect_ratios=((0.5, 1.0, 2.0),) * 2
    ).cell_anchors
    torch.testing.assert_close(anchor_corners(config, (4, 8)), torch.stack(theirs))


def test_published_anchors_are_not_rounded() -> None:
    shapes = anchor_corners(RpnOptions(), (4,))[0]
    size = shapes[:, 2:] - shapes[:, :2]
    torch.testing.assert_close(size.prod(dim=1), torch.full((3,), 32.0**2))
    torch.testing.assert_close(size[:, 1] / size[:, 0], torch.tensor([0.5, 1.0, 2.0]))


@given(seed=st.integers(0, 10_000))
def test_offsets_have_an_inverse(seed: int) -> None:
    boxes, candidates = boxes_of(2, 5, seed=seed), boxes_of(2, 5, seed=seed + 1)
    stds = torch.tensor([0.1, 0.1, 0.2, 0.2])
    offsets = encode_boxes(boxes, candidates, stds)
    torch.testing.assert_close(decode_boxes(offsets, candidates, stds), boxes, rtol=0, atol=1e-4)
    theirs = BoxCoder((10.0, 10.0, 5.0, 5.0)).encode_single(boxes[0], candidates[0])
    torch.testing.assert_close(offsets[0], theirs, rtol=1e-4, atol=1e-5)


def by_hand(candidates: Tensor, boxes: Tensor, rule: MatchRule) -> list[int | None]:
    """The object of each candidate, -1 of a negative one, None of an ignored one."""
    if not len(boxes) or not len(candidates):
        return [-1] * len(candidates)
    overlaps = box_iou(boxes, candidates)
    found: list[int | None] = []
    for column in overlaps.t():
        best = int(column.argmax())
        value = float(column[best])
        found.append(best if value >= rule.positive else -1 if value < rule.negative else None)
    for number, row in enumerate(overlaps):
        if rule.least is not None and row.max() >= rule.least:
            for place in (row == row.max()).nonzero().flatten().tolist():
                found[place] = number
    return found


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 12),
    objects=st.integers(1, 6),
    least=st.sampled_from([None, 0.25]),
)
def test_candidates_are_matched_as_by_hand(
    seed: int, count: int, objects: int, least: float | None
) -> None:
    draw = torch.Generator().manual_seed(seed)
    candidates, boxes = boxes_of(2, count, seed=seed), boxes_of(2, objects, seed=seed + 1)
    valid, wanted = (torch.rand(2, n, generator=draw) < 0.7 for n in (count, objects))
    rule = RULE._replace(least=least)
    found = match_candidates(candidates, valid, boxes, wanted, rule)
    for image in range(2):
        kept, real = valid[image].nonzero().flatten(), wanted[image].nonzero().flatten()
        expected = by_hand(candidates[image][kept], boxes[image][real], rule)
        for place, match in zip(kept.tolist(), expected, strict=True):
            assert bool(found.positive[image, place]) == (match is not None and match >= 0)
            assert bool(found.negative[image, place]) == (match == -1)
            if match is not None and match >= 0:
                assert int(found.object[image, place]) == int(real[match])
        assert not (found.positive | found.negative)[image][~valid[image]].any()


@given(
    seed=st.integers(0, 10_000),
    samples=st.integers(1, 60),
    share=st.sampled_from([0.25, 0.5, 1.0]),
    step=st.integers(0, 10**7),
)
def test_samples_have_exact_counts(seed: int, samples: int, share: float, step: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    kind = torch.randint(0, 3, (3, 50), generator=draw)
    positive, negative = kind == 0, kind == 1
    rule = Sampling(samples, share)
    drawn = sample(positive, negative, torch.arange(50), rule, (step, 1))
    assert not (drawn[0] & ~positive).any()
    assert not (drawn[1] & ~negative).any()
    first = positive.sum(dim=1).clamp(max=int(samples * share))
    torch.testing.assert_close(drawn[0].sum(dim=1), first)
    rest = negative.sum(dim=1).minimum(samples - first)
    torch.testing.assert_close(drawn[1].sum(dim=1), rest)
    alone = sample(positive[1:2], negative[1:2], torch.arange(50), rule, (step, 1))
    assert torch.equal(alone[0], drawn[0][1:2])
    assert torch.equal(alone[1], drawn[1][1:2])


def test_steps_draw_different_candidates_and_each_as_often() -> None:
    everything, nothing = torch.ones(1, 1000, dtype=torch.bool), torch.zeros(1, 1000, dtype=bool)
    drawn = torch.stack(
        [
            sample(nothing, everything, torch.arange(1000), Sampling(100, 0.5), (step, 0))[1][0]
            for step in range(400)
        ]
    ).float()
    often = drawn.sum(dim=0)  # binomial: mean 40, deviation 6
    assert abs(float(often.mean()) - 40) < 1e-3
    assert 4.5 < float(often.std()) < 7.5
    together = (drawn[:-1] * drawn[1:]).sum(dim=1).mean()
    assert 8 < float(together) < 12, "two steps share a tenth of their samples"


def test_what_lies_in_a_crowd_region_is_found() -> None:
    crowd_box = torch.tensor([[[10.0, 10.0, 30.0, 30.0], [0.0, 0.0, 90.0, 90.0]]])
    candidates = torch.tensor(
        [[[12.0, 12.0, 16.0, 16.0], [0.0, 0.0, 12.0, 12.0], [28.0, 10.0, 40.0, 30.0]]]
    )
    crowd = torch.tensor([[True, False]])
    assert in_crowds(candidates, crowd_box, crowd).tolist() == [[True, False, False]]
    assert not in_crowds(candidates, crowd_box, ~crowd & False).any()


def test_proposals_are_suppressed_level_by_level() -> None:
    head = small_head(
        FasterRcnnHead,
        rpn={"channels": 8, "anchor_scales": [4.0], "candidates": 40, "proposals": 30},
    )
    maps, ctx = features(), context()
    with torch.no_grad():
        outputs = head.rpn_head.flatten(head.rpn_head(list(maps.values())))
        boxes, scores = head.rpn_head.proposals(outputs, ctx, training=False)
    assert boxes.shape == (2, 30, 4)
    decoded = decode_boxes(outputs.offsets, outputs.anchors, torch.ones(4))
    for image in range(2):
        found: list[tuple[float, list[float]]] = []
        start = 0
        for size in outputs.sizes:
            part = slice(start, start + size)
            score, place = outputs.logits[image, part].sigmoid().sort(descending=True)
            score, place = score[:40], place[:40]
            limit = tuple(ctx.valid_hw[image].tolist())
            level = clip_boxes_to_image(decoded[image, part][place], limit)
            real = ((level[:, 2:] - level[:, :2]) > 0).all(dim=1)
            level, score = level[real], score[real]
            kept = nms(level, score, 0.7)
            found += zip(score[kept].tolist(), level[kept].tolist(), strict=True)
            start += size
        best = sorted(found, reverse=True)[:30]
        number = int((scores[image] > 0).sum())
        assert number == len(best)
        torch.testing.assert_close(scores[image, :number], torch.tensor([s for s, _ in best]))
        torch.testing.assert_close(boxes[image, :number], torch.tensor([b for _, b in best]))


def test_a_canvas_with_few_cells_has_padded_proposals() -> None:
    head = small_head(FasterRcnnHead)
    maps = {level: torch.randn(1, 8, 1, 1) for level in ("P2", "P3", "P4")}
    with torch.no_grad():
        outputs = head.rpn_head.flatten(head.rpn_head(list(maps.values())))
        boxes, scores = head.rpn_head.proposals(outputs, context(1), training=False)
    assert boxes.shape == (1, 24, 4)
    assert 0 < int((scores > 0).sum()) <= 9
    assert not boxes[scores == 0].any()


@pytest.mark.parametrize("border", [None, 0.0])
def test_anchors_outside_of_the_image_are_not_trained(border: float | None) -> None:
    head = small_head(
        FasterRcnnHead,
        rpn={"channels": 8, "anchor_scales": [4.0], "border_px": border, "samples": 10**6},
    )
    maps, ctx = features(), context()
    valid = torch.tensor([[96, 128], [40, 60]], dtype=torch.int32)
    ctx = replace(ctx, inputs={**ctx.inputs, "valid_hw": valid})
    outputs = head.rpn_head.flatten(head.rpn_head(list(maps.values())))
    found = head.rpn_head.targets(outputs, targets(), ctx)
    drawn = (found.positive | found.negative)[1]
    anchors = outputs.anchors
    if border is None:
        centre = (anchors[:, :2] + anchors[:, 2:]) / 2
        inside = (centre < torch.tensor([64.0, 64.0]) - 0.1).all(dim=1)
    else:
        inside = (anchors[:, :2] >= 0).all(dim=1) & (
            anchors[:, 2:] < torch.tensor([60.0, 40.0])
        ).all(1)
    assert drawn.any()
    assert not drawn[~inside].any()
    assert found.negative[1][inside].sum() > 0.5 * inside.sum()


def test_where_classes_are_not_annotated_likely_objects_are_no_background() -> None:
    head = small_head(FasterRcnnHead, rpn={"channels": 8, "samples": 10**6})
    some = targets()
    some["known_classes"][1, 0] = False
    outputs = head.rpn_head.flatten(head.rpn_head(list(features().values())))
    found = head.rpn_head.targets(outputs, some, context())
    likely = outputs.logits > 0
    assert (found.negative & likely)[0].any()
    assert not (found.negative & likely)[1].any()
    assert found.negative[1].any()
