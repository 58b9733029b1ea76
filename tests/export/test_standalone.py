"""The folder of --standalone, in an environment that has three packages."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from jobs.export import main
from mtl_ray.export import standalone_predict
from mtl_ray.export.bundle import write_bundle
from mtl_ray.export.config import ExportConfig
from mtl_ray.export.standalone import PACKAGES, standalone_engine, write_standalone
from mtl_ray.export.verify import CheckSamples, generate_samples
from mtl_ray.geometry.masks import decode_rle
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inference.checkpoint import open_checkpoint
from mtl_ray.inference.torch_predictor import TorchPredictor
from mtl_ray.inputs.decode import decode_image
from mtl_ray.inputs.frame import frame_of, map_to_image, place
from mtl_ray.inputs.image import IMAGE, Canvas
from mtl_ray.tasks.detection.mask_decode import paste_box_mask, paste_canvas_masks
from tests.environments import environment, outside
from tests.evaluation.conftest import make_samples, write_split
from tests.inference.tiny import HEADS, images, write_checkpoint

SIZES = [(96, 128), (480, 640), (640, 427), (50, 60), (97, 33), (1, 1), (192, 128), (289, 385)]
CANVASES = [
    Canvas(kind=kind, kernel=kernel, height=96, width=128)
    for kind in ("stretch", "letterbox", "crop")
    for kernel in ("area", "linear")
]


@pytest.mark.parametrize("canvas", CANVASES, ids=lambda each: f"{each.kind}-{each.kernel}")
def test_images_are_placed_bit_for_bit(canvas: Canvas) -> None:
    rng = np.random.default_rng(0)
    about = {key: getattr(canvas, key) for key in ("kind", "kernel", "height", "width", "pad")}
    for size in SIZES:
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        expected, frame = place(image, canvas)
        found = standalone_predict.Frame(size, about)
        np.testing.assert_array_equal(found.place(image, about), expected)
        np.testing.assert_array_equal(
            found.classes(expected[:, :, 0]), map_to_image(expected[:, :, 0], frame)
        )
        assert tuple(found.valid) == (frame.valid_height, frame.valid_width)


@pytest.mark.parametrize("canvas", CANVASES[::2], ids=lambda each: each.kind)
def test_masks_are_pasted_as_by_the_task(canvas: Canvas) -> None:
    rng = np.random.default_rng(1)
    about = {key: getattr(canvas, key) for key in ("kind", "kernel", "height", "width", "pad")}
    frame, found = frame_of(200, 150, canvas), standalone_predict.Frame((200, 150), about)
    mask = rng.random((28, 28), np.float32)
    box = np.array([-10.5, 20.25, 120.75, 180.5])
    ours = standalone_predict._mask(mask, box, found, "box")
    np.testing.assert_array_equal(ours, decode_rle(paste_box_mask(mask, box, 200, 150), 200, 150))
    mask = rng.random((24, 32), np.float32)
    expected = decode_rle(paste_canvas_masks(mask[None], frame)[0], 200, 150)
    ours = standalone_predict._mask(mask, box, found, "canvas")
    assert 0.1 < expected.mean() < 0.9
    # noise has many logits near 0, where the precision decides
    assert (ours == expected).mean() > 0.9995


def _bundle(folder: Path, predictor: TorchPredictor, config: ExportConfig) -> str:
    uri = str(folder / "bundle")
    write_bundle(predictor, CheckSamples(samples=generate_samples(IMAGE, 2)), uri, config)
    return uri


@pytest.fixture(scope="module")
def python() -> Path:
    return environment("standalone", PACKAGES)


def _files(folder: Path, shared_data: Path) -> list[Path]:
    """A photograph, the same with an EXIF orientation, and a grey one."""
    first = next((shared_data / "det_bccd_voc").rglob("*.jpg"))
    image = Image.open(first)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(folder / "turned.png", exif=exif)
    image.convert("L").resize((70, 90)).save(folder / "grey.png")
    return [first, folder / "turned.png", folder / "grey.png"]


@pytest.mark.parametrize("given", ["uint8", "float32"])
def test_the_folder_answers_as_the_bundle(
    given: str,
    predictor: Callable[..., TorchPredictor],
    python: Path,
    shared_data: Path,
    tmp_path: Path,
) -> None:
    made = predictor("retinanet", "fcn", "linear")
    uri = _bundle(tmp_path, made, ExportConfig(size="fixed", input=given, min_agree=0.9))
    names = write_standalone(uri, str(tmp_path / "alone"))
    assert len((tmp_path / "alone" / "predict.py").read_text().splitlines()) <= 200
    assert {"README.md", "requirements.txt", "predict.py"} <= set(names)
    files = _files(tmp_path, shared_data)
    command = [python, tmp_path / "alone" / "predict.py", *files, "--score-thr", "0"]
    subprocess.run(
        [*command, "--out", tmp_path / "out.json"],
        cwd=tmp_path,
        env=outside(python),
        check=True,
        timeout=120,
    )
    answers = json.loads((tmp_path / "out.json").read_text())
    bundle = BundlePredictor(uri)
    for path, answer in zip(files, answers, strict=True):
        expected = bundle.predict([decode_image(path.read_bytes())])[0]
        boxes = answer["heads"]["retinanet"]
        assert len(boxes) == len(expected["retinanet"]) > 0
        found: NDArray[np.float64] = np.array([each["boxes"] for each in boxes])
        np.testing.assert_allclose(found, expected["retinanet"].boxes_xyxy, atol=1e-2)
        assert [each["classes"] for each in boxes] == expected["retinanet"].classes.tolist()
        scores = list(answer["heads"]["linear"].values())
        np.testing.assert_allclose(scores, expected["linear"].scores, atol=1e-5)
        classes = np.asarray(Image.open(tmp_path / f"{path.stem}.fcn.png"))
        assert (classes == expected["fcn"].classes).mean() > 0.999


def test_what_it_cannot_run_is_refused(
    predictor: Callable[..., TorchPredictor], tmp_path: Path
) -> None:
    raw = ExportConfig(size="fixed", layout="raw", min_agree=0.9)
    uri = _bundle(tmp_path, predictor("retinanet"), raw)
    with pytest.raises(ValueError, match=r"does not decode candidates.*layout=end2end"):
        write_standalone(uri, str(tmp_path / "alone"))
    assert not (tmp_path / "alone").exists()
    with pytest.raises(ValueError, match="is not empty"):
        write_standalone(uri, uri)


INT8 = "onnxruntime:int8"


@pytest.fixture(scope="module")
def of_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The arguments of an export, and the folder of a bundle with int8 and its standalone one."""
    folder = tmp_path_factory.mktemp("int8")
    heads = {"labels": HEADS["labels"]}
    checkpoint = str(write_checkpoint(folder / "checkpoint", heads))
    split = write_split(folder / "split", make_samples(open_checkpoint(checkpoint)))
    options = ["max_metric_drop=0.9", "samples=2", "metric_samples=5", "size=fixed"]
    data = [f"data.val.uri={split}", f"data.train.uri={split}"]
    arguments = [checkpoint, *data, *(f"export.{each}" for each in options), "--engine", INT8]
    places = ["--to", str(folder / "bundle"), "--standalone", str(folder / "alone")]
    assert main([*arguments, *places]) == 0
    return arguments, folder


def test_the_folder_has_the_engine_that_was_asked_for(of_run: tuple[list[str], Path]) -> None:
    _, folder = of_run
    assert (folder / "alone" / "model.int8.onnx").exists()
    assert not (folder / "alone" / "model.onnx").exists()
    image = images(3)[2]
    Image.fromarray(image).save(folder / "image.png")
    command = [sys.executable, folder / "alone" / "predict.py", folder / "image.png"]
    subprocess.run([*command, "--out", folder / "out.json"], check=True, timeout=120)
    (answer,) = json.loads((folder / "out.json").read_text())
    exact, int8 = (
        BundlePredictor(str(folder / "bundle"), engine=engine).predict([image])[0]["labels"].scores
        for engine in (None, INT8)
    )
    scores = np.array(list(answer["heads"]["labels"].values()))
    np.testing.assert_allclose(scores, int8, atol=1e-6)
    assert np.abs(scores - exact).max() > 1e-5


@pytest.mark.parametrize(
    ("engine", "file"),
    [([], "model.onnx"), (["onnxruntime:fp32"], "model.onnx"), ([INT8], "model.int8.onnx")],
)
def test_an_engine_of_a_bundle_is_chosen(
    engine: list[str], file: str, of_run: tuple[list[str], Path], tmp_path: Path
) -> None:
    bundle = str(of_run[1] / "bundle")
    alone = ["--standalone", str(tmp_path / "alone")]
    assert main([bundle, *alone, *(["--engine", *engine] if engine else [])]) == 0
    found = {each.name for each in (tmp_path / "alone").glob("*.onnx")}
    assert found == {file}


@pytest.mark.parametrize(
    ("engines", "reason"),
    [
        (["openvino"], "has no engine 'openvino'"),
        (["onnxruntime", INT8], "takes one engine of a bundle"),
    ],
)
def test_an_engine_that_a_bundle_cannot_give_is_refused(
    engines: list[str], reason: str, of_run: tuple[list[str], Path], tmp_path: Path
) -> None:
    bundle = str(of_run[1] / "bundle")
    with pytest.raises(ValueError, match=reason):
        main([bundle, "--standalone", str(tmp_path / "alone"), "--engine", *engines])
    assert not (tmp_path / "alone").exists()


def test_an_engine_that_failed_leaves_no_folder(
    of_run: tuple[list[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*of_run[0], "data.train.uri=nowhere"]
    assert main([*arguments, "--standalone", str(tmp_path / "alone")]) == 1
    said = capsys.readouterr()
    assert f"{INT8} is not in the bundle: int8 is calibrated" in said.out
    assert f"{INT8} failed; {tmp_path / 'alone'} was not written" in said.err
    assert not (tmp_path / "alone").exists()


@pytest.mark.parametrize(
    ("names", "engine"),
    [
        ([], None),
        (["openvino", "ncnn"], None),
        (["onnxruntime", INT8], None),
        ([INT8, "openvino:int8"], INT8),
        (["onnxruntime:fp32", "openvino:int8"], "onnxruntime"),
    ],
)
def test_the_only_precision_of_onnx_runtime_is_taken(names: list[str], engine: str | None) -> None:
    assert standalone_engine(names) == engine
