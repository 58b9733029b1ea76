"""Convolutions on the few cells of a large grid that hold something, in plain torch.

A rule book says which input row meets which weight for which output row. It depends on the
coordinates alone, so that all convolutions of a stage share it. Rows are sorted by their cell and
the pairs of one weight have distinct outputs, so results do not depend on the device's scheduling.

Weights are laid out as in spconv 1 and mmcv: (kz, ky, kx, inputs, outputs).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Triple = tuple[int, int, int]
"""z, y, x."""


@dataclass(frozen=True, slots=True, eq=False)
class Sites:
    """The active cells of a batch, N of them.

    Attributes:
        coordinates: int64 (N, 4) sample, z, y, x, sorted, each once.
        keys: int64 (N,) of each cell, ascending.
        shape: cells of the grid along z, y, x.
        batch: number of samples.
    """

    coordinates: Tensor
    keys: Tensor
    shape: Triple
    batch: int


@dataclass(frozen=True, slots=True, eq=False)
class RuleBook:
    """The pairs of a convolution, ordered by weight.

    Attributes:
        inputs, outputs: int64 (M,) rows.
        counts: pairs of each weight.
        sites: of the outputs.
    """

    inputs: Tensor
    outputs: Tensor
    counts: tuple[int, ...]
    sites: Sites

    @property
    def pairs(self) -> int:
        """M: a convolution multiplies this many times ``inputs * outputs`` numbers."""
        return sum(self.counts)


def sites_of(coordinates: Tensor, shape: Triple, batch: int) -> tuple[Sites, Tensor]:
    """Cells (N, 4) in any order, each once -> sorted, and the row (N,) of each in the argument."""
    cells = coordinates.long()
    keys, order = torch.sort(_keys(cells, shape))
    return Sites(cells[order], keys, shape, batch), order


def _keys(cells: Tensor, shape: Triple) -> Tensor:
    """One number for each cell (..., 4), in the order of their coordinates."""
    sample, z, y, x = cells.unbind(dim=-1)
    return ((sample * shape[0] + z) * shape[1] + y) * shape[2] + x


def _steps(kernel: Triple, device: torch.device) -> Tensor:
    """(K, 3): z, y, x of each weight of a kernel."""
    axes = [torch.arange(size, device=device) for size in kernel]
    return torch.stack([each.flatten() for each in torch.meshgrid(*axes, indexing="ij")], dim=1)


def submanifold_rules(sites: Sites) -> RuleBook:
    """Of a 3x3x3 convolution whose outputs are the cells of its inputs (Graham et al. 2018).

    Only 13 neighbours are looked up: who has a neighbour on one side is a neighbour on the other.
    """
    device, count = sites.keys.device, len(sites.keys)
    steps = _steps((3, 3, 3), device)[:13] - 1  # (13, 3)
    near = sites.coordinates[None, :, 1:] + steps[:, None]  # (13, N, 3)
    inside = ((near >= 0) & (near < near.new_tensor(sites.shape))).all(dim=2)
    samples = sites.coordinates[None, :, :1].expand(13, -1, -1)
    # outside cells would be those of the next row
    wanted = torch.where(inside, _keys(torch.cat([samples, near], dim=2), sites.shape), -1)
    place = torch.searchsorted(sites.keys, wanted).clamp(max=max(count - 1, 0))
    found = (sites.keys[place] == wanted) if count else inside  # (13, N)
    weight, outputs = torch.nonzero(found, as_tuple=True)
    inputs = place[weight, outputs]
    half = torch.bincount(weight, minlength=13).tolist()
    one, other = inputs.split(half), outputs.split(half)
    itself = torch.arange(count, device=device)
    return RuleBook(
        torch.cat([*one, itself, *reversed(other)]),
        torch.cat([*other, itself, *reversed(one)]),
        (*half, count, *reversed(half)),
        sites,
    )


def strided_rules(sites: Sites, kernel: Triple, stride: Triple, padding: Triple) -> RuleBook:
    """Of an ordinary convolution: every cell is an output that some input reaches."""
    shape = tuple(
        (size + 2 * pad - width) // step + 1
        for size, pad, width, step in zip(sites.shape, padding, kernel, stride, strict=True)
    )
    assert len(shape) == 3
    device = sites.keys.device
    steps = _steps(kernel, device)  # (K, 3)
    reach = (
        sites.coordinates[None, :, 1:] + steps.new_tensor(padding) - steps[:, None]
    )  # (K, N, 3), strides times the output
    step = steps.new_tensor(stride)
    cells = torch.div(reach, step, rounding_mode="floor")
    valid = ((reach % step == 0) & (reach >= 0) & (cells < steps.new_tensor(shape))).all(dim=2)
    weight, inputs = torch.nonzero(valid, as_tuple=True)
    targets = torch.cat([sites.coordinates[inputs, :1], cells[weight, inputs]], dim=1)  # (M, 4)
    keys, outputs = torch.unique(_keys(targets, shape), return_inverse=True)
    coordinates = targets.new_empty(len(keys), 4)
    coordinates[outputs] = targets  # the same values wherever an output is met twice
    return RuleBook(
        inputs,
        outputs,
        tuple(torch.bincount(weight, minlength=len(steps)).tolist()),
        Sites(coordinates, keys, shape, sites.batch),
    )


class _Convolve(torch.autograd.Function):
    """Sum over the weights of gathered rows times a matrix. Only the inputs are kept for the
    gradient, not what was gathered of them.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, rules: RuleBook) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.rules = rules
        out = rows.new_zeros(len(rules.sites.keys), weight.shape[2])
        for index, (inputs, outputs) in enumerate(_by_weight(rules)):
            if len(inputs):
                out.index_add_(0, outputs, rows[inputs] @ weight[index])
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        rows, weight = ctx.saved_tensors
        (gradient,) = gradients
        of_rows, of_weight = torch.zeros_like(rows), torch.zeros_like(weight)
        for index, (inputs, outputs) in enumerate(_by_weight(ctx.rules)):
            if len(inputs):
                arrived = gradient[outputs]
                of_rows.index_add_(0, inputs, arrived @ weight[index].T)
                of_weight[index] = rows[inputs].T @ arrived
        return of_rows, of_weight, None


def _by_weight(rules: RuleBook) -> Iterator[tuple[Tensor, Tensor]]:
    counts = list(rules.counts)
    return zip(rules.inputs.split(counts), rules.outputs.split(counts), strict=True)


class SparseConv(nn.Module):
    """A convolution without bias on the rows of a rule book.

    Args:
        inputs, outputs: channels.
        kernel: cells along z, y, x.
    """

    def __init__(self, inputs: int, outputs: int, kernel: Triple) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(*kernel, inputs, outputs))
        # He et al. 2015 by the inputs of a dense kernel, of which few are there
        nn.init.normal_(self.weight, std=math.sqrt(2 / (math.prod(kernel) * inputs)))

    def forward(self, rows: Tensor, rules: RuleBook) -> Tensor:
        """(N, inputs) -> (N', outputs)."""
        out: Tensor = _Convolve.apply(rows, self.weight.flatten(0, 2), rules)
        return out

    def macs(self, rules: RuleBook) -> int:
        """Multiplications and additions for a rule book."""
        return rules.pairs * self.weight.shape[3] * self.weight.shape[4]


def dense_map(rows: Tensor, sites: Sites) -> Tensor:
    """Rows (N, C) in their cells, zero elsewhere: (B, C * Z, Y, X); the cells of a column are the
    channels c * Z + z.
    """
    z, y, x = sites.shape
    grid = rows.new_zeros(sites.batch * z * y * x, rows.shape[1])
    grid = grid.index_put((sites.keys,), rows)
    grid = grid.view(sites.batch, z, y, x, rows.shape[1])
    return grid.permute(0, 4, 1, 2, 3).flatten(1, 2)
