"""Files of clouds that are named as another format are refused when they are read."""

from pathlib import Path

import numpy as np
import pytest

from mtl_ray.inference.places import find_data
from tests.serving.clouds import CANVAS

CLOUD = np.random.default_rng(3).uniform(1, 30, (40, 4)).astype("<f4")


def test_a_name_must_not_promise_what_the_file_is_not(tmp_path: Path) -> None:
    for name in ("a.bin", "b.pcd", "c.npy", "d.ply"):
        (tmp_path / name).write_bytes(CLOUD.tobytes())
    np.save(tmp_path / "e.npy", CLOUD)
    first, *misnamed, last = find_data([str(tmp_path)], CANVAS)
    assert np.array_equal(first.read(1000).points, CLOUD)
    assert np.array_equal(last.read(1000).points, CLOUD)
    assert len(misnamed) == 3
    for each in misnamed:
        with pytest.raises(ValueError, match="but it does not begin as such a file does"):
            each.read(1000)
