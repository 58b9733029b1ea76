"""A network of three heads with random weights, as a checkpoint."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter

from mtl_ray import artifact
from mtl_ray.config.validate import to_yaml
from mtl_ray.experiment import ExperimentConfig, build_model
from mtl_ray.samples import Vocabulary
from mtl_ray.vocabulary import vocabulary_to_json

VOCABULARY = Vocabulary(
    classes={
        "instances": ("a", "b", "c"),
        "labels": ("x", "y"),
        "semantic": ("sky", "road", "tree"),
    },
    exclusive_labels=True,
    category_ids={"instances": (3, 7, 90)},
)
HEADS: dict[str, Any] = {
    "boxes": {
        "type": "retinanet",
        "levels": ["C4"],
        "channels": 8,
        "convs": 1,
        "select": {"max_detections": 20, "score_threshold": 0.0},
    },
    "semantic": {"type": "fcn", "levels": ["C4"], "channels": 8, "convs": 1},
    "auxiliary": {"type": "fcn", "levels": ["C5"], "channels": 8, "convs": 1, "train_only": True},
    "labels": {"type": "linear"},
}


def tiny_config(heads: dict[str, Any]) -> ExperimentConfig:
    values = {
        "model": {
            "backbone": {
                "name": "resnet18",
                "levels": ["C4", "C5"],
                "options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]},
                "pretrained": True,
            },
            "necks": {"pool": {"type": "pool"}},
            "heads": heads,
        },
        "data": {
            "train": {"uri": "none"},
            "val": {"uri": "none"},
            "canvas": {"height": 64, "width": 96},
        },
        "schedule": {"steps": 1},
        "runtime": {"name": "tiny"},
        "evaluate": {"batch": 3},
    }
    return TypeAdapter(ExperimentConfig).validate_python(values)


def write_checkpoint(uri: Path, heads: dict[str, Any], seed: int = 0, **further: bytes) -> Path:
    """A checkpoint folder as training writes it, of weights that nobody trained."""
    config = tiny_config(heads)
    untrained = TypeAdapter(ExperimentConfig).validate_python(
        TypeAdapter(ExperimentConfig).dump_python(config)
    )
    object.__setattr__(untrained.model.backbone, "pretrained", False)
    torch.manual_seed(seed)
    model = build_model(untrained.model, VOCABULARY)
    with torch.no_grad():
        for weight in model.heads.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    files: dict[str, bytes | Path] = {
        "model.safetensors": safetensors.torch.save(model.state_dict()),
        "config.yaml": to_yaml(config).encode(),
        "vocabulary.json": json.dumps(vocabulary_to_json(VOCABULARY)).encode(),
        "state.json": json.dumps({"step": 1, "metrics": {}}).encode(),
    }
    artifact.publish(
        str(uri),
        files | {name.replace("__", "."): data for name, data in further.items()},
        kind="checkpoint",
    )
    return uri


def images(count: int = 7, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Noise with a few flat squares, every one of another size."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        height, width = int(rng.integers(20, 150)), int(rng.integers(20, 150))
        image = rng.integers(0, 255, (height, width, 3)).astype(np.uint8)
        image[height // 4 : height // 2, width // 4 : width // 2] = rng.integers(0, 255, 3)
        made.append(image if i else image[:1, :1])
    return made
