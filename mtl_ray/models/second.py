"""The backbone ``second``: voxels -> sparse convolutions in space -> feature maps seen from above.

Parameters have the names of MMDetection3D's ``SparseEncoder`` and ``SECOND``.
"""

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_ray.models.birds_eye import EPSILON, MOMENTUM, make_stages, run_stages, stage_strides
from mtl_ray.models.head import Context, NotExportableError
from mtl_ray.models.imports import Imported, Program
from mtl_ray.models.lidar_config import SecondBackbone
from mtl_ray.models.pillars import check_point_features, imported_trunk, no_autocast, normalise_rows
from mtl_ray.models.sparse import (
    RuleBook,
    Sites,
    SparseConv,
    Triple,
    dense_map,
    sites_of,
    strided_rules,
    submanifold_rules,
)
from mtl_ray.models.trunk import Backbone

_HALF: Triple = (2, 2, 2)
_PADDINGS: tuple[Triple, ...] = ((1, 1, 1), (1, 1, 1), (0, 1, 1))
"""Of the strided convolutions of stages 2 to 4."""
_LAST_KERNEL: Triple = (3, 1, 1)
_LAST_STRIDE: Triple = (2, 1, 1)


class Second(Backbone):
    """SECOND's backbone (Yan et al. 2018, section 3.1.2)."""

    input = "voxels"

    def __init__(self, config: SecondBackbone) -> None:
        super().__init__()
        self.point_features, self.height = config.point_features, config.height
        self.middle_encoder = SparseEncoder(config)
        depth = column_cells(config.height + 1)
        self.blocks = make_stages(
            config.sparse_output * depth, config.layers, config.strides, config.channels
        )
        self.strides = stage_strides(8, config.strides)
        self.channels = dict(zip(self.strides, config.channels, strict=True))

    def read(self, values: Tensor, context: Context) -> dict[str, Tensor]:
        """See ``Backbone``: voxels float (B, V, P, F) -> B1, B2, ... (B, C, h, w).

        Raises:
            ValueError: if the points or the grid do not fit.
            NotExportableError: if a graph is being traced.
        """
        if context.exporting:
            raise NotExportableError(
                "the sparse encoder of backbone 'second' cannot be exported, since the cells that "
                "it visits depend on the data. Fix: a model with backbone 'pillars'"
            )
        grid = context.grid
        check_point_features(self.point_features, values)
        nx, ny, nz = grid.shape
        if nz != self.height:
            raise ValueError(
                f"the grid has {nz} cells along z, the backbone {self.height}. Fix: "
                f"model.backbone.height={nz}"
            )
        counts = context.inputs["num_points"]  # (B, V)
        sample, voxel = torch.nonzero(counts > 0, as_tuple=True)
        cells = context.inputs["coordinates"][sample, voxel].long()  # (N, 3) z, y, x
        sites, order = sites_of(
            torch.cat([sample[:, None], cells], dim=1), (nz + 1, ny, nx), len(values)
        )
        with no_autocast(values, context):
            points = values[sample, voxel].float()  # (N, P, F)
            mean = points.sum(dim=1) / counts[sample, voxel][:, None]
            rows, sites = self.middle_encoder(mean[order], sites)
        return run_stages(self.blocks, dense_map(rows, sites))

    def imported(self, program: Program, tensors: Mapping[str, Tensor]) -> dict[str, Imported]:
        """See ``Importing``; weights of spconv 2 are (outputs, kz, ky, kx, inputs)."""
        own = self.state_dict()
        return {
            name: Imported(_as_shaped(found.value, own.get(name)), found.sources)
            for name, found in imported_trunk(program, tensors).items()
        }


def _as_shaped(value: Tensor, own: Tensor | None) -> Tensor:
    """A weight of spconv 2 in the layout of this project; others as they are."""
    if own is None or value.dim() != 5 or value.shape == own.shape:
        return value
    turned = value.permute(1, 2, 3, 4, 0)
    return turned.contiguous() if turned.shape == own.shape else value


def column_cells(cells: int) -> int:
    """Cells along z that the sparse encoder leaves of ``cells``."""
    for padding in _PADDINGS:
        cells = (cells + 2 * padding[0] - 3) // 2 + 1
    return (cells - _LAST_KERNEL[0]) // _LAST_STRIDE[0] + 1


class SparseBlock(nn.Sequential):
    """A sparse convolution, batch normalisation over the active cells, and ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: Triple = (3, 3, 3)) -> None:
        super().__init__(
            SparseConv(inputs, outputs, kernel), nn.BatchNorm1d(outputs, EPSILON, MOMENTUM)
        )

    def run(self, rows: Tensor, rules: RuleBook) -> Tensor:
        """(N, inputs) -> (N', outputs)."""
        return F.relu(normalise_rows(self[1], self[0](rows, rules)))


class SparseEncoder(nn.Module):
    """Submanifold convolutions in four stages; the grid shrinks by 2 from each to the next."""

    def __init__(self, config: SecondBackbone) -> None:
        super().__init__()
        width = config.sparse_channels[0][0]
        self.conv_input = SparseBlock(config.point_features, width)
        self.encoder_layers = nn.ModuleDict()
        for index, channels in enumerate(config.sparse_channels):
            stage = nn.ModuleList()
            for outputs in channels:
                stage.append(SparseBlock(width, outputs))
                width = outputs
            self.encoder_layers[f"encoder_layer{index + 1}"] = stage
        self.conv_out = SparseBlock(width, config.sparse_output, _LAST_KERNEL)

    def forward(self, rows: Tensor, sites: Sites) -> tuple[Tensor, Sites]:
        """Rows (N, features) of the cells -> rows (N', channels) of the cells that are left."""
        rules = submanifold_rules(sites)
        rows = self.conv_input.run(rows, rules)
        for index, stage in enumerate(self.encoder_layers.values()):
            blocks = [cast(SparseBlock, block) for block in cast(nn.ModuleList, stage)]
            if index:
                strided = strided_rules(sites, (3, 3, 3), _HALF, _PADDINGS[index - 1])
                rows, sites = blocks[0].run(rows, strided), strided.sites
                blocks = blocks[1:]
                rules = submanifold_rules(sites) if blocks else strided
            for block in blocks:
                rows = block.run(rows, rules)
        last = strided_rules(sites, _LAST_KERNEL, _LAST_STRIDE, (0, 0, 0))
        return self.conv_out.run(rows, last), last.sites
