"""The folder of --dump-info, in MMDeploy's own runtime."""

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mtl_ray.export import mmdeploy
from mtl_ray.export.config import ExportConfig
from mtl_ray.export.mmdeploy import DUMPED, dump_info, thinned
from mtl_ray.export.mmdeploy_files import FORMS, deploy_json, pipeline_json
from mtl_ray.export.mmdeploy_graph import sdk_graph
from mtl_ray.export.parity import ParityError
from mtl_ray.export.verify import generate_samples
from mtl_ray.geometry.masks import decode_rle
from mtl_ray.inference.torch_predictor import TorchPredictor
from mtl_ray.inputs.decode import decode_image
from mtl_ray.inputs.frame import frame_of
from mtl_ray.inputs.image import IMAGE, Canvas
from mtl_ray.tasks.detection.decode import decode_detections
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


def masked_graph(frame: str, canvas: Canvas) -> tuple[bytes, dict[str, NDArray[Any]]]:
    """The graph of a network that always gives the same two masks, and the arrays of its head."""
    rng = np.random.default_rng(0)
    arrays = {
        "boxes": rng.uniform(0, 40, (1, 3, 4)).astype(np.float32),
        "scores": np.array([[0.5, 0.0, 0.9]], np.float32),
        "classes": np.array([[1, 2, 0]]),
        "masks": rng.random((1, 3, 24, 32), np.float32),
    }
    arrays["boxes"][..., 2:] += 45
    nodes = [
        helper.make_node("Constant", [], [f"head.{name}"], value=numpy_helper.from_array(value))
        for name, value in arrays.items()
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 3, 96, 128])
    graph = helper.make_graph(nodes, "constants", [image], [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    outputs = {name: f"head.{name}" for name in arrays}
    made = sdk_graph(model, canvas, {"image": "image"}, outputs, frame)
    return made.SerializeToString(), arrays


@pytest.mark.parametrize("frame", ["box", "canvas"])
@pytest.mark.parametrize("kind", ["letterbox", "crop"])
def test_masks_are_pasted_in_the_graph(frame: str, kind: str) -> None:
    canvas = Canvas(height=96, width=128, kind=kind)
    made, arrays = masked_graph(frame, canvas)
    session = onnxruntime.InferenceSession(made)
    given = {"input": np.random.default_rng(1).uniform(0, 255, (1, 3, 150, 90)).astype(np.float32)}
    dets, labels, masks = session.run(["dets", "labels", "masks"], given)
    head = SimpleNamespace(mask_frame=frame, select=None)
    of_image = {name: value[0] for name, value in arrays.items()}
    expected = decode_detections(of_image, frame_of(150, 90, canvas), head)
    np.testing.assert_allclose(dets[0, :, :4], expected.boxes_xyxy, atol=1e-3)
    assert labels.tolist() == [[0, 1]]
    for mine, theirs in zip(masks[0], expected.masks or (), strict=True):
        assert (mine == decode_rle(theirs, 150, 90)).mean() > 0.9995
        assert 0 < mine.mean() < 1


def test_large_photographs_are_thinned_before_masks_of_all_objects_are_compared() -> None:
    photo = np.arange(3000 * 4000 * 3, dtype=np.uint32).astype(np.uint8).reshape(3000, 4000, 3)
    assert thinned(photo).shape == (750, 1000, 3)
    assert thinned(photo[:1000, :1000]).shape == (1000, 1000, 3)
    np.testing.assert_array_equal(thinned(photo)[1, 2], photo[4, 8])


def test_the_runtime_gives_masks_and_waits_for_their_boxes(runtime: Path, tmp_path: Path) -> None:
    made, _ = masked_graph("box", Canvas(height=96, width=128))
    form = FORMS[frozenset({"boxes", "scores", "classes", "masks"})]
    files = {
        "end2end.onnx": made,
        "deploy.json": json.dumps(deploy_json(form, "masks")).encode(),
        "pipeline.json": json.dumps(pipeline_json(form, "masks", 3)).encode(),
    }
    sizes = [(150 + 30 * i, 200 + 40 * i) for i in range(20)]
    images = [np.zeros((*size, 3), np.uint8) for size in sizes]
    found = answers(runtime, files, "Detector", images, tmp_path)
    session = onnxruntime.InferenceSession(made)
    for number, image in enumerate(images):
        given = {"input": image.transpose(2, 0, 1)[None].astype(np.float32)}
        dets, labels, masks = session.run(["dets", "labels", "masks"], given)
        limit = np.array([image.shape[1] - 1, image.shape[0] - 1] * 2)
        boxes = np.minimum(dets[0, :, :4], limit)
        np.testing.assert_allclose(found[f"{number}.dets"][:, :4], boxes, atol=0.01)
        np.testing.assert_array_equal(found[f"{number}.labels"], labels[0])
        np.testing.assert_array_equal(found[f"{number}.masks"], masks[0] > 0)


def test_a_graph_that_places_images_otherwise_is_refused(
    predictor: Callable[..., TorchPredictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = predictor("fcn")
    images = [raw for _, raw in generate_samples(IMAGE, 2)]

    def stretched(model: Any, canvas: Canvas, *rest: Any) -> Any:
        return sdk_graph(model, replace(canvas, kind="stretch"), *rest)

    monkeypatch.setattr(mmdeploy, "sdk_graph", stretched)
    with pytest.raises(ParityError, match=r"end2end\.onnx: fcn at 128x96.*agree"):
        dump_info(made, images, ExportConfig())


def test_one_of_several_heads_must_be_named(predictor: Callable[..., TorchPredictor]) -> None:
    made = predictor("fcn", "linear")
    images = [np.zeros((30, 40, 3), np.uint8)]
    with pytest.raises(ValueError, match=r"heads fcn, linear.*export\.dump_head=NAME"):
        dump_info(made, images, ExportConfig())
    files = dump_info(made, images, ExportConfig(dump_head="linear"))
    assert json.loads(files["deploy.json"])["task"] == "Classifier"
