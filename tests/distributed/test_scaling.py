"""The number of replicas by the requests that they hold."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.config import AutoscalingConfig

from mtl_ray.distributed.scaling import HELD, by_held_requests


def wanted(replicas: int, held: dict[str, float], sampled: float = 0.0) -> float:
    """By Serve's own config with a target of 2 requests a replica."""
    context: Any = SimpleNamespace(
        current_num_replicas=replicas,
        target_num_replicas=1,
        aggregated_metrics={HELD: held} if held else {},
        total_num_requests=sampled,
        config=AutoscalingConfig(min_replicas=0, max_replicas=9, target_ongoing_requests=2),
    )
    return by_held_requests(context)[0]


@pytest.mark.parametrize(
    ("replicas", "held", "sampled", "expected"),
    [
        (1, {"a": 0.8}, 0.0, 0.4),  # Serve rounds up, and keeps the replica
        (2, {"a": 3.0, "b": 5.0}, 0.0, 4.0),
        (1, {"a": 1.0}, 6.0, 3.0),  # requests that wait before the replicas
        (1, {}, 4.0, 2.0),  # before the first report
        (1, {}, 0.0, 1.0),
        (3, {"a": 0.0, "b": 0.0}, 0.0, 3.0),
        (1, {"a": 0.0}, 0.0, 0.0),
        (0, {}, 0.0, 1.0),  # a new one is starting
    ],
)
def test_the_load_decides(
    replicas: int, held: dict[str, float], sampled: float, expected: float
) -> None:
    assert wanted(replicas, held, sampled) == expected


@pytest.mark.jobs
@pytest.mark.timeout(900)
def test_from_none_to_two_and_back(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.distributed.scaling_run", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 replicas\n0 replicas" in done.stdout
