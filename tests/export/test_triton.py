"""A model repository of Triton: the folder, and a config that Triton's own messages read."""

import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from jobs.export import main
from mtl_ray.backends.openvino import OpenVinoEngine
from mtl_ray.export.config import ExportConfig
from mtl_ray.export.triton import check_repository
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inference.checkpoint import open_checkpoint
from tests.environments import environment, outside
from tests.evaluation.conftest import make_samples, write_split
from tests.inference.tiny import HEADS, write_checkpoint

READ = """
import sys
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, DataType
config = text_format.Parse(open(sys.argv[1]).read(), ModelConfig())
print(config.name, config.backend, config.default_model_filename, config.max_batch_size)
print(config.HasField("dynamic_batching"))
for each in (*config.input, *config.output):
    print(each.name, DataType.Name(each.data_type), *each.dims)
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two versions of one model."""
    folder = tmp_path_factory.mktemp("triton")
    heads = {name: HEADS[name] for name in ("boxes", "labels")}
    checkpoint = str(write_checkpoint(folder / "checkpoint", heads))
    split = write_split(folder / "split", make_samples(open_checkpoint(checkpoint)))
    for _ in range(2):
        command = [checkpoint, "--to", str(folder / "repository" / "tiny"), "--layout", "triton"]
        assert main([*command, f"data.val.uri={split}", "export.samples=2"]) == 0
    return folder / "repository"


def test_versions_are_bundles(repository: Path) -> None:
    model = repository / "tiny"
    assert sorted(path.name for path in model.iterdir()) == ["1", "2", "config.pbtxt"]
    session = onnxruntime.InferenceSession(str(model / "2" / "model.onnx"))
    images = np.zeros((2, 3, 64, 96), np.uint8)
    outputs = BundlePredictor(str(model / "2")).signature.outputs
    values = session.run([each.name for each in outputs], {"image": images, **sizes(session)})
    text = (model / "config.pbtxt").read_text()
    assert "max_batch_size: 8\n" in text  # as the bundle was checked
    for each, array in zip(outputs, values, strict=True):
        assert f'name: "{each.name}"' in text
        assert len(array) == 2


def sizes(session: onnxruntime.InferenceSession) -> dict[str, np.ndarray]:
    names = [each.name for each in session.get_inputs()]
    return {"valid_hw": np.full((2, 2), 64, np.int32)} if "valid_hw" in names else {}


def test_tritons_own_messages_read_the_config(repository: Path) -> None:
    python = environment("tritonclient", ["tritonclient[http,grpc]==2.73.0"])
    done = subprocess.run(  # noqa: PLW1510
        [str(python), "-c", READ, str(repository / "tiny" / "config.pbtxt")],
        env=outside(python),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "tiny onnxruntime model.onnx 8"
    assert lines[1] == "True"
    assert "image TYPE_UINT8 3 -1 -1" in lines
    assert "boxes.boxes TYPE_FP32 20 4" in lines
    assert "labels.scores TYPE_FP32 2" in lines


def test_the_first_engine_must_be_onnx() -> None:
    with pytest.raises(ValueError, match="--engine onnxruntime first"):
        check_repository(ExportConfig(engine=OpenVinoEngine(type="openvino")))
