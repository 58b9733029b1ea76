"""Anchors, assignment, decoding and selection of the detection heads."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou

from benchmarks.matching import dense_crowd, dense_match
from mtl_ray.tasks.detection.candidates import (
    cell_corners,
    flatten_levels,
    in_crowd,
    select_detections,
)
from mtl_ray.tasks.detection.dense.boxes import decode_offsets
from mtl_ray.tasks.detection.dense.config import RetinaNetHead, Yolov3Head
from mtl_ray.tasks.detection.dense.matching import match_anchors
from mtl_ray.tasks.detection.dense.retinanet import RetinaNet
from mtl_ray.tasks.detection.dense.yolov3 import Yolov3, assign_anchors
from mtl_ray.tasks.detection.options import Selection
from tests.tasks.head_cases import CANVAS_HW, batch_of, images, inputs_of, model_of, scattered

SIZES, STRIDES = [(8, 12), (4, 6)], (8, 16)


def boxes_of(count: int, seed: int, side: float = 40.0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=draw) * 50
    return torch.cat([corner, corner + 4 + torch.rand(count, 2, generator=draw) * side], dim=1)


def chosen_by_hand(
    boxes: np.ndarray, scores: np.ndarray, config: Selection
) -> list[tuple[int, int]]:
    """(candidate, class) of greedy suppression, best first, as the textbook has it."""
    overlap = box_iou(torch.from_numpy(boxes), torch.from_numpy(boxes)).numpy()
    kept: list[tuple[int, int]] = []
    for place in np.argsort(-scores, axis=None, kind="stable"):
        candidate, label = divmod(int(place), scores.shape[1])
        if scores[candidate, label] <= config.score_threshold:
            break
        if all(
            other_label != label or overlap[candidate, other] <= config.iou_threshold
            for other, other_label in kept
        ):
            kept.append((candidate, label))
    return kept[: config.max_detections]


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 30),
    classes=st.integers(1, 4),
    limit=st.integers(1, 40),
)
def test_selection_is_greedy_suppression_in_each_class(
    seed: int, count: int, classes: int, limit: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    boxes, scores = boxes_of(count, seed), torch.rand(count, classes, generator=draw)
    objectness = torch.rand(count, generator=draw)
    config = Selection(score_threshold=0.1, iou_threshold=0.4, max_detections=limit, candidates=50)
    found = select_detections(
        {"boxes": boxes[None], "objectness": objectness[None], "scores": scores[None]},
        config,
        exporting=False,
    )
    joint = (scores * objectness[:, None]).numpy()
    expected = chosen_by_hand(boxes.numpy(), joint, config)
    number = len(expected)
    assert found["boxes"].shape == (1, limit, 4)
    assert found["classes"][0, :number].tolist() == [label for _, label in expected]
    np.testing.assert_allclose(
        found["scores"][0, :number], [joint[pair] for pair in expected], rtol=1e-6
    )
    np.testing.assert_allclose(
        found["boxes"][0, :number], boxes[[candidate for candidate, _ in expected]]
    )
    assert not any(value[0, number:].any() for value in found.values())


def test_only_the_best_candidates_go_into_suppression() -> None:
    boxes = torch.arange(20.0)[:, None] * 30 + torch.tensor([0.0, 0.0, 10.0, 10.0])
    scores = torch.linspace(0.1, 0.9, 20)[:, None]
    found = select_detections(
        {"boxes": boxes[None], "objectness": torch.ones(1, 20), "scores": scores[None]},
        Selection(max_detections=4, candidates=6),
        False,
    )
    torch.testing.assert_close(found["scores"][0], scores[:, 0].flip(0)[:4])


def test_cells_are_ordered_by_level_row_column_anchor() -> None:
    corners, strides = cell_corners(SIZES, STRIDES, 2, torch.device("cpu"))
    assert corners.shape == (2 * (8 * 12 + 4 * 6), 2)
    assert corners[2 * (3 * 12 + 5) + 1].tolist() == [40.0, 24.0]
    assert corners[-1].tolist() == [80.0, 48.0]
    assert strides[0] == 8
    assert strides[-1] == 16
    maps = [torch.zeros(1, 2 * 3, *size) for size in SIZES]
    maps[0][0, 1 * 3 + 2, 3, 5] = 7.0
    assert flatten_levels(maps, 2)[0, 2 * (3 * 12 + 5) + 1].tolist() == [0.0, 0.0, 7.0]


def test_a_yolov3_box_is_the_anchor_on_the_middle_of_its_cell_where_the_network_says_nothing() -> (
    None
):
    head = model_of("yolov3").heads["yolov3"]
    assert isinstance(head, Yolov3)
    boxes = head.boxes(torch.zeros(1, 240, 7), SIZES)[0]
    assert boxes[2 * (3 * 12 + 5) + 1].tolist() == [44 - 8, 28 - 8, 44 + 8, 28 + 8]
    assert boxes[-1].tolist() == [88 - 16, 56 - 20, 88 + 16, 56 + 20]


@given(seed=st.integers(0, 10_000))
def test_every_object_that_an_anchor_fits_has_a_candidate_near_its_centre(seed: int) -> None:
    anchors = torch.tensor([[[8.0, 8.0], [16.0, 16.0]], [[24.0, 24.0], [32.0, 40.0]]])
    # all centres lie on the canvas, as those of clipped boxes do
    boxes = boxes_of(3, seed, side=20.0)[None]
    wanted = torch.tensor([[True, False, True]])
    place, match, positive = assign_anchors(boxes, wanted, SIZES, STRIDES, anchors)
    corners, strides = cell_corners(SIZES, STRIDES, 2, torch.device("cpu"))
    assert match[positive].unique().tolist() == [0, 2]
    centre = ((boxes[..., :2] + boxes[..., 2:]) / 2)[0, match[positive]]
    distance = (corners[place[positive]] + strides[place[positive]] / 2 - centre).abs() / strides[
        place[positive]
    ]
    assert float(distance.max()) <= 1.0


@pytest.mark.parametrize("name", ["yolov3", "uneven"])
def test_yolov3_targets_can_be_reached_by_its_boxes(name: str) -> None:
    """For a positive candidate some raw output gives the object's box: the loss can become zero."""
    head = model_of(name).heads[name]
    assert isinstance(head, Yolov3)
    boxes = boxes_of(4, 3)[None]
    place, match, positive = assign_anchors(
        boxes, torch.ones(1, 4, dtype=torch.bool), SIZES, STRIDES, head.anchors_px
    )
    corners, strides = cell_corners(SIZES, STRIDES, head.anchors, torch.device("cpu"))
    gt, where = boxes[0, match[positive]], place[positive]
    share_xy = (((gt[:, :2] + gt[:, 2:]) / 2 - corners[where]) / strides[where] + 0.5) / 2
    share_wh = ((gt[:, 2:] - gt[:, :2]) / head.anchors_of(SIZES)[where]).sqrt() / 2
    shares = torch.cat([share_xy, share_wh], dim=1)
    assert float(shares.min()) >= 0
    assert float(shares.max()) <= 1
    raw = torch.zeros(1, len(corners), 7)
    raw[0, where, :4] = shares.logit(eps=1e-6)
    found = head.boxes(raw, SIZES)[0, where]
    unique = torch.tensor([int((where == each).sum()) == 1 for each in where])
    torch.testing.assert_close(found[unique], gt[unique], rtol=1e-3, atol=1e-2)


def test_a_level_may_have_more_anchors_than_another_but_not_none() -> None:
    head = model_of("uneven").heads["uneven"]
    assert isinstance(head, Yolov3)
    boxes = head.boxes(torch.zeros(1, 3 * 96 + 24, 7), SIZES)[0]
    assert boxes[3 * (3 * 12 + 5) + 2].tolist() == [44 - 6, 28 - 10, 44 + 6, 28 + 10]
    assert boxes[-1].tolist() == [88 - 16, 56 - 20, 88 + 16, 56 + 20]
    small, large = torch.tensor([[40.0, 24, 53, 44]]), torch.tensor([[10.0, 5, 45, 44]])
    for box, level in ((small, 0), (large, 1)):
        place, _, positive = assign_anchors(
            box[None], torch.ones(1, 1, dtype=torch.bool), SIZES, STRIDES, head.anchors_px
        )
        assert ((place[positive] >= 3 * 96) == level).all()
    with pytest.raises(
        ValueError, match=r"anchors: P4 has no anchors\. Fix: remove it from levels"
    ):
        Yolov3Head(levels=("P3", "P4"), anchors=(((8, 8),), ()))
    with pytest.raises(ValueError, match="one list for each of the 2 levels is needed, not 1"):
        Yolov3Head(levels=("P3", "P4"), anchors=(((8, 8),),))


def test_retinanet_gives_each_object_its_best_anchor() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 20, 20], [30, 30, 40, 40], [0, 0, 12, 10]])
    boxes = torch.tensor([[[0.0, 0, 10, 10], [30, 30, 33, 33], [0, 0, 0, 0]]])
    matches = match_anchors(anchors, boxes, torch.tensor([[True, True, False]]))
    assert matches.positive[0].tolist() == [True, False, True, True]
    assert matches.negative[0].tolist() == [False, True, False, False]
    assert matches.object[0, [0, 2, 3]].tolist() == [0, 1, 0]


@settings(max_examples=60)
@given(
    batch=st.integers(1, 3),
    objects=st.integers(1, 6),
    anchors=st.integers(1, 30),
    seed=st.integers(0, 1000),
)
def test_matching_object_by_object_is_matching_all_at_once(
    batch: int, objects: int, anchors: int, seed: int
) -> None:
    """Whole coordinates on a small canvas, so that many overlaps are equal; some boxes are
    empty, some not wanted.
    """
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 8, (batch * objects + anchors, 2), generator=generator)
    every = torch.cat(
        [corners, corners + torch.randint(0, 5, corners.shape, generator=generator)], dim=1
    ).float()
    boxes, places = (
        every[anchors:].view(batch, objects, 4),
        every[:anchors] + torch.tensor([0.0, 0, 1, 1]),
    )
    wanted = torch.rand(batch, objects, generator=generator) < 0.7
    expected = dense_match(places, boxes, wanted)
    for one, other in zip(match_anchors(places, boxes, wanted), expected, strict=True):
        assert torch.equal(one, other)
    centres = (places[:, :2] + places[:, 2:]) / 2
    assert torch.equal(in_crowd(centres, boxes, wanted), dense_crowd(centres, boxes, wanted))


@pytest.mark.parametrize("name", ["yolov3", "retinanet"])
def test_each_loss_term_has_a_weight(name: str) -> None:
    model, batch = scattered(model_of(name)), batch_of(2)
    with torch.no_grad():
        features, context = model.prepare(batch.inputs)
        head = cast(Any, model.heads[name])
        before = head.losses(features, batch.targets["instances"], context)
        for term in before:
            setattr(head, f"{term}_weight", 3 * getattr(head, f"{term}_weight"))
            after = head.losses(features, batch.targets["instances"], context)
            for other in before:
                torch.testing.assert_close(
                    after[other][0], before[other][0] * (3 if other == term else 1)
                )
            setattr(head, f"{term}_weight", getattr(head, f"{term}_weight") / 3)


def test_loss_weights_come_from_the_config() -> None:
    heads = [Yolov3Head(anchors=(((8, 8),),) * 3), RetinaNetHead()]
    assert [(head.box_weight, head.class_weight) for head in heads] == [(5.0, 1.0), (2.0, 1.0)]
    built = Yolov3(
        Yolov3Head(levels=("P3",), anchors=(((8, 8),),), box_weight=0.05, objectness_weight=0.7),
        {"P3": 4},
        {"P3": 8},
        2,
    )
    assert (built.box_weight, built.objectness_weight, built.class_weight) == (0.05, 0.7, 1.0)


def test_zero_offsets_are_the_anchors() -> None:
    anchors = boxes_of(5, 1)
    torch.testing.assert_close(decode_offsets(torch.zeros(2, 5, 4), anchors)[1], anchors)
    head = model_of("retinanet").heads["retinanet"]
    assert isinstance(head, RetinaNet)
    areas = head.shapes.prod(dim=1).reshape(3, 3)
    torch.testing.assert_close(
        areas, torch.tensor([4.0, 4 * 2 ** (2 / 3), 4 * 2 ** (4 / 3)])[:, None].expand(3, 3)
    )


def test_candidates_come_before_selection() -> None:
    for name in ("yolov3", "retinanet"):
        model = scattered(model_of(name))
        head = model.heads[name]
        assert isinstance(head, Yolov3 | RetinaNet)
        with torch.no_grad():
            features, context = model.prepare(inputs_of(images(2), CANVAS_HW))
            found = head.candidates(features, context)
            chosen = select_detections(found, head.selection, exporting=False)
            predicted = head.predict(features, context)
        count = found["boxes"].shape[1]
        assert found["objectness"].shape == (2, count)
        assert found["scores"].shape == (2, count, 2)
        assert name == "yolov3" or bool((found["objectness"] == 1).all())
        assert all(torch.equal(chosen[key], predicted[key]) for key in predicted)


def test_points_in_a_crowd_are_told() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30]]])
    points = torch.tensor([[5.0, 5], [25, 25], [15, 15]])
    assert in_crowd(points, boxes, torch.tensor([[False, True]])).tolist() == [[False, True, False]]


def test_yolov3_calls_nothing_background_that_it_takes_for_a_class_that_the_dataset_does_not_know() -> (  # noqa: E501
    None
):
    model, batch = scattered(model_of("yolov3")), batch_of(2)
    batch.targets["instances"]["present"].zero_()
    head = model.heads["yolov3"]
    for output, count in zip(head.outputs, head.anchors, strict=True):
        output.bias.data.view(count, -1)[:, 6] += 100  # every anchor is of the second class
    terms = model.losses(batch)
    assert terms["yolov3/objectness"][0] > 0
    batch.targets["instances"]["known_classes"][0, 1] = False
    halved = model.losses(batch)["yolov3/objectness"][0]
    torch.testing.assert_close(
        halved, model.losses(batch[1:2])["yolov3/objectness"][0], rtol=1e-4, atol=1e-4
    )
    batch.targets["instances"]["known_classes"][1, 1] = False
    assert model.losses(batch)["yolov3/objectness"][0] == 0


def test_nothing_is_learnt_from_a_crowd() -> None:
    """Predictions inside it are neither right nor wrong: with the whole canvas a crowd there is
    no loss at all.
    """
    for name in ("yolov3", "retinanet"):
        model, batch = scattered(model_of(name)), batch_of(2)
        target = batch.targets["instances"]
        target["boxes"][:, 0] = torch.tensor([0.0, 0, CANVAS_HW[1], CANVAS_HW[0]])
        target["crowd"][:, 0] = True
        with torch.no_grad():
            assert all(value == 0 and count == 0 for value, count in model.losses(batch).values())
            target["boxes"][:, 0, 2] = 48.0
            half = model.losses(batch)
            target["present"][:, 0] = False
            none = model.losses(batch)
        term = "objectness" if name == "yolov3" else "class"
        assert 0 < half[f"{name}/{term}"][0] < none[f"{name}/{term}"][0]
