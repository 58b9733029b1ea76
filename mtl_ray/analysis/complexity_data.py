"""The sample whose cost is counted, for networks whose cost depends on it; and the pairs of
sparse convolutions.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mtl_ray.analysis.networks import Network
from mtl_ray.export.verify import generate_samples
from mtl_ray.inference.places import find_data
from mtl_ray.inputs.image_header import MAX_PIXELS
from mtl_ray.inputs.input import placed
from mtl_ray.models.sparse import RuleBook, SparseConv


@dataclass(frozen=True, kw_only=True)
class CountedInput:
    """One datum as a network gets it.

    Attributes:
        name: of the file or sample.
        lengths: what it consists of: points, voxels.
        arrays: a batch of it.
        shape: of the array that the trunk reads, without the batch.
    """

    name: str
    lengths: Mapping[str, int]
    arrays: Mapping[str, Tensor]
    shape: tuple[int, ...]

    def to_text(self) -> str:
        """``000008.bin: 17,238 points, 3,945 voxels``."""
        parts = [f"{count:,} {name}" for name, count in self.lengths.items()]
        return f"{self.name}: {', '.join(parts)}" if parts else self.name


def counted_input(
    network: Network,
    read: str,
    place: str | None,
    row: int = 0,
    options: Mapping[str, str] | None = None,
) -> CountedInput:
    """A datum in the frame of a network.

    Args:
        network: with a canvas.
        read: the name of the array that its trunk reads.
        place: a file, a folder or a split; None for generated data.
        row: which of several.
        options: how a file is read.

    Raises:
        FileNotFoundError, ValueError: if it is not there, or cannot be read.
    """
    canvas = network.canvas
    assert canvas is not None
    kind = canvas.input
    if place is None:
        name, raw = f"a generated {kind.noun}", generate_samples(kind, 1)[0][1]
    else:
        found = find_data([place], canvas, options)
        if not 0 <= row < len(found):
            raise ValueError(f"--sample {row}: {place} has {len(found):,}, counted from 0")
        name, raw = found[row].name, found[row].read(MAX_PIXELS)
    arrays, _ = placed([raw], canvas)
    lengths = dict(kind.size(raw))
    for each, spec in kind.arrays(canvas).items():
        for axis, title in spec.open_axes.items():
            lengths.setdefault(title, int(arrays[each].shape[1 + axis]))
    return CountedInput(
        name=name,
        lengths=lengths,
        arrays={each: torch.from_numpy(values) for each, values in arrays.items()},
        shape=arrays[read].shape[1:],
    )


@dataclass(frozen=True, kw_only=True)
class SparseCost:
    """One sparse convolution.

    Attributes:
        name: of the module.
        sites: cells of its output.
        pairs: of an input cell and an output cell; each costs inputs times outputs multiply-adds.
        channels: inputs and outputs.
        macs: multiply-adds.
    """

    name: str
    sites: int
    pairs: int
    channels: tuple[int, int]
    macs: int


@contextmanager
def sparse_costs(model: nn.Module) -> Iterator[list[SparseCost]]:
    """Collects the sparse convolutions that run inside the block."""
    found: list[SparseCost] = []

    def hook(name: str) -> Any:
        def count(layer: SparseConv, sources: tuple[Tensor, RuleBook], out: Tensor) -> None:
            rules = sources[1]
            found.append(
                SparseCost(
                    name=name,
                    sites=len(out),
                    pairs=rules.pairs,
                    channels=(layer.weight.shape[-2], layer.weight.shape[-1]),
                    macs=layer.macs(rules),
                )
            )

        return count

    hooks = [
        layer.register_forward_hook(hook(name))
        for name, layer in model.named_modules()
        if isinstance(layer, SparseConv)
    ]
    try:
        yield found
    finally:
        for each in hooks:
            each.remove()


def sparse_table(costs: list[SparseCost]) -> list[str]:
    """The lines of a table; none without sparse convolutions."""
    if not costs:
        return []
    lines = [
        "",
        f"{'sparse convolution':<44}{'channels':>12}{'cells':>10}{'pairs':>12}{'per cell':>10}"
        f"{'multiply-adds':>16}",
    ]
    return lines + [
        f"{each.name:<44}{'{} to {}'.format(*each.channels):>12}{each.sites:>10,}"
        f"{each.pairs:>12,}{each.pairs / max(each.sites, 1):>10.2f}{each.macs:>16,}"
        for each in costs
    ]
