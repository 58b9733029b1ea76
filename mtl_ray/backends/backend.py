"""The protocol of an engine, which turns an exported graph into files and runs them.

An engine is its config class: a pydantic dataclass with a literal ``type`` (the slot ``engines``,
``export.engine``), which is stored in a bundle's ``signature.json``. Bundles, parity, evaluation
and serving call its methods and name no engine. Neither torch nor ray is imported here, and an
engine imports its library in ``build`` and ``open`` only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch.export import ExportedProgram

GraphArrays = Mapping[str, NDArray[Any]]
"""By the name of an input or an output of the graph, batch first."""


class EngineError(ValueError):
    """An engine is not installed or cannot build or open a graph, or a graph does not run. The
    message is one sentence that names the engine.
    """


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A checked graph, from which an engine builds its files.

    Attributes:
        onnx: the ONNX file. Its inputs, outputs and dynamic axes have names.
        program: the same graph of ``torch.export``, for engines that do not read ONNX. It takes all
            of ``example`` by position and returns the outputs by position; the ONNX file has only
            the inputs that it reads.
        example: an input of the graph, a batch of two, in the order of ``program``.
        outputs: the names of the outputs, in their order.
    """

    onnx: bytes
    program: "ExportedProgram | None"
    example: GraphArrays
    outputs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class EngineLimits:
    """What an engine cannot do.

    Attributes:
        max_batch: most samples of one call; None if only memory limits it.
        open_sizes: False if the axes of inputs other than the batch must be fixed
            (``export.size=fixed``).
        notes: a sentence for each other limit, which an export prints.
    """

    max_batch: int | None = None
    open_sizes: bool = True
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
