"""The range at which each engine of a bundle was checked, and what is outside of it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mtl_ray.artifact import publish
from mtl_ray.backends.onnxruntime import OnnxRuntimeEngine
from mtl_ray.export.bundle import export
from mtl_ray.export.config import ExportConfig
from mtl_ray.export.engines import compare_loss
from mtl_ray.inference.bundle import RANGE_FILE, BundlePredictor
from mtl_ray.inference.checkpoint import open_checkpoint
from mtl_ray.inference.predictor import HeadArrays
from mtl_ray.inputs.input import Arrays
from mtl_ray.serving.v2_model import TensorModel
from tests.evaluation.conftest import make_samples, write_split
from tests.inference.tiny import HEADS, images, tiny_config, write_checkpoint

LABELS = {"labels": HEADS["labels"]}
INT8 = "onnxruntime:int8"
OWN = {"height": 64, "width": 96}
Copy = Callable[[dict[str, Any] | None], str]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ONNX Runtime with fp32 and int8; int8 was measured on five samples."""
    folder = tmp_path_factory.mktemp("range")
    checkpoint = str(write_checkpoint(folder / "checkpoint", LABELS))
    split = write_split(folder / "split", make_samples(open_checkpoint(checkpoint)))
    data = tiny_config(LABELS).data
    data = replace(data, train=replace(data.train, uri=split), val=replace(data.val, uri=split))
    config = ExportConfig(
        samples=2,
        metric_samples=5,
        max_metric_drop=0.9,
        engines=(OnnxRuntimeEngine(precision="int8"),),
    )
    written = export(checkpoint, str(folder / "bundle"), config, data)
    assert [row.failure for row in written.engines] == [None, None]
    return folder / "bundle"


@pytest.fixture
def with_range(bundle: Path, tmp_path: Path) -> Copy:
    """Writes the bundle with other ranges of its engines, or without the file."""

    def copy(engines: dict[str, Any] | None) -> str:
        files: dict[str, bytes | Path] = {
            each.name: each
            for each in bundle.iterdir()
            if each.name not in ("MANIFEST.json", RANGE_FILE)
        }
        if engines is not None:
            files[RANGE_FILE] = json.dumps({"version": 1, "engines": engines}).encode()
        publish(str(tmp_path / "copy"), files, kind="bundle")
        return str(tmp_path / "copy")

    return copy


def moved(uri: str, engine: str) -> BundlePredictor:
    """The bundle on a wider canvas, at which its default engine was checked."""
    predictor = BundlePredictor(uri, threads=1, engine=engine)
    return predictor.with_canvas(replace(predictor.canvas, width=128))


def test_an_engine_of_less_precision_has_the_range_that_ran(bundle: Path) -> None:
    ranges = json.loads((bundle / RANGE_FILE).read_text())["engines"]
    (canvas,) = ranges[INT8]["canvases"]
    assert OWN.items() <= canvas.items()
    assert ranges[INT8]["batches"] == [5]
    assert len(ranges["onnxruntime"]["canvases"]) > 1
    assert ranges["onnxruntime"]["batches"] == [1, 2, 3, 8]


def test_invalid_samples_make_the_batches_smaller_that_run(bundle: Path) -> None:
    """Of each sixteen samples, which are read at once, three are valid."""
    reference = open_checkpoint(str(bundle.parent / "checkpoint"))
    good = make_samples(reference)[0]
    bad = replace(good, inputs={"image": replace(good.inputs["image"], data=b"damaged")})
    samples = [good if number % 16 < 3 else bad for number in range(48)]
    engine = BundlePredictor(str(bundle), threads=1, engine=INT8)
    parity = compare_loss(reference, engine, lambda: samples, ExportConfig(max_metric_drop=0.9))
    assert parity.samples == 9
    assert parity.batches == (1, 3)


def test_int8_refuses_other_sizes(bundle: Path) -> None:
    assert moved(str(bundle), "onnxruntime")
    with pytest.raises(ValueError, match="was not checked at 128x64: its widths are 96 to 96"):
        moved(str(bundle), INT8)


def test_an_engine_without_sizes_takes_the_canvas_alone(with_range: Copy) -> None:
    """As older exports wrote int8 and fp16."""
    uri = with_range({INT8: {"canvases": [], "batches": []}})
    for engine in (INT8, "onnxruntime"):
        with pytest.raises(ValueError, match="was not checked at 128x64"):
            moved(uri, engine)


def test_a_bundle_without_ranges_takes_any_size(with_range: Copy) -> None:
    uri = with_range(None)
    assert moved(uri, INT8)
    assert moved(uri, "onnxruntime")


def batches_of(predictor: BundlePredictor, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many samples each call of the network gets for twelve images."""
    run, batches = predictor.run, []

    def noted(arrays: Arrays) -> HeadArrays:
        batches.append(len(arrays["image"]))
        return run(arrays)

    monkeypatch.setattr(predictor, "run", noted)
    assert len(predictor.predict(images(12))) == 12
    return batches


@pytest.mark.parametrize(("engine", "batches"), [("onnxruntime", [8, 4]), (INT8, [5, 5, 2])])
def test_no_batch_is_larger_than_one_that_was_checked(
    bundle: Path, engine: str, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = BundlePredictor(str(bundle), threads=1, batch=16, engine=engine)
    assert TensorModel("labels", predictor, 64).max_batch == batches[0]
    assert TensorModel("labels", predictor, 3).max_batch == 3
    assert batches_of(predictor, monkeypatch) == batches


@pytest.mark.parametrize("engines", [None, {}, {"onnxruntime": {"canvases": [OWN]}}])
def test_a_bundle_without_batches_takes_any(
    engines: dict[str, Any] | None, with_range: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = BundlePredictor(with_range(engines), threads=1, batch=16)
    assert TensorModel("labels", predictor, 64).max_batch == 64
    assert batches_of(predictor, monkeypatch) == [12]


@pytest.mark.parametrize("batches", [[0], ["a"], 3])
def test_a_damaged_range_is_one_sentence(batches: Any, with_range: Copy) -> None:
    uri = with_range({"onnxruntime": {"canvases": [OWN], "batches": batches}})
    with pytest.raises(ValueError, match=r"range\.json of the bundle is damaged"):
        BundlePredictor(uri)


def test_an_exact_engine_may_be_named_with_its_precision(bundle: Path) -> None:
    named = BundlePredictor(str(bundle), threads=1, engine="onnxruntime:fp32")
    assert named.signature == BundlePredictor(str(bundle), threads=1).signature
