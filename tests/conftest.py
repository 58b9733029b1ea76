"""Fixtures that several rooms' tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Time decides no test, and the same examples are drawn in every run, so that a change fails for what it changed.
settings.register_profile("mtl_ray", deadline=None, derandomize=True)
settings.load_profile("mtl_ray")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: one thread a process, as the workers of a run have

pytest_plugins = ["tests.s3_server"]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the checkout; tests that need it skip where it is absent."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real data sets in ../shared/data")
    return folder


@pytest.fixture(scope="session")
def ray_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One small private Ray for the whole test session."""
    import ray

    os.environ["RAY_AUTH_MODE"] = "disabled"
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=200_000_000,
        logging_level="ERROR",
        _temp_dir=str(Path("/tmp") / f"mr{os.getpid()}"),
    )
    yield
    ray.shutdown()
