"""Small clouds and networks of them."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor

from mtl_ray.experiment import ModelConfig, build_model
from mtl_ray.inputs.input import placed
from mtl_ray.inputs.point_cloud import PointCloud
from mtl_ray.inputs.points import PointCanvas
from mtl_ray.models.model import Model
from mtl_ray.samples import Vocabulary

CANVAS = PointCanvas(
    type="points",
    minimum=(0, -6.4, -3),
    maximum=(12.8, 6.4, 1),
    voxel=(0.4, 0.4, 4),
    max_points=8,
    max_voxels=600,
)
FINE = PointCanvas(
    type="points",
    minimum=(0, -6.4, -3),
    maximum=(12.8, 6.4, 1),
    voxel=(0.2, 0.2, 0.2),
    max_points=4,
    max_voxels=2000,
)
PILLARS: dict[str, Any] = {
    "backbone": {
        "type": "pillars",
        "point_channels": [16],
        "layers": [1, 1],
        "strides": [1, 2],
        "channels": [16, 24],
    },
    "necks": {
        "map": {
            "type": "secfpn",
            "inputs": ["B1", "B2"],
            "upsample": [1, 2],
            "channels": [16, 16],
        }
    },
    "heads": {},
}
SECOND: dict[str, Any] = {
    "backbone": {
        "type": "second",
        "height": 20,
        "sparse_channels": [[8], [8, 8], [8, 8], [8]],
        "sparse_output": 8,
        "layers": [1, 1],
        "strides": [1, 2],
        "channels": [16, 24],
    },
    "necks": PILLARS["necks"],
    "heads": {},
}
KITTI = Vocabulary(classes={"boxes_3d": ("Pedestrian", "Cyclist", "Car")})
NUSCENES = Vocabulary(
    classes={
        "boxes_3d": (
            *("car", "truck", "construction_vehicle", "bus", "trailer", "barrier"),
            *("motorcycle", "bicycle", "pedestrian", "traffic_cone"),
        )
    }
)


def model_of(
    config: dict[str, Any], vocabulary: Vocabulary = KITTI, canvas: PointCanvas | None = CANVAS
) -> Model:
    torch.manual_seed(0)
    return build_model(TypeAdapter(ModelConfig).validate_python(config), vocabulary, canvas)


def cloud(count: int, seed: int = 0) -> PointCloud:
    """Points in and around the grid of ``CANVAS``."""
    rng = np.random.default_rng(seed)
    xyz = rng.uniform((-1, -7, -3), (14, 7, 1), (count, 3))
    return PointCloud(
        points=np.column_stack([xyz, rng.uniform(0, 1, count)]).astype(np.float32)
    )


def inputs_of(clouds: list[PointCloud], canvas: PointCanvas = CANVAS) -> dict[str, Tensor]:
    """What a model takes."""
    arrays, _ = placed(clouds, canvas)
    return {name: torch.from_numpy(np.ascontiguousarray(each)) for name, each in arrays.items()}


def padded(inputs: dict[str, Tensor], more: int) -> dict[str, Tensor]:
    """The same with further voxels of padding, which hold nonsense where nothing may look."""
    extended: dict[str, NDArray[Any]] = {}
    for name, values in inputs.items():
        filling = {"voxels": 7.0, "num_points": 0, "coordinates": -1}[name]
        shape = (values.shape[0], more, *values.shape[2:])
        extended[name] = torch.cat(
            [values, torch.full(shape, filling, dtype=values.dtype)], dim=1
        ).numpy()
    return {name: torch.from_numpy(values) for name, values in extended.items()}


def parameters(model: torch.nn.Module) -> int:
    return sum(each.numel() for each in model.parameters())


def warmed(model: Model) -> Model:
    """With statistics far from their start; in evaluation mode."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.3)
    return model.eval()
