"""The protocol of an engine, which turns an exported graph into files and runs them.

An engine is its config class: a pydantic dataclass with a literal ``type`` (the slot ``engines``,
``export.engine``), which is stored in a bundle's ``signature.json``. Bundles, parity, evaluation
and serving call its methods and name no engine. Neither torch nor ray is imported here, and an
engine imports its library in ``build`` and ``open`` only.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

GraphArrays = Mapping[str, NDArray[Any]]
"""By the name of an input or an output of the graph, batch first."""


class EngineError(ValueError):
    """An engine is not installed or cannot build or open a graph, or a graph does not run. The
    message is one sentence that names the engine.
    """


Precision = Literal["fp32", "fp16", "int8"]
"""fp32 computes as torch does. fp16: half the bytes. int8: integers of one byte, calibrated on
samples of the training split.
"""


_MOST_NAMES = 50
"""Most names of nodes in a message."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Samples from which an engine takes the range of each tensor, for int8.

    Attributes:
        batches: inputs of the graph, a batch of one each.
        exclude: regular expressions; nodes of the ONNX file with such a name stay fp32.
        source: the samples in words.
    """

    batches: Sequence[GraphArrays] = ()
    exclude: tuple[str, ...] = ()
    source: str = ""

    def excluded(self, name: str) -> bool:
        """Whether a node stays fp32."""
        return any(re.search(pattern, name) for pattern in self.exclude)

    def check(self, names: Sequence[str]) -> None:
        """Raises an EngineError if one of ``exclude`` matches no node.

        Args:
            names: of the convolutions and matrix products that would become int8.
        """
        shown = ", ".join((*names[:_MOST_NAMES], *["..."] * (len(names) > _MOST_NAMES)))
        for pattern in self.exclude:
            if not any(re.search(pattern, name) for name in names):
                raise EngineError(
                    f"export.calibration.exclude: {pattern!r} matches none of the nodes that would "
                    f"become int8: {shown}"
                )


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A checked graph, from which an engine builds its files.

    Attributes:
        onnx: the ONNX file. Its inputs, outputs and dynamic axes have names.
        program: the same graph of ``torch.export``. It takes all of ``example`` by position and
            returns the outputs by position; a session gets only the inputs that the graph reads, so
            ``module`` is easier for engines that do not read ONNX.
        example: an input of the graph, a batch of two, in the order of ``program``.
        outputs: the names of the outputs, in their order.
        inputs: the names of the inputs that the ONNX file reads, in its order.
        module: the same graph in torch, with torch's own operators; it takes ``inputs`` by position
            and returns the outputs by position.
        calibration: for int8.
    """

    onnx: bytes
    program: "ExportedProgram | None"
    example: GraphArrays
    outputs: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    module: "nn.Module | None" = None
    calibration: Calibration = field(default_factory=Calibration)


@dataclass(frozen=True, kw_only=True)
class EngineLimits:
    """What an engine cannot do.

    Attributes:
        max_batch: most samples of one call; None if only memory limits it.
        open_sizes: False if the axes of inputs other than the batch must be fixed
            (``export.size=fixed``).
        byte_inputs: False if images must be normalised before the graph (``export.input=float32``).
        suppression: False if it has no non-maximum suppression (``export.layout=raw``).
        notes: a sentence for each other limit, which an export prints.
    """

    max_batch: int | None = None
    open_sizes: bool = True
    byte_inputs: bool = True
    suppression: bool = True
    notes: tuple[str, ...] = ()


class BundleFiles(Protocol):
    """The files of a bundle; each is checked when it is read."""

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        ...

    def fetch(self, name: str, path: Path) -> None:
        """Copies a file to a local path, for an engine that can only read local files."""
        ...


class Session(Protocol):
    """An opened graph. Several threads may call ``run`` at the same time."""

    @property
    def about(self) -> Mapping[str, str]:
        """Facts that the engine states: device or provider, precision."""
        ...

    def run(self, arrays: GraphArrays) -> GraphArrays:
        """The outputs of a batch.

        Args:
            arrays: ``Exported.inputs``, those that the graph reads, and no others.

        Raises:
            EngineError: if it does not run.
        """
        ...


class AnyEngine(Protocol):
    """The protocol of an engine's config class."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def type(self) -> str:
        """Its name in configs and bundles."""
        ...

    @property
    def precision(self) -> Precision:
        """Of its numbers."""
        ...

    def unavailable(self) -> str | None:
        """One sentence that says why it cannot be used on this machine and what to install; None if
        it can.
        """
        ...

    def limits(self) -> EngineLimits:
        """What it cannot do."""
        ...

    def build(self, exported: Exported, folder: Path) -> Mapping[str, bytes | Path]:
        """The files of a bundle by name, from which ``open`` makes a session.

        Args:
            exported: the graph.
            folder: an empty folder that it may write to.

        Raises:
            EngineError: if the engine does not support the graph.
        """
        ...

    def open(self, files: BundleFiles, names: tuple[str, ...], threads: int) -> Session:
        """Opens the files of ``build``.

        Args:
            files: of the bundle.
            names: of the files of ``build``, in its order.
            threads: for one call; 0 takes all cores.

        Raises:
            EngineError: if the engine cannot read them.
        """
        ...


_PLACE = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : |/\S+:\d+ [^()]*\([^()]*\)(?: const)? ", re.ASCII
)
"""What ONNX Runtime puts before its messages: its number, and a place in its source."""
_MOST = 300
"""Most characters of an engine's own message."""


def first_line(error: Exception) -> str:
    """The line of an engine's message that says what is wrong; a message may have many.

    OpenVINO first names places in its source, and at last, after dashes, operators.
    """
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    told = [line for line in lines if not line.endswith(":")] or lines or [type(error).__name__]
    more = [line.removeprefix("-- ") for line in told[1:] if line.startswith("-- ")]
    return _PLACE.sub("", " ".join((told[0], *more[:1])))[:_MOST]


def check_precision(engine: AnyEngine, name: str, found: Precision) -> None:
    """Raises an EngineError if the precision of a file is not that in the signature of its bundle.
    One of them was changed after the export, so the parity check was of another engine.
    """
    if found != engine.precision:
        raise EngineError(
            f"{engine.type} cannot open {name}: its precision is {found}, but signature.json says "
            f"{engine.precision}"
        )


def names_of(data: bytes, file: str, engine: str, lines: int = 2) -> list[list[str]]:
    """The names of inputs and of outputs, and what else an engine wrote into a file: a line each,
    separated by commas.

    Raises:
        EngineError: if the file has fewer lines.
    """
    try:
        found = data.decode().split("\n")
    except UnicodeDecodeError:
        found = []
    if len(found) < lines or not all(found[:lines]):
        raise EngineError(f"{engine} cannot open {file}: it is damaged")
    return [line.split(",") for line in found[:lines]]
