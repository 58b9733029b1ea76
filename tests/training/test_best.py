"""Which checkpoint of a run is the best."""

import json
from pathlib import Path

import pytest

from mtl_ray import artifact, storage
from mtl_ray.inference.predictor import known_heads
from mtl_ray.training import checkpoint
from mtl_ray.training.checkpoint import Claim, claim
from tests.tasks.head_cases import VOCABULARY

VALUES = {5: 0.4, 10: 0.2, 15: 0.2, 20: None, 25: 0.9}


def write_run(uri: str) -> Claim:
    """Checkpoints with a metric and nothing else in them."""
    made = claim(uri, from_step=0, from_checkpoint=None, world_size=1, run_id="x")
    for step, value in VALUES.items():
        rest = {"cursor": 0, "run_id": "x", "config_hash": "", "pins": {}, "meter": {}}
        state = checkpoint.TrainState(
            step=step, attempt=made.attempt, finished=step == 25, metrics={"a/error": value}, **rest
        )
        checkpoint.publish_checkpoint(
            uri, state, {"state.json": json.dumps(state.__dict__).encode()}
        )
    return Claim(uri, made.attempt)


@pytest.mark.parametrize(("lower", "best"), [(False, 25), (True, 10)])
def test_more_or_less_is_better(tmp_path: Path, lower: bool, best: int) -> None:
    uri = str(tmp_path / "run")
    checkpoint.prune(uri, 1, "a/error", write_run(uri), lower_is_better=lower)
    written = json.loads(storage.read(storage.join(uri, "best.json")))
    assert (written["step"], written["value"]) == (best, VALUES[best])
    assert artifact.open_artifact(storage.join(uri, written["checkpoint"]), kind="checkpoint")
    assert set(checkpoint.steps(uri)) == {best, 25}


def test_every_metric_says_which_of_its_figures_are_better_low() -> None:
    for head in known_heads().values():
        metric = head.task.metric(head, VOCABULARY)
        assert metric.lower_is_better <= metric.result().keys()
        assert metric.main in metric.result()
