"""Planted faults of engines: each gives one sentence and the exit status of its job, never a
traceback, and never a wrong answer.
"""

import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from pydantic import TypeAdapter

from jobs import evaluate, export, serve
from jobs.analyze import speed
from jobs.run import run
from mtl_ray.artifact import publish
from mtl_ray.backends.backend import AnyEngine, EngineError, Exported, first_line
from mtl_ray.backends.config import EngineConfig
from mtl_ray.backends.openvino import OpenVinoEngine
from mtl_ray.export.bundle import export as write_bundle
from mtl_ray.export.config import ExportConfig
from mtl_ray.export.engines import EngineRequest, build_engine
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inference.checkpoint import open_checkpoint
from tests.evaluation.conftest import make_samples, write_split
from tests.inference.tiny import HEADS, tiny_config, write_checkpoint
from tests.loading.clouds import cloud_sample, write_clouds

LABELS = {"labels": HEADS["labels"]}
FEW = ExportConfig(samples=2, size="fixed", max_metric_drop=0.6, metric_samples=2)
GRAPH = """
<ir_version: {version}, opset_import: ["" : 20, "com.example" : 1]>
g (float[batch,3,8,8] image) => (float[batch,3,8,8] out) {{ {nodes} }}
"""


def engine(kind: str, **options: Any) -> AnyEngine:
    built: AnyEngine = TypeAdapter(EngineConfig).validate_python({"type": kind, **options})
    return built


def graph(nodes: str = "out = Relu(image)", version: int = 10) -> bytes:
    model = onnx.parser.parse_model(GRAPH.format(nodes=nodes, version=version))
    return bytes(model.SerializeToString())


def exported(onnx_file: bytes) -> Exported:
    example = {"image": np.zeros((2, 3, 8, 8), np.float32)}
    return Exported(
        onnx=onnx_file, program=None, example=example, inputs=("image",), outputs=("out",)
    )


def built(kind: str, folder: Path, onnx_file: bytes) -> dict[str, bytes]:
    """The files of an engine for a graph."""
    chosen = engine(kind)
    if (reason := chosen.unavailable()) is not None:
        pytest.skip(reason)
    found = chosen.build(exported(onnx_file), folder)
    return {
        name: each if isinstance(each, bytes) else each.read_bytes() for name, each in found.items()
    }


def opened(kind: str, folder: Path, onnx_file: bytes) -> None:
    """Builds the files of an engine and opens them."""
    files = built(kind, folder, onnx_file)
    engine(kind).open(Files(files), tuple(files), 1)


class Files:
    """Files in memory."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files

    def read(self, name: str) -> bytes:
        return self.files[name]

    def fetch(self, name: str, path: Path) -> None:
        path.write_bytes(self.files[name])


def told(error: BaseException) -> str:
    """The message, which is one sentence."""
    words = str(error)
    assert words
    assert "\n" not in words
    assert "Traceback" not in words
    assert len(words) < 700
    return words


def status(main: Callable[[], int]) -> int:
    """How a job ends."""
    with pytest.raises(SystemExit) as ended:
        run(main)
    return int(str(ended.value.code))


def evaluation(bundle: Path, split: str, out: Path) -> Callable[[], int]:
    arguments = [str(bundle), "--data", split, "--out", str(out / "out"), "--engine", "openvino"]
    return partial(evaluate.main, arguments)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory, checkpoint: str) -> str:
    folder = tmp_path_factory.mktemp("faults_split")
    return str(write_split(folder / "split", make_samples(open_checkpoint(checkpoint))))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_checkpoint(tmp_path_factory.mktemp("faults") / "checkpoint", LABELS))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, checkpoint: str) -> Path:
    """Two engines of one checkpoint."""
    to = tmp_path_factory.mktemp("faults_bundle") / "bundle"
    config = replace(FEW, engines=(engine("openvino"),))
    assert write_bundle(checkpoint, str(to), config).engines
    return to


CASES = {
    "onnxruntime": ("model.onnx",),
    "openvino": ("openvino.xml", "openvino.bin"),
    "ncnn": ("ncnn.param", "ncnn.bin", "ncnn.names"),
}
FAULTS: dict[str, Callable[[bytes], bytes]] = {
    "half": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "noise": lambda data: np.random.default_rng(1).bytes(max(len(data), 50)),
    "words": lambda data: b"hello\n" * 3,
}
UNSEEN = {("openvino.bin", "noise")}
"""Other weights of the same size: only the manifest of a bundle tells them from the right ones."""


@pytest.mark.parametrize("kind", CASES)
def test_corrupt_files(kind: str, tmp_path: Path) -> None:
    """With a manifest that fits them; otherwise the bundle is not opened at all."""
    weights = "w = Constant<value = float[3,3,3,3] {" + ",".join(["0.5"] * 81) + "}>()"
    files = built(kind, tmp_path, graph(weights + " out = Conv<pads = [1,1,1,1]>(image, w)"))
    assert tuple(files) == CASES[kind]
    engine(kind).open(Files(files), tuple(files), 1)
    for name, data in files.items():
        for fault, spoil in FAULTS.items():
            if (name, fault) in UNSEEN:
                continue
            with pytest.raises(EngineError) as caught:
                engine(kind).open(Files({**files, name: spoil(data)}), tuple(files), 1)
            assert told(caught.value).startswith(f"{kind} cannot open"), (name, fault)


@pytest.mark.parametrize("kind", ["onnxruntime", "openvino", "ncnn"])
def test_an_operator_that_an_engine_does_not_have_is_named(kind: str, tmp_path: Path) -> None:
    foreign = graph("a = Relu(image) out = com.example.Wobble(a)")
    with pytest.raises(EngineError, match="Wobble") as caught:
        opened(kind, tmp_path, foreign)
    assert kind in told(caught.value) or "pnnx" in told(caught.value)


def test_a_layer_that_ncnn_does_not_have_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"ncnn has no layer for .*(Det|det)|pnnx cannot"):
        built("ncnn", tmp_path, graph("a = Det(image) out = Add(image, a)"))


@pytest.mark.parametrize("keeps", [0, 1])
def test_ncnn_pools_maxima(keeps: int, tmp_path: Path) -> None:
    """pnnx leaves ReduceMax as it is, and ncnn has no such layer."""
    largest = f"axes = Constant<value = int64[2] {{2, 3}}>() a = ReduceMax<keepdims={keeps}>"
    back = "" if keeps else "shape = Constant<value = int64[4] {-1, 3, 1, 1}>() "
    column = "a" if keeps else "b"
    nodes = f"{largest}(image, axes) {back}"
    nodes += "" if keeps else "b = Reshape(a, shape) "
    data = _with_constants(graph(f"{nodes} out = Add(image, {column})"))
    files = built("ncnn", tmp_path, data)
    session = engine("ncnn").open(Files(files), tuple(files), 1)
    image = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    expected = image + image.max(axis=(2, 3), keepdims=True)
    np.testing.assert_allclose(session.run({"image": image})["out"], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("nodes", "name"),
    [
        ("k = Constant<value = int64[1] {8}>() a, places = TopK(image, k) out = Relu(a)", "TopK"),
        ("a = Less(image, image) b = Cast<to = 1>(a) out = Concat<axis = 1>(image, b)", "Less"),
    ],
)
def test_an_operator_without_a_layer_is_named_before_pnnx(
    nodes: str, name: str, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match=rf"^ncnn has no layer for {name}$"):
        built("ncnn", tmp_path, graph(nodes))


def test_other_maxima_are_named(tmp_path: Path) -> None:
    nodes = "axes = Constant<value = int64[1] {1}>() a = ReduceMax(image, axes)"
    data = _with_constants(graph(f"{nodes} out = Add(image, a)"))
    with pytest.raises(EngineError, match="ncnn has no layer for ReduceMax"):
        built("ncnn", tmp_path, data)


def _with_constants(data: bytes) -> bytes:
    """Constant nodes as initializers, as the exporter writes them."""
    model = onnx.load_from_string(data)
    for node in [each for each in model.graph.node if each.op_type == "Constant"]:
        value = node.attribute[0].t
        value.name = node.output[0]
        model.graph.initializer.append(value)
        model.graph.node.remove(node)
    return bytes(model.SerializeToString())


def test_a_file_of_a_newer_version(tmp_path: Path) -> None:
    newer = Files({"model.onnx": graph(version=99)})
    with pytest.raises(EngineError, match="Unsupported model IR version: 99") as caught:
        engine("onnxruntime").open(newer, ("model.onnx",), 1)
    assert told(caught.value).startswith("onnxruntime cannot open model.onnx: Unsupported")
    files = built("openvino", tmp_path, graph())
    name = "openvino.xml"
    changed = files[name].replace(b'version="11"', b'version="99"')
    assert changed != files[name]
    with pytest.raises(EngineError, match=r"openvino cannot open openvino\.xml"):
        engine("openvino").open(Files({**files, name: changed}), tuple(files), 1)


def of_another_machine(bundle: Path, tmp_path: Path, kind: str, **options: str) -> str:
    """The bundle, with an engine that its machine had and this one has not."""
    files = {each.name: each for each in bundle.iterdir() if each.name != "MANIFEST.json"}
    signature = (bundle / "signature.json").read_bytes()
    content = TypeAdapter(dict[str, Any]).validate_json(signature)
    content |= {"version": 3, "engine": {"type": kind, **options}, "files": ["model.onnx"]}
    content.pop("engines", None)
    made: dict[str, bytes | Path] = {**files}
    made["signature.json"] = TypeAdapter(dict[str, Any]).dump_json(content)
    publish(str(tmp_path / "other"), made, kind="bundle")
    return str(tmp_path / "other")


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        ("tensorrt", {}, "tensorrt is not installed|needs a GPU"),
        ("onnxruntime", {"device": "cuda"}, "cannot run on cuda"),
    ],
)
def test_a_bundle_of_another_machine(
    kind: str,
    options: dict[str, str],
    reason: str,
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if engine(kind, **options).unavailable() is None:
        pytest.skip("this machine has it")
    uri = of_another_machine(bundle, tmp_path, kind, **options)
    with pytest.raises(EngineError, match=reason) as caught:
        BundlePredictor(uri)
    assert "Fix: " in told(caught.value)
    assert status(partial(speed.main, [uri, "--iterations", "1"])) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_what_an_operator_of_torchscript_says() -> None:
    class Fixed(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
            return (image.reshape(2, 12),)

    example = {"image": np.zeros((2, 12), np.float32)}
    chosen = engine("torchscript")
    files = chosen.build(
        Exported(
            onnx=b"",
            program=None,
            module=Fixed(),
            example=example,
            inputs=("image",),
            outputs=("out",),
        ),
        Path(),
    )
    data = {name: each for name, each in files.items() if isinstance(each, bytes)}
    session = chosen.open(Files(data), tuple(data), 1)
    with pytest.raises(EngineError, match=r"^torchscript: shape '\[2, 12\]' is invalid"):
        session.run({"image": np.zeros((3, 12), np.float32)})


def test_a_signature_of_another_graph(bundle: Path, tmp_path: Path) -> None:
    """With a manifest that fits it."""
    signature = TypeAdapter(dict[str, Any]).validate_json((bundle / "signature.json").read_bytes())
    signature["outputs"][0]["name"] = "boxes.scores"
    files: dict[str, bytes | Path] = {
        each.name: each for each in bundle.iterdir() if each.name != "MANIFEST.json"
    }
    files["signature.json"] = TypeAdapter(dict[str, Any]).dump_json(signature)
    publish(str(tmp_path / "other"), files, kind="bundle")
    with pytest.raises(
        EngineError, match=r"no output 'boxes\.scores'.*different bundles"
    ) as caught:
        BundlePredictor(str(tmp_path / "other")).predict([np.zeros((20, 30, 3), np.uint8)])
    told(caught.value)


def test_a_precision_that_the_file_does_not_have(bundle: Path, tmp_path: Path) -> None:
    """With a manifest that fits: what was measured was another engine."""
    signature = TypeAdapter(dict[str, Any]).validate_json((bundle / "signature.json").read_bytes())
    signature["engine"] = {"type": "onnxruntime", "precision": "int8"}
    signature["further"][0]["engine"]["precision"] = "fp16"
    files: dict[str, bytes | Path] = {
        each.name: each for each in bundle.iterdir() if each.name != "MANIFEST.json"
    }
    files["signature.json"] = TypeAdapter(dict[str, Any]).dump_json(signature)
    publish(str(tmp_path / "other"), files, kind="bundle")
    for name, file in (("onnxruntime:int8", "model.onnx"), ("openvino:fp16", "openvino.xml")):
        with pytest.raises(
            EngineError, match=rf"{re.escape(file)}: its precision is fp32,"
        ) as caught:
            BundlePredictor(str(tmp_path / "other"), engine=name)
        assert told(caught.value).endswith(f"signature.json says {name.partition(':')[2]}")


@pytest.mark.parametrize("kind", ["openvino", "ncnn"])
def test_a_file_says_its_precision(kind: str, tmp_path: Path) -> None:
    weights = "w = Constant<value = float[3,3,3,3] {" + ",".join(["0.5"] * 81) + "}>()"
    onnx_file = graph(weights + " out = Conv<pads = [1,1,1,1]>(image, w)")
    chosen = engine(kind, precision="fp16")
    if (reason := chosen.unavailable()) is not None:
        pytest.skip(reason)
    made = chosen.build(exported(onnx_file), tmp_path)
    files = {name: Path(str(each)).read_bytes() for name, each in made.items()}
    chosen.open(Files(files), tuple(files), 1)
    with pytest.raises(EngineError, match=r"its precision is fp16, but signature\.json says fp32"):
        engine(kind).open(Files(files), tuple(files), 1)


def test_a_file_of_another_checkpoint_is_no_part_of_the_bundle(
    bundle: Path, tmp_path: Path, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its name is right, its content is stale."""
    other = tmp_path / "other"
    write_bundle(
        str(write_checkpoint(tmp_path / "checkpoint", LABELS, seed=1)),
        str(other),
        replace(FEW, engines=(engine("openvino"),)),
    )
    mixed = tmp_path / "mixed"
    shutil.copytree(bundle, mixed)
    for name in ("model.onnx", "openvino.bin"):
        shutil.copy(other / name, mixed / name)
    for chosen in (None, "openvino"):
        with pytest.raises(ValueError, match=r"model\.onnx|openvino\.bin") as caught:
            BundlePredictor(str(mixed), engine=chosen)
        told(caught.value)
    assert status(evaluation(mixed, split, tmp_path)) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_stale_file_is_refused_when_it_is_built(
    checkpoint: str, split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that answers from its cache: the files are those of another checkpoint."""
    stale = build_engine(
        request_of(str(write_checkpoint(tmp_path / "old", LABELS, seed=1)), split, "openvino")
    )
    assert stale.failure is None
    monkeypatch.setattr(OpenVinoEngine, "build", lambda self, exported, folder: stale.files)
    found = build_engine(request_of(checkpoint, split, "openvino"))
    assert found.failure is not None
    assert "labels" in found.failure
    assert not found.files


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (MemoryError(), "MemoryError"),
        (TypeError("no such layer\nin the graph"), "TypeError: no such layer"),
        (RuntimeError("it broke"), "RuntimeError: it broke"),
    ],
    ids=["memory", "type", "runtime"],
)
def test_any_error_of_a_converter_is_a_row_and_the_bundle_is_there(
    error: Exception,
    failure: str,
    checkpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: Any) -> Mapping[str, bytes]:
        raise error

    monkeypatch.setattr(OpenVinoEngine, "unavailable", lambda self: None)
    monkeypatch.setattr(OpenVinoEngine, "build", broken)
    to = str(tmp_path / "bundle")
    config = replace(FEW, engines=(engine("openvino"), engine("torchscript")))
    rows = write_bundle(checkpoint, to, config).engines
    assert [(row.name, row.failure) for row in rows] == [
        ("onnxruntime", None),
        ("openvino", failure),
        ("torchscript", None),
    ]
    assert BundlePredictor(to).signature.engine_names == ("onnxruntime", "torchscript")


def request_of(checkpoint: str, split: str, kind: str, **options: str) -> EngineRequest:
    data = tiny_config(LABELS).data
    data = replace(data, train=replace(data.train, uri=split), val=replace(data.val, uri=split))
    return EngineRequest(
        checkpoint=checkpoint, engine=engine(kind, **options), config=FEW, data=data
    )


def test_a_missing_library(
    bundle: Path,
    checkpoint: str,
    split: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not installed
    assert BundlePredictor(str(bundle)), "its other engine needs none"
    jobs: list[Callable[[], int]] = [
        partial(speed.main, [str(bundle), "--engine", "openvino"]),
        evaluation(bundle, split, tmp_path),
        partial(
            export.main, [checkpoint, "--to", str(tmp_path / "new"), "export.engine.type=openvino"]
        ),
    ]
    for job in jobs:
        assert status(job) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "openvino is not installed (Fix: pip install 'mtl_ray[openvino]')" in said
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_library_that_is_not_whole(
    engine: str,
    bundle: Path,
    checkpoint: str,
    split: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is installed, and a shared library of it is missing."""
    words = "libtbb.so.12: cannot open shared object file"
    (tmp_path / f"{engine}.py").write_text(f"raise ImportError({words!r})")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [each for each in sys.modules if each.partition(".")[0] == engine]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(EngineError, match=rf"{engine} cannot be imported: libtbb\.so") as caught:
        BundlePredictor(str(bundle), engine=engine)
    told(caught.value)
    failure = build_engine(request_of(checkpoint, split, engine)).failure
    assert failure == f"{engine} cannot be imported: {words}"


@pytest.mark.parametrize("kind", ["onnxruntime", "openvino"])
def test_calibration_on_clouds(kind: str, checkpoint: str, split: str, tmp_path: Path) -> None:
    clouds = write_clouds(tmp_path / "clouds", [cloud_sample(1)], shards=1)
    request = request_of(checkpoint, split, kind, precision="int8")
    data = replace(request.data, train=replace(request.data.train, uri=str(clouds)))
    failure = str(build_engine(replace(request, data=data)).failure)
    assert "int8 is calibrated on the training split" in failure
    assert "has point clouds, no images" in failure


def test_calibration_on_what_is_no_split(checkpoint: str, split: str, tmp_path: Path) -> None:
    (tmp_path / "instances.json").write_text("{}")
    request = request_of(checkpoint, split, "onnxruntime", precision="int8")
    for uri in (str(tmp_path / "instances.json"), str(tmp_path), str(tmp_path / "none")):
        data = replace(request.data, train=replace(request.data.train, uri=uri))
        failure = str(build_engine(replace(request, data=data)).failure)
        assert failure.startswith("int8 is calibrated on the training split, which cannot be read")
        assert "\n" not in failure


def test_an_engine_of_a_server_that_its_bundle_does_not_have(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is started."""
    assert status(partial(serve.main, [str(bundle), "--engine", "ncnn"])) == 2
    said = capsys.readouterr().err
    assert "has no engine 'ncnn'; it has onnxruntime, openvino" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("", "ValueError"),
        ("one\ntwo", "one"),
        ("Check 'false' failed at src/a.cpp:151:\nIt failed.\nSummary:\n-- No rule for: X\n",
         "It failed. No rule for: X"),
        ("[ONNXRuntimeError] : 1 : FAIL : /a/b.cc:25 x::Y(z&&, t<q>&) Version 9", "Version 9"),
        ("[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : parsing failed.", "parsing failed."),
        ("a" * 900, "a" * 300),
    ],
)  # fmt: skip
def test_the_line_that_says_what_is_wrong(message: str, line: str) -> None:
    assert first_line(ValueError(message)) == line
