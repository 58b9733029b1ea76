"""Cost and speed of networks of point clouds, and their samples as figures."""

import json
from pathlib import Path

import numpy as np
import pytest

from jobs.analyze.complexity import main as complexity
from jobs.analyze.speed import main as speed
from mtl_ray.analysis.browse import browse
from mtl_ray.analysis.complexity_report import complexity_report
from mtl_ray.inputs.decode import decode_image
from tests.inference.tiny_lidar import PILLARS, SECOND, lidar_config, write_lidar_config
from tests.loading.clouds import cloud_sample, write_clouds


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("split") / "val"
    return write_clouds(folder, [cloud_sample(seed) for seed in range(4)], shards=1)


def config_file(tmp_path: Path, backbone: dict[str, object], split: str) -> str:
    return write_lidar_config(tmp_path / "mine.yaml", lidar_config(backbone, split))


def test_the_cost_of_pillars_is_that_of_the_pillars_that_are_there(
    tmp_path: Path, split: str
) -> None:
    target = config_file(tmp_path, PILLARS, split)
    reports = [complexity_report(target, data=split, row=row) for row in (0, 1)]
    for found in reports:
        assert found.data is not None
        voxels = found.data.lengths["voxels"]
        assert found.shape == (voxels, 8, 4)
        cost = {each.name: each.macs for each in found.found.modules}
        # points of a pillar, 4 numbers and 6 offsets, to 8 channels
        assert cost["trunk.backbone.voxel_encoder"] == voxels * 8 * 10 * 8
    assert reports[0].data.lengths != reports[1].data.lengths
    dense = [{each.name: each.macs for each in found.found.modules}["heads"] for found in reports]
    assert dense[0] == dense[1] > 0


def test_sparse_convolutions_cost_their_pairs(tmp_path: Path, split: str) -> None:
    found = complexity_report(config_file(tmp_path, SECOND, split), data=split)
    cost = {each.name: each.macs for each in found.found.modules}
    assert len(found.sparse) > 8
    for each in found.sparse:
        inputs, outputs = each.channels
        assert each.macs == each.pairs * inputs * outputs == cost[each.name]
    assert f"{found.sparse[0].pairs:,}" in found.to_text()
    first = found.sparse[0]
    assert first.sites == found.data.lengths["voxels"], "submanifold"
    assert first.sites <= first.pairs < 27 * first.sites


def test_a_file_or_a_made_up_cloud(
    tmp_path: Path, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target, file = config_file(tmp_path, PILLARS, split), tmp_path / "five.bin"
    points = np.random.default_rng(0).uniform((0, -20, -2, 0, 0), (40, 20, 0, 1, 31), (300, 5))
    file.write_bytes(points.astype("<f4").tobytes())
    out = tmp_path / "cost.json"
    arguments = [target, "--data", str(file), "--features", "5", "--json", str(out)]
    assert complexity(arguments) == 0
    content = json.loads(out.read_text())
    assert (content["points"], content["input"]) == (300, str(file))
    assert f"300 points, {content['voxels']} voxels" in capsys.readouterr().out
    assert complexity([target]) == 0
    assert "a generated point cloud" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--sample 4"):
        complexity([target, "--data", split, "--sample", "4"])
    with pytest.raises(ValueError, match="exclude each other"):
        complexity([target, "--data", split, "--shape", "40", "4"])


def test_speed_tells_voxels_network_and_boxes_apart(
    tmp_path: Path, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = config_file(tmp_path, PILLARS, split)
    out = tmp_path / "speed.json"
    arguments = ["--iterations", "2", "--warmup", "1", "--device", "cpu", "--json", str(out)]
    assert speed([target, *arguments]) == 0
    names = [each["name"] for each in json.loads(out.read_text())["timings"]]
    assert names[:3] == ["voxelize", "forward", "forward/trunk"]
    assert {"post-processing", "post-processing/decode", "total"} <= set(names)
    assert "point clouds a second" in capsys.readouterr().out


def test_samples_are_drawn_with_their_boxes(tmp_path: Path, split: str) -> None:
    names, sheets = browse(split, str(tmp_path / "look"), 3)
    assert (len(names), len(sheets)) == (3, 1)
    image = decode_image((tmp_path / "look" / names[0]).read_bytes())
    assert image.shape == (720, 800, 3)
    colourful = np.ptp(image.astype(np.int64), axis=2) > 120
    assert colourful.sum() > 300, "boxes in colours"


def test_what_the_network_sees_is_drawn(tmp_path: Path, split: str) -> None:
    config = lidar_config(PILLARS, split)
    names, _ = browse(split, str(tmp_path / "seen"), 2, config)
    image = decode_image((tmp_path / "seen" / names[0]).read_bytes())
    assert (np.ptp(image.astype(np.int64), axis=2) > 120).sum() > 300
