"""ExecuTorch, torch's engine for phones, with the XNNPACK kernels for CPUs."""

import threading
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
    names_of,
)
from mtl_ray.config.strict import STRICT

FILES = ("model.pte", "model.names")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExecuTorchEngine:
    """ExecuTorch (https://docs.pytorch.org/executorch) with XNNPACK."""

    type: Literal["executorch"]
    precision: Literal["fp32"] = "fp32"

    def unavailable(self) -> str | None:
        """See ``AnyEngine``."""
        if find_spec("executorch") is None:
            return "executorch is not installed (Fix: pip install 'mtl_ray[executorch]')"
        return None

    def limits(self) -> EngineLimits:
        """See ``AnyEngine``."""
        return EngineLimits(max_batch=1, open_sizes=False, suppression=False)

    def build(self, exported: Exported, folder: Path) -> Mapping[str, bytes | Path]:
        """See ``AnyEngine``.

        Raises:
            EngineError: also if XNNPACK takes no part of the graph: the plain kernels are 150 times
                slower.
        """
        import torch
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        assert exported.module is not None
        example = tuple(torch.from_numpy(exported.example[name][:1]) for name in exported.inputs)
        try:
            with torch.no_grad():
                program = to_edge_transform_and_lower(
                    torch.export.export(exported.module, example),
                    partitioner=[XnnpackPartitioner()],
                )
                built = program.to_executorch()
        except Exception as error:  # its passes raise whatever occurs
            raise EngineError(f"executorch cannot hold the graph: {first_line(error)}") from error
        if b"XnnpackBackend" not in built.buffer:
            raise EngineError("executorch: XNNPACK takes no part of this graph")
        names = "\n".join((",".join(exported.inputs), ",".join(exported.outputs)))
        return {FILES[0]: bytes(built.buffer), FILES[1]: names.encode()}

    def open(self, files: BundleFiles, names: tuple[str, ...], threads: int) -> Session:
        """See ``AnyEngine``."""
        from executorch.runtime import Runtime

        data = files.read(names[0])
        try:
            method = Runtime.get().load_program(data).load_method("forward")
        except Exception as error:
            raise EngineError(f"executorch cannot open {names[0]}: {first_line(error)}") from error
        inputs, outputs = names_of(files.read(names[1]), names[1], "executorch")
        return _Session(method, data, inputs, outputs)


class _Session:
    """See ``Session``. One call at a time; samples run one after the other."""

    def __init__(self, method: Any, data: bytes, inputs: list[str], outputs: list[str]) -> None:
        self._method, self._data = method, data  # the program reads from these bytes
        self._inputs, self._outputs = inputs, outputs
        self._lock = threading.Lock()

    @property
    def about(self) -> Mapping[str, str]:
        """The device."""
        return {"device": "CPU"}

    def run(self, arrays: GraphArrays) -> GraphArrays:
        """See ``Session``."""
        import torch

        batch = len(next(iter(arrays.values())))
        rows = []
        with self._lock:
            for i in range(batch):
                given = [torch.from_numpy(arrays[name][i : i + 1].copy()) for name in self._inputs]
                try:
                    values = self._method.execute(given)
                except RuntimeError as error:
                    raise EngineError(f"executorch: {first_line(error)}") from error
                rows.append([value.numpy().copy() for value in values])
        return {
            name: np.concatenate([row[place] for row in rows])
            for place, name in enumerate(self._outputs)
        }
