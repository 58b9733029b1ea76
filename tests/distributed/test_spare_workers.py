"""What spare workers import before they are needed."""

from pathlib import Path

import pytest

import mtl_ray
from mtl_ray.distributed import spare_workers


@pytest.mark.parametrize(
    ("job", "found", "hooked"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"working_dir": "gcs://a.zip"}, False, True),
        ({"worker_process_setup_hook": "a.b"}, True, False),
    ],
)
def test_workers_import_ahead_only_what_they_find_without_the_folder_of_the_driver(
    monkeypatch, tmp_path, job, found, hooked
):
    (tmp_path / "mtl_ray").mkdir()
    (tmp_path / "mtl_ray" / "__init__.py").touch()  # another one
    monkeypatch.setenv("PYTHONPATH", str(Path(mtl_ray.__file__).parents[1] if found else tmp_path))
    monkeypatch.setattr(
        spare_workers.ray, "get_runtime_context", lambda: type("Context", (), {"runtime_env": job})
    )
    assert bool(spare_workers.import_hook()) == hooked
