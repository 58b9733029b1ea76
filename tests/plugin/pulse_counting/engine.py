"""An engine: the evaluator of the ONNX package."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic.dataclasses import dataclass

from mtl_ray.backends.backend import BundleFiles, EngineError, EngineLimits, Exported, GraphArrays
from mtl_ray.config.strict import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ReferenceEngine:
    """The evaluator of the ONNX package. ``wrong`` makes it give another answer, ``most`` limits
    its batches.
    """

    type: Literal["reference"] = "reference"
    precision: ClassVar[Literal["fp32"]] = "fp32"
    package: str = "onnx"
    wrong: float = 0.0
    most: int | None = None
    open_sizes: bool = True

    def unavailable(self) -> str | None:
        return (
            None
            if find_spec(self.package)
            else f"{self.package} is not installed (Fix: pip install {self.package})"
        )

    def limits(self) -> EngineLimits:
        return EngineLimits(max_batch=self.most, open_sizes=self.open_sizes, notes=("it is slow",))

    def build(self, exported: Exported, folder: Path) -> Mapping[str, bytes | Path]:
        (folder / "names.txt").write_text(" ".join(exported.outputs))
        return {"graph.bin": exported.onnx, "names.txt": folder / "names.txt"}

    def open(self, files: BundleFiles, names: tuple[str, ...], threads: int) -> "ReferenceSession":
        return ReferenceSession(self, files.read(names[0]), files.read(names[1]).decode().split())


class ReferenceSession:
    about: ClassVar[Mapping[str, str]] = {"device": "numpy"}

    def __init__(self, engine: ReferenceEngine, graph: bytes, outputs: list[str]) -> None:
        import onnx
        from onnx.reference import ReferenceEvaluator

        self.engine, self.outputs = engine, outputs
        self.evaluator = ReferenceEvaluator(onnx.load_from_string(graph))

    def run(self, arrays: GraphArrays) -> GraphArrays:
        batch = len(next(iter(arrays.values())))
        if self.engine.most is not None and batch > self.engine.most:
            raise EngineError(f"reference: a batch of {batch} is too large")
        values = self.evaluator.run(self.outputs, dict(arrays))
        return {
            name: value + np.float32(self.engine.wrong)
            for name, value in zip(self.outputs, values, strict=True)
        }
