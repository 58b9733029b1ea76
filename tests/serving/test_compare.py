"""jobs.serve compare: what an endpoint answers beside what a model predicts."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inference.endpoint import EndpointPredictor
from mtl_ray.inference.predictor import Predictor
from mtl_ray.serving.app import App
from mtl_ray.serving.compare import FileComparison, compare_files
from mtl_ray.serving.config import ServeConfig
from mtl_ray.serving.service import Service
from tests.serving.bundles import make_bundle
from tests.serving.masked import MaskedPredictor
from tests.serving.server import running

HEADS = ("boxes", "semantic", "labels")


def compared(
    served: str | Predictor, target: str | Predictor, picture: Path
) -> dict[str, FileComparison]:
    config = ServeConfig()
    ours, theirs = (
        BundlePredictor(each, threads=1) if isinstance(each, str) else each
        for each in (served, target)
    )
    app = App(Service({"model": ours}, config), config, parallel=1)
    with running(app) as port:
        endpoint = EndpointPredictor(f"http://127.0.0.1:{port}")
        found = list(compare_files(endpoint, theirs, [str(picture)]))
    app.close()
    return {each.head: each for each in found}


def test_an_endpoint_agrees_with_its_own_model(
    bundle: Callable[..., str], picture_file: Path
) -> None:
    uri = bundle(*HEADS)
    found = compared(uri, uri, picture_file)
    assert {head: each.mismatches for head, each in found.items()} == dict.fromkeys(HEADS, ())
    assert (found["boxes"].compared, found["labels"].compared) == (2, 3)
    assert "px, scores within" in found["boxes"].figures
    assert found["semantic"].figures == "100.000% of pixels agree"
    assert found["labels"].figures.startswith("scores within")


@pytest.mark.parametrize(
    ("head", "constants", "sentence"),
    [
        ("boxes", {"fixed": "8.4,8,24.4,40, 32,8,56,24"}, "boxes differ by"),
        ("boxes", {"sure": "0.8, 0.2"}, "scores differ by"),
        ("boxes", {"kinds": "0, 0"}, "only the target has class 0 with score 0.900"),
        ("boxes", {"kinds": "0, 0"}, "only the endpoint has class 1 with score 0.900"),
        ("labels", {"white": "200"}, "scores differ by"),
    ],
)
def test_what_differs_is_told(
    head: str,
    constants: dict[str, str],
    sentence: str,
    bundle: Callable[..., str],
    picture_file: Path,
) -> None:
    other = make_bundle(picture_file.parent / "other", *HEADS, **constants)
    found = compared(bundle(*HEADS), other, picture_file)
    assert any(sentence in mismatch for mismatch in found[head].mismatches)
    assert found["semantic"].mismatches == ()


def test_masks_are_compared(bundle: Callable[..., str], picture_file: Path) -> None:
    uri = bundle("boxes")
    (same,) = compared(MaskedPredictor(uri), MaskedPredictor(uri), picture_file).values()
    assert (same.compared, same.mismatches) == (2, ())
    (other,) = compared(MaskedPredictor(uri), MaskedPredictor(uri, 3), picture_file).values()
    assert any("only the endpoint has class" in sentence for sentence in other.mismatches)
    (none,) = compared(uri, MaskedPredictor(uri), picture_file).values()
    assert none.mismatches == ("only the target has 'masks'",)
