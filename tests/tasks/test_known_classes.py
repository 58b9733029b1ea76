"""Metrics of samples whose dataset does not know all classes, by hand; and the classes of one
head.
"""

import io
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from mtl_ray.annotations.instance_values import Instances
from mtl_ray.annotations.instances import INSTANCES
from mtl_ray.annotations.labels import LABELS
from mtl_ray.annotations.semantic import SEMANTIC
from mtl_ray.evaluation.data import class_converter
from mtl_ray.evaluation.predictions_file import read_arrow, rows_to_table, write_arrow
from mtl_ray.experiment import HeadConfig
from mtl_ray.inference.predictor import head_of
from mtl_ray.inputs.decode import decode_semantic
from mtl_ray.models.head import Context
from mtl_ray.samples import Sample, Vocabulary, image_sample
from mtl_ray.tasks.classification.config import LinearHead, MultilabelHead
from mtl_ray.tasks.classification.decode import LabelScores
from mtl_ray.tasks.classification.heads import Linear
from mtl_ray.tasks.detection.decode import Detections
from mtl_ray.tasks.detection.dense.config import RetinaNetHead
from mtl_ray.tasks.head_classes import (
    HeadClasses,
    head_metric,
    head_vocabulary,
    numbered_vocabulary,
)
from mtl_ray.tasks.segmentation.config import FcnHead
from mtl_ray.tasks.segmentation.decode import SemanticMap
from mtl_ray.tasks.task import HeadKind, Metric

RUN = Vocabulary(
    classes=dict.fromkeys(("labels", "instances", "semantic"), ("cat", "dog", "fox")),
    colours={"instances": ((1, 1, 1), (2, 2, 2), (3, 3, 3))},
    category_ids={"instances": (10, 20, 30)},
)
CAT_DOG = np.array([True, True, False])
DOG_FOX = np.array([False, True, True])


class Data:
    """A dataset of some classes, as ``class_converter`` wants to know it."""

    def __init__(self, *names: str) -> None:
        self.vocabulary = Vocabulary(
            classes=dict.fromkeys(("labels", "instances", "semantic"), names)
        )
        self.annotations = {kind.name: kind for kind in (LABELS, INSTANCES, SEMANTIC)}


def objects(*classes: int) -> Instances:
    """Objects side by side, 10 pixels each."""
    count = len(classes)
    boxes = np.array(
        [[10 * place, 0, 10 * place + 10, 10] for place in range(count)], np.float32
    ).reshape(-1, 4)
    none = np.zeros(count, np.bool_)
    return Instances(
        boxes_xyxy=boxes,
        classes=np.array(classes, np.int64),
        ids=np.arange(count),
        areas=np.full(count, 100, np.float32),
        crowd=none,
        difficult=none,
        truncated=none,
    )


def png(rows: list[list[int]]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.array(rows, np.uint8)).save(file, "PNG")
    return file.getvalue()


def sample(known: np.ndarray | None, **annotations: Any) -> Sample:
    found = image_sample(key="k", image=b"", height=10, width=40).with_annotations(**annotations)
    return (
        found if known is None else replace(found, known_classes=dict.fromkeys(annotations, known))
    )


def detections(*found: tuple[int, int, float]) -> Detections:
    """(place, class, score) of each."""
    boxes = [[10 * place, 0, 10 * place + 10, 10] for place, _, _ in found]
    return Detections(
        boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array([score for _, _, score in found], np.float32),
        classes=np.array([each for _, each, _ in found], np.int64),
    )


def labels(*scores: float, exclusive: bool = False) -> LabelScores:
    return LabelScores(scores=np.array(scores, np.float32), exclusive=exclusive)


def counted(
    head: HeadKind, *pairs: tuple[Sample, Any], vocabulary: Vocabulary = RUN
) -> Metric[Any]:
    metric = head_metric(head, vocabulary)
    for each, prediction in pairs:
        metric.update(each, prediction)
    return metric


# What a dataset does not know is neither right nor wrong.


def test_detections_of_an_unknown_class_are_left_out() -> None:
    """A fox is found on an image whose dataset does not know foxes, and one on an image whose
    dataset does and has none there.
    """
    unknown = sample(CAT_DOG, instances=objects(0)), detections((1, 2, 0.9), (0, 0, 0.8))
    known = sample(DOG_FOX, instances=objects(2)), detections((0, 2, 0.7))
    right = counted(RetinaNetHead(), unknown, known)
    assert right.per_class()["fox"]["mAP"] == pytest.approx(1)
    assert right.result()["mAP"] == pytest.approx(1)
    assert math.isnan(right.per_class()["dog"]["mAP"])
    all_known = counted(RetinaNetHead(), (sample(None, instances=objects(0)), unknown[1]), known)
    assert all_known.per_class()["fox"]["mAP"] == pytest.approx(0.5)


def test_of_an_image_with_one_label_the_best_known_class_counts() -> None:
    metric = counted(
        LinearHead(),
        # fox does not count: right
        (
            sample(CAT_DOG, labels=np.array([1])),
            labels(0.1, 0.3, 0.6, exclusive=True),
        ),
        # dog: wrong
        (
            sample(CAT_DOG, labels=np.array([0])),
            labels(0.1, 0.3, 0.6, exclusive=True),
        ),
        (sample(None, labels=np.array([1])), labels(0.1, 0.3, 0.6, exclusive=True)),  # fox: wrong
    )
    assert metric.result()["top1"] == pytest.approx(1 / 3)
    charts = metric.charts()
    assert charts.confusion is not None
    assert charts.confusion.counts.tolist() == [[0, 1, 0], [0, 1, 1], [0, 0, 0]]
    nobody = counted(
        LinearHead(), (sample(CAT_DOG, labels=np.array([1])), labels(0.1, 0.3, 0.6, exclusive=True))
    )
    assert all(math.isnan(value) for value in nobody.per_class()["fox"].values())


def test_scores_of_unknown_classes_do_not_count_for_any_number_of_labels() -> None:
    metric = counted(
        MultilabelHead(),
        (sample(CAT_DOG, labels=np.array([0])), labels(0.9, 0.2, 0.8)),
        (sample(DOG_FOX, labels=np.array([2])), labels(0.7, 0.6, 0.7)),
        (sample(None, labels=np.array([1])), labels(0.4, 0.9, 0.1)),
    )
    table = metric.per_class()
    # the 0.7 of the second image does not count
    assert (table["cat"]["AP"], table["cat"]["precision"]) == (
        1,
        1,
    )
    assert (table["dog"]["AP"], table["dog"]["precision"]) == (1, 0.5)
    # nor does the 0.8 of the first
    assert (table["fox"]["AP"], table["fox"]["precision"]) == (
        1,
        1,
    )
    assert metric.result()["micro_precision"] == pytest.approx(3 / 4)
    other = counted(MultilabelHead(), (sample(None, labels=np.array([2])), labels(0.1, 0.1, 0.75)))
    metric.merge(other)
    assert metric.per_class()["fox"]["AP"] == 1
    nobody = counted(
        MultilabelHead(), (sample(CAT_DOG, labels=np.array([0])), labels(0.9, 0.2, 0.8))
    )
    assert all(math.isnan(value) for value in nobody.per_class()["fox"].values())


def test_pixels_predicted_as_an_unknown_class_do_not_count() -> None:
    gt = png([[0, 0, 1, 1]])
    found = SemanticMap(classes=np.array([[0, 2, 1, 0]], np.uint8))
    metric = counted(FcnHead(), (sample(CAT_DOG, semantic=gt), found))
    table = metric.per_class()
    # one right, one of dog's; the pixel of fox is not there
    assert table["cat"]["IoU"] == pytest.approx(1 / 2)
    assert table["dog"]["IoU"] == pytest.approx(1 / 2)
    assert math.isnan(table["fox"]["IoU"])
    assert metric.result()["aAcc"] == pytest.approx(2 / 3)
    assert counted(FcnHead(), (sample(None, semantic=gt), found)).per_class()["fox"]["IoU"] == 0


def test_the_class_converter_says_which_classes_a_dataset_knows() -> None:
    convert, unknown = class_converter(Data("fox", "dog", "elk"), RUN)
    turned = convert(
        sample(
            None,
            labels=np.array([0, 2]),
            instances=objects(1, 2, 0),
            semantic=png([[0, 1, 2, 255]]),
        )
    )
    assert unknown == ["labels: elk", "instances: elk", "semantic: elk"]
    assert turned.labels is not None and turned.labels.tolist() == [2]  # noqa: PT018
    assert turned.instances is not None and turned.instances.classes.tolist() == [1, 2]  # noqa: PT018
    assert turned.semantic is not None
    assert decode_semantic(turned.semantic).tolist() == [[2, 1, 255, 255]]
    assert {kind: known.tolist() for kind, known in turned.known_classes.items()} == dict.fromkeys(
        RUN.classes, DOG_FOX.tolist()
    )
    whole = sample(None, labels=np.array([0]))
    assert class_converter(Data("cat", "dog", "fox"), RUN)[0](whole) is whole
    assert class_converter(Data("fox", "cat", "dog"), RUN)[0](whole).known_classes == {}


def test_a_damaged_map_passes_the_class_converter_so_that_it_is_named_as_an_invalid_sample() -> (
    None
):
    damaged = sample(None, semantic=b"no PNG")
    assert class_converter(Data("dog", "fox"), RUN)[0](damaged).semantic == b"no PNG"


def test_smoothing_is_over_the_known_classes_and_that_of_torch_where_all_are_known() -> None:
    torch.manual_seed(0)
    head = Linear(LinearHead(smoothing=0.3), {"G5": 4}, 3).eval()
    features = {"G5": torch.rand(2, 4)}
    context = Context(inputs={})
    targets = {
        "present": torch.tensor([[0.0, 1, 0], [0, 1, 0]]),
        "annotated": torch.tensor([True, True]),
    }
    logits, wanted = head.logits(features), torch.tensor([1, 1])
    value, _ = head.losses(
        features, targets | {"known_classes": torch.ones(2, 3, dtype=torch.bool)}, context
    )["class"]
    assert value == F.cross_entropy(logits, wanted, reduction="none", label_smoothing=0.3).sum()
    value, _ = head.losses(
        features, targets | {"known_classes": torch.tensor([[True, True, False]] * 2)}, context
    )["class"]
    torch.testing.assert_close(
        value, F.cross_entropy(logits[:, :2], wanted, reduction="sum", label_smoothing=0.3)
    )


# The classes of one head.


def test_the_vocabulary_of_a_head_has_its_classes_in_its_order() -> None:
    assert head_vocabulary(RetinaNetHead(), RUN) is RUN
    assert head_vocabulary(RetinaNetHead(classes=("cat", "dog", "fox")), RUN) is RUN
    own = head_vocabulary(RetinaNetHead(classes=("fox", "cat")), RUN)
    assert own.classes["instances"] == ("fox", "cat")
    assert own.colours["instances"] == ((3, 3, 3), (1, 1, 1))
    assert own.category_ids["instances"] == (30, 10)
    assert own.classes["labels"] == RUN.classes["labels"]


def test_an_unknown_class_is_named_with_the_option_and_those_that_are_near() -> None:
    with pytest.raises(
        ValueError,
        match=r"model\.heads\.boxes\.classes: 'doog' is no class of the instances .*: .* dog",
    ):
        head_vocabulary(RetinaNetHead(classes=("cat", "doog")), RUN, "boxes")


def test_numbered_classes_have_those_that_a_head_names() -> None:
    heads = [RetinaNetHead(classes=("fox", "cat")), RetinaNetHead(), LinearHead()]
    assert numbered_vocabulary(heads, 4).classes == {
        "instances": ("fox", "cat", "0", "1"),
        "labels": ("0", "1", "2", "3"),
    }


@pytest.mark.parametrize("classes", [[], ["cat", "cat"]])
def test_a_list_of_classes_names_each_once(classes: list[str]) -> None:
    with pytest.raises(ValidationError, match="at least one class, each only once"):
        TypeAdapter(HeadConfig).validate_python({"type": "linear", "classes": classes})


def test_ground_truth_is_measured_in_the_classes_of_the_head() -> None:
    """Two heads of one kind, on the same samples of the run; a dataset that knows none of a
    head's classes is not annotated for it.
    """
    run = sample(None, instances=objects(0, 1, 2))
    cats = sample(CAT_DOG, instances=objects(0))
    fox = counted(
        RetinaNetHead(classes=("fox",)),
        (run, detections((2, 0, 0.9))),
        (cats, detections((0, 0, 0.99))),
    )
    assert fox.result()["mAP"] == pytest.approx(1)
    assert fox.per_class()["fox"]["objects"] == 1
    dogs = counted(
        RetinaNetHead(classes=("dog", "cat")),
        (run, detections((0, 1, 0.9), (1, 0, 0.8), (2, 0, 0.95))),
    )
    assert dogs.per_class()["cat"]["mAP"] == pytest.approx(1)
    assert dogs.per_class()["dog"]["mAP"] == pytest.approx(0.5)
    narrowed = HeadClasses.of(RetinaNetHead(classes=("fox", "dog")), RUN).sample(cats)
    assert narrowed.known_classes["instances"].tolist() == [False, True]
    assert (
        HeadClasses.of(FcnHead(classes=("fox",)), RUN)
        .sample(sample(CAT_DOG, semantic=png([[0, 1]])))
        .semantic
        is None
    )


def test_predictions_files_keep_the_classes_of_heads(tmp_path: Any) -> None:
    heads = {"all": head_of("retinanet"), "some": head_of("retinanet", classes=("fox", "dog"))}
    found = detections((0, 1, 0.9))
    row = {name: head.task.to_row(found) for name, head in heads.items()}
    uri = str(tmp_path / "predictions.arrow")
    write_arrow(uri, rows_to_table([sample(None)], [row], heads), heads, RUN)
    stored = read_arrow(uri)
    assert {name: head.classes for name, head in stored.heads.items()} == {
        "all": None,
        "some": ("fox", "dog"),
    }
    assert head_vocabulary(stored.heads["some"], stored.vocabulary).classes["instances"] == (
        "fox",
        "dog",
    )
