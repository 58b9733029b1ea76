"""ONNX Runtime, the default engine: it runs the ONNX file itself, on a GPU if there is one, else
on the CPU.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.backends.backend import (
    BundleFiles,
    EngineError,
    EngineLimits,
    Exported,
    GraphArrays,
    Session,
    check_precision,
    first_line,
)
from mtl_ray.config.strict import STRICT

MODEL_FILE = "model.onnx"
_OF_INT8 = b"DequantizeLinear"
"""The name of an operator, which a graph of int8 has and no other."""
_PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OnnxRuntimeEngine:
    """ONNX Runtime (https://onnxruntime.ai)."""

    packages: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx")
    type: Literal["onnxruntime"] = "onnxruntime"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU if the installed ONNX Runtime supports one, else the CPU."""
    precision: Literal["fp32", "int8"] = Field(
        default="fp32", exclude_if=lambda precision: precision == "fp32"
    )
    """int8: calibrated, with QuantizeLinear nodes in the ONNX file. fp32 is not written, so that
    older programs can read it.
    """

    def unavailable(self) -> str | None:
        """See ``AnyEngine``."""
        if find_spec("onnxruntime") is None:
            return "onnxruntime is not installed (Fix: pip install onnxruntime)"
        try:
            import onnxruntime
        except ImportError as error:
            return f"onnxruntime cannot be imported: {first_line(error)}"
        if (
            self.device != "auto"
            and _PROVIDERS[self.device] not in onnxruntime.get_available_providers()
        ):
            return (
                f"the installed onnxruntime cannot run on {self.device} (Fix: pip install "
                "onnxruntime-gpu, or device: auto)"
            )
        return None

    def limits(self) -> EngineLimits:
        """See ``AnyEngine``."""
        return EngineLimits()

    def build(self, exported: Exported, folder: Path) -> Mapping[str, bytes | Path]:
        """The ONNX file as it is, or its int8 form."""
        if self.precision == "fp32":
            return {MODEL_FILE: exported.onnx}
        from mtl_ray.backends.onnx_int8 import quantised

        return {"model.int8.onnx": quantised(exported.onnx, exported.calibration, folder)}

    def open(self, files: BundleFiles, names: tuple[str, ...], threads: int) -> Session:
        """See ``AnyEngine``."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        wanted = _PROVIDERS.values() if self.device == "auto" else [_PROVIDERS[self.device]]
        providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
        (name,) = names
        data = files.read(name)
        try:
            session = onnxruntime.InferenceSession(data, options, providers=providers)
        except _failures() as error:
            raise EngineError(f"onnxruntime cannot open {name}: {first_line(error)}") from error
        check_precision(self, name, "int8" if _OF_INT8 in data else "fp32")
        return _Session(session)


class _Session:
    """See ``Session``."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]
        self._failures = _failures()

    @property
    def about(self) -> Mapping[str, str]:
        """The first provider."""
        return {"provider": self._session.get_providers()[0]}

    def run(self, arrays: GraphArrays) -> GraphArrays:
        """See ``Session``."""
        try:
            values = self._session.run(self._outputs, dict(arrays))
        except self._failures as error:
            raise EngineError(f"onnxruntime: {first_line(error)}") from error
        return dict(zip(self._outputs, map(np.asarray, values), strict=True))


def _failures() -> tuple[type[Exception], ...]:
    """The exceptions of onnxruntime for a graph that cannot be read or does not run."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        *(state.Fail, state.InvalidArgument, state.RuntimeException, state.NotImplemented),
        *(state.InvalidGraph, state.InvalidProtobuf),
        ValueError,  # an input is missing
    )
