"""The resources that a worker requests."""

import pytest

from mtl_ray.distributed import capacity
from tests.training.tiny import config_of


@pytest.mark.parametrize(
    ("gpus", "workers", "asked", "said"),
    [(2, 2, True, False), (1, 2, False, True), (0, 2, False, False)],
)
def test_gpus_that_are_too_few_do_not_stay_unused_in_silence(
    tmp_path, monkeypatch, caplog, gpus, workers, asked, said
):
    there = [capacity.Machine(node_id="a", total={"CPU": 16, "GPU": gpus}, free={})]
    monkeypatch.setattr(capacity, "machines", lambda: there)
    assert (
        "GPU"
        in capacity.resources_per_worker(
            config_of(tmp_path, tmp_path, f"runtime.workers={workers}", "runtime.device=auto")
        )
    ) == asked
    assert (
        "the run computes on CPUs: 2 workers would need a GPU each, and there are 1" in caplog.text
    ) == said
