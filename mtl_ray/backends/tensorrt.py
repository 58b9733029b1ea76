"""TensorRT, NVIDIA's engine for GPUs. An engine file belongs to the GPU and the version that built
it.

TensorRT 11 has strongly typed networks only: the numbers of the ONNX file decide the precision, and
int8 is a graph with symmetric QuantizeLinear nodes.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic.dataclasses import dataclass

from mtl_ray.backends.backend import (
    BundleFiles,
    EngineError,
    EngineLimits,
    Exported,
    GraphArrays,
    Session,
    first_line,
)
from mtl_ray.config.strict import STRICT

FILE = "model.engine"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TensorRtEngine:
    """TensorRT (https://docs.nvidia.com/deeplearning/tensorrt) on a GPU."""

    type: Literal["tensorrt"]
    precision: Literal["fp32"] = "fp32"
    max_batch: int = 8
    """Most samples of one call; the profile is built for one to this many."""

    def unavailable(self) -> str | None:
        """See ``AnyEngine``."""
        if find_spec("tensorrt") is None:
            return (
                "tensorrt is not installed (Fix: pip install tensorrt from NVIDIA's index, on a "
                "machine with a GPU)"
            )
        import torch

        return None if torch.cuda.is_available() else "tensorrt needs a GPU, and there is none"

    def limits(self) -> EngineLimits:
        """See ``AnyEngine``."""
        return EngineLimits(
            max_batch=self.max_batch,
            open_sizes=False,
            notes=("the file runs on the kind of GPU that built it only",),
        )

    def build(self, exported: Exported, folder: Path) -> Mapping[str, bytes | Path]:
        """See ``AnyEngine``. The optimisation profile is one to ``max_batch`` samples."""
        import tensorrt

        logger = tensorrt.Logger(tensorrt.Logger.ERROR)
        builder = tensorrt.Builder(logger)
        network = builder.create_network(0)
        parser = tensorrt.OnnxParser(network, logger)
        if not parser.parse(exported.onnx):
            raise EngineError(f"tensorrt cannot hold the graph: {parser.get_error(0).desc()}")
        options = builder.create_builder_config()
        profile = builder.create_optimization_profile()
        for name in exported.inputs:
            rest = exported.example[name].shape[1:]
            profile.set_shape(name, (1, *rest), (1, *rest), (self.max_batch, *rest))
        options.add_optimization_profile(profile)
        built = builder.build_serialized_network(network, options)
        if built is None:
            raise EngineError("tensorrt cannot build the graph; its log says why")
        return {FILE: bytes(built)}

    def open(self, files: BundleFiles, names: tuple[str, ...], threads: int) -> Session:
        """See ``AnyEngine``."""
        import tensorrt

        runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
        (name,) = names
        engine = runtime.deserialize_cuda_engine(files.read(name))
        if engine is None:
            raise EngineError(
                f"tensorrt cannot open {name}: another GPU or another version built it"
            )
        return _Session(engine)


class _Session:
    """See ``Session``. One call at a time: an execution context is not for several threads."""

    def __init__(self, engine: Any) -> None:
        import threading

        import tensorrt

        self._engine, self._lock = engine, threading.Lock()
        self._context = engine.create_execution_context()
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        wanted = tensorrt.TensorIOMode.OUTPUT
        self._outputs = [name for name in names if engine.get_tensor_mode(name) == wanted]
        self._inputs = [name for name in names if name not in self._outputs]

    @property
    def about(self) -> Mapping[str, str]:
        """The GPU."""
        import torch

        return {"device": torch.cuda.get_device_name()}

    def run(self, arrays: GraphArrays) -> GraphArrays:
        """See ``Session``."""
        import torch

        with self._lock:
            held: dict[str, Any] = {}
            for name in self._inputs:
                held[name] = torch.from_numpy(np.ascontiguousarray(arrays[name])).cuda()
                if not self._context.set_input_shape(name, tuple(held[name].shape)):
                    raise EngineError(f"tensorrt: {name} has a shape outside its profile")
                self._context.set_tensor_address(name, held[name].data_ptr())
            for name in self._outputs:
                shape = tuple(self._context.get_tensor_shape(name))
                kind = torch.from_numpy(np.empty(0, self._dtype(name))).dtype
                held[name] = torch.empty(shape, dtype=kind, device="cuda")
                self._context.set_tensor_address(name, held[name].data_ptr())
            stream = torch.cuda.current_stream()
            try:
                done = self._context.execute_async_v3(stream.cuda_stream)
            except RuntimeError as error:
                raise EngineError(f"tensorrt: {first_line(error)}") from error
            if not done:
                raise EngineError("tensorrt: the graph does not run")
            stream.synchronize()
            return {name: held[name].cpu().numpy() for name in self._outputs}

    def _dtype(self, name: str) -> Any:
        import tensorrt

        return tensorrt.nptype(self._engine.get_tensor_dtype(name))
