"""Small networks for point clouds with random weights, as a config, a checkpoint and a bundle."""

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import TypeAdapter

from mtl_ray import artifact
from mtl_ray.config.validate import to_yaml
from mtl_ray.experiment import ExperimentConfig, build_model
from mtl_ray.samples import Vocabulary
from mtl_ray.vocabulary import vocabulary_to_json

CLASSES = ("Pedestrian", "Cyclist", "Car")
VOCABULARY = Vocabulary(classes={"boxes_3d": CLASSES})
PILLARS: dict[str, Any] = {
    "type": "pillars",
    "point_channels": [8],
    "layers": [1],
    "strides": [2],
    "channels": [8],
}
SECOND: dict[str, Any] = {
    "type": "second",
    "sparse_channels": [[8], [8, 8], [8, 8], [8, 8]],
    "sparse_output": 8,
    "layers": [1],
    "strides": [1],
    "channels": [8],
}
GRID = {
    "pillars": {"voxel": [0.5, 0.5, 4.0], "minimum": [0, -20, -3], "maximum": [40, 20, 1]},
    "second": {"voxel": [0.2, 0.2, 0.1], "minimum": [0, -16, -3], "maximum": [32, 16, 1]},
}
HEAD = {
    "type": "anchor_3d",
    "anchors": [
        {"classes": ["Pedestrian"], "size": [0.8, 0.6, 1.73], "bottom": -1.7},
        {"classes": ["Car"], "size": [3.9, 1.6, 1.56], "bottom": -1.7},
    ],
}


def lidar_config(
    backbone: dict[str, Any] = PILLARS, split: str = "none", **canvas: Any
) -> ExperimentConfig:
    """A detector of boxes in space; ``canvas`` changes ``data.canvas``."""
    values = {
        "model": {
            "backbone": backbone,
            "necks": {
                "map": {"type": "secfpn", "inputs": ["B1"], "upsample": [1], "channels": [8]}
            },
            "heads": {"objects": HEAD},
        },
        "data": {
            "train": {"uri": split},
            "val": {"uri": split},
            "canvas": {"type": "points", "max_voxels": 2000, "max_points": 8}
            | GRID[backbone["type"]]
            | canvas,
        },
        "schedule": {"steps": 1},
        "runtime": {"name": "tiny_lidar"},
    }
    return TypeAdapter(ExperimentConfig).validate_python(values)


def write_lidar_config(path: Path, config: ExperimentConfig) -> str:
    """The config as a file."""
    path.write_text(to_yaml(config))
    return str(path)


def write_lidar_checkpoint(uri: Path, config: ExperimentConfig) -> str:
    """A checkpoint as training writes it, of weights that nobody trained; its scores are spread."""
    torch.manual_seed(5)
    model = build_model(config.model, VOCABULARY, config.data.canvas).eval()
    with torch.no_grad():
        for weight in model.heads.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    files = {
        "model.safetensors": safetensors.torch.save(model.state_dict()),
        "config.yaml": to_yaml(config).encode(),
        "vocabulary.json": json.dumps(vocabulary_to_json(VOCABULARY)).encode(),
        "state.json": json.dumps({"step": 1, "metrics": {}}).encode(),
    }
    artifact.publish(str(uri), files, kind="checkpoint")
    return str(uri)
