"""What goes over the wire or into a file comes back the same."""

import json
from dataclasses import replace
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pycocotools.mask
import pytest

from mtl_ray.experiment import tasks
from mtl_ray.geometry.masks import decode_rle, encode_rle
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.classification.config import LinearHead, MultilabelHead
from mtl_ray.tasks.classification.decode import LabelScores
from mtl_ray.tasks.classification.task import CLASSIFICATION
from mtl_ray.tasks.detection.decode import Detections
from mtl_ray.tasks.detection.dense.config import RetinaNetHead
from mtl_ray.tasks.detection.task import DETECTION
from mtl_ray.tasks.response import MaskForm
from mtl_ray.tasks.segmentation.config import FcnHead
from mtl_ray.tasks.segmentation.decode import SemanticMap
from mtl_ray.tasks.segmentation.task import SEGMENTATION
from mtl_ray.tasks.task import HeadKind, Task
from tests.tasks.random_objects import HEIGHT, WIDTH, detections, random_images

VOCABULARY = Vocabulary(
    classes={
        "instances": ("a", "b", "c"),
        "labels": ("x", "y", "z"),
        "semantic": ("sky", "road", "tree"),
    }
)


def over_the_wire(answer: Any) -> Any:
    return json.loads(json.dumps(answer, allow_nan=False))


def through_arrow(row: Any, kind: pa.DataType) -> Any:
    return pa.array([row], kind).to_pylist()[0]


def equal(first: Detections, second: Detections) -> bool:
    arrays = [
        (getattr(first, name), getattr(second, name))
        for name in ("boxes_xyxy", "scores", "classes", "keypoints")
    ]
    same = all(
        (a is None and b is None) or (a.dtype == b.dtype and np.array_equal(a, b))
        for a, b in arrays
    )
    return same and first.masks == second.masks


FOUND = [image.predicted for image in random_images(4) if len(image.predicted)]
PLAIN = detections([[1.1, 2.2, 30.3, 40.4], [0, 0, 1, 1]], [0.7, 1 / 3], [2, 0])


@pytest.mark.parametrize("found", [*FOUND, PLAIN])
def test_detections_come_back(found: Detections) -> None:
    answer = DETECTION.to_response(found, VOCABULARY, 0.0)
    assert equal(DETECTION.from_response(over_the_wire(answer), VOCABULARY, RetinaNetHead()), found)
    assert equal(
        DETECTION.from_row(through_arrow(DETECTION.to_row(found), DETECTION.row_type())), found
    )


SIZE = {"height": HEIGHT, "width": WIDTH}


@pytest.mark.parametrize("form", ["rle", "polygon"])
def test_masks_come_back_in_every_form(form: MaskForm) -> None:
    nothing = replace(
        FOUND[0], masks=(encode_rle(np.zeros((HEIGHT, WIDTH), bool)),) * len(FOUND[0])
    )
    for found in (*FOUND[:2], nothing):
        answer = over_the_wire(DETECTION.to_response(found, VOCABULARY, 0.0, masks=form, size=SIZE))
        jsonschema.validate(answer, DETECTION.response_schema())
        assert equal(DETECTION.from_response(answer, VOCABULARY, RetinaNetHead(), SIZE), found)
        for item, mask in zip(answer, found.masks or (), strict=True):
            encoded = item["mask"]
            if form == "polygon":
                parts = pycocotools.mask.frPyObjects(encoded, HEIGHT, WIDTH) if encoded else []
                encoded = pycocotools.mask.merge(parts) if parts else None
            shown = pycocotools.mask.decode(encoded) if encoded else np.zeros((HEIGHT, WIDTH))
            assert np.array_equal(shown, decode_rle(mask, HEIGHT, WIDTH))


def test_masks_are_left_out_if_nobody_wants_them() -> None:
    answer = DETECTION.to_response(FOUND[0], VOCABULARY, 0.0, masks="none", size=SIZE)
    assert answer
    assert not any("mask" in item for item in answer)


@pytest.mark.parametrize(
    "mask",
    [
        {"size": [7, 7], "counts": "1"},
        {"size": [HEIGHT, WIDTH], "counts": "1"},
        {"size": [HEIGHT, WIDTH], "counts": "\x00"},
        {"size": [HEIGHT, WIDTH]},
        {"size": 7, "counts": "1"},
        "1",
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, "6", 7]],
        [[0, 0, 5, float("nan"), 5, 5]],
        7,
        [7],
    ],
)
def test_a_mask_of_another_size_or_form_is_refused(mask: Any) -> None:
    with pytest.raises((ValueError, LookupError, TypeError, AttributeError, OverflowError)):
        DETECTION.from_response([BOX | {"mask": mask}], VOCABULARY, RetinaNetHead(), SIZE)


def test_nothing_found_comes_back_as_nothing() -> None:
    nothing = detections([], [])
    assert DETECTION.to_response(nothing, VOCABULARY, 0.0) == []
    assert equal(DETECTION.from_response([], VOCABULARY, RetinaNetHead()), nothing)
    assert equal(
        DETECTION.from_row(through_arrow(DETECTION.to_row(nothing), DETECTION.row_type())), nothing
    )


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
    one, many = (
        LabelScores(scores=scores, exclusive=True),
        LabelScores(scores=scores, exclusive=False),
    )
    assert [item["class_name"] for item in CLASSIFICATION.to_response(one, VOCABULARY, 0.0)] == [
        "y",
        "z",
        "x",
    ]
    assert [item["class_label"] for item in CLASSIFICATION.to_response(one, VOCABULARY, 0.9)] == [1]
    assert CLASSIFICATION.to_response(many, VOCABULARY, 0.9) == []
    for found, head in ((one, LinearHead()), (many, MultilabelHead())):
        back = CLASSIFICATION.from_response(
            over_the_wire(CLASSIFICATION.to_response(found, VOCABULARY, 0.0)), VOCABULARY, head
        )
        kept = CLASSIFICATION.from_row(
            through_arrow(CLASSIFICATION.to_row(found), CLASSIFICATION.row_type())
        )
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


MAP = SEGMENTATION.to_response(
    SemanticMap(classes=np.array([[0, 2, 2], [0, 2, 1]], np.uint8)), VOCABULARY, 0.0
)
BOX = {"class_label": 0, "class_name": "a", "bbox": [0, 0, 1, 1], "score": 0.5}
LABEL = {"class_label": 0, "class_name": "x", "score": 0.5}
WRONG: list[tuple[Task[Any, Any], HeadKind, Any]] = [
    *(
        (DETECTION, RetinaNetHead(), [BOX | {"class_label": label}])
        for label in (-1, 3, 1.5, "1", None, 10**30)
    ),
    *(
        (DETECTION, RetinaNetHead(), [BOX | {"bbox": box}])
        for box in ([0, 0, 1], [0] * 8, None, [0, 0, 1, float("nan")], "box")
    ),
    *(
        (DETECTION, RetinaNetHead(), [BOX | {"score": score}])
        for score in (float("inf"), float("nan"), None, "much")
    ),
    *(
        (DETECTION, RetinaNetHead(), content)
        for content in (None, 7, [7], [{}], {"error": "x"}, [BOX | {"mask": "a"}, BOX])
    ),
    *(
        (CLASSIFICATION, head, [LABEL | {"class_label": label}])
        for head in (LinearHead(), MultilabelHead())
        for label in (-1, 3, 1.5, "1")
    ),
    *(
        (CLASSIFICATION, LinearHead(), content)
        for content in (None, 7, [7], [{}], [LABEL | {"score": float("nan")}])
    ),
    *(
        (SEGMENTATION, FcnHead(), content)
        for content in (None, 7, [], "png", {"png": 7}, {"png": None})
    ),
]


@pytest.mark.parametrize(("task", "head", "content"), WRONG)
def test_a_malformed_response_is_refused(
    task: Task[Any, Any], head: HeadKind, content: Any
) -> None:
    with pytest.raises((ValueError, LookupError, TypeError, AttributeError, OverflowError)):
        task.from_response(content, VOCABULARY, head)


def test_a_class_map_must_have_the_size_and_the_classes_of_the_model() -> None:
    assert (
        SEGMENTATION.from_response(MAP, VOCABULARY, FcnHead(), {"height": 2, "width": 3}).classes[
            1, 2
        ]
        == 1
    )
    with pytest.raises(ValueError, match="3 x 2 pixels, the image has 2 x 3"):
        SEGMENTATION.from_response(MAP, VOCABULARY, FcnHead(), {"height": 3, "width": 2})
    with pytest.raises(ValueError, match="class index 2, but there are 2 classes"):
        SEGMENTATION.from_response(
            MAP, Vocabulary(classes={"semantic": ("sky", "road")}), FcnHead()
        )


def test_the_image_of_a_map_may_lie_beside_the_response() -> None:
    found = SemanticMap(classes=np.zeros((2, 3), np.uint8))
    assert SEGMENTATION.to_response(found, VOCABULARY, 0.0, image_file="a.png")["png"] == "a.png"
    assert SEGMENTATION.plain_image(found)[:4] == b"\x89PNG"
    assert DETECTION.plain_image(PLAIN) is None
    assert [task.name for task in tasks() if task.to_coco is not None] == ["detection"]


@pytest.mark.parametrize(
    ("task", "head", "content"),
    [(DETECTION, RetinaNetHead(), [BOX]), (CLASSIFICATION, LinearHead(), [LABEL])],
)
def test_a_response_follows_its_schema(task: Task[Any, Any], head: HeadKind, content: Any) -> None:
    jsonschema.validate(
        task.to_response(task.from_response(content, VOCABULARY, head), VOCABULARY, 0.0),
        task.response_schema(),
    )
    jsonschema.validate(MAP, SEGMENTATION.response_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(MAP, task.response_schema())
