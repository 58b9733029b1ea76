"""The content of a file of weights as a table, and its comparison with a model."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from mtl_ray import storage
from mtl_ray.weights.weights import Weights
from mtl_ray.weights.write import content_hash


@dataclass(frozen=True, slots=True)
class TensorRow:
    """One tensor.

    ``sum`` is computed in float64; for a complex tensor it is the sum of the absolute values.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    sum: float


@dataclass(frozen=True, slots=True)
class ModelMatch:
    """Differences between the tensors of a file and those of a model.

    Attributes:
        missing: names of the model that the file lacks, except ``num_batches_tracked``, which
            nothing reads.
        unused: names of the file that the model lacks.
        unequal: (name, shape in the file, shape in the model).
    """

    missing: tuple[str, ...]
    unused: tuple[str, ...]
    unequal: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]

    @property
    def whole(self) -> bool:
        """True if the file fills the model: no tensor is missing or has another shape."""
        return not self.missing and not self.unequal

    def to_text(self, most: int = 10) -> str:
        """A paragraph for each kind of difference, with at most ``most`` names."""
        shapes = [
            f"{name}: {found} in the file, {wanted} in the model"
            for name, found, wanted in self.unequal
        ]
        kinds = (
            ("missing in the file", self.missing),
            ("not used by the model", self.unused),
            ("of another shape", shapes),
        )
        lines = []
        for kind, names in kinds:
            lines.append(f"{len(names)} {kind}" + (":" if names else ""))
            lines += [f"  {name}" for name in names[:most]]
            lines += [f"  ... and {len(names) - most} more"] if len(names) > most else []
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class WeightsTable:
    """A table of the tensors of a file.

    Attributes:
        key: the top-level key of the tensors.
        rows: in the order of the file.
        others: the other top-level entries, and what cannot be read.
        numbers, size_bytes: number and size of the elements of all tensors.
        content: hash of names, types, shapes and numbers.
    """

    key: str
    rows: tuple[TensorRow, ...]
    others: tuple[str, ...]
    numbers: int
    size_bytes: int
    content: str

    def to_text(self) -> str:
        """A line for each tensor with its shape, type and sum, and the totals."""
        names = [len(row.name) for row in self.rows]
        shapes = ["x".join(map(str, row.shape)) or "scalar" for row in self.rows]
        wide, side = max(names), max(map(len, shapes))
        lines = [
            f"{row.name:{wide}}  {shape:>{side}}  {row.dtype:8}  {row.sum:.6g}"
            for row, shape in zip(self.rows, shapes, strict=True)
        ]
        under = f" under {self.key!r}" if self.key else ""
        lines.append(
            f"{len(self.rows)} tensors{under}, {self.numbers:,} numbers, {self.size_bytes:,} "
            f"bytes; content {self.content}"
        )
        if self.others:
            lines.append("beside them: " + ", ".join(self.others))
        return "\n".join(lines)


def weights_table(weights: Weights) -> WeightsTable:
    """The table of some weights."""
    rows = tuple(
        TensorRow(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), _sum(tensor))
        for name, tensor in weights.tensors.items()
    )
    numbers, size = weights.size()
    others = (*(f"{name} ({_kind(value)})" for name, value in weights.rest.items()), *weights.left)
    return WeightsTable(weights.key, rows, others, numbers, size, content_hash(weights.tensors))


def write_tables(uri: str, shown: Sequence[tuple[str, WeightsTable]]) -> None:
    """Writes the tables as strict JSON, a list of files; a sum that is not finite is null."""
    content = [{"file": name, **asdict(each)} for name, each in shown]
    for file in content:
        for row in file["rows"]:
            row["sum"] = row["sum"] if math.isfinite(row["sum"]) else None
    storage.write(uri, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def compare_with_model(tensors: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> ModelMatch:
    """Compares named tensors with the state dict of a model."""
    missing = tuple(
        name for name in model if name not in tensors and not name.endswith("num_batches_tracked")
    )
    unused = tuple(name for name in tensors if name not in model)
    both = [
        (name, tuple(tensors[name].shape), tuple(value.shape))
        for name, value in model.items()
        if name in tensors
    ]
    return ModelMatch(missing, unused, tuple(each for each in both if each[1] != each[2]))


def _sum(tensor: Tensor) -> float:
    return float((tensor.abs() if tensor.dtype.is_complex else tensor).sum(dtype=torch.float64))


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return "tensor " + "x".join(map(str, value.shape))
    return f"{len(value)} entries" if isinstance(value, dict | list) else type(value).__name__
