"""The selection of detections: the published rules against plain loops, and numpy and ONNX against
torch.
"""

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.ops import box_iou, nms

from mtl_ray.models.head import Candidates
from mtl_ray.tasks.detection.candidates import (
    clip_boxes,
    level_masks,
    select_detections,
    select_indexed,
    select_pairs,
)
from mtl_ray.tasks.detection.options import Selection
from mtl_ray.tasks.detection.selection import select_candidates

SIZES = (40, 12, 3)
RULES: dict[str, dict[str, Any]] = {
    "published": {"rank": "pair", "threshold_on": "class", "candidates": 15},
    "published_all": {"rank": "pair", "threshold_on": "class", "candidates": 1000},
    "geometric": {"rank": "pair", "score": "geometric_mean", "candidates": 20},
    "all": {"candidates": None},
    "best_class": {"candidates": None, "best_class": True},
    "best_pairs": {"rank": "pair", "candidates": 10, "best_class": True},
    "agnostic": {"rank": "pair", "candidates": 30, "class_agnostic": True},
    "none": {"suppression": "none"},
    "soft_linear": {"suppression": "soft_nms", "rank": "pair", "candidates": 30},
    "soft_gaussian": {"suppression": "soft_nms", "decay": "gaussian", "min_score": 0.05},
    "soft_agnostic": {"suppression": "soft_nms", "class_agnostic": True, "candidates": None},
    "matrix_linear": {"suppression": "matrix_nms", "rank": "pair", "candidates": 20},
    "matrix_all": {"suppression": "matrix_nms", "candidates": None},
    "matrix_gaussian": {"suppression": "matrix_nms", "decay": "gaussian", "min_score": 0.05},
}


def rule_of(name: str, **options: Any) -> Selection:
    return Selection(**{"score_threshold": 0.2, "max_detections": 25} | RULES[name] | options)


def candidates_of(seed: int, batch: int = 2, sizes: tuple[int, ...] = SIZES) -> Candidates:
    """Random boxes that overlap, three classes; all scores are different."""
    draw = torch.Generator().manual_seed(seed)
    count = sum(sizes)
    corner = torch.rand(batch, count, 2, generator=draw) * 40
    side = 5 + 40 * torch.rand(batch, count, 2, generator=draw)
    return {
        "boxes": torch.cat([corner, corner + side], dim=2),
        "objectness": torch.rand(batch, count, generator=draw),
        "scores": torch.rand(batch, count, 3, generator=draw),
        "levels": level_masks(sizes, torch.device("cpu")),
    }


def published(found: Candidates, row: int, rule: Selection) -> list[tuple[float, int, int]]:
    """(score, candidate, class): the steps of OpenMMLab's dense heads one after the other."""
    pairs: list[tuple[float, int, int]] = []
    start = 0
    for size in SIZES:
        level: list[tuple[float, int, int]] = []
        for candidate in range(start, start + size):
            for label in range(3):
                score = float(found["scores"][row, candidate, label])
                if score > rule.score_threshold:
                    level.append((score, candidate, label))
        pairs += sorted(level, reverse=True)[: rule.candidates]
        start += size
    joint = [
        (float(found["scores"][row, i, c] * found["objectness"][row, i]), i, c) for _, i, c in pairs
    ]
    kept: list[tuple[float, int, int]] = []
    for label in range(3):
        mine = [each for each in joint if each[2] == label]
        boxes = found["boxes"][row, [i for _, i, _ in mine]]
        left = nms(boxes, torch.tensor([score for score, _, _ in mine]), rule.iou_threshold)
        kept += [mine[i] for i in left.tolist()]
    return sorted(kept, reverse=True)[: rule.max_detections]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), name=st.sampled_from(["published", "published_all"]))
def test_the_published_rule_step_by_step(seed: int, name: str) -> None:
    found, rule = candidates_of(seed), rule_of(name)
    chosen = select_indexed(found, rule, False)
    for row in range(2):
        expected = published(found, row, rule)
        number = len(expected)
        assert chosen.candidate[row, :number].tolist() == [i for _, i, _ in expected]
        assert chosen.classes[row, :number].tolist() == [c for _, _, c in expected]
        np.testing.assert_allclose(chosen.scores[row, :number], [s for s, _, _ in expected])
        assert not chosen.scores[row, number:].any()
        assert torch.equal(
            chosen.boxes[row, :number], found["boxes"][row, chosen.candidate[row, :number]]
        )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), name=st.sampled_from(sorted(RULES)))
def test_numpy_selects_what_torch_selects(seed: int, name: str) -> None:
    found, rule = candidates_of(seed, batch=1), rule_of(name)
    inside = select_detections(found, rule, False)
    joined = torch.cat([found["boxes"], found["objectness"][..., None], found["scores"]], dim=2)
    boxes, scores, classes = select_candidates(joined[0].numpy(), rule, SIZES)
    real = inside["scores"][0] > 0
    np.testing.assert_allclose(scores, inside["scores"][0][real], rtol=1e-5)
    np.testing.assert_array_equal(boxes, inside["boxes"][0][real])
    np.testing.assert_array_equal(classes, inside["classes"][0][real])


def lowered_one_by_one(found: Candidates, rule: Selection) -> list[tuple[float, int, int]]:
    """Soft-NMS of every class as Bodla et al. write it."""
    overlap = box_iou(found["boxes"][0], found["boxes"][0])
    joint = found["scores"][0] * found["objectness"][0, :, None]
    result: list[tuple[float, int, int]] = []
    for label in range(3):
        left = {
            i: float(joint[i, label])
            for i in range(len(joint))
            if joint[i, label] > rule.score_threshold
        }
        while left:
            best = max(left, key=left.__getitem__)
            result.append((left.pop(best), best, label))
            for i in list(left):
                iou = float(overlap[best, i])
                if rule.decay == "gaussian":
                    left[i] *= float(np.exp(-(iou**2) / 0.5))
                elif iou >= rule.iou_threshold:
                    left[i] *= 1 - iou
                if left[i] < rule.min_score:
                    del left[i]
    return sorted(result, reverse=True)[: rule.max_detections]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), decay=st.sampled_from(["linear", "gaussian"]))
def test_soft_nms_is_that_of_the_paper(seed: int, decay: str) -> None:
    found = candidates_of(seed, batch=1)
    rule = rule_of("soft_linear", decay=decay, candidates=1000)
    chosen = select_indexed(found, rule, False)
    expected = lowered_one_by_one(found, rule)
    real = chosen.scores[0] > 0
    assert int(real.sum()) == len(expected)
    np.testing.assert_allclose(chosen.scores[0][real], [s for s, _, _ in expected], rtol=1e-4)
    assert chosen.candidate[0][real].tolist() == [i for _, i, _ in expected]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), decay=st.sampled_from(["linear", "gaussian"]))
def test_matrix_nms_is_that_of_the_paper(seed: int, decay: str) -> None:
    found = candidates_of(seed, batch=1)
    rule = rule_of("matrix_linear", decay=decay, candidates=50, rank="candidate")
    chosen = select_indexed(found, rule, False)
    overlap = box_iou(found["boxes"][0], found["boxes"][0])
    joint = found["scores"][0] * found["objectness"][0, :, None]
    pairs = [(float(joint[i, c]), i, c) for i in range(len(joint)) for c in range(3)]
    pairs = sorted((each for each in pairs if each[0] > rule.score_threshold), reverse=True)[:50]

    def factor(iou: float) -> float:
        return 1 - iou if decay == "linear" else float(np.exp(-2 * iou**2))

    def better(place: int) -> list[int]:
        return [i for i in range(place) if pairs[i][2] == pairs[place][2]]

    expected = []
    for place, (score, j, label) in enumerate(pairs):
        least = 1.0
        for other in better(place):
            i = pairs[other][1]
            most = max((float(overlap[pairs[k][1], i]) for k in better(other)), default=0.0)
            least = min(least, factor(float(overlap[i, j])) / factor(most))
        if score * least >= rule.min_score:
            expected.append((score * least, j, label))
    expected = sorted(expected, reverse=True)[: rule.max_detections]
    real = chosen.scores[0] > 0
    np.testing.assert_allclose(chosen.scores[0][real], [s for s, _, _ in expected], rtol=1e-4)
    assert chosen.candidate[0][real].tolist() == [i for _, i, _ in expected]


@pytest.mark.parametrize("detections", [100, 600])
def test_matrix_nms_compares_a_bounded_number_of_pairs(detections: int) -> None:
    """Of 12,000 candidates; numpy has the same bound."""
    sizes = (9000, 2400, 600)
    found = candidates_of(0, 1, sizes)
    every = {"max_detections": detections, "min_score": 0.0}
    rule = rule_of("matrix_all", **every)
    chosen = select_detections(found, rule, False)
    assert rule.most_compared == max(detections, 500)
    bounded = rule_of("matrix_all", **every | {"candidates": rule.most_compared})
    for key, value in select_detections(found, bounded, False).items():
        assert torch.equal(value, chosen[key])
    joined = torch.cat([found["boxes"], found["objectness"][..., None], found["scores"]], dim=2)
    boxes, scores, _ = select_candidates(joined[0].numpy(), rule, sizes)
    real = chosen["scores"][0] > 0
    np.testing.assert_allclose(scores, chosen["scores"][0][real], rtol=1e-4)
    np.testing.assert_allclose(boxes, chosen["boxes"][0][real])


EXPORTED = (
    "published",
    "all",
    "best_pairs",
    "agnostic",
    "soft_linear",
    "matrix_gaussian",
    "matrix_all",
)


class Selecting(nn.Module):
    """Rules of every kind in one graph."""

    def forward(
        self, boxes: Tensor, objectness: Tensor, scores: Tensor, levels: Tensor
    ) -> dict[str, dict[str, Tensor]]:
        found = {"boxes": boxes, "objectness": objectness, "scores": scores, "levels": levels}
        return {
            name: select_detections(found, rule_of(name, max_detections=6), True)
            for name in EXPORTED
        }


@pytest.fixture(scope="module")
def graph() -> onnxruntime.InferenceSession:
    found = candidates_of(0)
    batch, count = torch.export.Dim("batch"), torch.export.Dim("count", min=20)
    program = torch.onnx.export(
        Selecting().eval(),
        tuple(found.values()),
        dynamo=True,
        dynamic_shapes=(
            {0: batch, 1: count},
            {0: batch, 1: count},
            {0: batch, 1: count},
            {1: count},
        ),
        input_names=["boxes", "objectness", "scores", "levels"],
        output_names=[
            f"{name}.{key}" for name in EXPORTED for key in ("boxes", "scores", "classes")
        ],
        opset_version=20,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    del model.graph.value_info[:]  # as export.graph.to_onnx does
    return onnxruntime.InferenceSession(model.SerializeToString())


@pytest.mark.parametrize(("batch", "sizes"), [(2, SIZES), (1, SIZES), (3, (70, 30, 9))])
def test_the_graph_selects_what_torch_selects(
    graph: onnxruntime.InferenceSession, batch: int, sizes: tuple[int, ...]
) -> None:
    found = candidates_of(7, batch, sizes)
    names = [output.name for output in graph.get_outputs()]
    arrays = dict(
        zip(names, graph.run(None, {k: v.numpy() for k, v in found.items()}), strict=True)
    )
    for name in EXPORTED:
        for key, value in select_detections(found, rule_of(name, max_detections=6), False).items():
            np.testing.assert_allclose(
                arrays[f"{name}.{key}"], value.numpy(), rtol=1e-5, atol=1e-5, err_msg=name
            )


def test_pairs_with_boxes_of_their_own() -> None:
    """The same as candidates of one class each."""
    found = candidates_of(3)
    count = found["boxes"].shape[1]
    classes = torch.randint(0, 3, (2, count), generator=torch.Generator().manual_seed(1))
    scores = found["scores"].gather(2, classes[..., None])[..., 0]
    rule = rule_of("all", candidates=50)
    chosen = select_pairs(found["boxes"], scores, classes, 3, rule, False)
    hot = torch.zeros_like(found["scores"]).scatter(2, classes[..., None], scores[..., None])
    expected = select_indexed(
        {"boxes": found["boxes"], "objectness": torch.ones(2, count), "scores": hot}, rule, False
    )
    assert all(torch.equal(one, other) for one, other in zip(chosen, expected, strict=True))


def test_boxes_are_clipped_to_the_valid_part_of_each_canvas() -> None:
    boxes = torch.tensor([[[-5.0, -5, 90, 90]], [[10, 20, 30, 40]]])
    clipped = clip_boxes(boxes, torch.tensor([[50, 80], [30, 25]], dtype=torch.int32))
    assert clipped.tolist() == [[[0, 0, 80, 50]], [[10, 20, 25, 30]]]
