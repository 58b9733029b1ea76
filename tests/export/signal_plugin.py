"""A plugin: 1-D signals as an input, a backbone and a head that count their pulses, and an engine of its own."""

from collections.abc import Mapping
from dataclasses import dataclass as plain
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from mtl_ray.annotations.annotation import AnnotationKind
from mtl_ray.backends.backend import Arrays, EngineError, Exported, Files, Limits
from mtl_ray.columns import ColumnType
from mtl_ray.config.strict import STRICT
from mtl_ray.inputs.input import ArraySpec, Input, TooLargeError
from mtl_ray.models.head import Context, Features, HeadModule
from mtl_ray.models.trunk import Backbone
from mtl_ray.plugin import Plugin
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.tasks.charts import Charts
from mtl_ray.tasks.difference import Comparison, Difference, Fields, field_faults, fields_of
from mtl_ray.tasks.task import HeadKind, HeadOptions


class SignalInput(Input[bytes, NDArray[np.float32], "SignalCanvas", int]):
    """A file is float32 values, little-endian. The frame of a signal is its length after it was cut off."""

    name = "signal"
    columns = {"signal": "binary"}  # noqa: RUF012
    limit_name = "values"
    formats = ("float32 values, little-endian",)
    suffixes = (".f32",)

    def to_row(self, encoded: bytes) -> Mapping[str, Any]:
        return {"signal": encoded}

    def from_row(self, row: Mapping[str, Any]) -> bytes:
        return bytes(row["signal"])

    def num_bytes(self, encoded: bytes) -> int:
        return len(encoded)

    def decode(self, encoded: bytes, limit: int) -> NDArray[np.float32]:
        if not encoded or len(encoded) % 4:
            raise ValueError(f"a signal is float32 values, not {len(encoded)} bytes")
        if len(encoded) // 4 > limit:
            raise TooLargeError(f"the signal has {len(encoded) // 4} values, at most {limit} are read")
        return np.frombuffer(encoded, "<f4")

    decode_file = decode

    def encode_file(self, raw: NDArray[np.float32]) -> bytes:
        return raw.astype("<f4").tobytes()

    def size(self, raw: NDArray[np.float32]) -> Mapping[str, int]:
        return {"length": len(raw)}

    def pieces(self, raw: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return [raw[: max(1, len(raw) // 2)]]

    def arrays(self, rule: "SignalCanvas") -> Mapping[str, ArraySpec]:
        return {
            "signal": ArraySpec(shape=(1, rule.length), dtype=np.float32, open_axes={1: "length"}),
            "valid": ArraySpec(shape=(1,), dtype=np.int32),
        }

    def fill(self, raw: NDArray[np.float32], rule: "SignalCanvas", arrays: Arrays) -> int:
        length = min(len(raw), rule.length)
        arrays["signal"][:] = 0
        arrays["signal"][0, :length] = raw[:length]
        arrays["valid"][:] = length
        return length

    def fill_empty(self, rule: "SignalCanvas", arrays: Arrays) -> int:
        return self.fill(np.zeros(rule.length, np.float32), rule, arrays)

    def other_rule(self, rule: "SignalCanvas") -> "SignalCanvas":
        return SignalCanvas(length=rule.length + 16)

    def show(self, raw: NDArray[np.float32]) -> NDArray[np.uint8]:
        image = np.full((64, 200, 3), 255, np.uint8)
        y = 32 - 28 * np.clip(raw[np.linspace(0, len(raw) - 1, 200).astype(int)], -1, 1)
        cv2.polylines(image, [np.stack([np.arange(200), y], axis=1).astype(np.int32)], False, (20, 20, 200))
        return image

    def generate(self, rng: np.random.Generator) -> tuple[bytes, NDArray[np.float32]]:
        raw = rng.normal(0, 0.05, int(rng.integers(40, 200))).astype(np.float32)
        raw[rng.integers(0, len(raw), 5)] += 1
        return self.encode_file(raw), raw


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SignalCanvas:
    """Signals are cut off or filled with zeros."""

    input: ClassVar[SignalInput] = SignalInput()
    type: Literal["signal"] = "signal"
    length: int = Field(ge=4)


class Conv(Backbone):
    """One convolution; gives ``S2`` (B, width, L / 2)."""

    input = "signal"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Conv1d(1, width, 5, stride=2, padding=2)
        self.channels, self.strides = {"S2": width}, {"S2": 2}

    def forward(self, values: Tensor) -> dict[str, Tensor]:
        return {"S2": self.net(values).relu()}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ConvBackbone:
    type: Literal["conv1d"] = "conv1d"
    width: int = 8

    def build(self) -> Conv:
        return Conv(self.width)

    def without_pretrained(self) -> "ConvBackbone":
        return self

    def paths(self) -> Mapping[str, str]:
        return {}


@plain(frozen=True, kw_only=True, slots=True, eq=False)
class Count:
    count: float


class CountMetric:
    """The mean absolute error."""

    main = "mae"
    lower_is_better = frozenset({"mae"})

    def __init__(self) -> None:
        self.errors: list[float] = []

    def update(self, sample: Sample, prediction: Count) -> None:
        if "pulses" in sample.annotations:
            self.errors.append(abs(sample.annotations["pulses"] - prediction.count))

    def merge(self, other: "CountMetric") -> None:
        self.errors += other.errors

    def result(self) -> Mapping[str, float]:
        return {"mae": float(np.mean(self.errors)) if self.errors else float("nan")}

    def per_class(self) -> Mapping[str, Mapping[str, float]]:
        return {}

    def charts(self) -> Charts:
        return Charts()


class PulsesKind(AnnotationKind[int, int]):
    name = "pulses"
    columns: ClassVar[Mapping[str, ColumnType]] = {"pulses": "int32"}


class CountTask:
    name, kind, view, schema_name, to_coco = "counting", PulsesKind(), "json", "Count", None

    def decode(self, arrays: Fields, frame: int, head: Any) -> Count:
        return Count(count=float(arrays["count"][0]))

    def metric(self, head: HeadKind, vocabulary: Vocabulary) -> CountMetric:
        return CountMetric()

    def to_response(self, prediction: Count, vocabulary: Vocabulary, score_threshold: float, image_file: str | None = None) -> Any:
        return {"count": prediction.count}

    def from_response(self, content: Any, vocabulary: Vocabulary, head: HeadKind, size: Mapping[str, int] | None = None) -> Count:
        return Count(count=float(content["count"]))

    def plain_image(self, prediction: Count) -> None:
        return

    def response_schema(self) -> dict[str, Any]:
        return {"type": "object", "properties": {"count": {"type": "number"}}, "required": ["count"]}

    def draw_ground_truth(self, image: NDArray[np.uint8], sample: Sample, vocabulary: Vocabulary) -> NDArray[np.uint8]:
        return image

    def draw_prediction(
        self, image: NDArray[np.uint8], prediction: Count, vocabulary: Vocabulary, score_threshold: float = 0.3
    ) -> NDArray[np.uint8]:
        return image

    def row_type(self) -> Any:
        import pyarrow as pa

        return pa.struct([("count", pa.float64())])

    def to_row(self, prediction: Count) -> dict[str, Any]:
        return {"count": prediction.count}

    def from_row(self, row: Mapping[str, Any]) -> Count:
        return Count(count=row["count"])

    def difference(self, first: Count, second: Count, how: Comparison) -> Difference:
        return self.array_difference(fields_of(first), fields_of(second), how)

    def array_difference(self, first: Fields, second: Fields, how: Comparison) -> Difference:
        if faults := field_faults(first, second, ("count",), how.sides):
            return Difference(unit="counts", incomparable=faults)
        return Difference(unit="counts", compared=1).with_scores(first["count"], second["count"]).with_agreeing(1, 1)


class CountModule(HeadModule):
    """The mean over the part of the features that holds signal."""

    def __init__(self, config: "CountHead", width: int) -> None:
        super().__init__(config)
        self.output = nn.Linear(width, 1)

    def predict(self, features: Features, context: Context) -> dict[str, Tensor]:
        cells = features[self.levels[0]]  # (B, C, L / 2)
        valid = (torch.arange(cells.shape[2], device=cells.device) * 2 < context.inputs["valid"])[:, None]  # (B, 1, L / 2)
        return {"count": self.output((cells * valid).sum(dim=2) / valid.sum(dim=2).clamp(min=1))}

    def losses(self, features: Features, targets: Mapping[str, Tensor], context: Context) -> dict[str, tuple[Tensor, Tensor]]:
        error = (self.predict(features, context)["count"][:, 0] - targets["count"]).abs() * targets["annotated"]
        return {"error": (error.sum(), targets["annotated"].float().sum())}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CountHead(HeadOptions):
    type: Literal["count"] = "count"
    task: ClassVar[CountTask] = CountTask()
    annotation: ClassVar[str] = "pulses"
    levels: tuple[str, ...] = ("S2",)

    def build(self, vocabulary: Vocabulary, channels: Mapping[str, int], strides: Mapping[str, int]) -> CountModule:
        return CountModule(self, channels[self.levels[0]])


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ReferenceEngine:
    """The evaluator of the ONNX package. ``wrong`` makes it give another answer, ``most`` limits its batches."""

    type: Literal["reference"] = "reference"
    package: str = "onnx"
    wrong: float = 0.0
    most: int | None = None
    open_sizes: bool = True

    def unavailable(self) -> str | None:
        return None if find_spec(self.package) else f"{self.package} is not installed (Fix: pip install {self.package})"

    def limits(self) -> Limits:
        return Limits(max_batch=self.most, open_sizes=self.open_sizes)

    def build(self, exported: Exported, folder: Path) -> Mapping[str, bytes | Path]:
        (folder / "names.txt").write_text(" ".join(exported.outputs))
        return {"graph.bin": exported.onnx, "names.txt": folder / "names.txt"}

    def open(self, files: Files, names: tuple[str, ...], threads: int) -> "ReferenceSession":
        return ReferenceSession(self, files.read(names[0]), files.read(names[1]).decode().split())


class ReferenceSession:
    about: ClassVar[Mapping[str, str]] = {"device": "numpy"}

    def __init__(self, engine: ReferenceEngine, graph: bytes, outputs: list[str]) -> None:
        import onnx
        from onnx.reference import ReferenceEvaluator

        self.engine, self.outputs = engine, outputs
        self.evaluator = ReferenceEvaluator(onnx.load_from_string(graph))

    def run(self, arrays: Arrays) -> Arrays:
        batch = len(next(iter(arrays.values())))
        if self.engine.most is not None and batch > self.engine.most:
            raise EngineError(f"reference: a batch of {batch} is too large")
        values = self.evaluator.run(self.outputs, dict(arrays))
        return {name: value + np.float32(self.engine.wrong) for name, value in zip(self.outputs, values, strict=True)}


PLUGIN = Plugin(inputs=(SignalCanvas,), backbones=(ConvBackbone,), heads=(CountHead,), engines=(ReferenceEngine,))
