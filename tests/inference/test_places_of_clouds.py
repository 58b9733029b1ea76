"""Clouds that are predicted on: misnamed files are refused, and result files have all objects."""

import json
from pathlib import Path

import numpy as np
import pytest

from jobs.predict import main
from mtl_ray.inference.places import find_data
from tests.inference.tiny_lidar import lidar_config, write_lidar_checkpoint
from tests.loading.clouds import cloud_sample, write_clouds
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


def test_result_files_have_all_objects_unless_a_score_is_stated(tmp_path: Path) -> None:
    split = write_clouds(tmp_path / "val", [cloud_sample(seed) for seed in range(2)])
    checkpoint = write_lidar_checkpoint(tmp_path / "checkpoint", lidar_config())

    def scores(out: str, *options: str) -> list[float]:
        arguments = [checkpoint, split, "--out", str(tmp_path / out), "--format", "kitti"]
        assert main([*arguments, *options]) == 0
        files = sorted((tmp_path / out / "kitti").iterdir())
        assert len(files) == 2
        return [float(line.split()[-1]) for each in files for line in each.read_text().splitlines()]

    whole = scores("whole")
    assert min(whole) < 0.3 < max(whole)
    stated = scores("stated", "--score-thr", "0.3")
    assert sorted(stated) == sorted(each for each in whole if each >= 0.3)
    shown = json.loads((tmp_path / "whole" / "predictions.json").read_text())
    assert min(_scores_of(shown)) >= 0.3


def _scores_of(content: object) -> list[float]:
    """All numbers under ``score``, at any depth."""
    if isinstance(content, dict):
        own = [content["score"]] if "score" in content else []
        return own + [each for value in content.values() for each in _scores_of(value)]
    if isinstance(content, list):
        return [each for value in content for each in _scores_of(value)]
    return []
