"""The folder of --dump-info, in MMDeploy's own runtime."""

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mtl_ray.export.config import ExportConfig
from mtl_ray.export.mmdeploy import DUMPED, dump_info
from mtl_ray.inference.torch_predictor import TorchPredictor
from mtl_ray.inputs.decode import decode_image
from mtl_ray.inputs.image import Canvas
from tests.environments import environment, outside

CLIENT = Path(__file__).parent / "mmdeploy_client.py"
RUNTIME = ["mmdeploy-runtime==1.3.1", "numpy<2"]
CASES = [
    ("retinanet", "Detector", "det_bccd_voc", Canvas(height=96, width=128)),
    ("yolov3", "Detector", "det_bccd_voc", Canvas(height=96, width=96, kind="stretch")),
    ("fcn", "Segmentor", "seg_camvid", Canvas(height=96, width=128, kind="crop", kernel="linear")),
    ("fcn", "Segmentor", "seg_camvid", Canvas(height=128, width=96)),
    ("linear", "Classifier", "cls_cifar10", Canvas(height=64, width=64)),
    ("multilabel", "Classifier", "det_bccd_voc", Canvas(height=64, width=96)),
]


@pytest.fixture(scope="module")
def runtime() -> Path:
    return environment("mmdeploy", RUNTIME)


def images_of(folder: Path) -> list[NDArray[np.uint8]]:
    """Three real images, one upright, one small."""
    files = sorted(each for each in folder.rglob("*") if each.suffix in (".jpg", ".jpeg", ".png"))
    first, second = (decode_image(each.read_bytes(), 10**8) for each in files[:2])
    return [first, np.ascontiguousarray(np.rot90(second)), first[: len(first) // 3 + 1]]


def answers(
    python: Path, files: Mapping[str, bytes], kind: str, images: Sequence[Any], folder: Path
) -> dict[str, NDArray[Any]]:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    np.savez(folder / "images.npz", **{str(i): image for i, image in enumerate(images)})
    command = [python, CLIENT, folder, kind, folder / "images.npz", folder / "answers.npz"]
    subprocess.run(command, env=outside(python), check=True, capture_output=True, timeout=120)
    return dict(np.load(folder / "answers.npz"))


def agree(kind: str, found: Mapping[str, Any], expected: Any, image: Any, number: int) -> bool:
    if kind == "Segmentor":
        return np.array_equal(found[str(number)], expected.classes)
    if kind == "Classifier":
        pairs = found[str(number)]
        scores = np.zeros(len(expected.scores))
        scores[pairs[:, 0].astype(int)] = pairs[:, 1]
        best_first = bool(np.all(np.diff(pairs[:, 1]) <= 0))
        return best_first and np.allclose(scores, expected.scores, atol=1e-5)
    boxes, labels = found[f"{number}.dets"], found[f"{number}.labels"]
    # the runtime itself ends boxes at the last pixel's first edge
    limit = np.array([image.shape[1] - 1, image.shape[0] - 1] * 2)
    return (
        len(boxes) == len(expected) > 0
        and np.array_equal(labels, expected.classes)
        and np.allclose(boxes[:, :4], np.minimum(expected.boxes_xyxy, limit), atol=0.05)
        and np.allclose(boxes[:, 4], expected.scores, atol=1e-4)
    )


@pytest.mark.parametrize(("head", "kind", "data", "canvas"), CASES)
def test_the_runtime_answers_as_our_predictor(
    head: str,
    kind: str,
    data: str,
    canvas: Canvas,
    predictor: Callable[..., TorchPredictor],
    runtime: Path,
    shared_data: Path,
    tmp_path: Path,
) -> None:
    made = predictor(head)
    made.canvas = canvas
    images = images_of(shared_data / data)
    files = dump_info(made, images, ExportConfig())
    assert set(files) == set(DUMPED)
    assert json.loads(files["deploy.json"])["task"] == kind
    found = answers(runtime, files, kind, images, tmp_path)
    expected = [each[head] for each in made.predict(images)]
    for number, image in enumerate(images):
        assert agree(kind, found, expected[number], image, number), number


def test_a_pipeline_with_another_order_of_channels_is_noticed(
    predictor: Callable[..., TorchPredictor], runtime: Path, shared_data: Path, tmp_path: Path
) -> None:
    made = predictor("linear")
    images = images_of(shared_data / "cls_cifar10")
    files = dump_info(made, images, ExportConfig())
    pipeline = json.loads(files["pipeline.json"])
    pipeline["pipeline"]["tasks"][0]["transforms"][1]["to_rgb"] = False
    wrong = {**files, "pipeline.json": json.dumps(pipeline).encode()}
    found = answers(runtime, wrong, "Classifier", images, tmp_path)
    expected = made.predict(images)[0]["linear"]
    assert not agree("Classifier", found, expected, images[0], 0)


def test_one_of_several_heads_must_be_named(predictor: Callable[..., TorchPredictor]) -> None:
    made = predictor("fcn", "linear")
    images = [np.zeros((30, 40, 3), np.uint8)]
    with pytest.raises(ValueError, match=r"heads fcn, linear.*export\.dump_head=NAME"):
        dump_info(made, images, ExportConfig())
    files = dump_info(made, images, ExportConfig(dump_head="linear"))
    assert json.loads(files["deploy.json"])["task"] == "Classifier"
