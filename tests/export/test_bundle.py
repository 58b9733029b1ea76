"""From a checkpoint to a bundle, and what keeps a wrong graph from becoming one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor

from jobs.export import main
from mtl_ray.artifact import open_artifact
from mtl_ray.export import build as build_module
from mtl_ray.export.bundle import WrittenBundle, write_bundle
from mtl_ray.export.config import ExportConfig
from mtl_ray.export.graph import ExportGraph, Traced
from mtl_ray.export.parity import ParityError
from mtl_ray.export.verify import CheckSamples, generate_samples
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inference.checkpoint import open_checkpoint
from mtl_ray.inference.predictor import Predictor
from mtl_ray.inference.statistics import read_statistics
from mtl_ray.inference.torch_predictor import TorchPredictor
from mtl_ray.inputs.image import IMAGE
from mtl_ray.models.head import Context, Features
from mtl_ray.tasks.detection.dense.config import RetinaNetHead
from tests.evaluation.conftest import make_samples, write_split
from tests.inference.tiny import HEADS, images, write_checkpoint

Made = tuple[TorchPredictor, str]


class MaskedRetinaNet(RetinaNetHead):
    """A dense head whose config says that it reads masks."""

    fields = frozenset({"masks"})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_checkpoint(tmp_path_factory.mktemp("export") / "checkpoint", HEADS))


@pytest.fixture(scope="module")
def split(checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_split(
        tmp_path_factory.mktemp("export") / "val", make_samples(open_checkpoint(checkpoint))
    )


@pytest.fixture(scope="module")
def exported(checkpoint: str, split: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Written by the job, checked on a real split."""
    to = str(tmp_path_factory.mktemp("export") / "bundle")
    few = ["export.samples=4", "export.metric_samples=10"]
    assert main([checkpoint, "--to", to, f"data.val.uri={split}", *few]) == 0
    return to


def write(predictor: TorchPredictor, to: Path, **config: Any) -> WrittenBundle:
    samples = CheckSamples(samples=generate_samples(IMAGE, 5))
    return write_bundle(predictor, samples, str(to), ExportConfig(**config))


def agree(first: Predictor, second: Predictor) -> None:
    """Whole predictions on pictures of all sizes are the same."""
    for ours, theirs in zip(first.predict(images()), second.predict(images()), strict=True):
        assert list(ours) == list(theirs)
        for name, head in first.heads.items():
            fields = {
                "boxes": ("boxes_xyxy", "scores", "classes"),
                "map": ("classes",),
                "labels": ("scores",),
            }
            for field in fields[head.task.view]:
                np.testing.assert_allclose(
                    getattr(ours[name], field), getattr(theirs[name], field), rtol=1e-4, atol=1e-3
                )


def test_bundle_predicts_what_its_checkpoint_predicts(checkpoint: str, exported: str) -> None:
    agree(open_checkpoint(checkpoint), BundlePredictor(exported, threads=1))


def test_bundle_says_what_it_is_and_where_from(checkpoint: str, exported: str, split: str) -> None:
    bundle = open_artifact(exported, kind="bundle")
    assert set(bundle.names) == {
        "model.onnx",
        "signature.json",
        "config.yaml",
        "metrics.json",
        "parity.json",
        "range.json",
        "statistics.json",
    }
    counted = read_statistics(bundle.read("statistics.json"))
    assert counted.samples == counted.data["brightness"].total == 10  # export.metric_samples
    assert set(counted.scores) == {"boxes", "labels"}
    assert json.loads(bundle.read("metrics.json"))["checkpoint"] == checkpoint
    graph = onnx.load_from_string(bundle.read("model.onnx")).graph
    assert [dim.dim_param for dim in graph.input[0].type.tensor_type.shape.dim] == [
        "batch",
        "",
        "height",
        "width",
    ]
    assert [output.name for output in graph.output] == [
        "boxes.boxes",
        "boxes.scores",
        "boxes.classes",
        "semantic.classes",
        "labels.scores",
    ]
    assert not [
        name
        for name in (initializer.name for initializer in graph.initializer)
        if "auxiliary" in name
    ]
    assert (
        len(bundle.read("model.onnx"))
        < 2 * sum(numpy_helper.to_array(each).nbytes for each in graph.initializer) + 500_000
    )
    parity = json.loads(bundle.read("parity.json"))
    assert parity["passed"]
    assert parity["samples"] == 4
    assert parity["source"] == split
    assert {check["canvas"] for check in parity["checks"]} == {"96x64", "32x32", "160x96", "103x75"}
    assert {check["batch"] for check in parity["checks"]} == {1, 2, 3, 8}
    assert {check["head"] for check in parity["checks"]} == {"boxes", "semantic", "labels"}
    measured = {f"{pair['head']}/{pair['metric']}": pair["torch"] for pair in parity["metrics"]}
    assert 0 < measured["boxes/mAP50"] < 1
    assert 0 < measured["semantic/mIoU"] < 1


def test_statistics_are_those_of_the_baseline_in_batches(
    predictor: Callable[..., TorchPredictor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict, given = BundlePredictor.predict, []

    def noted(bundle: BundlePredictor, raws: Any) -> Any:
        given.append(len(raws))
        return predict(bundle, raws)

    monkeypatch.setattr(BundlePredictor, "predict", noted)
    config, samples = ExportConfig(size="fixed", metric_samples=18), generate_samples(IMAGE, 20)
    checked = CheckSamples(samples=samples[:3], source="a split", rest=iter(samples[3:]))
    write_bundle(predictor("linear"), checked, str(tmp_path / "bundle"), config)
    bundle = open_artifact(str(tmp_path / "bundle"), kind="bundle")
    assert read_statistics(bundle.read("statistics.json")).samples == 18
    assert given[-3:] == [8, 8, 2]


def test_nothing_is_written_over_a_bundle(
    checkpoint: str, exported: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="holds a bundle already"):
        main([checkpoint, "--to", exported])


def spoil(make: Callable[..., Traced], factor: float) -> Callable[..., Traced]:
    """The exporter, but one weight in it is a little larger."""

    def spoilt(*arguments: Any) -> Traced:
        traced = make(*arguments)
        weights = [
            each
            for each in traced.model.graph.initializer
            if each.data_type == onnx.TensorProto.FLOAT and len(each.dims) == 4
        ]
        values = numpy_helper.to_array(weights[-1]) * np.float32(factor)
        weights[-1].CopyFrom(numpy_helper.from_array(values, weights[-1].name))
        return traced

    return spoilt


def test_a_spoilt_graph_ends_with_1_and_no_bundle(
    checkpoint: str,
    split: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(build_module, "to_onnx", spoil(build_module.to_onnx, 1.1))
    assert main([checkpoint, "--to", str(tmp_path / "bundle"), f"data.val.uri={split}"]) == 1
    assert not (tmp_path / "bundle").exists()
    said = capsys.readouterr()
    assert "differs from torch" in said.err
    assert "no bundle was written" in said.err


def test_raw_layout_with_triton_names_and_normalised_input(
    predictor: Callable[..., TorchPredictor], tmp_path: Path
) -> None:
    model = predictor("yolov3", "aux", "fcn", "multilabel")
    write(model, tmp_path / "bundle", layout="raw", names="triton", input="float32")
    bundle = BundlePredictor(str(tmp_path / "bundle"), threads=1)
    assert [(each.name, each.dtype) for each in bundle.signature.inputs] == [
        ("INPUT__0", "float32")
    ]
    assert [(out.name, out.head, out.field) for out in bundle.signature.outputs] == [
        ("OUTPUT__0", "yolov3", "candidates"),
        ("OUTPUT__1", "fcn", "logits"),
        ("OUTPUT__2", "multilabel", "scores"),
    ]
    graph = onnx.load_from_string(
        open_artifact(str(tmp_path / "bundle"), kind="bundle").read("model.onnx")
    ).graph
    assert [
        dim.dim_param or dim.dim_value for dim in graph.output[0].type.tensor_type.shape.dim
    ] == ["batch", "anchors", 8]
    agree(model, bundle)
    assert any(len(found["yolov3"]) for found in bundle.predict(images())), (
        "there are boxes to compare"
    )
    assert (
        len({int(c) for found in bundle.predict(images()) for c in np.unique(found["fcn"].classes)})
        == 2
    ), "and both classes"


def test_raw_layout_has_no_place_for_masks(
    predictor: Callable[..., TorchPredictor], tmp_path: Path
) -> None:
    model = predictor("retinanet", "linear")
    model.heads = {**model.heads, "retinanet": MaskedRetinaNet(levels=("P4", "P5"))}
    with pytest.raises(ValueError, match=r"head retinanet predicts masks. Fix: export.layout=end2"):
        write(model, tmp_path / "bundle", layout="raw")
    assert not (tmp_path / "bundle").exists()


def test_objectness_is_1_where_a_head_has_none_and_sizes_may_be_fixed(
    predictor: Callable[..., TorchPredictor], tmp_path: Path
) -> None:
    model = predictor("retinanet", "linear")
    made = write(model, tmp_path / "bundle", layout="raw", size="fixed")
    assert {check.canvas for check in made.parity.checks} == {"128x96"}
    bundle = BundlePredictor(str(tmp_path / "bundle"), threads=1)
    graph = onnx.load_from_string(
        open_artifact(str(tmp_path / "bundle"), kind="bundle").read("model.onnx")
    ).graph
    assert [
        dim.dim_param or dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim
    ] == ["batch", 3, 96, 128]
    candidates = bundle.run({"image": np.zeros((2, 3, 96, 128), np.uint8)})["retinanet"][
        "candidates"
    ]
    assert (candidates[..., 4] == 1).all()
    agree(model, bundle)


def test_a_graph_that_does_not_run_at_another_size_is_no_bundle(
    predictor: Callable[..., TorchPredictor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = build_module.to_onnx
    monkeypatch.setattr(
        build_module,
        "to_onnx",
        lambda *arguments: make(*arguments[:-1], ExportConfig(size="fixed")),
    )
    with pytest.raises(ParityError, match="does not run at 192x160"):
        write(predictor("linear"), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_checkpoint_that_is_cut_short_is_refused(checkpoint: str, tmp_path: Path) -> None:
    copy = tmp_path / "checkpoint"
    shutil.copytree(checkpoint, copy)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        main([str(copy), "--to", str(tmp_path / "bundle")])
    with pytest.raises((ValueError, FileNotFoundError), match="nothing"):
        main([str(tmp_path / "nothing"), "--to", str(tmp_path / "bundle")])
    assert not (tmp_path / "bundle").exists()


class Filled(torch.nn.Module):
    """A head whose scores depend on how much of the canvas is image."""

    def __init__(self, head: torch.nn.Module) -> None:
        super().__init__()
        self.head, self.train_only = head, False

    def predict(self, features: Features, context: Context) -> dict[str, Tensor]:
        height, width = context.canvas_hw
        share = context.valid_hw.float().prod(dim=1, keepdim=True) / (height * width)
        return {"scores": self.head.predict(features, context)["scores"] * share}


def with_reading_head(make: Callable[..., TorchPredictor], *others: str) -> TorchPredictor:
    model = make(*others, "multilabel")
    model.model.heads["multilabel"] = Filled(model.model.heads["multilabel"])
    return model


@pytest.mark.parametrize(("names", "second"), [("readable", "valid_hw"), ("triton", "INPUT__1")])
def test_a_graph_takes_valid_hw_where_a_head_reads_it(
    predictor: Callable[..., TorchPredictor], tmp_path: Path, names: str, second: str
) -> None:
    model = with_reading_head(predictor, "yolov3")
    write(model, tmp_path / "bundle", names=names)
    bundle = BundlePredictor(str(tmp_path / "bundle"), threads=1)
    written = json.loads(
        open_artifact(str(tmp_path / "bundle"), kind="bundle").read("signature.json")
    )
    assert (written["valid_hw"], written["version"]) == (second, 2), (
        "so that older programs read it too"
    )
    graph = onnx.load_from_string(
        open_artifact(str(tmp_path / "bundle"), kind="bundle").read("model.onnx")
    ).graph
    assert (
        [each.name for each in graph.input]
        == [each.name for each in bundle.signature.inputs]
        == [written["input"]["name"], second]
    )
    agree(model, bundle)


def test_a_graph_without_a_reader_of_valid_hw_takes_an_image_alone(exported: str) -> None:
    bundle = open_artifact(exported, kind="bundle")
    assert [each.name for each in onnx.load_from_string(bundle.read("model.onnx")).graph.input] == [
        "image"
    ]
    signature = json.loads(bundle.read("signature.json"))
    assert "valid_hw" not in signature, "so that older programs read it too"
    assert signature["version"] == 1


@pytest.mark.parametrize("layout", ["end2end", "raw"])
def test_a_graph_that_takes_the_whole_canvas_for_image_is_no_bundle(
    predictor: Callable[..., TorchPredictor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layout: str,
) -> None:
    forward = ExportGraph.forward

    def whole(graph: ExportGraph, *arrays: Tensor, exporting: bool = True) -> Any:
        image, _ = arrays
        valid_hw = torch.tensor(image.shape[2:], dtype=torch.int32).expand(image.shape[0], 2)
        return forward(graph, image, valid_hw, exporting=exporting)

    monkeypatch.setattr(ExportGraph, "forward", whole)
    # all but the strips fill it
    samples = [
        (sample, np.resize(image, (96, 128, 3))) for sample, image in generate_samples(IMAGE, 3)
    ]
    with pytest.raises(ParityError, match="max_score"):
        write_bundle(
            with_reading_head(predictor),
            CheckSamples(samples=samples),
            str(tmp_path / "bundle"),
            ExportConfig(layout=layout),
        )
    assert not (tmp_path / "bundle").exists()


def test_predictions_are_compared_where_nothing_is_annotated(
    predictor: Callable[..., TorchPredictor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every metric of generated images is NaN; a decoder of the bundle's own that loses boxes is
    found all the same.
    """
    model = predictor("retinanet")
    made = write(model, tmp_path / "good")
    assert made.parity.metrics == []
    assert made.parity.checks
    decode = BundlePredictor.run

    def shifted(bundle: BundlePredictor, inputs: Any) -> Any:
        arrays = decode(bundle, inputs)
        return {head: fields | {"boxes": fields["boxes"] + 3} for head, fields in arrays.items()}

    monkeypatch.setattr(BundlePredictor, "run", shifted)
    with pytest.raises(ParityError, match=r"max_abs|agree"):
        write(model, tmp_path / "bad")


class Deep(Filled):
    """A head that gives an array of which the comparison knows nothing."""

    def predict(self, features: Features, context: Context) -> dict[str, Tensor]:
        scores = self.head.predict(features, context)["scores"]
        return {"scores": scores, "depth": scores * 2}


def test_a_head_whose_arrays_cannot_be_compared_is_refused(
    predictor: Callable[..., TorchPredictor], tmp_path: Path
) -> None:
    model = predictor("multilabel")
    model.model.heads["multilabel"] = Deep(model.model.heads["multilabel"])
    with pytest.raises(ParityError, match="'depth' is a field that cannot be compared"):
        write(model, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
