"""Speed: the arithmetic on a clock that is set, and that what is timed is what is done. How fast
it is decides no test.
"""

import json
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pytest

from jobs.analyze import speed as job
from mtl_ray.analysis.complexity_report import complexity_report
from mtl_ray.analysis.speed import SpeedRequest, measure_speed
from mtl_ray.analysis.speed_model import predict_in_parts
from mtl_ray.analysis.stopwatch import Stopwatch
from mtl_ray.backends.torchscript import TorchScriptEngine
from mtl_ray.export.bundle import export
from mtl_ray.export.config import ExportConfig
from mtl_ray.inference.predictor import open_predictor
from tests.inference.tiny import HEADS, images, write_checkpoint
from tests.loading.splits import sample, write_split

CONFIG = """
model:
  backbone: {{name: resnet18, levels: [C5]}}
  necks: {{pool: {{type: pool, input: C5}}}}
  heads: {{labels: {{type: multilabel}}}}
data:
  train: {{uri: {uri}}}
  val: {{uri: {uri}}}
  canvas: {{height: 48, width: 64}}
  augment: [{{type: flip}}, {{type: mosaic, p: 1}}, {{type: flip, direction: vertical}}]
  batch: 4
schedule: {{steps: 1}}
runtime: {{name: timed}}
"""


def ticking() -> Stopwatch:
    """A clock that goes on by a millisecond at each look."""
    now = iter(range(10**9))
    return Stopwatch(lambda: next(now) / 1000)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_checkpoint(tmp_path_factory.mktemp("speed") / "checkpoint", HEADS))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("speed_data")
    uri = write_split(folder / "split", [sample(index) for index in range(5)])
    (folder / "config.yaml").write_text(CONFIG.format(uri=uri))
    return str(folder / "config.yaml")


@pytest.fixture(scope="module", params=["checkpoint", "bundle"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Beside a bundle lies the checkpoint that it was made of."""
    folder = tmp_path_factory.mktemp("parts")
    heads = ("boxes", "labels") if request.param == "checkpoint" else ("labels",)
    write_checkpoint(folder / "checkpoint", {name: HEADS[name] for name in heads})
    if request.param == "bundle":
        export(
            str(folder / "checkpoint"),
            str(folder / "bundle"),
            ExportConfig(samples=1, min_agree=0.5, size="fixed"),
        )
    return folder / str(request.param)


def test_percentiles() -> None:
    """Of the times that were kept; the share is that of the whole."""
    times = iter([0.0, 5.0, 10.0, 11.0, 20.0, 23.0, 23.0, 33.0])
    watch = Stopwatch(lambda: next(times))
    with watch("a"):
        pass
    watch.forget()
    for name in ("a", "a", "total"):
        with watch(name):
            pass
    a, total = watch.timings("total")
    assert (a.name, a.count, a.mean_ms, a.p50_ms, a.min_ms, a.max_ms) == (
        "a",
        2,
        2000,
        2000,
        1000,
        3000,
    )
    assert a.p90_ms == pytest.approx(1000 + 0.9 * 2000)
    assert (total.mean_ms, total.share, a.share) == (10000, 1, 0.4)


def test_parts_do_what_predict_does(target: Path) -> None:
    """Bit for bit, torch and onnxruntime: otherwise the times would be those of something else."""
    predictor = open_predictor(str(target))
    pictures = images(3)
    wanted, found = predictor.predict(pictures), predict_in_parts(predictor, pictures, Stopwatch())
    for one, other in zip(wanted, found, strict=True):
        for head, prediction in one.items():
            for field in fields(prediction):
                np.testing.assert_array_equal(
                    getattr(prediction, field.name), getattr(other[head], field.name)
                )


def test_a_bundle_costs_what_its_checkpoint_does(target: Path) -> None:
    """Its network is built from the config that travels with it."""
    assert (
        complexity_report(str(target)).found
        == complexity_report(str(target.parent / "checkpoint")).found
    )


def test_what_only_predicts_is_timed_as_a_whole() -> None:
    """Such as an endpoint, of which nothing inside is to be seen."""

    class Remote:
        def predict(self, pictures: list[object]) -> list[dict[str, int]]:
            return [{"labels": index} for index, _ in enumerate(pictures)]

    watch = ticking()
    with watch("total"):
        assert predict_in_parts(Remote(), images(2), watch) == [{"labels": 0}, {"labels": 1}]
    assert [timing.name for timing in watch.timings("total")] == ["request", "total"]
    assert [timing.mean_ms for timing in watch.timings("total")] == pytest.approx([1, 3])


def test_inference_report(checkpoint: str) -> None:
    """On the set clock all figures are known: a part of no parts takes one tick, one with two
    parts five.
    """
    request = SpeedRequest(
        target=checkpoint, iterations=4, warmup=2, repeat=3, batch=2, device="cpu"
    )
    found = measure_speed(request, ticking())
    by_name = {timing.name: timing for timing in found.timings}
    assert list(by_name) == [
        *("place", "forward", "forward/trunk", "forward/heads"),
        *("post-processing", "post-processing/suppression", "post-processing/decode", "total"),
    ]
    assert {timing.count for timing in found.timings} == {12}
    assert [
        by_name[name].p99_ms for name in ("place", "forward/heads", "forward", "total")
    ] == pytest.approx([1, 1, 5, 15])
    assert found.fps == pytest.approx((2 * 4 / (4 * 0.015),) * 3)
    assert found.memory_mb["at most"] > 0
    assert "generated images" in found.about
    assert "FPS: 133.3 images a second (each time: 133.3, 133.3, 133.3)" in found.to_text()


def test_several_threads(checkpoint: str) -> None:
    """All of them are timed, and the throughput is that of all together."""
    request = SpeedRequest(
        target=checkpoint, iterations=3, warmup=1, repeat=2, batch=2, concurrency=3, device="cpu"
    )
    found = measure_speed(request)
    assert found.concurrency == 3
    assert {timing.count for timing in found.timings} == {3 * 3 * 2}
    assert len(found.fps) == 2
    alone = 2e3 / found.whole.mean_ms
    assert all(0 < rate <= 3 * alone * 1.5 for rate in found.fps)
    assert "18 steps of 2 by 3 threads at once" in found.to_text()


def test_a_thread_that_fails_lets_the_others_go(
    checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(100))

    def some(*_: object) -> list[object]:
        if next(calls) % 3 == 1:
            raise ValueError("no")
        return []

    monkeypatch.setattr("mtl_ray.analysis.speed_model.predict_in_parts", some)
    with pytest.raises(ValueError, match="no"):
        measure_speed(SpeedRequest(target=checkpoint, concurrency=3, device="cpu"))


def test_engines_and_targets_side_by_side(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bundle's engines and its checkpoint, by turns: a table, a figure, all numbers; the JSON
    has what it had for the first.
    """
    bundle = str(tmp_path / "bundle")
    engines = (TorchScriptEngine(type="torchscript"),)
    one = str(write_checkpoint(tmp_path / "checkpoint", {"labels": HEADS["labels"]}))
    export(one, bundle, ExportConfig(samples=1, min_agree=0.5, size="fixed", engines=engines))
    capsys.readouterr()
    out, figure = tmp_path / "speed.json", tmp_path / "speed.png"
    files = ["--json", str(out), "--png", str(figure)]
    counts = ["--iterations", "2", "--warmup", "0", "--repeat", "2", "--concurrency", "2"]
    engine = ["--engine", "onnxruntime", "torchscript"]
    assert job.main([bundle, one, *counts, *engine, *files, "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    for name in ("onnxruntime ", "torchscript ", "pre-processing", "execution", "p99", "of first"):
        assert name in printed
    found = json.loads(out.read_text())
    names = [(each["target"], each["engine"]) for each in found["measurements"]]
    assert names == [(bundle, "onnxruntime"), (bundle, "torchscript"), (one, None)]
    assert all(len(each["fps"]) == 2 for each in found["measurements"])
    assert {key: found[key] for key in ("fps", "timings")} == {
        key: found["measurements"][0][key] for key in ("fps", "timings")
    }
    phases = {each["name"]: each["phase"] for each in found["timings"]}
    assert phases == {
        "place": "pre-processing",
        "forward": "execution",
        "post-processing": "post-processing",
        "total": "end-to-end",
    }
    assert min(cv2.imread(str(figure)).shape[:2]) > 200
    with pytest.raises(ValueError, match="--engine is for bundles"):
        job.main([one, "--engine", "onnxruntime"])
    with pytest.raises(ValueError, match="no engine 'ncnn'"):
        job.main([bundle, "--engine", "ncnn"])
    with pytest.raises(ValueError, match="--concurrency is for --task inference"):
        job.main([one, "--task", "loader", "--concurrency", "2"])


@pytest.mark.parametrize("device", ["cuda:99", "mps:x", "gpu"])
def test_a_device_that_is_not_there_is_one_sentence(checkpoint: str, device: str) -> None:
    with pytest.raises(ValueError, match=f"torch cannot use the device '{device}' here") as caught:
        measure_speed(SpeedRequest(target=checkpoint, device=device, iterations=1))
    assert "\n" not in str(caught.value)


def test_short_data_is_gone_through_again(config: str) -> None:
    """Five samples give as many timings as are asked for, for every task; transforms have their
    own times.
    """
    for task, parts in (
        ("loader", ["wait for a batch", "total"]),
        (
            "dataset",
            [
                "read",
                "decode",
                "augment 1 (flip)",
                "augment 2 (mosaic)",
                "augment 3 (flip)",
                "place",
                "total",
            ],
        ),
    ):
        found = measure_speed(SpeedRequest(target=config, task=task, iterations=12, warmup=1))
        assert [timing.name for timing in found.timings] == parts
        assert {timing.count for timing in found.timings} == {12}
        assert all(
            0 <= timing.min_ms <= timing.p50_ms <= timing.p99_ms <= timing.max_ms
            for timing in found.timings
        )
        assert found.fps[0] > 0


def test_job(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A config is timed with random weights on the images of its split; figures as text and
    JSON.
    """
    assert (
        job.main(
            [
                config,
                "--iterations",
                "3",
                "--warmup",
                "0",
                "--json",
                str(tmp_path / "speed.json"),
                "--threads",
                "1",
            ]
        )
        == 0
    )
    assert "random weights, batch 1, 5 images" in capsys.readouterr().out
    found = json.loads((tmp_path / "speed.json").read_text())
    assert found["fps_mean"] == pytest.approx(found["fps"][0])
    assert found["timings"][-1]["name"] == "total"
    for wrong in (["--iterations", "0"], ["--warmup", "-1"]):
        with pytest.raises(ValueError, match=wrong[0]):
            job.main([config, *wrong])
    for task in ("loader", "dataset"):
        with pytest.raises(ValueError, match=f"--task {task} reads a split.*jobs.convert"):
            job.main([config, "--task", task, "--data", "instances_val2017.json"])
    with pytest.raises(ValueError, match=r"no (whole|complete) checkpoint"):
        job.main([str(tmp_path / "nothing")])
