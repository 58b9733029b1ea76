"""Fixtures that several rooms' tests share."""

import logging
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

# Time decides no test, and the same examples are drawn in every run, so that a change fails for
# what it changed: neither how long it takes to draw them counts, nor the constants of whatever
# modules of ours happen to be imported by then, of which Hypothesis draws some.
settings.register_profile(
    "mtl_ray", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("mtl_ray")
providers._get_local_constants = lambda: providers._local_constants
# before torch is imported: one thread a process, as the workers of a run have
os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = ["tests.s3_server"]


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """What a test draws from the generators of the process does not depend on the tests before
    it.
    """
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the checkout; tests that need it skip where it is
    absent.
    """
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real data sets in ../shared/data")
    return folder


@pytest.fixture(scope="session")
def ray_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One small private Ray for the whole test session."""
    import ray

    from mtl_ray.distributed.session import init_patiently

    os.environ["RAY_AUTH_MODE"] = "disabled"
    init_patiently(
        num_cpus=2,
        object_store_memory=200_000_000,
        logging_level="ERROR",
        _temp_dir=str(Path("/tmp") / f"mr{os.getpid()}"),
    )
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    """No test, and nothing that it calls, changes what the root logger lets through."""
    root = logging.getLogger()
    before = root.level, list(root.filters)
    yield
    after = root.level, list(root.filters)
    root.setLevel(before[0])  # for the tests that follow
    root.filters = before[1]
    assert after == before, "the root logger lets other messages through than before"
