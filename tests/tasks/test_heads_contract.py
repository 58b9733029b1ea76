"""What every head promises, whatever it learns."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from mtl_ray.experiment import HeadConfig, head_types, tasks
from mtl_ray.inference.predictor import head_of
from mtl_ray.inputs.frame import frame_of
from mtl_ray.inputs.image import Canvas
from mtl_ray.loading.batch import Batch
from mtl_ray.models.head import Head, Term, dense
from mtl_ray.samples import IGNORE_INDEX
from mtl_ray.tasks.classification.decode import LabelScores
from mtl_ray.tasks.detection.decode import Detections
from mtl_ray.tasks.lidar.decode import Detections3d
from mtl_ray.tasks.segmentation.decode import SemanticMap
from tests.tasks.head_cases import (
    CLASS_GRADIENTS,
    CLOUD_CANVAS,
    EVERY_HEAD,
    VOCABULARY,
    batch_of,
    images,
    inputs_of,
    known,
    model_of,
    scattered,
    total,
)

EVERY = pytest.mark.parametrize("name", EVERY_HEAD)
PREDICTING = [name for name in EVERY_HEAD if name != "auxiliary"]
SIZES = ((2, (64, 96)), (1, (64, 96)), (3, (96, 128)))


def masked(batch: Batch, row: int) -> Batch:
    """The batch with one sample that nobody annotated, its targets full of nonsense."""
    targets = {
        kind: {name: value.clone() for name, value in target.items()}
        for kind, target in batch.targets.items()
    }
    for target in targets.values():
        target["annotated"][row] = False
        for name in ("boxes", "classes", "present", "crowd"):
            if name in target:
                target[name][row] = (
                    target[name][row - 1] if name != "boxes" else target[name][row] + 7
                )
    return Batch(inputs=batch.inputs, targets=targets, keys=())


def same(left: dict[str, Term], right: dict[str, Term]) -> None:
    assert left.keys() == right.keys()
    for name, (value, count) in left.items():
        # a count may be a sum of weights, which are rounded
        torch.testing.assert_close(count, right[name][1], rtol=1e-4, atol=1e-6, msg=name)
        torch.testing.assert_close(value, right[name][0], rtol=2e-4, atol=1e-4, msg=name)


def added(parts: list[dict[str, Term]]) -> dict[str, Term]:
    return {
        name: (
            torch.stack([part[name][0] for part in parts]).sum(),
            torch.stack([part[name][1] for part in parts]).sum(),
        )
        for name in parts[0]
    }


def test_every_registered_head_is_tested_here() -> None:
    assert {type(model_config(name)) for name in EVERY_HEAD} == set(head_types())
    assert CLASS_GRADIENTS.keys() == EVERY_HEAD.keys()


@EVERY
def test_a_config_answers_what_is_asked_of_every_head(name: str) -> None:
    config = model_config(name)
    assert config.task in tasks()
    assert config.task.kind.name == config.annotation
    assert head_of(config.type).task is config.task
    assert config.exclusive == (name == "linear")
    assert config.train_only == (name == "auxiliary")
    # a head that predicts a set has no candidates before suppression
    if dense(model_of(name).heads[name]) is not None:
        assert config.task.view == "boxes"


@EVERY
def test_a_head_follows_the_protocol(name: str) -> None:
    head = model_of(name).heads[name]
    assert isinstance(head, Head)
    assert head.annotation in ("labels", "instances", "semantic", "boxes_3d")
    assert head.train_only == (name == "auxiliary")


@EVERY
def test_the_loss_falls_on_one_batch(name: str) -> None:
    model, batch = model_of(name), batch_of(4)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(30):
        loss = total(model.losses(batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    # gfl weighs its boxes by their scores, which are small at first, so that its loss rises first
    assert losses[-1] < 0.6 * max(losses[: 10 if name == "gfl" else 1])


@EVERY
def test_terms_are_float32_scalars_and_every_parameter_learns(name: str) -> None:
    model = model_of(name)
    terms = model.losses(batch_of(3))
    assert all(
        part.shape == () and part.dtype == torch.float32 for term in terms.values() for part in term
    )
    assert all(key.startswith(f"{name}/") for key in terms)
    total(terms).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.heads.parameters())


@EVERY
def test_terms_add_up_over_parts_of_a_batch(name: str) -> None:
    model, batch = scattered(model_of(name)), batch_of(5)
    with torch.no_grad():
        same(
            model.losses(batch),
            added([model.losses(batch[0:1]), model.losses(batch[1:3]), model.losses(batch[3:5])]),
        )


@EVERY
@pytest.mark.parametrize("row", [0, 2])
def test_a_sample_without_annotation_changes_nothing(name: str, row: int) -> None:
    model, batch = scattered(model_of(name)), batch_of(3)
    others = [batch[i : i + 1] for i in range(3) if i != row]
    with torch.no_grad():
        same(model.losses(masked(batch, row)), added([model.losses(other) for other in others]))


@EVERY
def test_where_nothing_is_annotated_the_gradient_is_zero(name: str) -> None:
    model, batch = model_of(name), batch_of(2)
    terms = model.losses(masked(masked(batch, 0), 1))
    assert all(value == 0 and count == 0 and value.requires_grad for value, count in terms.values())
    total(terms).backward()
    assert all(p.grad is not None for p in model.heads.parameters())
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)


def without_class(batch: Batch, unknown: int) -> Batch:
    """The batch as a dataset annotates it that does not know a class: class 0 stands in its
    place.
    """
    targets = {
        kind: {name: value.clone() for name, value in target.items()}
        for kind, target in batch.targets.items()
    }
    for target in targets.values():
        target["known_classes"][:, unknown] = False
    for kind in ("instances", "semantic", "boxes_3d"):
        targets[kind]["classes"][targets[kind]["classes"] == unknown] = 0
    present = targets["labels"]["present"]
    present[present[:, unknown] == 1] = torch.tensor([1.0, 0, 0])
    return Batch(inputs=batch.inputs, targets=targets, keys=())


@EVERY
@pytest.mark.parametrize("objects", [True, False])
def test_logits_of_a_class_that_the_dataset_does_not_know_get_no_gradient(
    name: str, objects: bool
) -> None:
    model, batch = model_of(name), without_class(batch_of(4), unknown=1)
    for kind in ("instances", "boxes_3d"):
        batch.targets[kind]["present"] &= objects
    total(model.losses(batch)).backward()
    gradients = torch.cat(CLASS_GRADIENTS[name](model.heads[name]))  # (k, classes)
    assert not gradients[:, 1].any()
    # YOLOv3 and YOLOX learn the classes of objects, not of the background
    if objects or EVERY_HEAD[name]["type"] not in ("yolov3", "yolox"):
        assert gradients[:, 0].any()


@EVERY
def test_each_sample_has_its_own_known_classes(name: str) -> None:
    model, batch = scattered(model_of(name)), batch_of(4)
    parts = [batch[0:2], without_class(batch[2:4], unknown=1)]
    joined: dict[str, dict[str, Tensor]] = {}
    for kind, target in batch.targets.items():
        joined[kind] = {
            field: torch.cat([part.targets[kind][field] for part in parts]) for field in target
        }
    with torch.no_grad():
        same(
            model.losses(Batch(inputs=batch.inputs, targets=joined, keys=())),
            added([model.losses(part) for part in parts]),
        )


NARROW = {
    "instances": ("b",),
    "labels": ("c", "b"),
    "semantic": ("c", "a", "b"),
    "boxes_3d": ("b",),
}


@EVERY
def test_a_head_of_some_classes_gets_targets_in_its_own_indices(name: str) -> None:
    kind = model_config(name).annotation
    model, batch = scattered(model_of(name, classes=list(NARROW[kind]))), batch_of(4)
    places = [VOCABULARY.classes[kind].index(each) for each in NARROW[kind]]
    with torch.no_grad():
        features, context = model.prepare(batch.inputs)
        terms = model.heads[name].losses(features, by_hand(batch, kind, places), context)
        same(model.losses(batch), {f"{name}/{term}": value for term, value in terms.items()})


def by_hand(batch: Batch, kind: str, places: list[int]) -> dict[str, Tensor]:
    """The targets in the indices of a head whose classes stand at these places of the
    vocabulary.
    """
    target = {name: value.clone() for name, value in batch.targets[kind].items()}
    target["known_classes"] = known(len(target["annotated"]), len(places))
    if kind == "labels":
        return target | {
            "present": torch.stack([target["present"][:, place] for place in places], dim=1)
        }
    old = target["classes"]
    other = IGNORE_INDEX if kind == "semantic" else 0
    target["classes"] = old.clone().apply_(
        lambda value: places.index(value) if value in places else other
    )
    if kind in ("instances", "boxes_3d"):
        target["present"] &= old.clone().apply_(lambda value: value in places).bool()
    return target


@EVERY
def test_a_dataset_that_knows_no_class_of_a_head_teaches_it_nothing(name: str) -> None:
    kind = model_config(name).annotation
    model, batch = model_of(name, classes=["b"]), batch_of(2)
    batch.targets[kind]["known_classes"][:, 1] = False
    terms = model.losses(batch)
    assert all(value == 0 and count == 0 and value.requires_grad for value, count in terms.values())


@EVERY
def test_images_without_objects_are_learnt_as_such(name: str) -> None:
    """Annotated and empty: nothing to find, which is a loss, not an absence of one."""
    model, batch = model_of(name), batch_of(2)
    for kind in ("instances", "boxes_3d"):
        batch.targets[kind]["present"].zero_()
    terms = model.losses(batch)
    total(terms).backward()
    assert all(value.isfinite() for value, _ in terms.values())
    assert any(value > 0 for value, _ in terms.values())
    assert any(p.grad is not None and p.grad.any() for p in model.heads.parameters())


@EVERY
def test_losses_are_the_same_in_any_precision_that_training_uses(name: str) -> None:
    model, batch = scattered(model_of(name)), batch_of(2)
    with torch.no_grad():
        exact = total(model.losses(batch))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            coarse = total(model.losses(batch))
    assert coarse.dtype == torch.float32
    torch.testing.assert_close(coarse, exact, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("name", PREDICTING)
def test_what_is_predicted_can_be_decoded(name: str) -> None:
    model = scattered(model_of(name))
    frame = frame_of(100, 200, Canvas(kind="letterbox", height=64, width=96))
    with torch.no_grad():
        found = model.predict(inputs_of(images(2), (48, 96)))[name]
    for row in range(2):
        arrays = {key: value[row].numpy() for key, value in found.items()}
        prediction = model_config(name).task.decode(arrays, frame, model_config(name))
        check = {
            "boxes": fits_objects,
            "map": fits_a_map,
            "labels": fits_labels,
            "boxes_3d": fits_boxes,
        }[model_config(name).task.view]
        check(prediction, arrays)


def fits_objects(prediction: Detections, arrays: dict[str, np.ndarray]) -> None:
    """Those with a score of which something lies on the image of 200 x 100, the best first, in
    pixels of the image.
    """
    boxes = prediction.boxes_xyxy
    assert (
        0
        < len(boxes)
        == len(prediction.scores)
        == len(prediction.classes)
        <= int((arrays["scores"] > 0).sum())
    )
    assert (boxes.dtype, prediction.scores.dtype, prediction.classes.dtype) == (
        np.float32,
        np.float32,
        np.int64,
    )
    assert (boxes >= 0).all()
    assert (boxes <= [200, 100, 200, 100]).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert boxes.max() > 96, "the canvas is 96 wide: these are pixels of the image"
    assert (np.diff(prediction.scores) <= 0).all()
    assert set(prediction.classes.tolist()) <= {0, 1}
    assert set(prediction.scores.tolist()) <= set(arrays["scores"].tolist())


def fits_boxes(prediction: Detections3d, arrays: dict[str, np.ndarray]) -> None:
    """Some of the candidates, the best first, in metres of the lidar."""
    boxes, scores = prediction.boxes, prediction.scores
    assert 0 < len(boxes) == len(scores) == len(prediction.classes) <= arrays["scores"].size
    assert (boxes.dtype, scores.dtype, prediction.classes.dtype) == (
        np.float32,
        np.float32,
        np.int64,
    )
    assert (np.diff(scores) <= 0).all()
    assert (boxes[:, 3:6] > 0).all()
    assert (np.abs(boxes[:, 6]) <= np.pi + 1e-6).all()
    assert set(prediction.classes.tolist()) <= {0, 1}
    assert set(scores.tolist()) <= set(arrays["scores"].ravel().tolist())
    assert prediction.velocity is None or prediction.velocity.shape == (len(boxes), 2)
    assert (boxes[:, 0] > CLOUD_CANVAS.minimum[0] - 20).all()


def fits_a_map(prediction: SemanticMap, arrays: dict[str, np.ndarray]) -> None:
    assert (prediction.classes.shape, prediction.classes.dtype) == ((100, 200), np.uint8)
    shown = arrays["classes"][:48]  # of the canvas, 48 rows hold the image
    assert set(np.unique(prediction.classes)) <= set(np.unique(shown)) <= {0, 1, 2, 3}
    assert prediction.classes[50, 100] == shown[24, 48]


def fits_labels(prediction: LabelScores, arrays: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(prediction.scores, arrays["scores"])
    assert prediction.scores.shape == (3,)
    assert not prediction.exclusive or prediction.scores.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", PREDICTING)
def test_one_image_is_predicted_as_in_a_batch(name: str) -> None:
    model, batch = scattered(model_of(name)), images(3)
    with torch.no_grad():
        together = model.predict(inputs_of(batch, (64, 96)))[name]
        alone = [model.predict(inputs_of(batch[i : i + 1], (64, 96)))[name] for i in range(3)]
    for row, single in enumerate(alone):
        rows, others = (
            {key: value[at] for key, value in found.items()}
            for found, at in ((together, row), (single, 0))
        )
        if "scores" in rows:  # candidates of almost the same score may change places
            rows, others = ({"all": _candidates(found)} for found in (rows, others))
            others["all"] = others["all"][torch.cdist(rows["all"], others["all"]).argmin(1)]
        for key, value in rows.items():
            torch.testing.assert_close(value, others[key], rtol=1e-4, atol=1e-3)


def _candidates(found: dict[str, torch.Tensor]) -> torch.Tensor:
    """What was found in one image, a row a candidate (k, numbers of all arrays)."""
    return torch.cat([value.float().reshape(len(value), -1) for value in found.values()], dim=1)


def model_config(name: str) -> Any:
    return TypeAdapter(HeadConfig).validate_python(EVERY_HEAD[name])
