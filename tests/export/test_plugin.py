"""An input that is no image, and an engine of its own: from a config to HTTP, with no line of
the package changed.
"""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from pulse_counting.engine import ReferenceEngine
from pulse_counting.signal import SignalInput

from mtl_ray import artifact, storage
from mtl_ray.config.document import dump, parse
from mtl_ray.config.extend import used_plugins
from mtl_ray.config.validate import to_yaml
from mtl_ray.evaluation.measure import measure
from mtl_ray.evaluation.metrics import head_metrics
from mtl_ray.evaluation.predictions_file import Spool, read_arrow, write_arrow
from mtl_ray.experiment import ExperimentConfig, build_model, read_experiment
from mtl_ray.export.bundle import checkpoint_config, export, write_bundle
from mtl_ray.export.config import ExportConfig
from mtl_ray.export.parity import ParityError
from mtl_ray.export.verify import CheckSamples, generate_samples
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inference.checkpoint import open_checkpoint
from mtl_ray.inference.endpoint import EndpointPredictor
from mtl_ray.inference.files import predict_files
from mtl_ray.inference.places import find_files
from mtl_ray.inference.predictor import Predictor
from mtl_ray.inference.signature import read_signature
from mtl_ray.inference.stored_config import network_yaml
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.serving.app import App
from mtl_ray.serving.compare import compare_files
from mtl_ray.serving.config import ServeConfig
from mtl_ray.serving.service import Service
from mtl_ray.vocabulary import vocabulary_to_json
from tests.serving.server import running

NAME = "pulse_counting"
ROOT = Path(__file__).parents[2]
VOCABULARY = Vocabulary(classes={"pulses": ()})
CONFIG: dict[str, Any] = {
    "plugins": [NAME],
    "model": {"backbone": {"type": "conv1d"}, "heads": {"pulses": {"type": "count"}}},
    "data": {
        "train": {"uri": "none"},
        "val": {"uri": "none"},
        "canvas": {"type": "signal", "length": 128},
    },
    "schedule": {"steps": 1},
    "runtime": {"name": "signals"},
    "export": {"engine": {"type": "reference"}},
}


def signals(count: int = 6) -> list[np.ndarray]:
    return [raw for _, raw in generate_samples(SignalInput(), count)]


def counts(predictor: Predictor, raws: list[np.ndarray]) -> list[float]:
    return [found["pulses"].count for found in predictor.predict(raws)]


@pytest.fixture(scope="module")
def config() -> ExperimentConfig:
    return read_experiment(parse(dump(CONFIG), "signals.yaml"))


@pytest.fixture(scope="module")
def checkpoint(config: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    files = {
        "model.safetensors": safetensors.torch.save(
            build_model(config.model, VOCABULARY).state_dict()
        ),
        "model.yaml": network_yaml(config).encode(),
        "config.yaml": to_yaml(config).encode(),
        "vocabulary.json": json.dumps(vocabulary_to_json(VOCABULARY)).encode(),
        "state.json": json.dumps({"step": 1, "metrics": {}}).encode(),
    }
    uri = str(tmp_path_factory.mktemp("signals") / "checkpoint")
    artifact.publish(uri, files, kind="checkpoint")
    return uri


@pytest.fixture(scope="module")
def bundle(checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    to, config = (
        str(tmp_path_factory.mktemp("signals") / "bundle"),
        checkpoint_config(checkpoint, []),
    )
    export(checkpoint, to, config.export, config.data, config.plugins)
    return to


def test_a_bundle_names_plugin_engine_files_and_inputs(bundle: str) -> None:
    opened = artifact.open_artifact(bundle, kind="bundle")
    signature = json.loads(opened.read("signature.json"))
    assert (signature["version"], signature["plugins"], signature["engine"]["type"]) == (
        3,
        [NAME],
        "reference",
    )
    assert signature["files"] == ["graph.bin", "names.txt"]
    assert [(each["field"], each["dtype"]) for each in signature["inputs"]] == [
        ("signal", "float32"),
        ("valid", "int32"),
    ]
    assert read_signature(opened.read("signature.json")).to_json() == opened.read("signature.json")
    graph = onnx.load_from_string(opened.read("graph.bin")).graph
    assert [
        dim.dim_param or dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim
    ] == ["batch", 1, "length"]
    parity = json.loads(opened.read("parity.json"))
    assert parity["engine"] == {"type": "reference", "device": "numpy"}
    assert {check["canvas"] for check in parity["checks"]} == {
        "signal 1x128, valid 1",
        "signal 1x144, valid 1",
    }


def test_a_fresh_process_predicts_with_checkpoint_and_bundle(checkpoint: str, bundle: str) -> None:
    code = (
        "import json, sys\nfrom mtl_ray.inference.predictor import open_predictor\nfrom "
        "mtl_ray.export.verify import generate_samples\n"
        "from mtl_ray.inference.bundle import BundlePredictor\n"
        "made = [open_predictor(uri) for uri in sys.argv[1:]]\nraws = [raw for _, raw in "
        "generate_samples(made[0].canvas.input, 6)]\n"
        "print(json.dumps([[each['pulses'].count for each in one.predict(raws)] for one in made]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, checkpoint, bundle],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests" / "plugin")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    ours, theirs = json.loads(done.stdout)
    assert len(set(ours)) == 6
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_the_default_engine_runs_it_too(checkpoint: str, tmp_path: Path) -> None:
    predictor = open_checkpoint(checkpoint)
    samples = CheckSamples(samples=generate_samples(SignalInput(), 3))
    write_bundle(predictor, samples, str(tmp_path / "bundle"), ExportConfig())
    signature = json.loads((tmp_path / "bundle" / "signature.json").read_bytes())
    assert signature["version"] == 3
    assert not {"engine", "files"} & signature.keys()
    np.testing.assert_allclose(
        counts(predictor, signals()),
        counts(BundlePredictor(str(tmp_path / "bundle")), signals()),
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("engine", "error", "sentence"),
    [
        ({"wrong": 0.01}, ParityError, "max_score"),
        (
            {"package": "no_such_engine"},
            ValueError,
            r"export\.engine: no_such_engine is not installed \(Fix: pip",
        ),
        (
            {"open_sizes": False},
            ValueError,
            r"reference needs fixed sizes \(Fix: export\.size=fixed\)",
        ),
    ],
)
def test_an_engine_that_is_wrong_or_not_here_gives_no_bundle(
    checkpoint: str, tmp_path: Path, engine: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    config = replace(checkpoint_config(checkpoint, []).export, engine=ReferenceEngine(**engine))
    with pytest.raises(error, match=sentence):
        export(checkpoint, str(tmp_path / "bundle"), config, plugins=(NAME,))
    assert not (tmp_path / "bundle").exists()


def test_an_engine_with_a_largest_batch_is_asked_for_no_more(
    checkpoint: str, tmp_path: Path
) -> None:
    config = replace(checkpoint_config(checkpoint, []).export, engine=ReferenceEngine(most=2))
    made = export(checkpoint, str(tmp_path / "bundle"), config, plugins=(NAME,))
    assert {check.batch for check in made.parity.checks} == {1, 2}
    assert made.notes == ("it is slow",)
    assert len(counts(BundlePredictor(made.uri), signals())) == 6


def test_a_missing_plugin_is_one_sentence_that_names_it(
    bundle: str, checkpoint: str, tmp_path: Path
) -> None:
    for uri, name in ((bundle, "signature.json"), (checkpoint, "model.yaml")):
        opened = artifact.open_artifact(uri, kind=Path(uri).name)
        files = {each: opened.read(each) for each in opened.names}
        files[name] = files[name].replace(NAME.encode(), b"their.signals")
        artifact.publish(str(tmp_path / opened.kind), files, kind=opened.kind)
    with pytest.raises(
        ValueError, match=r"^the plugin 'their\.signals' is needed and cannot be imported here"
    ):
        BundlePredictor(str(tmp_path / "bundle"))
    with pytest.raises(
        ValueError, match=r"^the plugin 'their\.signals' is needed and cannot be imported here"
    ):
        open_checkpoint(str(tmp_path / "checkpoint"))


def test_only_what_is_used_is_written(config: ExperimentConfig) -> None:
    assert config.plugins == (NAME,)
    assert used_plugins(config.model, config.plugins) == (NAME,)
    assert used_plugins(config.schedule, config.plugins) == ()
    plain = {
        **CONFIG,
        "model": {"backbone": {"name": "resnet18"}, "heads": {"labels": {"type": "linear"}}},
        "export": {},
    }
    plain["data"] = {**CONFIG["data"], "canvas": {"height": 8, "width": 8}}
    assert "plugins" not in network_yaml(read_experiment(parse(dump(plain), "plain.yaml")))


def test_it_is_measured_and_stored(checkpoint: str, tmp_path: Path) -> None:
    predictor = open_checkpoint(checkpoint)
    samples = [
        replace(sample, annotations={"pulses": 5.0})
        for sample, _ in generate_samples(SignalInput(), 5)
    ]
    samples += [Sample(key="broken", inputs={"signal": b"123"}), Sample(key="absent", inputs={})]
    metrics = head_metrics(predictor.heads, predictor.vocabulary)
    with Spool(predictor.heads) as spool:
        measured = measure(predictor, samples, metrics, spool.add)
        table = spool.table()
    assert measured.samples == 5
    assert measured.invalid == [
        ("broken", "a signal is float32 values, not 3 bytes"),
        ("absent", "it has no signal"),
    ]
    assert metrics["pulses"].result()["mae"] > 0
    uri = str(tmp_path / "predictions.arrow")
    write_arrow(uri, table, predictor.heads, predictor.vocabulary, predictor.plugins)
    stored = read_arrow(uri)
    assert stored.plugins == (NAME,)
    assert [stored.by_name[sample.key]["pulses"].count for sample in samples[:5]] == counts(
        predictor, signals(5)
    )


@pytest.fixture(scope="module")
def port(bundle: str) -> Iterator[int]:
    config = ServeConfig(max_pixels=500)
    app = App(Service({"signals": BundlePredictor(bundle, threads=1)}, config), config, parallel=1)
    with running(app) as port:
        yield port
    app.close()


def test_it_answers_over_http(port: int, checkpoint: str, tmp_path: Path) -> None:
    base, kind, raws = f"http://127.0.0.1:{port}", SignalInput(), signals()
    (model,) = httpx.get(f"{base}/models").json()["models"]
    assert model["input"] == {
        "name": "signal",
        "media_type": "application/octet-stream",
        "formats": list(kind.formats),
    }
    assert (model["plugins"], model["canvas"], model["heads"]["pulses"]["view"]) == (
        [NAME],
        {"type": "signal", "length": 128},
        "json",
    )
    endpoint, torch_model = (
        EndpointPredictor(f"{base}/predictions/signals"),
        open_checkpoint(checkpoint),
    )
    np.testing.assert_allclose(counts(endpoint, raws), counts(torch_model, raws), atol=1e-5)
    for number, raw in enumerate(raws):
        (tmp_path / f"{number}.f32").write_bytes(kind.encode_file(raw))
    files = find_files([str(tmp_path)], endpoint.canvas.input)
    assert [each.mismatches for each in compare_files(endpoint, torch_model, files)] == [()] * 6
    assert predict_files(endpoint, files, str(tmp_path / "out"), 0.3, 500) == []
    (entry, *_) = json.loads(storage.read(str(tmp_path / "out" / "predictions.json")))[
        "predictions"
    ]
    assert (entry["length"], entry["drawing"], set(entry["heads"]["pulses"])) == (
        len(raws[0]),
        "0.jpg",
        {"count"},
    )


def test_bodies_are_files_forms_and_json(port: int) -> None:
    url, raw = f"http://127.0.0.1:{port}/predictions/signals", signals(1)[0]
    body = SignalInput().encode_file(raw)
    alone = httpx.post(url, content=body).json()
    assert set(alone) == {"count"}
    begins_as_json = b"{" + body[1:]
    assert httpx.post(url, content=begins_as_json).status_code == 200, (
        "a signal may begin with any byte"
    )
    encoded = base64.b64encode(body).decode()
    assert httpx.post(url, json={"signal": encoded}).json() == alone
    assert httpx.post(url, json={"instances": [{"b64": encoded}] * 2}).json() == {
        "predictions": [alone, alone]
    }
    assert httpx.post(
        url, files=[("signal", ("a.f32", body)), ("signal", ("b.f32", b"abc"))]
    ).json() == [
        alone,
        {
            "code": 400,
            "message": "the file is no readable signal: a signal is float32 values, not 3 bytes",
        },
    ]
    large = httpx.post(url, content=bytes(4 * 501))
    assert large.status_code == 422
    assert (
        large.json()["message"]
        == "the signal has 501 values, at most 500 are read (serve.max_pixels of this server)"
    )
    assert (
        httpx.post(url, json={"image": encoded})
        .json()["message"]
        .startswith("the JSON has no signal: send")
    )
    described = httpx.get(f"http://127.0.0.1:{port}/openapi.json").json()
    assert described["components"]["schemas"]["Count"]["required"] == ["count"]
    assert "OneSignal" in described["components"]["schemas"]


def test_a_name_from_elsewhere_runs_no_module_that_is_no_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_script_of_mine.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match=r"'a_script_of_mine' is no plugin"):
        read_signature(json.dumps({"version": 3, "plugins": ["a_script_of_mine"]}).encode())
    with pytest.raises(ValueError, match="plugins are no list of names"):
        read_signature(json.dumps({"version": 3, "plugins": [7]}).encode())
    with pytest.raises(ValueError, match=r"signals\.yaml:1: plugins must be a list of modules"):
        read_experiment(
            parse(dump({**CONFIG, "plugins": "tests.export.signal_plugin"}), "signals.yaml")
        )
