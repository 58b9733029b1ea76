"""Sparse convolutions against dense ones of the same grid."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtl_ray.models.sparse import (
    RuleBook,
    SparseConv,
    dense_map,
    sites_of,
    strided_rules,
    submanifold_rules,
)

STRIDED = (
    ((3, 3, 3), (2, 2, 2), (1, 1, 1)),
    ((3, 3, 3), (2, 2, 2), (0, 1, 1)),
    ((3, 1, 1), (2, 1, 1), (0, 0, 0)),
)


def cells(shape: tuple[int, int, int], batch: int, share: float, seed: int) -> Tensor:
    """Some cells of a grid, (N, 4), in any order."""
    draw = torch.Generator().manual_seed(seed)
    active = torch.rand(batch, *shape, generator=draw) < share
    found = torch.nonzero(active)
    return found[torch.randperm(len(found), generator=draw)]


def dense_weight(conv: SparseConv) -> Tensor:
    return conv.weight.permute(4, 3, 0, 1, 2)


def grid_of(rows: Tensor, coordinates: Tensor, shape: tuple[int, int, int], batch: int) -> Tensor:
    grid = torch.zeros(batch, rows.shape[1], *shape)
    sample, z, y, x = coordinates.T
    grid[sample, :, z, y, x] = rows
    return grid


grids = st.tuples(*[st.integers(3, 7)] * 3)


@settings(max_examples=25, deadline=None)
@given(shape=grids, batch=st.integers(1, 3), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_submanifold_convolution_is_the_dense_one_at_the_active_cells(
    shape: tuple[int, int, int], batch: int, share: float, seed: int
) -> None:
    sites, order = sites_of(cells(shape, batch, share, seed), shape, batch)
    torch.manual_seed(seed)
    conv = SparseConv(3, 5, (3, 3, 3))
    rows = torch.randn(len(order), 3, requires_grad=True)
    out = conv(rows, submanifold_rules(sites))
    sample, z, y, x = sites.coordinates.T
    dense_rows = rows.detach().clone().requires_grad_()
    dense = F.conv3d(
        grid_of(dense_rows, sites.coordinates, shape, batch), dense_weight(conv), padding=1
    )
    wanted = dense[sample, :, z, y, x]
    torch.testing.assert_close(out, wanted, rtol=1e-5, atol=1e-5)
    factor = torch.randn_like(out)
    (of_rows, of_weight) = torch.autograd.grad((out * factor).sum(), [rows, conv.weight])
    (dense_of_rows, dense_of_weight) = torch.autograd.grad(
        (wanted * factor).sum(), [dense_rows, conv.weight]
    )
    torch.testing.assert_close(of_rows, dense_of_rows, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(of_weight, dense_of_weight, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kernel", "stride", "padding"), STRIDED)
@settings(max_examples=15, deadline=None)
@given(shape=grids, share=st.floats(0, 0.6), seed=st.integers(0, 99))
def test_strided_convolution_is_the_dense_one_and_reaches_the_same_cells(
    kernel: tuple[int, int, int],
    stride: tuple[int, int, int],
    padding: tuple[int, int, int],
    shape: tuple[int, int, int],
    share: float,
    seed: int,
) -> None:
    sites, order = sites_of(cells(shape, 2, share, seed), shape, 2)
    torch.manual_seed(seed)
    conv = SparseConv(2, 4, kernel)
    rows = torch.rand(len(order), 2, requires_grad=True)
    rules = strided_rules(sites, kernel, stride, padding)
    out = conv(rows, rules)
    grid = grid_of(rows, sites.coordinates, shape, 2)
    dense = F.conv3d(grid, dense_weight(conv), stride=stride, padding=padding)
    assert rules.sites.shape == dense.shape[2:]
    torch.testing.assert_close(
        dense_map(out, rules.sites), dense.flatten(1, 2), rtol=1e-5, atol=1e-5
    )
    reached = F.conv3d(
        grid_of(torch.ones(len(order), 1), sites.coordinates, shape, 2),
        torch.ones(1, 1, *kernel),
        stride=stride,
        padding=padding,
    )
    assert rules.sites.coordinates.tolist() == torch.nonzero(reached[:, 0]).tolist()
    gradients = torch.autograd.grad(out.square().sum(), [rows, conv.weight])
    wanted = torch.autograd.grad(dense.square().sum(), [rows, conv.weight])
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_order_of_the_voxels_does_not_matter() -> None:
    found = cells((5, 6, 7), 2, 0.3, 1)
    first, order = sites_of(found, (5, 6, 7), 2)
    second, other = sites_of(found.flip(0), (5, 6, 7), 2)
    assert torch.equal(first.coordinates, second.coordinates)
    assert torch.equal(found[order], found.flip(0)[other])
    one, two = submanifold_rules(first), submanifold_rules(second)
    assert torch.equal(one.inputs, two.inputs)
    assert one.counts == two.counts


def test_every_weight_has_distinct_outputs_so_that_sums_have_one_order() -> None:
    sites, _ = sites_of(cells((5, 6, 7), 2, 0.5, 2), (5, 6, 7), 2)

    def check(rules: RuleBook) -> None:
        for outputs in rules.outputs.split(list(rules.counts)):
            assert len(outputs.unique()) == len(outputs)

    check(submanifold_rules(sites))
    for kernel, stride, padding in STRIDED:
        check(strided_rules(sites, kernel, stride, padding))


def test_pairs_count_the_multiplications() -> None:
    sites, _ = sites_of(torch.tensor([[0, 1, 1, 1], [0, 1, 1, 2], [1, 1, 1, 2]]), (3, 3, 3), 2)
    rules = submanifold_rules(sites)
    assert rules.pairs == 5  # each with itself, and two neighbours with each other
    assert SparseConv(4, 8, (3, 3, 3)).macs(rules) == 5 * 4 * 8


def test_neighbours_do_not_wrap_to_the_next_row_or_sample() -> None:
    ends = torch.tensor([[0, 0, 0, 2], [0, 0, 1, 0], [0, 2, 2, 2], [1, 0, 0, 0]])
    sites, _ = sites_of(ends, (3, 3, 3), 2)
    assert submanifold_rules(sites).pairs == len(ends)
