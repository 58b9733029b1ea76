"""The cost of the network at an address for an input shape, as text and JSON."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from mtl_ray.analysis.complexity import Complexity, CountingRule, complexity
from mtl_ray.analysis.complexity_data import (
    CountedInput,
    SparseCost,
    counted_input,
    sparse_costs,
    sparse_table,
)
from mtl_ray.analysis.networks import Network, open_network, run_arrays
from mtl_ray.models.model import Model

Modality = Literal["image", "point"]
LINE = "=" * 30


@dataclass(frozen=True, kw_only=True)
class ComplexityReport:
    """The cost of one input of a network.

    Attributes:
        target: the network.
        shape: of the input, without the batch.
        found: the counts.
        data: the datum, of networks whose cost depends on it.
        sparse: the sparse convolutions.
    """

    target: str
    shape: tuple[int, ...]
    found: Complexity
    data: CountedInput | None = None
    sparse: tuple[SparseCost, ...] = ()

    def to_text(self, depth: int = 2) -> str:
        """The totals, a table of the modules down to ``depth``, and the operators without a
        count.
        """
        found = self.found
        flops = f"Flops: {flops_text(found.flops)}" + (
            f" (multiply-adds: {macs_text(found.macs)})" if found.rule == "dispatch" else ""
        )
        head = [
            LINE,
            f"Input shape: {self.shape}",
            *([] if self.data is None else [f"Input: {self.data.to_text()}"]),
            flops,
            f"Params: {params_text(found.params)}",
            LINE,
        ]
        tables = [*_table(found, depth), *sparse_table(list(self.sparse)), *_uncounted(found)]
        return "\n".join([*head, "", *tables])

    def to_json(self) -> dict[str, Any]:
        """All figures as numbers."""
        found = self.found
        whole = {"flops": found.flops, "macs": found.macs, "params": found.params}
        params = {
            "params_total": found.modules[0].params,
            "params_trainable": found.modules[0].trainable_params,
        }
        data = {} if self.data is None else {"input": self.data.name, **self.data.lengths}
        sparse = {"sparse": [asdict(each) for each in self.sparse]} if self.sparse else {}
        return {
            "target": self.target,
            "shape": list(self.shape),
            **data,
            **whole,
            **params,
            **asdict(found),
            **sparse,
        }


def complexity_report(
    target: str,
    shape: Sequence[int] | None = None,
    *,
    rule: CountingRule = "dispatch",
    modality: Modality = "image",
    divisor: int = 1,
    classes: int | None = None,
    auxiliary: bool = False,
    device: str | None = None,
    data: str | None = None,
    row: int = 0,
    options: Mapping[str, str] | None = None,
) -> ComplexityReport:
    """Counts the cost of one input of a network.

    Args:
        target: see ``open_network``.
        shape: of the input, see ``input_shape``; by default the canvas of the config.
        rule: see ``complexity``.
        modality: of the input.
        divisor: height and width are rounded up to multiples of it.
        classes: number of classes, for a config whose split is not available.
        auxiliary: include heads that are used only in training.
        device: ``meta`` computes nothing; use another one for networks that depend on the values of
            their input. By default ``meta`` for images, else ``cpu``.
        data: a file, a folder or a split, of whose datum ``row`` the cost is counted. Without it,
            and without a shape, a network that takes no images gets a generated one.
        row: see there.
        options: how a file is read (``Input.file_options``).

    Raises:
        ValueError, FileNotFoundError: if there is no such network, or it does not take such an
            input.
    """
    network = open_network(target, classes=classes, auxiliary=auxiliary)
    if data is not None and (shape is not None or network.canvas is None):
        raise ValueError(f"--data and --shape exclude each other, and {target} needs a canvas")
    if network.canvas is not None and (data is not None or not (network.images or shape)):
        return _of_datum(network, target, rule, device or "cpu", data, row, options)
    size = network.shape if shape is None else input_shape(shape, modality)
    if size is None:
        raise ValueError(f"{target} has no input shape of its own: set one with --shape")
    if modality == "image":
        size = (*size[:-2], *(math.ceil(side / divisor) * divisor for side in size[-2:]))
    return ComplexityReport(
        target=target, shape=size, found=_count(network, target, size, rule, device or "meta")
    )


def _of_datum(
    network: Network,
    target: str,
    rule: CountingRule,
    device: str,
    place: str | None,
    row: int,
    options: Mapping[str, str] | None,
) -> ComplexityReport:
    assert isinstance(network.model, Model)
    data = counted_input(network, network.model.trunk.input, place, row, options)
    model = network.model.to(device)
    arrays = {name: values.to(device) for name, values in data.arrays.items()}
    with sparse_costs(model) as sparse:
        found = complexity(model, lambda: run_arrays(model, arrays), rule)
    return ComplexityReport(
        target=target, shape=data.shape, found=found, data=data, sparse=tuple(sparse)
    )


def input_shape(shape: Sequence[int], modality: Modality = "image") -> tuple[int, ...]:
    """The shape of one input without the batch.

    Args:
        shape: of an image the side of a square, or height and width; of a cloud the number of
            points, or that and of the values of each (4 if not given). Three or more numbers are
            the whole shape.
        modality: image or point.

    Raises:
        ValueError: if a number is below 1.
    """
    if not shape or min(shape) < 1:
        raise ValueError(f"--shape {' '.join(map(str, shape))}: each number must be at least 1")
    if len(shape) > 2:
        return tuple(shape)
    if modality == "point":
        return (shape[0], shape[1] if len(shape) == 2 else 4)
    return (3, shape[0], shape[-1])


def flops_text(flops: int) -> str:
    """In the format of mmcv: ``239.32 GFLOPs``."""
    unit, letter = _unit(flops)
    return f"{round(flops / unit, 2)} {letter}FLOPs"


def macs_text(macs: int) -> str:
    """``238.54 G``."""
    unit, letter = _unit(macs)
    return f"{macs / unit:.2f} {letter}" if letter else str(macs)


def params_text(params: int) -> str:
    """In the format of mmcv: ``37.74 M``."""
    unit, letter = (1e6, "M") if params >= 1e6 else (1e3, "k")
    return f"{round(params / unit, 2)} {letter}" if params >= 1e3 else str(params)


def _count(
    network: Network, target: str, size: tuple[int, ...], rule: CountingRule, device: str
) -> Complexity:
    if network.images and (len(size) != 3 or size[0] != 3):
        raise ValueError(
            f"{target} takes images, an input of the shape (3, height, width), not {size}"
        )
    model = network.model.to(device)
    batch = torch.zeros(
        (1, *size), dtype=torch.uint8 if network.images else torch.float32, device=device
    )
    try:
        return complexity(model, lambda: network.run(model, batch), rule)
    except (RuntimeError, TypeError, IndexError, AssertionError) as error:
        hint = (
            "; a network that looks at the values of its input needs --device cpu"
            if device == "meta"
            else ""
        )
        raise ValueError(
            f"{target} does not take an input of the shape {size}: "
            f"{str(error).splitlines()[0]}{hint}"
        ) from error


def _unit(value: float) -> tuple[float, str]:
    return next(
        ((unit, letter) for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "K")) if value >= unit),
        (1.0, ""),
    )


def _table(found: Complexity, depth: int) -> list[str]:
    shown = [each for each in found.modules if not each.name or each.name.count(".") < depth]
    names = [
        "  " * (each.name.count(".") + 1) * bool(each.name)
        + (each.name.rpartition(".")[2] or "all")
        for each in shown
    ]
    width = max(24, *(len(name) for name in names))
    kind = max(12, *(len(each.kind) for each in shown))
    word = "multiply-adds" if found.rule == "dispatch" else "operations"
    lines = [f"{'module':<{width}}  {'class':<{kind}}{'parameters':>14}{word:>16}{'share':>8}"]
    for name, each in zip(names, shown, strict=True):
        share = each.macs / found.macs if found.macs else 0.0
        lines.append(
            f"{name:<{width}}  "
            f"{each.kind:<{kind}}{each.params:>14,}{macs_text(each.macs):>16}{share:>8.1%}"
        )
    return lines


def _uncounted(found: Complexity) -> list[str]:
    if not found.uncounted:
        return []
    lines = ["", f"{'operators that do not count':<44}{'calls':>8}{'numbers':>16}"]
    return lines + [
        f"{each.operator:<44}{each.calls:>8,}{each.elements:>16,}" for each in found.uncounted
    ]
