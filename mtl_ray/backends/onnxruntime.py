"""ONNX Runtime, the default engine: it runs the ONNX file itself, on a GPU if there is one, else
on the CPU.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic.dataclasses import dataclass

from mtl_ray.backends.backend import (
    AnyEngine,
    BundleFiles,
    EngineError,
    EngineLimits,
    Exported,
    GraphArrays,
    Session,
)
from mtl_ray.config.extend import Slot
from mtl_ray.config.strict import STRICT

MODEL_FILE = "model.onnx"
_PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OnnxRuntimeEngine:
    """ONNX Runtime (https://onnxruntime.ai)."""

    type: Literal["onnxruntime"] = "onnxruntime"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU if the installed ONNX Runtime supports one, else the CPU."""

    def unavailable(self) -> str | None:
        """See ``AnyEngine``."""
        if find_spec("onnxruntime") is None:
            return "onnxruntime is not installed (Fix: pip install onnxruntime)"
        import onnxruntime

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
        """The ONNX file as it is."""
        return {MODEL_FILE: exported.onnx}

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
        try:
            return _Session(
                onnxruntime.InferenceSession(files.read(name), options, providers=providers)
            )
        except _failures() as error:
            raise EngineError(f"onnxruntime cannot open {name}: {_first_line(error)}") from error


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
            raise EngineError(f"onnxruntime: {_first_line(error)}") from error
        return dict(zip(self._outputs, map(np.asarray, values), strict=True))


def _failures() -> tuple[type[Exception], ...]:
    """The exceptions of onnxruntime for a graph that cannot be read or does not run."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        *(state.Fail, state.InvalidArgument, state.RuntimeException, state.NotImplemented),
        *(state.InvalidGraph, state.InvalidProtobuf),
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


if TYPE_CHECKING:
    EngineConfig = AnyEngine
else:
    EngineConfig = Annotated[OnnxRuntimeEngine, Slot("engines")]
    """The type of ``export.engine``; engines of plugins are added to it."""
