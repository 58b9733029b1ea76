"""The mean of several checkpoints (Izmailov et al. 2018, https://arxiv.org/abs/1803.05407; Wortsman
et al. 2022, "model soups").
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mtl_ray.weights.weights import Weights


def average(
    files: Iterable[tuple[str, Weights]], shares: Sequence[float] | None = None
) -> dict[str, Tensor]:
    """The weighted mean of each tensor, summed in float64 and returned in the type of the tensor.

    One file is in memory at a time. Integer and boolean tensors have no mean:
    ``num_batches_tracked`` becomes the largest value, others must be equal in all files. The
    statistics of batch normalisation are averaged like the rest; statistics measured on data again
    may fit the mean better.

    Args:
        files: (name for errors, weights) of each.
        shares: weight of each file, not negative; equal by default. They are divided by their sum.

    Raises:
        ValueError: if the files differ in names, shapes or types, or the shares are invalid.
    """
    sums: dict[str, Tensor] = {}
    first: tuple[str, dict[str, Tensor]] = ("", {})
    total, count = 0.0, 0
    for count, (name, weights) in enumerate(files, 1):
        share = _share(shares, count)
        total += share
        if count == 1:
            first = (name, weights.tensors)
        _check_alike(first, (name, weights.tensors))
        _add(sums, weights.tensors, share, name)
    if shares is not None and len(shares) != count:
        raise ValueError(f"{len(shares)} shares for {count} files")
    if count < 2:
        raise ValueError("a mean needs at least two files")
    if not total > 0:
        raise ValueError("the sum of the shares is 0")
    means = {}
    for name, like in first[1].items():
        means[name] = (sums[name] / total).to(like.dtype) if _has_mean(like) else sums[name]
    return means


def _share(shares: Sequence[float] | None, count: int) -> float:
    if shares is None:
        return 1.0
    share = shares[count - 1] if count <= len(shares) else 0.0
    if not (math.isfinite(share) and share >= 0):
        raise ValueError(f"{share} is not a valid share of a mean")
    return share


def _has_mean(tensor: Tensor) -> bool:
    return tensor.dtype.is_floating_point or tensor.dtype.is_complex


def _check_alike(
    first: tuple[str, dict[str, Tensor]], other: tuple[str, dict[str, Tensor]]
) -> None:
    differing = first[1].keys() ^ other[1].keys()
    if differing:
        name = min(differing)
        has, lacks = (first[0], other[0]) if name in first[1] else (other[0], first[0])
        raise ValueError(f"{name} is in {has} but not in {lacks} ({len(differing)} names differ)")
    for name, tensor in first[1].items():
        new = other[1][name]
        if new.shape != tensor.shape or new.dtype != tensor.dtype:
            a, b = (
                f"{each.dtype} {tuple(each.shape)}".removeprefix("torch.") for each in (tensor, new)
            )
            raise ValueError(f"{name} is {a} in {first[0]} and {b} in {other[0]}")


def _add(sums: dict[str, Tensor], tensors: dict[str, Tensor], share: float, file: str) -> None:
    for name in sums or tensors:
        tensor = tensors[name]
        if _has_mean(tensor):
            wide = tensor.to(torch.complex128 if tensor.dtype.is_complex else torch.float64) * share
            sums[name] = sums[name].add_(wide) if name in sums else wide
        elif name not in sums:
            sums[name] = tensor
        elif name.rpartition(".")[2] == "num_batches_tracked":
            sums[name] = torch.maximum(sums[name], tensor)
        elif not torch.equal(sums[name], tensor):
            raise ValueError(f"{name} has integers, which have no mean, and differs in {file}")
