"""Damaged files of a run, a checkpoint and a bundle are named in one sentence, also where whoever
damaged them has made the manifest fit.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtl_ray import artifact
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inference.checkpoint import find_checkpoint, open_checkpoint
from mtl_ray.inference.predictor import artifact_kind
from mtl_ray.inference.run_folder import newest_attempt
from mtl_ray.models.imports import read_state_dict
from mtl_ray.training.checkpoint import read_state, read_training
from mtl_ray.weights.read import read_weights

DEEP = b"[" * 100_000
CONTENTS = [b"", b"{", b"null", b"[1]", b"1e999", b"\xff\xfe{", DEEP]
IMAGE = np.zeros((30, 40, 3), np.uint8)


def _short(content: object) -> str:
    return repr(content)[:20]


@pytest.mark.parametrize("content", [*CONTENTS, b"{}", b'{"checkpoint": 3}'], ids=_short)
def test_the_file_of_the_best_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoints" / "step-00000001").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-00000001" / artifact.MANIFEST).write_text("{}")
    (tmp_path / "best.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"best\.json is damaged: "):
        find_checkpoint(str(tmp_path))
    assert find_checkpoint(str(tmp_path), "last").endswith("step-00000001")


@pytest.mark.parametrize("content", [*CONTENTS, b"{}", b'{"attempt": "one"}'], ids=_short)
def test_the_file_of_an_attempt(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "attempts").mkdir()
    (tmp_path / "attempts" / "00000003.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"00000003\.json is damaged: "):
        newest_attempt(str(tmp_path))


def forged(
    folder: Path, original: str, files: Mapping[str, bytes], kind: str = "checkpoint"
) -> str:
    """A copy of an artifact with other files, whose manifest fits."""
    content = {path.name: path.read_bytes() for path in Path(original).iterdir()}
    del content[artifact.MANIFEST]
    artifact.publish(str(folder / "forged"), content | dict(files), kind=kind)
    return str(folder / "forged")


@pytest.mark.parametrize("content", CONTENTS, ids=_short)
@pytest.mark.parametrize(
    "name", ["vocabulary.json", "model.safetensors", "config.yaml", "state.json"]
)
def test_a_file_of_a_checkpoint(checkpoint: str, tmp_path: Path, name: str, content: bytes) -> None:
    uri = forged(tmp_path, checkpoint, {name: content})
    read: Callable[[str], Any] = read_state if name == "state.json" else open_checkpoint
    with pytest.raises(ValueError, match=name) as caught:
        read(uri)
    assert len(str(caught.value)) < 300
    if name != "config.yaml":
        with pytest.raises(ValueError, match=name):
            read_weights(uri)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"NaN", DEEP], ids=_short)
def test_the_state_of_the_optimizer(checkpoint: str, tmp_path: Path, content: bytes) -> None:
    uri = forged(tmp_path, checkpoint, {"training.pt": content})
    with pytest.raises(ValueError, match=r"training\.pt is damaged"):
        read_training(uri)


@pytest.mark.parametrize("content", [b"", b"{", DEEP, b"3"], ids=_short)
def test_a_manifest_of_no_artifact(tmp_path: Path, content: bytes) -> None:
    (tmp_path / artifact.MANIFEST).write_bytes(content)
    with pytest.raises(ValueError, match=r"MANIFEST\.json is damaged"):
        artifact_kind(str(tmp_path))


class Foreign:
    """A class that a weight file must not need."""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is damaged, or holds more"),
        (b"PK\x03\x04 cut short", "is damaged, or holds more"),
        ({"state_dict": {"a": torch.zeros(1)}, "meta": Foreign()}, "wash .* writes its tensors"),
        ({"epoch": 3}, "holds no tensors"),
        ([1, 2], "holds no tensors"),
        (torch.zeros(2), "holds no tensors"),
    ],
    ids=["empty", "cut", "objects", "numbers", "list", "tensor"],
)
def test_a_weight_file(tmp_path: Path, content: Any, words: str) -> None:
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=words):
        read_state_dict(str(path))


def test_a_weight_file_of_safetensors(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(ValueError, match=r"weights\.safetensors is damaged"):
        read_state_dict(str(tmp_path / "weights.safetensors"))


def other_head(content: dict[str, Any]) -> None:
    content["outputs"][0]["head"] = "other"


def no_head(content: dict[str, Any]) -> None:
    del content["heads"]["labels"]


def other_input(content: dict[str, Any]) -> None:
    content["version"] = 3
    content["inputs"] = [{**content.pop("input"), "field": "other"}]
    content.pop("valid_hw", None)


@pytest.mark.parametrize("change", [other_head, no_head, other_input])
def test_a_signature_that_does_not_fit_together(
    bundle: str, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    content = json.loads(Path(bundle, "signature.json").read_bytes())
    change(content)
    uri = forged(tmp_path, bundle, {"signature.json": json.dumps(content).encode()}, "bundle")
    with pytest.raises(ValueError, match=r"signature\.json of .* is damaged: "):
        BundlePredictor(uri)


def test_an_output_that_no_task_reads(bundle: str, tmp_path: Path) -> None:
    content = json.loads(Path(bundle, "signature.json").read_bytes())
    content["outputs"][0]["field"] = "other"
    uri = forged(tmp_path, bundle, {"signature.json": json.dumps(content).encode()}, "bundle")
    with pytest.raises(ValueError, match=r"read from the array .*, and its network gives other"):
        BundlePredictor(uri).predict([IMAGE])
