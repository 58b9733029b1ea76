"""Targets of ``center_point``: peaks on heat maps, and the numbers of each object's cell."""

from typing import NamedTuple

import torch
from torch import Tensor

from mtl_ray.geometry.voxels import VoxelGrid


class CentreTargets(NamedTuple):
    """The objects of a batch on the map.

    Attributes:
        cells: int64 (B, M), row * W + column of the cell of each centre.
        values: float32 (B, M, 10): offset of the centre within its cell along x and y (cells), z
            of the centre, logarithms of length, width, height, sine and cosine of the yaw, velocity
            along x and y.
        known: bool (B, M, 10), which of them are known; False for what is no object.
        radii: int64 (B, M), cells.
    """

    cells: Tensor
    values: Tensor
    known: Tensor
    radii: Tensor


def peak_radius(length: Tensor, width: Tensor, overlap: float) -> Tensor:
    """Radius in cells of the peak of an object (Law and Deng 2018, CornerNet, in the form that
    CenterPoint is published with: the larger roots, all divided by 2).

    Args:
        length: in cells.
        width: in cells.
        overlap: see ``CenterPointHead.overlap``.
    """
    total, area = length + width, length * width
    cases = (
        (1.0, total, area * (1 - overlap) / (1 + overlap)),
        (4.0, 2 * total, (1 - overlap) * area),
        (4 * overlap, -2 * overlap * total, (overlap - 1) * area),
    )
    roots = [(b + torch.sqrt(b**2 - 4 * a * c)) / 2 for a, b, c in cases]
    return torch.minimum(torch.minimum(roots[0], roots[1]), roots[2])


def centre_targets(
    boxes: Tensor,
    velocity: Tensor,
    has_velocity: Tensor,
    present: Tensor,
    grid: VoxelGrid,
    stride: int,
    size: tuple[int, int],
    overlap: float,
    least_radius: int,
) -> CentreTargets:
    """The targets of a batch of objects.

    Args:
        boxes: float32 (B, M, 7) metres.
        velocity: (B, M, 2).
        has_velocity: bool (B, M).
        present: bool (B, M).
        grid: the voxels.
        stride: voxels per cell of the map.
        size: rows and columns of the map.
        overlap: of ``CenterPointHead``.
        least_radius: of ``CenterPointHead``, cells.
    """
    low, side = boxes.new_tensor(grid.minimum[:2]), boxes.new_tensor(grid.size[:2])
    centre = (boxes[..., :2] - low) / side / stride  # (B, M, 2) x, y in cells
    cell = centre.long()
    # As in the published code the cell is rounded towards 0: a centre that is less than a cell
    # before the map belongs to its first cells.
    inside = ((cell >= 0) & (cell < cell.new_tensor(size[::-1]))).all(dim=2)
    present = present & inside & (boxes[..., 3:6] > 0).all(dim=2)
    # What is no object gets a size, so that no NaN can enter a gradient.
    sizes = torch.where(present[..., None], boxes[..., 3:6], 1.0)
    radii = peak_radius(sizes[..., 0] / side[0] / stride, sizes[..., 1] / side[1] / stride, overlap)
    yaw = boxes[..., 6:]
    values = [
        centre - cell,
        boxes[..., 2:3],
        sizes.log(),
        torch.sin(yaw),
        torch.cos(yaw),
        velocity,
    ]
    moving = (present & has_velocity)[..., None].expand(-1, -1, 2)
    return CentreTargets(
        torch.where(present, cell[..., 1] * size[1] + cell[..., 0], 0),
        torch.cat(values, dim=2),
        torch.cat([present[..., None].expand(-1, -1, 8), moving], dim=2),
        radii.long().clamp(min=least_radius),
    )


def heat_maps(
    targets: CentreTargets, channels: Tensor, count: int, size: tuple[int, int]
) -> Tensor:
    """Heat maps (B, count, H, W): 1 in the cell of a centre, falling to 0 at its radius; where
    peaks meet, the higher one counts.

    Args:
        targets: of the objects.
        channels: int64 (B, M), the map of each object; -1 for none of these maps.
        count: of maps.
        size: rows and columns.
    """
    height, width = size
    drawn = targets.known[..., 0] & (channels >= 0)
    sample, place = torch.nonzero(drawn, as_tuple=True)
    cells, radii = targets.cells[sample, place], targets.radii[sample, place][:, None]
    row = torch.div(cells, width, rounding_mode="floor")[:, None]
    column = (cells % width)[:, None]
    variance = 2 * ((2 * radii + 1).float() / 6) ** 2  # (n, 1)

    def profile(length: int, centre: Tensor) -> Tensor:
        away = torch.arange(length, device=cells.device) - centre  # (n, length)
        return torch.exp(-away.square() / variance).masked_fill(away.abs() > radii, 0)

    peaks = profile(height, row)[:, :, None] * profile(width, column)[:, None]  # (n, H, W)
    maps = peaks.new_zeros(len(channels) * count, height * width)
    index = sample * count + channels[sample, place]
    peaks = peaks.flatten(1)
    maps.scatter_reduce_(0, index[:, None].expand_as(peaks), peaks, "amax")
    return maps.view(len(channels), count, height, width)
