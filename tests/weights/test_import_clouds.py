"""Checkpoints of MMDetection3D go through the job: every tensor arrives, and it predicts."""

import importlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mtl_ray.experiment import build_model, load_experiment
from mtl_ray.inference.checkpoint import open_checkpoint
from mtl_ray.inputs.points import POINTS
from mtl_ray.samples import Vocabulary

import_main: Callable[[list[str]], int] = importlib.import_module("jobs.weights.import").main
ROOT = Path(__file__).resolve().parents[2]
NAMES = (
    (r"trunk\.backbone\.(voxel_encoder|middle_encoder)", r"\1"),
    (r"trunk\.backbone\.blocks", "backbone.blocks"),
    (r"trunk\.necks\.\w+\.", "neck."),
    (r"heads\.\w+\.", "bbox_head."),
)
NUSCENES = (
    *("car", "truck", "construction_vehicle", "bus", "trailer", "barrier"),
    *("motorcycle", "bicycle", "pedestrian", "traffic_cone"),
)
"""In the order of CenterPoint's tasks."""


def published(config: str, classes: Sequence[str]) -> dict[str, Tensor]:
    """Random weights under the names of MMDetection3D 1.x."""
    experiment = load_experiment(ROOT / "configs" / "lidar" / config)
    vocabulary = Vocabulary(classes={"boxes_3d": tuple(classes)})
    model = build_model(experiment.model.without_pretrained(), vocabulary, experiment.data.canvas)
    torch.manual_seed(0)
    found = {}
    for name, value in model.state_dict().items():
        if value.dtype.is_floating_point:
            value = torch.randn_like(value) * 0.05
        if name.endswith("running_var"):
            value = value.abs() + 0.5
        for ours, theirs in NAMES:
            name = re.sub(f"^{ours}", theirs, name)
        found[name] = value
    return found


@pytest.mark.parametrize(
    ("config", "classes"),
    [
        ("pointpillars_kitti_3class.yaml", ("Pedestrian", "Cyclist", "Car")),
        ("pointpillars_kitti_car.yaml", ("Car",)),
        ("centerpoint_pillar_nuscenes.yaml", NUSCENES),
    ],
)
def test_a_checkpoint_comes_in_whole(config: str, classes: Sequence[str], tmp_path: Path) -> None:
    tensors = published(config, classes)
    file, out = tmp_path / "published.pth", tmp_path / "checkpoint"
    meta = {"mmdet3d_version": "1.4.0", "dataset_meta": {"classes": list(classes)}}
    torch.save({"meta": meta, "state_dict": tensors}, file)
    path = str(ROOT / "configs" / "lidar" / config)
    assert import_main([str(file), str(out), "--config", path]) == 0
    opened = open_checkpoint(str(out))
    ours = opened.model.state_dict()
    assert opened.vocabulary.classes["boxes_3d"] == tuple(classes)
    assert {name for name in ours if name not in ("mean", "std")} == {
        name for name in ours if any(torch.equal(ours[name], each) for each in tensors.values())
    }
    _, cloud = POINTS.generate(np.random.default_rng(0))
    (found,) = opened.predict([cloud.with_points(cloud.points[:300])])
    (boxes,) = found.values()
    assert boxes.boxes.shape[1] == 7
    assert np.isfinite(boxes.boxes).all()


def test_a_checkpoint_that_does_not_say_its_generation_is_asked_for(tmp_path: Path) -> None:
    config = "pointpillars_kitti_car.yaml"
    file = tmp_path / "published.pth"
    torch.save({"state_dict": published(config, ("Car",))}, file)
    path = str(ROOT / "configs" / "lidar" / config)
    rest = ["--config", path, "--classes", "1"]
    with pytest.raises(ValueError, match="--generation"):
        import_main([str(file), str(tmp_path / "a"), *rest])
    assert import_main([str(file), str(tmp_path / "b"), *rest, "--generation", "1"]) == 0
