"""What goes over the wire or into a file comes back the same."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.classification.config import LinearHead, MultilabelHead
from mtl_ray.tasks.classification.decode import LabelScores
from mtl_ray.tasks.classification.task import CLASSIFICATION
from mtl_ray.tasks.detection.config import RetinaNetHead
from mtl_ray.tasks.detection.decode import Detections
from mtl_ray.tasks.detection.task import DETECTION
from mtl_ray.tasks.segmentation.config import FcnHead
from mtl_ray.tasks.segmentation.decode import SemanticMap
from mtl_ray.tasks.segmentation.task import SEGMENTATION
from tests.tasks.random_objects import detections, random_images

VOCABULARY = Vocabulary(classes={"instances": ("a", "b", "c"), "labels": ("x", "y", "z"), "semantic": ("sky", "road", "tree")})


def over_the_wire(answer: Any) -> Any:
    return json.loads(json.dumps(answer, allow_nan=False))


def through_arrow(row: Any, kind: pa.DataType) -> Any:
    return pa.array([row], kind).to_pylist()[0]


def equal(first: Detections, second: Detections) -> bool:
    arrays = [(getattr(first, name), getattr(second, name)) for name in ("boxes_xyxy", "scores", "classes", "keypoints")]
    same = all((a is None and b is None) or (a.dtype == b.dtype and np.array_equal(a, b)) for a, b in arrays)
    return same and first.masks == second.masks


FOUND = [image.found for image in random_images(4) if len(image.found)]
PLAIN = detections([[1.1, 2.2, 30.3, 40.4], [0, 0, 1, 1]], [0.7, 1 / 3], [2, 0])


@pytest.mark.parametrize("found", [*FOUND, PLAIN])
def test_detections_come_back(found: Detections) -> None:
    answer = DETECTION.to_response(found, VOCABULARY, 0.0)
    assert equal(DETECTION.from_response(over_the_wire(answer), VOCABULARY, RetinaNetHead()), found)
    assert equal(DETECTION.from_row(through_arrow(DETECTION.to_row(found), DETECTION.row_type())), found)


def test_nothing_found_comes_back_as_nothing() -> None:
    nothing = detections([], [])
    assert DETECTION.to_response(nothing, VOCABULARY, 0.0) == []
    assert equal(DETECTION.from_response([], VOCABULARY, RetinaNetHead()), nothing)
    assert equal(DETECTION.from_row(through_arrow(DETECTION.to_row(nothing), DETECTION.row_type())), nothing)


def test_an_answer_has_the_shape_of_torchserve() -> None:
    answer = DETECTION.to_response(PLAIN, VOCABULARY, 0.5)
    assert [set(item) for item in answer] == [{"class_label", "class_name", "bbox", "score"}]
    assert (answer[0]["class_label"], answer[0]["class_name"]) == (2, "c")
    assert answer[0]["bbox"] == pytest.approx([1.1, 2.2, 30.3, 40.4])


def test_coco_entries_use_the_numbers_of_the_source() -> None:
    first, _ = DETECTION.to_coco(PLAIN, 17, 50, 60, [4, 8, 90])
    assert (first["image_id"], first["category_id"]) == (17, 90)
    assert first["bbox"] == pytest.approx([1.1, 2.2, 29.2, 38.2])


def test_label_scores_come_back_and_the_best_is_always_said() -> None:
    scores = np.array([0.2, 0.5, 0.3], np.float32)
    one, many = LabelScores(scores=scores, exclusive=True), LabelScores(scores=scores, exclusive=False)
    assert [item["class_name"] for item in CLASSIFICATION.to_response(one, VOCABULARY, 0.0)] == ["y", "z", "x"]
    assert [item["class_label"] for item in CLASSIFICATION.to_response(one, VOCABULARY, 0.9)] == [1]
    assert CLASSIFICATION.to_response(many, VOCABULARY, 0.9) == []
    for found, head in ((one, LinearHead()), (many, MultilabelHead())):
        back = CLASSIFICATION.from_response(over_the_wire(CLASSIFICATION.to_response(found, VOCABULARY, 0.0)), VOCABULARY, head)
        kept = CLASSIFICATION.from_row(through_arrow(CLASSIFICATION.to_row(found), CLASSIFICATION.row_type()))
        for each in (back, kept):
            assert np.array_equal(each.scores, scores)
            assert each.exclusive == found.exclusive


def test_a_class_map_comes_back() -> None:
    found = SemanticMap(classes=np.array([[0, 2, 2], [0, 2, 2]], np.uint8))
    answer = over_the_wire(SEGMENTATION.to_response(found, VOCABULARY, 0.5))
    assert [(item["class_name"], item["share"]) for item in answer["classes"]] == [
        ("tree", pytest.approx(2 / 3)),
        ("sky", pytest.approx(1 / 3)),
    ]
    back = SEGMENTATION.from_response(answer, VOCABULARY, FcnHead())
    kept = SEGMENTATION.from_row(through_arrow(SEGMENTATION.to_row(found), SEGMENTATION.row_type()))
    assert np.array_equal(back.classes, found.classes)
    assert np.array_equal(kept.classes, found.classes)


@pytest.mark.parametrize("item", [{}, {"png": "no base64!"}, {"png": ""}, {"png": "AAAA"}])
def test_an_answer_without_a_map_is_refused(item: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"map|PNG"):
        SEGMENTATION.from_response(item, VOCABULARY, FcnHead())
