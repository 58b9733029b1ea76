"""Statistics of requests against those of a bundle's own validation."""

import json
import weakref
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from mtl_ray.artifact import open_artifact, publish
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inference.statistics import (
    MOST_ASIDE,
    SCORE_EDGES,
    STATISTICS_FILE,
    Histogram,
    LiveStatistics,
    Statistics,
    dependence_of,
    read_statistics,
    statistics_of,
)
from mtl_ray.serving.app import open_app
from mtl_ray.serving.config import ServeConfig
from tests.serving.bundles import make_bundle
from tests.serving.test_app import call


def noise(rng: np.random.Generator, brightness: int) -> np.ndarray:
    return rng.integers(brightness - 30, brightness + 30, (48, 64, 3), np.uint8)


@pytest.fixture
def bundle_with_statistics(tmp_path: Path) -> str:
    """A bundle whose validation images were dark."""
    rng = np.random.default_rng(0)
    plain = make_bundle(tmp_path / "plain", "boxes", "semantic", "labels")
    counted = statistics_of(BundlePredictor(plain), [[noise(rng, 60) for _ in range(40)]])
    artifact = open_artifact(plain, kind="bundle")
    files = {name: artifact.read(name) for name in artifact.names}
    files[STATISTICS_FILE] = json.dumps(counted.to_json()).encode()
    publish(str(tmp_path / "with"), files, kind="bundle")
    return str(tmp_path / "with")


def test_other_light_is_drift_and_the_same_light_is_not(bundle_with_statistics: str) -> None:
    rng = np.random.default_rng(1)
    for brightness, drift in ((60, False), (200, True)):
        app = open_app(ServeConfig(models={"m": bundle_with_statistics}), 1, {})
        for _ in range(40):
            image = cv2.imencode(".png", noise(rng, brightness))[1].tobytes()
            assert call(app, "POST", "/predictions/m", content=image).status_code == 200
        answer = call(app, "GET", "/models/m/statistics").json()
        assert answer["requests"]["samples"] == answer["baseline"]["samples"] == 40
        assert answer["comparison"]["data"]["brightness"]["drift"] is drift
        assert answer["comparison"]["scores"]["labels"]["drift"] is drift
        assert answer["comparison"]["scores"]["boxes"]["drift"] is False
        assert "semantic" not in answer["comparison"]["scores"]
        app.close()


def test_scores_that_are_alike_within_a_sample_are_no_drift() -> None:
    """Each sample has twenty scores about a value of its own."""
    rng = np.random.default_rng(0)

    def sampled(count: int) -> list[list[int]]:
        found = []
        for centre in rng.uniform(0.2, 0.8, count):
            one = Histogram.empty(SCORE_EDGES)
            one.add(rng.normal(centre, 0.1, 20).clip(0, 0.99))
            found.append(one.counts)
        return found

    def alarms(baseline: Histogram) -> int:
        drawn = (np.sum(sampled(20), axis=0).tolist() for _ in range(300))
        found = [Histogram(edges=SCORE_EDGES, counts=each).distance(baseline) for each in drawn]
        return sum(bool(each and each["drift"]) for each in found)

    rows = np.array(sampled(200))
    counts = rows.sum(axis=0).tolist()
    factor = dependence_of(rows)
    assert alarms(Histogram(edges=SCORE_EDGES, counts=counts, dependence=factor)) <= 6
    assert alarms(Histogram(edges=SCORE_EDGES, counts=counts)) > 100, "the test can tell"
    other = Histogram(edges=SCORE_EDGES, counts=np.roll(counts, 4).tolist())
    apart = other.distance(Histogram(edges=SCORE_EDGES, counts=counts, dependence=factor))
    assert apart is not None
    assert apart["drift"]


def test_the_dependence_of_scores() -> None:
    same = np.zeros((50, 20), np.int64)
    same[np.arange(50), np.arange(50) % 20] = 7
    assert dependence_of(same) == 7, "seven equal scores tell as much as one"
    assert dependence_of(same // 7) == 1
    assert dependence_of(np.zeros((3, 20), np.int64)) == 1
    histogram = Histogram(edges=(0.0, 1.0), counts=[3], dependence=2.5)
    stored = Statistics(samples=1, scores={"a": histogram}).to_json()
    assert read_statistics(stored).scores["a"].dependence == 2.5
    stored["scores"]["a"]["dependence"] = float("nan")
    with pytest.raises(ValueError, match="has a dependence of nan"):
        read_statistics(stored)


def test_a_bundle_without_statistics_and_a_model_that_is_not_there(
    bundle: Callable[..., str], picture: bytes
) -> None:
    app = open_app(ServeConfig(models={"boxes": bundle("boxes")}), 1, {})
    call(app, "POST", "/predictions/boxes", content=picture)
    answer = call(app, "GET", "/models/boxes/statistics").json()
    assert answer["baseline"] is None
    assert sum(answer["requests"]["data"]["brightness"]["counts"]) == 1
    assert sum(answer["requests"]["scores"]["boxes"]["counts"]) == 2
    assert call(app, "GET", "/models/nothing/statistics").status_code == 404
    assert call(app, "POST", "/models/boxes/statistics").status_code == 405
    app.close()


def test_what_is_put_aside_is_counted_when_asked_and_never_much(
    bundle: Callable[..., str],
) -> None:
    predictor, live = BundlePredictor(bundle("boxes"), threads=1), LiveStatistics()
    rng = np.random.default_rng(0)
    image = noise(rng, 60)
    (found,) = predictor.predict([image])
    for _ in range(5):
        live.put_aside(predictor.canvas, [image], [found])
    assert live.to_json()["samples"] == 5
    kept = list[weakref.ref[np.ndarray]]()
    for _ in range(100):
        image = noise(rng, 60)
        kept.append(weakref.ref(image))
        live.put_aside(predictor.canvas, [image], [found])
    assert sum(each() is not None for each in kept) <= MOST_ASIDE + 1
    live.count()
    del image
    assert not any(each() is not None for each in kept)
    assert live.to_json()["samples"] == 105


def test_statistics_add_up_and_come_back_from_json() -> None:
    first, second = Histogram.empty((0, 1, 2)), Histogram.empty((0, 1, 2))
    first.add([0.5, -3, 1.5, 99, float("nan")])
    assert first.counts == [2, 2]
    second.add([0.1])
    whole = Statistics(samples=4, data={"x": first})
    whole.merge(Statistics(samples=1, data={"x": second}))
    assert whole.data["x"].counts == [3, 2]
    assert read_statistics(json.dumps(whole.to_json()).encode()) == whole


def test_the_distance_is_that_of_kolmogorov_and_smirnov() -> None:
    from scipy.stats import ks_2samp

    rng = np.random.default_rng(0)
    edges = tuple(range(0, 101))
    for shift in (0, 15):
        values = rng.integers(0, 80, 300), rng.integers(0, 80, 200) + shift
        histograms = [Histogram.empty(edges) for _ in values]
        for histogram, each in zip(histograms, values, strict=True):
            histogram.add(each.tolist())
        found = histograms[0].distance(histograms[1])
        expected = ks_2samp(*values)
        assert found is not None
        assert found["distance"] == pytest.approx(expected.statistic, abs=1e-3)
        assert found["drift"] == (expected.pvalue < 0.01) == bool(shift)
    assert Histogram.empty(edges).distance(histograms[0]) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"samples": 1}',
        b'{"samples": 1, "data": {"x": {"edges": [0], "counts": [1]}}, "scores": {}}',
        b'{"samples": 1, "data": {"x": {"edges": [0, 1], "counts": [-1]}}, "scores": {}}',
        b'{"samples": "many", "data": {}, "scores": {}}',
    ],
)
def test_a_damaged_file(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"statistics\.json is damaged"):
        read_statistics(content)
