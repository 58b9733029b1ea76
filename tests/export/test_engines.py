"""Engines: each gives what torch gives, or is refused with a sentence.

Among them the int8 of ``jobs.export runs/mine --engine onnxruntime:int8`` (docs/coming_from.md).
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

import mtl_ray
from jobs.export import main
from mtl_ray.backends import onnx_int8
from mtl_ray.backends.backend import AnyEngine, EngineError, Exported
from mtl_ray.backends.config import EngineConfig, engine_name, engine_overrides
from mtl_ray.backends.onnx_int8 import activation_type
from mtl_ray.backends.openvino import OpenVinoEngine
from mtl_ray.export.bundle import export
from mtl_ray.export.config import CalibrationConfig, ExportConfig
from mtl_ray.export.engines import BuiltEngine, EngineRequest, build_engine, requests_of
from mtl_ray.export.graph import ExportGraph, TorchGraph
from mtl_ray.export.parity import parity_table
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inference.checkpoint import open_checkpoint
from mtl_ray.inference.predictor import open_predictor
from mtl_ray.inference.signature import read_signature
from mtl_ray.inference.torch_predictor import TorchPredictor
from tests.evaluation.conftest import make_samples, write_split
from tests.inference.tiny import HEADS, images, tiny_config, write_checkpoint
from tests.inference.tiny_lidar import SECOND, lidar_config, write_lidar_checkpoint
from tests.loading.clouds import cloud_sample, write_clouds

LABELS = {"labels": HEADS["labels"]}
TWO = {"labels": HEADS["labels"], "boxes": HEADS["boxes"]}
LOOSE = ExportConfig(samples=4, max_metric_drop=0.6, metric_samples=6)


def engine(kind: str, **options: Any) -> AnyEngine:
    built: AnyEngine = TypeAdapter(EngineConfig).validate_python({"type": kind, **options})
    return built


@pytest.fixture(scope="module")
def request_of(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[AnyEngine], EngineRequest]:
    """A checkpoint of two heads, measured and calibrated on a split whose truth is what it says."""
    folder = tmp_path_factory.mktemp("engines")
    checkpoint = str(write_checkpoint(folder / "checkpoint", TWO))
    split = write_split(folder / "split", make_samples(open_checkpoint(checkpoint)))
    data = tiny_config(TWO).data
    data = replace(data, train=replace(data.train, uri=split), val=replace(data.val, uri=split))

    def make(chosen: AnyEngine) -> EngineRequest:
        return EngineRequest(checkpoint=checkpoint, engine=chosen, config=LOOSE, data=data)

    return make


def build(request: EngineRequest) -> BuiltEngine:
    if (reason := request.engine.unavailable()) is not None:
        pytest.skip(reason)
    return build_engine(request)


@pytest.fixture(scope="module")
def built_as(
    request_of: Callable[[AnyEngine], EngineRequest],
) -> Callable[[str], BuiltEngine]:
    """Builds an engine by its short name, once."""

    @cache
    def once(name: str) -> BuiltEngine:
        kind, _, precision = name.partition(":")
        return build(request_of(engine(kind, **({"precision": precision} if precision else {}))))

    return once


def test_no_part_of_the_graph_hides_a_name_of_torch_fx(
    predictor: Callable[..., TorchPredictor],
) -> None:
    """ExecuTorch could build nothing of a module with a part named graph."""
    made = predictor("linear")
    graph = ExportGraph(made.model, made.canvas, ExportConfig())
    parts = {name for name, _ in TorchGraph(graph, graph.names).named_children()}
    assert parts
    assert not parts & set(dir(torch.fx.GraphModule))


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "torchscript", "ncnn", "executorch"])
def test_an_exact_engine_agrees_with_torch(
    name: str, built_as: Callable[[str], BuiltEngine]
) -> None:
    built = built_as(name)
    assert built.failure is None
    assert built.parity is not None
    assert built.parity.checks
    assert all(check.agree == 1.0 for check in built.parity.checks)
    assert built.latency is not None
    assert built.latency.p50_ms > 0


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "torchscript"])
def test_an_engine_agrees_with_torch_on_clouds(name: str, tmp_path: Path) -> None:
    """Clouds of any number of voxels, which a trace must not take for a constant."""
    chosen = engine(name)
    if (reason := chosen.unavailable()) is not None:
        pytest.skip(reason)
    checkpoint = write_lidar_checkpoint(tmp_path / "checkpoint", lidar_config())
    # Boxes of random weights are kilometres long: what counts is the relative difference, below.
    loose = ExportConfig(samples=3, engine=chosen, max_abs=1e6)
    written = export(checkpoint, str(tmp_path / "bundle"), loose)
    assert {check.batch for check in written.parity.checks} > {1}
    assert all(check.agree == 1.0 and check.count for check in written.parity.checks)
    assert all(check.max_rel < 1e-4 for check in written.parity.checks)


def test_a_network_that_no_graph_can_hold_is_refused_with_its_part(tmp_path: Path) -> None:
    """No advice on sizes, which would not help."""
    checkpoint = write_lidar_checkpoint(tmp_path / "checkpoint", lidar_config(SECOND))
    with pytest.raises(ValueError, match=r"^the sparse encoder of backbone 'second'") as told:
        export(checkpoint, str(tmp_path / "bundle"), ExportConfig(samples=2))
    assert str(told.value).endswith("Fix: a model with backbone 'pillars'")
    assert not (tmp_path / "bundle").exists()


def test_a_table_of_parity_has_the_figures_that_people_read(tmp_path: Path) -> None:
    """KITTI's metric has 180; all are compared, and parity.json has all."""
    split = write_clouds(tmp_path / "split", [cloud_sample(seed) for seed in range(4)])
    config = lidar_config(split=split)
    checkpoint = write_lidar_checkpoint(tmp_path / "checkpoint", config)
    written = export(
        checkpoint, str(tmp_path / "bundle"), ExportConfig(samples=3, max_abs=1.0), data=config.data
    )
    table = parity_table(written.parity)
    assert "objects/KITTI/Car_3D_AP40_moderate_strict" in table
    assert "AP11" not in table
    names = [pair["metric"] for pair in written.parity.to_json()["metrics"]]
    assert "KITTI/Car_3D_AP11_easy_loose" in names
    hidden = len(names) - table.count("objects/")
    assert table.endswith(f"\n{hidden} more figures were compared")


@pytest.mark.parametrize("name", ["onnxruntime:int8", "openvino:int8", "openvino:fp16"])
def test_a_smaller_engine_is_judged_by_its_metric(
    name: str, built_as: Callable[[str], BuiltEngine]
) -> None:
    built = built_as(name)
    assert built.failure is None
    assert built.name == name
    assert built.parity is not None
    assert {pair.head for pair in built.parity.metrics} == set(TWO)
    whole = built_as(name.partition(":")[0])
    assert built.num_bytes < whole.num_bytes


@pytest.mark.parametrize(
    "name", ["onnxruntime", "onnxruntime:int8", "openvino", "torchscript", "ncnn"]
)
def test_an_engine_does_not_tell_where_it_was_built(
    name: str, built_as: Callable[[str], BuiltEngine]
) -> None:
    """The exporters of torch write the place of every line of code, with the paths of the host."""
    for file, content in built_as(name).files.items():
        whole = content if isinstance(content, bytes) else content.read_bytes()
        for place in (Path(torch.__file__).parents[1], Path(mtl_ray.__file__).parents[1]):
            assert str(place).encode() not in whole, file


@pytest.mark.parametrize("pair", [("openvino", "openvino:fp16"), ("openvino", "openvino:int8")])
def test_an_engine_may_be_there_with_each_precision(
    pair: tuple[str, str], built_as: Callable[[str], BuiltEngine]
) -> None:
    first, second = map(built_as, pair)
    assert not first.files.keys() & second.files.keys()


def test_a_loss_of_the_metric_is_a_refusal(
    request_of: Callable[[AnyEngine], EngineRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ground truth is what the model says, so noise in its weights must lose."""
    chosen = engine("openvino", precision="fp16")
    spoil_weights(monkeypatch, 3.0)
    built = build(replace(request_of(chosen), config=replace(LOOSE, max_metric_drop=0.01)))
    assert built.failure is not None
    assert "a loss above 0.01" in built.failure
    assert not built.files


def spoil_weights(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """OpenVINO builds from a file whose first convolution is another one."""
    honest = OpenVinoEngine.build

    def spoilt(
        self: OpenVinoEngine, exported: Exported, folder: Path
    ) -> Mapping[str, bytes | Path]:
        model = onnx.load_from_string(exported.onnx)
        weights = next(each for each in model.graph.initializer if len(each.dims) == 4)
        values = onnx.numpy_helper.to_array(weights) * factor
        weights.CopyFrom(onnx.numpy_helper.from_array(values[::-1].copy(), weights.name))
        return honest(self, replace(exported, onnx=model.SerializeToString()), folder)

    monkeypatch.setattr(OpenVinoEngine, "build", spoilt)


def test_an_engine_with_a_fault_is_refused(
    request_of: Callable[[AnyEngine], EngineRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_weights(monkeypatch, 1.5)
    built = build(request_of(engine("openvino")))
    assert built.failure is not None
    assert "max_score" in built.failure or "agree" in built.failure


def test_swapped_axes_are_refused(
    request_of: Callable[[AnyEngine], EngineRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = BundlePredictor.run

    def swapped(self: BundlePredictor, arrays: Any) -> Any:
        image = np.ascontiguousarray(arrays["image"][..., ::-1])
        return honest(self, {**arrays, "image": image})

    monkeypatch.setattr(BundlePredictor, "run", swapped)
    built = build(request_of(engine("torchscript")))
    assert built.failure is not None


def test_int8_is_calibrated_on_the_training_split_alone(
    request_of: Callable[[AnyEngine], EngineRequest],
) -> None:
    request = request_of(engine("onnxruntime", precision="int8"))
    data = replace(request.data, train=replace(request.data.train, uri="nowhere"))
    built = build_engine(replace(request, data=data))
    assert built.failure is not None
    assert "training split, which cannot be read" in built.failure


def test_a_second_export_does_not_calibrate_again(
    request_of: Callable[[AnyEngine], EngineRequest],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MTL_RAY_CACHE", str(tmp_path))
    request = request_of(engine("onnxruntime", precision="int8"))
    first = build(request)
    monkeypatch.setattr(onnx_int8, "quantised", lambda *_: pytest.fail("calibrated again"))
    assert build(request).files == first.files != {}


def test_nodes_can_stay_exact(
    request_of: Callable[[AnyEngine], EngineRequest], built_as: Callable[[str], BuiltEngine]
) -> None:
    request = request_of(engine("onnxruntime", precision="int8"))
    some = built_as("onnxruntime:int8")
    config = replace(LOOSE, calibration=replace(LOOSE.calibration, exclude=("conv",)))
    none = build_engine(replace(request, config=config))
    counts = [
        sum(node.op_type == "DequantizeLinear" for node in graph.node)
        for graph in (
            onnx.load_from_string(next(iter(built.files.values()))).graph for built in (some, none)
        )
    ]
    assert counts[0] > counts[1] > 0
    config = replace(LOOSE, calibration=replace(LOOSE.calibration, exclude=("",)))
    assert "every node is excluded" in str(build_engine(replace(request, config=config)).failure)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_pattern_that_matches_no_node_is_refused_with_the_names(
    name: str, request_of: Callable[[AnyEngine], EngineRequest]
) -> None:
    request = request_of(engine(name, precision="int8"))
    config = replace(LOOSE, calibration=replace(LOOSE.calibration, exclude=("head.boxes",)))
    failure = build_engine(replace(request, config=config)).failure
    assert failure is not None
    assert "'head.boxes' matches none of the nodes that would become int8: node_" in failure


def test_what_is_no_pattern_is_refused_before_anything_is_built() -> None:
    with pytest.raises(ValidationError, match="is no regular expression: unterminated"):
        CalibrationConfig(exclude=("[",))


def test_unsigned_activations_where_the_processor_is_fast_with_them() -> None:
    assert activation_type(frozenset({"sse2", "avx512_vnni"})) == ("QUInt8", False)
    assert activation_type(frozenset({"sse2", "avx2"})) == ("QUInt8", True)
    assert activation_type(frozenset()) == ("QInt8", False)
    assert isinstance(onnx_int8.cpu_flags(), frozenset)


def test_a_bundle_holds_several_engines_and_says_which_failed(
    tmp_path: Path,
    request_of: Callable[[AnyEngine], EngineRequest],
    capsys: pytest.CaptureFixture[str],
) -> None:
    request = request_of(engine("onnxruntime"))
    to, uri = str(tmp_path / "bundle"), request.data.val.uri
    rest = [f"data.val.uri={uri}", f"data.train.uri={uri}", "export.max_metric_drop=0.5"]
    names = ["onnxruntime", "torchscript", "onnxruntime:int8", "tensorrt"]
    assert main([request.checkpoint, "--to", to, *rest, "--engine", *names]) == 1
    printed = capsys.readouterr().out
    assert "tensorrt is not in the bundle: tensorrt is not installed" in printed
    signature = read_signature((tmp_path / "bundle" / "signature.json").read_bytes())
    assert signature.engine_names == ("onnxruntime", "torchscript", "onnxruntime:int8")
    report = json.loads((tmp_path / "bundle" / "engines.json").read_text())
    assert [each["name"] for each in report["engines"]] == names
    assert b"torchscript" in (tmp_path / "bundle" / "engines.html").read_bytes()
    first = BundlePredictor(to).predict(images())
    other = open_predictor(to, engine="torchscript").predict(images())
    for ours, theirs in zip(first, other, strict=True):
        np.testing.assert_allclose(ours["labels"].scores, theirs["labels"].scores, atol=1e-5)
    with pytest.raises(ValueError, match=r"no engine 'ncnn'; it has onnxruntime, torchscript"):
        BundlePredictor(to, engine="ncnn")
    with pytest.raises(ValueError, match="--engine is for bundles"):
        open_predictor(request.checkpoint, engine="openvino")


@pytest.mark.parametrize(
    "name", ["openvino.xml", "openvino.bin", "model.torchscript", "int8.openvino.xml.gz"]
)
def test_a_damaged_file_of_an_engine_is_one_sentence(
    name: str, built_as: Callable[[str], BuiltEngine]
) -> None:
    kind = "torchscript" if "torch" in name else "openvino"
    built = built_as("openvino:int8" if "int8" in name else kind)

    class Damaged:
        def read(self, wanted: str) -> bytes:
            data = built.files[wanted]
            return data[: len(data) // 2] if wanted == name else data

        def fetch(self, wanted: str, path: Path) -> None:
            path.write_bytes(self.read(wanted))

    with pytest.raises(EngineError, match=rf"{kind} cannot open") as caught:
        engine(kind).open(Damaged(), tuple(built.files), 1)
    assert "\n" not in str(caught.value)


def test_names_on_the_command_line() -> None:
    assert engine_name(engine("openvino", precision="int8")) == "openvino:int8"
    assert engine_overrides([]) == []
    assert engine_overrides(["ncnn:fp16"]) == [
        'export.engine={"type": "onnxruntime"}',
        'export.engines=[{"type": "ncnn", "precision": "fp16"}]',
    ]
    assert engine_overrides(["openvino", "openvino:fp32", "ncnn", "openvino"]) == [
        'export.engine={"type": "openvino"}',
        'export.engines=[{"type": "ncnn"}]',
    ]
    assert engine_overrides(["onnxruntime:int8", "onnxruntime:fp32"]) == [
        'export.engine={"type": "onnxruntime"}',
        'export.engines=[{"type": "onnxruntime", "precision": "int8"}]',
    ]
    with pytest.raises(ValueError, match="no package of PPLNN"):
        engine_overrides(["pplnn"])
    with pytest.raises(ValueError, match="the engine onnxruntime has fp32 and int8, not fp16"):
        engine_overrides(["onnxruntime:fp16"])
    with pytest.raises(ValidationError):
        engine("ncnn", precision="int8")


def test_an_engine_that_a_config_names_twice_is_built_once() -> None:
    names = ("openvino", "onnxruntime", "openvino", "ncnn")
    config = ExportConfig(engines=tuple(engine(name) for name in names))
    requests = requests_of("checkpoint", config, tiny_config(LABELS).data, ())
    assert [engine_name(each.engine) for each in requests] == ["openvino", "ncnn"]


def test_mistakes_of_the_command_line(
    tmp_path: Path,
    request_of: Callable[[AnyEngine], EngineRequest],
) -> None:
    checkpoint = request_of(engine("onnxruntime")).checkpoint
    with pytest.raises(ValueError, match="engine"):
        main([checkpoint, "--to", str(tmp_path / "b"), "--engine", "openvin"])
    shutil.rmtree(tmp_path / "b", ignore_errors=True)
