"""``inference_model``: opened once, called with arrays, bytes and paths."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mtl_ray.inference.model import inference_model
from tests.inference.tiny import HEADS, write_checkpoint


def test_arrays_bytes_and_paths_give_the_same(tmp_path: Path) -> None:
    model = inference_model(write_checkpoint(tmp_path / "run", HEADS))
    assert model.heads == ("boxes", "semantic", "labels")
    image = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image[:, :, ::-1])
    data = [image, (tmp_path / "a.png").read_bytes(), tmp_path / "a.png", str(tmp_path / "a.png")]
    answers = [model.json(each, score_threshold=0.0) for each in data]
    assert answers[0]["labels"][0]["class_name"] in ("x", "y")
    assert len(answers[0]["boxes"]) > 0
    assert len({json.dumps(each) for each in answers}) == 1
    together = model.json(data, score_threshold=0.0)
    assert len(together) == len(model(data)) == 4
    for many, one in zip(together, answers, strict=True):
        assert many["semantic"]["png"] == one["semantic"]["png"]
        assert many["labels"][0]["score"] == pytest.approx(one["labels"][0]["score"], abs=1e-5)


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    model = inference_model(str(write_checkpoint(tmp_path / "run", {"labels": HEADS["labels"]})))
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"an image is \(height, width, 3\) uint8 RGB"):
            model(wrong)
    with pytest.raises(ValueError, match="image"):
        model(b"no image")
    with pytest.raises(FileNotFoundError):
        model(tmp_path / "none.png")
    with pytest.raises(ValueError, match="--engine is for bundles"):
        inference_model(tmp_path / "run", engine="onnxruntime")
