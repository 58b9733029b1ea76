"""Negative controls: engines that are wrong in a way that could be missed, and are refused."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from mtl_ray.backends.backend import GraphArrays
from mtl_ray.export.bundle import write_bundle
from mtl_ray.export.config import ExportConfig
from mtl_ray.export.engines import Latency, compare_loss
from mtl_ray.export.engines_report import EngineRow, engines_report
from mtl_ray.export.graph import ExportGraph
from mtl_ray.export.parity import MetricPair, Parity, ParityCheck
from mtl_ray.export.verify import CheckSamples, generate_samples, verify
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inference.torch_predictor import TorchPredictor
from mtl_ray.inputs.image import IMAGE
from mtl_ray.samples import Sample, image_sample
from tests.evaluation.conftest import png

CONFIG = ExportConfig()
SAMPLES = CheckSamples(samples=generate_samples(IMAGE, 5))
Arrays = dict[str, np.ndarray]


@dataclass
class Changed:
    """A session whose inputs or answers are changed."""

    session: Any
    answers: Callable[[Arrays, Arrays], Mapping[str, np.ndarray]] = lambda given, found: found
    inputs: Callable[[Arrays], Arrays] = lambda given: given
    about: Mapping[str, str] = field(default_factory=dict)

    def run(self, arrays: GraphArrays) -> GraphArrays:
        given = dict(arrays)
        return {**self.answers(given, dict(self.session.run(self.inputs(given))))}


@pytest.fixture(scope="module")
def made(predictor: Callable[..., TorchPredictor]) -> TorchPredictor:
    """Two of its heads have outputs of the same shape."""
    return predictor("yolov3", "fcn", "linear", "multilabel")


@pytest.fixture(scope="module")
def right(made: TorchPredictor, tmp_path_factory: pytest.TempPathFactory) -> BundlePredictor:
    to = str(tmp_path_factory.mktemp("wrong") / "bundle")
    write_bundle(made, SAMPLES, to, CONFIG)
    return BundlePredictor(to, threads=1)


def checked(made: TorchPredictor, right: BundlePredictor, **change: Any) -> Parity:
    bundle = BundlePredictor.__new__(BundlePredictor)
    bundle.__dict__.update(right.__dict__)
    bundle.session = Changed(right.session, **change)
    graph = ExportGraph(made.model, made.canvas, CONFIG)
    return verify(made, graph, bundle, SAMPLES.samples, CONFIG)


def changing(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    return lambda given, found: {**found, name: change(found[name]).astype(found[name].dtype)}


def swapped(given: Arrays, found: Arrays) -> Arrays:
    first, second = "linear.scores", "multilabel.scores"
    return {**found, first: found[second], second: found[first]}


def garbage(given: Arrays, found: Arrays) -> Arrays:
    """Boxes from nowhere, of which it is more sure than the right ones are of theirs."""
    boxes = np.random.default_rng(0).uniform(0, 40, found["yolov3.boxes"].shape)
    boxes[..., 2:] += 50
    scores = np.full_like(found["yolov3.scores"], 1)
    return {**found, "yolov3.boxes": boxes.astype(np.float32), "yolov3.scores": scores}


def kept(alone: bool) -> Any:
    """Answers of a shape stay the first ones, as of a buffer that nobody fills again."""
    first: dict[Any, Arrays] = {}

    def answer(given: Arrays, found: Arrays) -> Arrays:
        shape = given["image"].shape
        return found if alone and shape[0] > 1 else first.setdefault(shape, found)

    return answer


def turned_rows(given: Arrays, found: Arrays) -> Arrays:
    return {name: values[::-1] for name, values in found.items()}


def of_batch(size: int) -> Any:
    """Wrong where a batch has one size."""
    return lambda given, found: turned(found) if len(given["image"]) == size else found


def turned(found: Arrays) -> Arrays:
    return {**found, "linear.scores": found["linear.scores"][:, ::-1]}


def of_width(width: int) -> Any:
    return lambda given, found: turned(found) if given["image"].shape[3] == width else found


def in_place(given: Arrays) -> Arrays:
    """Changes the caller's own array, which torch must not see."""
    given["image"][:] = given["image"][:, ::-1].copy()
    return given


def halved(values: np.ndarray) -> np.ndarray:
    """With the eight bits of bf16 after the point."""
    return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


ANSWERS = {
    "outputs of one shape are swapped": swapped,
    "scores are a little too large": changing("yolov3.scores", lambda a: a * 1.002),
    "scores of labels are too": changing("multilabel.scores", lambda a: a * 0.999),
    "in bf16": changing("linear.scores", halved),
    "classes are counted from 1": changing("yolov3.classes", lambda a: (a + 1) % 3),
    "labels in another order": changing("linear.scores", lambda a: np.roll(a, 1, axis=1)),
    "classes of pixels are swapped": changing("fcn.classes", lambda a: 1 - a),
    "y before x": changing("yolov3.boxes", lambda a: a[..., [1, 0, 3, 2]]),
    "centre and size": changing("yolov3.boxes", lambda a: np.concatenate(
        [(a[..., :2] + a[..., 2:]) / 2, a[..., 2:] - a[..., :2]], axis=-1)),
    "a pixel to the right": changing("yolov3.boxes", lambda a: a + np.array([0.05, 0, 0.05, 0])),
    "rows of a map upside down": changing("fcn.classes", lambda a: a[:, ::-1]),
    "no box at all": changing("yolov3.scores", lambda a: a * 0),
    "boxes from nowhere": garbage,
    "not a number": changing("linear.scores", lambda a: a * np.nan),
    "the first answer for ever": kept(alone=False),
    "the first answer for ever, of single samples": kept(alone=True),
    "the rows of a batch change places": turned_rows,
    **{f"wrong in batches of {size}": of_batch(size) for size in (1, 2, 3, 8)},
    "wrong on a narrower canvas": of_width(64),
    "wrong on a wider canvas": of_width(192),
}  # fmt: skip
INPUTS = {
    "channels in another order": lambda given: {"image": given["image"][:, ::-1].copy()},
    "darker": lambda given: {"image": (given["image"] * 0.98).astype(np.uint8)},
    "shifted by a pixel": lambda given: {"image": np.roll(given["image"], 1, axis=3)},
    "channels in another order, for the caller too": in_place,
    "turned over": lambda given: {"image": given["image"][..., ::-1].copy()},
}


def test_a_right_engine_passes(made: TorchPredictor, right: BundlePredictor) -> None:
    parity = checked(made, right)
    assert parity.failures == []
    canvases = {check.canvas for check in parity.checks}
    assert {"128x96", "64x32"} <= canvases, canvases
    assert all(
        sum(check.count for check in parity.checks if check.head == head) for head in made.heads
    )
    assert parity.notes == ()


@pytest.mark.parametrize("fault", ANSWERS)
def test_wrong_answers_are_refused(
    fault: str, made: TorchPredictor, right: BundlePredictor
) -> None:
    assert checked(made, right, answers=ANSWERS[fault]).failures


@pytest.mark.parametrize("fault", INPUTS)
def test_wrong_inputs_are_refused(fault: str, made: TorchPredictor, right: BundlePredictor) -> None:
    assert checked(made, right, inputs=INPUTS[fault]).failures


def test_a_head_that_finds_nothing_is_told() -> None:
    """Equal answers without any object prove nothing."""
    parity = Parity(layout="end2end", samples=2)
    parity.checks = [
        ParityCheck(head=head, canvas="128x96", batch=batch, count=count)
        for head, count in (("boxes", 0), ("labels", 3))
        for batch in (1, 3)
    ]
    (note,) = parity.notes
    assert note.startswith("the head boxes found nothing on the samples")


def test_a_figure_that_is_no_number_is_null_in_the_report() -> None:
    """As of a head that nobody annotated, or of an engine that answers with no numbers."""
    parity = Parity(layout="end2end", samples=1)
    parity.checks = [ParityCheck(head="a", canvas="128x96", batch=1, max_abs=float("nan"))]
    parity.metrics = [MetricPair(head="a", metric="mAP", torch=float("nan"), bundle=0.5)]
    row = EngineRow(
        name="openvino:int8",
        num_bytes=None,
        build_s=None,
        latency=None,
        parity=parity,
        about="",
        failure="a/mAP cannot be compared",
    )
    latency = Latency(p50_ms=1, p99_ms=2, per_second=900)
    first = replace(row, name="openvino", num_bytes=10, latency=latency, failure=None)
    files = engines_report([first, row], "a split")
    report = json.loads(files["engines.json"], parse_constant=pytest.fail)
    found = report["engines"][1]["parity"]
    assert (found["checks"][0]["max_abs"], found["metrics"][0]["torch"]) == (None, None)


@pytest.mark.parametrize("size", [1, 8])
def test_less_precision_must_be_right_alone_and_in_a_batch(
    size: int, made: TorchPredictor, right: BundlePredictor
) -> None:
    """Its metric is that of whole batches and of single samples."""
    raws = [raw for _, raw in generate_samples(IMAGE, 40)]
    labels = [int(each["linear"].scores.argmax()) for each in made.predict(raws)]

    def read() -> Iterator[Sample]:
        for number, (raw, label) in enumerate(zip(raws, labels, strict=True)):
            height, width = raw.shape[:2]
            image = png(raw[..., ::-1])
            yield image_sample(
                key=str(number), image=image, height=height, width=width, labels=np.array([label])
            )

    model = TorchPredictor(
        made.model, {"linear": made.heads["linear"]}, made.vocabulary, made.canvas
    )
    config = replace(CONFIG, metric_samples=40)
    bundle = BundlePredictor.__new__(BundlePredictor)
    bundle.__dict__.update(right.__dict__, batch=8)
    parity = compare_loss(model, bundle, read, config)
    assert (parity.failures, parity.samples, parity.batches) == ([], 40, (1, 8))
    assert parity.notes == ()
    (note,) = compare_loss(model, bundle, read, replace(config, max_metric_drop=1)).notes
    assert "linear/" in note
    assert "a loss above 1 is not possible" in note
    bundle.session = Changed(right.session, of_batch(size))
    (failure,) = compare_loss(model, bundle, read, config).failures
    assert "a loss above 0.01" in failure
