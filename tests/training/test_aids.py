"""Training aids: canvases of several sizes, mosaic that ends early, the rise of the average's
decay. A run that is stopped anywhere goes on bit for bit.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtl_ray.samples import Vocabulary
from mtl_ray.shards.write import publish_manifest, write_shard
from mtl_ray.training import checkpoint
from mtl_ray.training.config import RuntimeConfig, ScheduleConfig
from mtl_ray.training.context import Collective, RunContext
from mtl_ray.training.ema import ema_decay
from mtl_ray.training.schedule import RunSchedule
from mtl_ray.training.trainer import run
from tests.loading.splits import NAMES, masked_sample
from tests.training.tiny import config_from, values

RUNTIME = RuntimeConfig(name="x")
AUGMENT = [
    {"type": "scale_jitter", "scale": [0.5, 1.5]},
    {"type": "mosaic", "p": 0.5},
    {"type": "mixup"},
    {"type": "copy_paste"},
]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Splits ``train`` and ``val`` of objects with masks."""
    folder = tmp_path_factory.mktemp("objects")
    for name, count in (("train", 20), ("val", 4)):
        uri = str(folder / name)
        samples = [masked_sample(index).with_annotations(labels=None) for index in range(count)]
        vocabulary = Vocabulary(classes={"instances": NAMES})
        entries = [write_shard(uri, "part-00000", samples)]
        publish_manifest(
            uri, entries, name=name, vocabulary=vocabulary, shuffled=True, provenance={}
        )
    return folder


def given(objects: Path, storage: Path) -> dict[str, Any]:
    """A small detector, and everything that this file is about."""
    config = values(objects, storage)
    config["model"]["necks"] = {}
    config["model"]["heads"] = {
        "boxes": {"type": "retinanet", "levels": ["C5"], "channels": 8, "convs": 1}
    }
    config["data"] |= {
        "augment": AUGMENT,
        "batch": 4,
        "multi_scale": {"sizes": [[32, 32], [32, 64], [64, 48]]},
        "close_mosaic": 0.5,
        "canvas": {"height": 32, "width": 48},
    }
    config["schedule"] = {
        "steps": 8,
        "optimizer": {"lr": 0.001},
        "ema": 0.99,
        "ema_warmup": 5,
        "evaluate_every": None,
    }
    return config


def after_steps(count: int) -> Callable[[], bool]:
    """Asks an attempt to stop after some steps."""
    steps = iter(range(1, 1000))
    return lambda: next(steps) >= count


def last(storage: Path, name: str) -> Path:
    return Path(checkpoint.newest(str(storage / name)) or "")


def test_a_run_that_stops_before_and_after_mosaic_ends_goes_on_bit_for_bit(
    objects: Path, tmp_path: Path
) -> None:
    config = given(objects, tmp_path)
    run(config_from(config, "runtime.name=whole"), RunContext())
    for _ in range(3):
        run(config_from(config, "runtime.name=parts"), RunContext(should_stop=after_steps(3)))
    never = config_from(config, "runtime.name=never", "data.close_mosaic=0")
    run(never, RunContext())
    whole, parts, other = (last(tmp_path, name) for name in ("whole", "parts", "never"))
    assert checkpoint.read_state(str(parts)).attempt == 3
    for file in ("model.safetensors", "ema.safetensors"):
        assert (whole / file).read_bytes() == (parts / file).read_bytes()
        assert (whole / file).read_bytes() != (other / file).read_bytes()
    assert b"closed_from" not in (whole / "state.json").read_bytes()


def test_by_the_share_of_the_seconds_too(
    objects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step takes a second of a clock that the test sets."""
    monkeypatch.setattr(Collective, "longest", lambda self, seconds: 1.0)
    config = given(objects, tmp_path)
    timed = ("schedule.seconds=8", "schedule.steps=100")
    run(config_from(config, "runtime.name=whole", *timed), RunContext())
    for _ in range(2):
        context = RunContext(should_stop=after_steps(5))
        run(config_from(config, "runtime.name=parts", *timed), context)
    whole, parts = (last(tmp_path, name) for name in ("whole", "parts"))
    states = [checkpoint.read_state(str(each)) for each in (whole, parts)]
    assert [state.step for state in states] == [8, 8]
    assert (whole / "ema.safetensors").read_bytes() == (parts / "ema.safetensors").read_bytes()
    assert states[0].closed_from == states[1].closed_from
    assert states[0].closed_from == (4 + 3) * 4, (
        "three batches are begun when half the time is over"
    )
    run(config_from(config, "runtime.name=early", "schedule.seconds=1e6"), RunContext())
    assert checkpoint.read_state(str(last(tmp_path, "early"))).closed_from == 4 * 4, "by count"


@pytest.mark.parametrize(
    ("close", "step"), [(0.0, None), (0.25, 75), (15, 25), (0.004, 100), (0.5, 50), (100, 0)]
)
def test_mosaic_ends_a_share_or_epochs_before_the_end(close: float, step: int | None) -> None:
    schedule = RunSchedule(
        ScheduleConfig(steps=100), RUNTIME, batch=4, samples_per_epoch=20, close_mosaic=close
    )
    assert schedule.closing_step == step
    assert not schedule.closes_by_time(99, 0.0), "there is no time to share"


def test_by_time_mosaic_ends_at_the_share_of_the_seconds() -> None:
    schedule = RunSchedule(
        ScheduleConfig(steps=100, seconds=60),
        RUNTIME,
        batch=4,
        samples_per_epoch=20,
        close_mosaic=0.25,
    )
    assert not schedule.closes_by_time(10, 44.0)
    assert schedule.closes_by_time(10, 45.1)
    assert schedule.closes_by_time(75, 1.0)


def test_the_decay_rises_as_yolox_and_dfine_let_it() -> None:
    assert ema_decay(0, 0.9998, 2000) == pytest.approx(0.9998 * (1 - math.exp(-1 / 2000)))
    assert ema_decay(1999, 0.9998, 2000) == pytest.approx(0.9998 * (1 - math.exp(-1)))
    assert ema_decay(10**6, 0.9998, 2000) == pytest.approx(0.9998)
    assert [ema_decay(step, 0.9, None) for step in (0, 2, 1000)] == [1 / 10, 3 / 12, 0.9]
    with pytest.raises(ValueError, match="ema_warmup needs ema"):
        ScheduleConfig(steps=1, ema_warmup=10)
