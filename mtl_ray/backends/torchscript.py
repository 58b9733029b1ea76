"""TorchScript, for programs that embed libtorch. It is deprecated in torch and slower than ONNX
Runtime, and exact.
"""

import io
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

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

FILE = "model.torchscript"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TorchScriptEngine:
    """TorchScript, traced, on the CPU."""

    type: Literal["torchscript"]
    precision: Literal["fp32"] = "fp32"

    def unavailable(self) -> str | None:
        """See ``AnyEngine``."""
        if find_spec("torch") is None:
            return "torch is not installed (Fix: pip install torch)"
        return None

    def limits(self) -> EngineLimits:
        """See ``AnyEngine``."""
        return EngineLimits(suppression=False)

    def build(self, exported: Exported, folder: Path) -> Mapping[str, bytes | Path]:
        """A trace of the graph with torch's own operators, and the names of inputs and outputs."""
        import torch

        assert exported.module is not None
        example = tuple(torch.from_numpy(exported.example[name]) for name in exported.inputs)
        names = "\n".join((",".join(exported.inputs), ",".join(exported.outputs)))
        file = io.BytesIO()
        with _quiet(), torch.no_grad():
            try:
                traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                    exported.module, example, check_trace=False
                )
                torch.jit.save(traced, file, _extra_files={"names": names.encode()})
            except RuntimeError as error:
                raise EngineError(
                    f"torchscript cannot hold the graph: {first_line(error)}"
                ) from error
        return {FILE: _without_sources(file)}

    def open(self, files: BundleFiles, names: tuple[str, ...], threads: int) -> Session:
        """See ``AnyEngine``. ``threads`` is that of torch, which has one number for a process."""
        import torch

        (name,) = names
        data, extra = files.read(name), {"names": b""}
        with _quiet():
            try:
                loaded = torch.jit.load(  # type: ignore[no-untyped-call]
                    io.BytesIO(data), map_location="cpu", _extra_files=extra
                ).eval()
            except (RuntimeError, ValueError) as error:
                raise EngineError(f"torchscript cannot open {name}: {first_line(error)}") from error
        inputs, outputs = names_of(bytes(extra["names"]), name, "torchscript")
        return _Session(loaded, inputs, outputs)


class _Session:
    """See ``Session``."""

    def __init__(self, loaded: Any, inputs: list[str], outputs: list[str]) -> None:
        self._loaded, self._inputs, self._outputs = loaded, inputs, outputs

    @property
    def about(self) -> Mapping[str, str]:
        """The device."""
        return {"device": "CPU"}

    def run(self, arrays: GraphArrays) -> GraphArrays:
        """See ``Session``."""
        import torch

        with torch.inference_mode():
            try:
                values = self._loaded(*(torch.from_numpy(arrays[name]) for name in self._inputs))
            except (RuntimeError, KeyError) as error:
                raise EngineError(f"torchscript: {_reason(error)}") from error
        return {name: value.numpy() for name, value in zip(self._outputs, values, strict=True)}


def _reason(error: Exception) -> str:
    """What an operator says; before it the interpreter writes where in the graph it stands."""
    said = [line for line in str(error).splitlines() if line.startswith("RuntimeError: ")]
    return said[-1].removeprefix("RuntimeError: ") if said else first_line(error)


def _without_sources(file: io.BytesIO) -> bytes:
    """The archive without its notes of where in the code a line came from, which hold paths of
    this machine.
    """
    kept = io.BytesIO()
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(kept, "w") as to:
        for entry in source.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                to.writestr(entry, source.read(entry))
    return kept.getvalue()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's notes on its age, and on Python values in a trace: parity says what fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
