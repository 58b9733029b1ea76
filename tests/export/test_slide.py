"""Class maps in windows: the same from a checkpoint, every engine and a server."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import TypeAdapter

from mtl_ray.config.validate import to_yaml
from mtl_ray.export.bundle import export
from mtl_ray.export.config import ExportConfig
from mtl_ray.export.standalone import write_standalone
from mtl_ray.inference import windows
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inference.checkpoint import open_checkpoint
from mtl_ray.inference.config import SlideConfig
from mtl_ray.inference.predictor import open_predictor
from mtl_ray.inference.signature import read_signature
from mtl_ray.inference.slide import LocalPredictor
from mtl_ray.inference.windows import WindowSum
from mtl_ray.serving.config import ServeConfig
from mtl_ray.serving.reply import RequestError
from mtl_ray.serving.service import Service
from tests.inference.tiny import HEADS, images, tiny_config, write_checkpoint

SLIDE = SlideConfig(crop=(64, 96), stride=(40, 64))
MAP = {"semantic": HEADS["semantic"]}
ENGINES = ("onnxruntime", "openvino", "torchscript", "ncnn")


def large(count: int = 3) -> list[NDArray[np.uint8]]:
    """Images larger than a window, of several shapes, and one that is smaller."""
    rng = np.random.default_rng(5)
    sizes = [(150, 170), (70, 260), (30, 40)]
    return [
        np.asarray(cv2.resize(rng.integers(0, 255, (9, 12, 3), np.uint8), (width, height)))
        for height, width in sizes[:count]
    ]


def with_slide(folder: Path, heads: dict[str, Any], slide: SlideConfig = SLIDE) -> str:
    config = tiny_config(heads)
    config = replace(config, evaluate=replace(config.evaluate, slide=slide))
    return str(
        write_checkpoint(folder / "checkpoint", heads, config__yaml=to_yaml(config).encode())
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return with_slide(tmp_path_factory.mktemp("slide"), MAP)


@pytest.fixture(scope="module")
def bundle(checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """With every engine that is installed."""
    to = str(tmp_path_factory.mktemp("bundle") / "bundle")
    build = TypeAdapter(ExportConfig).validate_python
    config = build({"samples": 2, "engines": [{"type": name} for name in ENGINES[1:]]})
    written = export(checkpoint, to, config)
    missing = [row.failure for row in written.engines if row.failure is not None]
    assert all("not installed" in reason for reason in missing), missing
    return to


def reference(
    network: LocalPredictor, image: NDArray[np.uint8], slide: SlideConfig
) -> NDArray[np.int64]:
    """The rule of MMSegmentation for one image, as it stands in its documentation."""
    height, width = image.shape[:2]
    rows, columns = slide.crop
    padded = np.full((max(height, rows), max(width, columns), 3), network.canvas.pad, np.uint8)
    padded[:height, :width] = image
    total = torch.zeros(3, *padded.shape[:2])
    counts = torch.zeros(padded.shape[:2])
    for top in windows.starts(padded.shape[0], rows, slide.stride[0]):
        for left in windows.starts(padded.shape[1], columns, slide.stride[1]):
            part = np.ascontiguousarray(padded[top : top + rows, left : left + columns])
            arrays = {
                "image": part.transpose(2, 0, 1)[None].copy(),
                "valid_hw": np.array([[rows, columns]], np.int32),
            }
            logits = torch.from_numpy(network.run(arrays)["semantic"]["logits"][0])
            box = (left, padded.shape[1] - left - columns, top, padded.shape[0] - top - rows)
            total += F.pad(logits, box)
            counts[top : top + rows, left : left + columns] += 1
    return (total / counts).argmax(0).numpy()[:height, :width]


def test_a_checkpoint_predicts_in_windows(checkpoint: str) -> None:
    predictor = open_checkpoint(checkpoint)
    assert (predictor.canvas.height, predictor.canvas.width) == SLIDE.crop
    for image, found in zip(large(), predictor.predict(large()), strict=True):
        expected = reference(predictor, image, SLIDE)
        assert found["semantic"].classes.shape == image.shape[:2]
        assert (found["semantic"].classes == expected).mean() > 0.999
    whole = open_checkpoint(checkpoint, slide=None).predict(large())[0]["semantic"]
    assert (whole.classes != reference(predictor, large()[0], SLIDE)).mean() > 0.01


@pytest.mark.jobs
@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_gives_what_the_checkpoint_gives(
    name: str, bundle: str, checkpoint: str
) -> None:
    if name not in read_signature((Path(bundle) / "signature.json").read_bytes()).engine_names:
        pytest.skip(f"{name} is not installed")
    ours = open_checkpoint(checkpoint).predict(large())
    theirs = open_predictor(bundle, engine=name).predict(large())
    for first, second in zip(ours, theirs, strict=True):
        assert (first["semantic"].classes == second["semantic"].classes).mean() > 0.999


@pytest.mark.jobs
def test_a_server_gives_what_the_bundle_gives(bundle: str) -> None:
    predictor = BundlePredictor(bundle, threads=1)
    service = Service({"maps": predictor}, ServeConfig())
    for image, expected in zip(large(), predictor.predict(large()), strict=True):
        request = service.check_request("maps", {}, "image/png")
        file = predictor.canvas.input.encode_file(image)
        (reply,) = service.replies("maps", [replace(request, file=file)])
        found = cv2.imdecode(np.frombuffer(reply.body, np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(found, expected["semantic"].classes)


@pytest.mark.jobs
def test_a_server_refuses_what_would_take_too_much_memory(
    bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = BundlePredictor(bundle, threads=1)
    service = Service({"maps": predictor}, ServeConfig())
    monkeypatch.setattr(windows, "MOST_BYTES", 1000)
    request = service.check_request("maps", {}, "image/png")
    file = predictor.canvas.input.encode_file(large()[0])
    with pytest.raises(RequestError) as caught:
        service.replies("maps", [replace(request, file=file)])
    assert caught.value.reply.status == 422


@pytest.mark.jobs
def test_older_programs_refuse_such_a_bundle(bundle: str) -> None:
    content = json.loads((Path(bundle) / "signature.json").read_bytes())
    assert content["version"] == 5
    assert content["slide"] == {"crop": [64, 96], "stride": [40, 64], "fit": None}
    assert [each["field"] for each in content["outputs"]] == ["logits"]


def test_the_image_is_scaled_to_fit_first(tmp_path: Path) -> None:
    """An image of twice the size gives the map of the original, enlarged."""
    slide = replace(SLIDE, fit=(150, 170))
    predictor = open_checkpoint(with_slide(tmp_path, MAP, slide))
    (image,) = large(1)
    plain = predictor.predict([image])[0]["semantic"].classes
    double = np.repeat(np.repeat(image, 2, axis=0), 2, axis=1)
    found = predictor.predict([double])[0]["semantic"].classes
    assert found.shape == (300, 340)
    assert (found[::2, ::2] == plain).mean() > 0.95


def test_other_heads_see_the_whole_image(tmp_path: Path) -> None:
    heads = {"labels": HEADS["labels"], **MAP}
    uri = with_slide(tmp_path, heads)
    found = open_checkpoint(uri).predict(large())
    whole = open_checkpoint(uri, slide=None).predict(large())
    for ours, theirs in zip(found, whole, strict=True):
        assert list(ours) == list(theirs)
        np.testing.assert_allclose(ours["labels"].scores, theirs["labels"].scores, atol=1e-6)
    with pytest.raises(ValueError, match=r"Fix: evaluate.slide.crop=\[64, 96\]"):
        open_checkpoint(uri, slide=replace(SLIDE, crop=(96, 96)))


def test_windows_are_for_class_maps(tmp_path: Path) -> None:
    uri = with_slide(tmp_path, {"labels": HEADS["labels"]})
    with pytest.raises(ValueError, match=r"evaluate\.slide is for heads that predict class maps"):
        open_checkpoint(uri)


def test_programs_that_see_whole_images_alone_refuse_windows(
    tmp_path: Path, checkpoint: str
) -> None:
    to, config = str(tmp_path / "bundle"), ExportConfig(samples=2)
    with pytest.raises(ValueError, match=r"whole images.*Fix: evaluate\.slide=null"):
        export(checkpoint, to, replace(config, dump_info=True))
    export(checkpoint, to, config)
    with pytest.raises(ValueError, match=r"whole images.*with evaluate\.slide=null"):
        write_standalone(to, str(tmp_path / "alone"))


def test_logits_by_choice(tmp_path: Path, checkpoint: str) -> None:
    to = str(tmp_path / "bundle")
    export(checkpoint, to, ExportConfig(samples=2, maps="logits", dump_info=True), slide=None)
    with pytest.raises(ValueError, match=r"decode logits\. Fix: export\.maps=classes"):
        write_standalone(to, str(tmp_path / "alone"))
    bundle = BundlePredictor(to, threads=1)
    assert bundle.slide is None
    assert [output.field for output in bundle.signature.outputs] == ["logits"]
    ours = open_checkpoint(checkpoint, slide=None).predict(images())
    for first, second in zip(ours, bundle.predict(images()), strict=True):
        assert (first["semantic"].classes == second["semantic"].classes).mean() > 0.999


def test_a_wrong_stitching_is_seen(checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows that are added a few rows too high give another map."""
    predictor = open_checkpoint(checkpoint)
    honest = WindowSum.add
    (image,) = large(1)
    expected = reference(predictor, image, SLIDE)
    monkeypatch.setattr(
        WindowSum,
        "add",
        lambda self, window, logits: honest(self, (max(0, window[0] - 4), window[1]), logits),
    )
    found = predictor.predict([image])[0]["semantic"].classes
    assert (found != expected).mean() > 0.001
