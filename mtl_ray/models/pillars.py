"""The backbone ``pillars``: points of each pillar -> an image seen from above -> feature maps.

Parameters have the names of MMDetection3D's ``PillarFeatureNet`` and ``SECOND``.
"""

from collections.abc import Mapping
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_ray.geometry.voxels import VoxelGrid
from mtl_ray.models.birds_eye import EPSILON, MOMENTUM, make_stages, run_stages, stage_strides
from mtl_ray.models.head import Context
from mtl_ray.models.imports import Imported, Program, Rename, renamed
from mtl_ray.models.lidar_config import PillarsBackbone
from mtl_ray.models.trunk import Backbone


class Pillars(Backbone):
    """PointPillars' backbone (Lang et al. 2019, https://arxiv.org/abs/1812.05784, section 2).

    Padding of a batch counts for nothing: it is left out, and in an exported graph, which has no
    data-dependent sizes, it is written into a cell beside the canvas. Slots of a pillar without a
    point do count, as published: their features are zero before the first layer, and they take part
    in the normalisation and in the maximum.
    """

    input = "voxels"

    def __init__(self, config: PillarsBackbone) -> None:
        super().__init__()
        self.point_features = config.point_features
        self.voxel_encoder = PillarFeatures(config)
        self.blocks = make_stages(
            config.point_channels[-1], config.layers, config.strides, config.channels
        )
        self.strides = stage_strides(1, config.strides)
        self.channels = dict(zip(self.strides, config.channels, strict=True))

    def read(self, values: Tensor, context: Context) -> dict[str, Tensor]:
        """See ``Backbone``: voxels float (B, V, P, F) -> B1, B2, ... (B, C, ny / stride, nx /
        stride).
        """
        grid = context.grid
        check_point_features(self.point_features, values)
        if grid.shape[2] != 1:
            raise ValueError(
                f"the grid has {grid.shape[2]} cells along z, and pillars have one. Fix: "
                "data.canvas.voxel, its last number as large as the range of z"
            )
        counts = context.inputs["num_points"].flatten()  # (B * V,)
        cells = flat_cells(context.inputs["coordinates"], grid)  # (B * V,)
        voxels = values.flatten(0, 1)  # (B * V, P, F)
        coordinates = context.inputs["coordinates"].flatten(0, 1)
        if not context.exporting:
            used = torch.nonzero(counts > 0).squeeze(1)
            voxels, counts, cells = voxels[used], counts[used], cells[used]
            coordinates = coordinates[used]
        with no_autocast(values, context):  # tens of metres do not fit into bfloat16
            pillars = self.voxel_encoder(voxels.float(), counts, coordinates, grid)
        # shape[0] and not len: a trace for TorchScript keeps the batch open
        canvas = scatter_rows(pillars, cells, values.shape[0], (grid.shape[1], grid.shape[0]))
        return run_stages(self.blocks, canvas)

    def imported(self, program: Program, tensors: Mapping[str, Tensor]) -> dict[str, Imported]:
        """See ``Importing``."""
        return imported_trunk(program, tensors)


class PillarFeatures(nn.Module):
    """One vector of each pillar (section 2.1 of the paper)."""

    def __init__(self, config: PillarsBackbone) -> None:
        super().__init__()
        self.legacy = config.legacy
        self.offsets = 3 if config.z_offset else 2
        width = config.point_features + 3 + self.offsets
        self.pfn_layers = nn.ModuleList()
        for index, outputs in enumerate(config.point_channels):
            last = index == len(config.point_channels) - 1
            self.pfn_layers.append(PointLayer(width, outputs if last else outputs // 2, last=last))
            width = outputs

    def forward(
        self, voxels: Tensor, counts: Tensor, coordinates: Tensor, grid: VoxelGrid
    ) -> Tensor:
        """Points of pillars -> (N, C).

        Args:
            voxels: float32 (N, P, F), padded with zeros.
            counts: (N,) points of each; 0 for padding.
            coordinates: (N, 3) z, y, x of each cell.
            grid: the cells.
        """
        slots = torch.arange(voxels.shape[1], device=voxels.device)
        filled = (slots < counts[:, None])[..., None].to(voxels.dtype)  # (N, P, 1)
        xyz = voxels[..., :3]
        # (N, 1, 3)
        mean = xyz.sum(dim=1, keepdim=True) / counts.clamp(min=1).to(voxels.dtype)[:, None, None]
        first = [low + side / 2 for low, side in zip(grid.minimum, grid.size, strict=True)]
        cell = coordinates.flip(1).to(voxels.dtype)  # (N, 3) x, y, z
        centre = cell * voxels.new_tensor(grid.size) + voxels.new_tensor(first)
        offset = (xyz - centre[:, None])[..., : self.offsets]
        if self.legacy:
            voxels = torch.cat([offset, voxels[..., self.offsets :]], dim=-1)
        points = torch.cat([voxels, xyz - mean, offset], dim=-1) * filled
        for layer in self.pfn_layers:
            points = layer(points)
        return points.squeeze(1)


class PointLayer(nn.Module):
    """A linear layer on each point, batch normalisation, ReLU, and the maximum of each pillar;
    where it is not the last, every point gets the maximum beside its own features.
    """

    def __init__(self, inputs: int, outputs: int, *, last: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.norm = nn.BatchNorm1d(outputs, EPSILON, MOMENTUM)
        self.last = last

    def forward(self, points: Tensor) -> Tensor:
        """(N, P, inputs) -> (N, 1, outputs), or (N, P, 2 * outputs)."""
        flat = normalise_rows(self.norm, self.linear(points).flatten(0, 1))
        found = F.relu(flat).view(
            points.shape[0], points.shape[1], flat.shape[1]
        )  # (N, P, outputs)
        largest = found.amax(dim=1, keepdim=True)
        return largest if self.last else torch.cat([found, largest.expand_as(found)], dim=2)


def normalise_rows(norm: nn.Module, rows: Tensor) -> Tensor:
    """Batch normalisation of (N, C). Less than two rows have no statistics and get the stored ones;
    a normalisation that is shared with other processes has those of all of them.
    """
    if isinstance(norm, nn.BatchNorm1d) and norm.training and len(rows) < 2:
        return F.batch_norm(
            rows, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )
    normalised: Tensor = norm(rows)
    return normalised


def flat_cells(coordinates: Tensor, grid: VoxelGrid) -> Tensor:
    """The place of each pillar among the cells of all canvases of a batch.

    Args:
        coordinates: (B, V, 3) z, y, x; -1 for padding.
        grid: the cells.

    Returns:
        int64 (B * V,); padding has B * ny * nx.
    """
    nx, ny, _ = grid.shape
    batch = coordinates.shape[0]
    _, y, x = coordinates.long().unbind(dim=2)  # (B, V)
    first = torch.arange(batch, device=coordinates.device)[:, None] * (ny * nx)
    cells = torch.where(x >= 0, first + y * nx + x, batch * ny * nx)
    return cells.flatten()


def scatter_rows(rows: Tensor, cells: Tensor, batch: int, size: tuple[int, int]) -> Tensor:
    """Vectors (N, C) in their cells, zero elsewhere: (B, C, ny, nx), channels last in memory."""
    ny, nx = size
    canvas = rows.new_zeros(batch * ny * nx + 1, rows.shape[1])
    canvas = canvas.index_put((cells,), rows)
    return canvas[:-1].view(batch, ny, nx, rows.shape[1]).permute(0, 3, 1, 2)


def check_point_features(features: int, voxels: Tensor) -> None:
    """Raises a ValueError if the points of a batch have another number of features."""
    if voxels.shape[-1] != features:
        raise ValueError(
            f"points have {voxels.shape[-1]} features (data.canvas.features), the backbone reads "
            f"{features}. Fix: model.backbone.point_features={voxels.shape[-1]}"
        )


def no_autocast(values: Tensor, context: Context) -> torch.autocast | nullcontext[None]:
    """A context in which layers compute in float32. A graph is traced in float32 anyway."""
    if context.exporting:
        return nullcontext()
    return torch.autocast(values.device.type, enabled=False)


def imported_trunk(program: Program, tensors: Mapping[str, Tensor]) -> dict[str, Imported]:
    """The backbone of a detector of MMDetection3D: its encoder of voxels, what is between, and
    its convolutions on the map. Detectors of several sensors have ``pts_`` before the names.
    """
    if program != "openmmlab":
        return {}
    return renamed(
        tensors,
        [
            Rename(r"(?:pts_)?((?:voxel|middle)_encoder\..*)", r"\1"),
            Rename(r"(?:pts_)?backbone\.(.*)", r"\1"),
        ],
    )
