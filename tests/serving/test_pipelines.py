"""A detector feeds a classifier: boxes get the labels of their crops."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from mtl_ray.inference.endpoint import EndpointPredictor
from mtl_ray.serving.app import App, open_app
from mtl_ray.serving.config import ModelPipelineConfig, ServeConfig
from mtl_ray.serving.pipelines import crop_box
from tests.serving.server import running
from tests.serving.test_app import call

COLOURS = ModelPipelineConfig(detector="finder/boxes", classifier="namer/labels", min_score=0.1)


def config(bundle: Callable[..., str], **pipelines: ModelPipelineConfig) -> ServeConfig:
    models = {"finder": bundle("boxes"), "namer": bundle("semantic", "labels")}
    return ServeConfig(models=models, pipelines=pipelines, score_threshold=0.0)


@pytest.fixture(scope="module")
def app(bundle: Callable[..., str]) -> Iterator[App]:
    strict = ModelPipelineConfig(detector="finder/boxes", classifier="namer/labels", min_score=0.5)
    one = ModelPipelineConfig(
        detector="finder/boxes", classifier="namer/labels", min_score=0, max_boxes=1
    )
    opened = open_app(config(bundle, colours=COLOURS, strict=strict, one=one), 1, {})
    yield opened
    opened.close()


def test_boxes_get_the_labels_of_their_crops(app: App, picture: bytes) -> None:
    """The first box lies on the red half, the second on the blue one."""
    found = call(app, "POST", "/predictions/colours", content=picture).json()
    assert [(each["class_name"], each["bbox"]) for each in found] == [
        ("reddish", [16, 8, 48, 40]),
        ("bluish", [64, 8, 112, 24]),
    ]
    assert found[0]["score"] == pytest.approx(0.9 * 250 / 255, rel=1e-4)
    assert found[1]["score"] == pytest.approx(0.2 * 200 / 255, rel=1e-4)


def test_limits_of_a_pipeline(app: App, picture: bytes) -> None:
    for name in ("strict", "one"):
        found = call(app, "POST", f"/predictions/{name}", content=picture).json()
        assert [each["class_name"] for each in found] == ["reddish"]


def test_a_pipeline_is_described_as_a_model(app: App, picture: bytes) -> None:
    models = {each["name"]: each for each in call(app, "GET", "/models").json()["models"]}
    assert models["colours"]["heads"]["boxes"]["classes"] == ["reddish", "greenish", "bluish"]
    assert models["finder"]["heads"]["boxes"]["classes"] == ["cat", "dog"]
    with running(app) as port:
        endpoint = EndpointPredictor(f"http://127.0.0.1:{port}/predictions/colours")
        (prediction,) = endpoint.predict([np.full((64, 64, 3), (0, 250, 0), np.uint8)])
    assert prediction["boxes"].classes.tolist() == [1, 1]


def test_an_image_without_boxes(bundle: Callable[..., str], picture: bytes) -> None:
    never = ModelPipelineConfig(detector="finder/boxes", classifier="namer/labels", min_score=1.0)
    app = open_app(config(bundle, never=never), 1, {})
    assert call(app, "POST", "/predictions/never", content=picture).json() == []
    app.close()


@pytest.mark.parametrize(
    ("detector", "classifier", "part"),
    [
        ("nobody/boxes", "namer/labels", "there is no model 'nobody'"),
        ("finder/labels", "namer/labels", "has no head 'labels'"),
        ("namer/labels", "namer/labels", "does not predict boxes"),
        ("finder/boxes", "namer/semantic", "does not predict labels"),
        ("finder/boxes", "finder/boxes", "does not predict labels"),
    ],
)
def test_mistakes(bundle: Callable[..., str], detector: str, classifier: str, part: str) -> None:
    pipeline = ModelPipelineConfig(detector=detector, classifier=classifier)
    with pytest.raises(ValueError, match=part):
        open_app(config(bundle, wrong=pipeline), 1, {})


def test_crops_lie_inside_the_image() -> None:
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    whole = crop_box(image, np.array([-9, -9, 99, 99], np.float32), 0)
    assert np.array_equal(whole, image)
    inner = crop_box(image, np.array([1, 1, 3, 2], np.float32), 0)
    assert np.array_equal(inner, image[1:2, 1:3])
    assert crop_box(image, np.array([1, 1, 3, 2], np.float32), 0.5).shape == (3, 4, 3)
    for box in ([9, 9, 10, 10], [2, 2, 2, 2], [-5, -5, -4, -4], [np.nan, 0, 3, np.inf]):
        found = crop_box(image, np.array(box, np.float32), 0)
        assert min(found.shape) >= 1


def test_an_update_keeps_what_has_not_changed(bundle: Callable[..., str]) -> None:
    first = config(bundle, colours=COLOURS)
    app = open_app(first, 1, {})
    before = app.limits.service.predictors["colours"]
    app.update(replace(first, max_images=3), 1)
    assert app.limits.service.predictors["colours"] is before
    app.update(config(bundle, colours=replace(COLOURS, min_score=0.9)), 1)
    assert app.limits.service.predictors["colours"] is not before
    app.close()
