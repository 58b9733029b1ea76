"""What an engine is: it turns an exported graph into files, and runs them.

The config class of an engine is all of it: a pydantic dataclass with a literal ``type`` (the slot
``engines``, ``export.engine``), which travels in a bundle's ``signature.json``. Bundles, parity,
evaluation and serving ask it and name no engine. Neither torch nor ray is imported here, and an
engine imports its library when it is asked to build or to open.
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
    """An engine is not here, cannot build or open a graph, or a graph does not run. One sentence,
    which names the engine.
    """


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A checked graph, of which an engine makes its files.

    Attributes:
        onnx: the ONNX file. Its inputs and outputs have names; axes that are open have names too.
        program: the same of ``torch.export``, for engines that do not read ONNX. It takes all of
            ``example`` by position and gives the outputs by position; the ONNX file has only the
            inputs that something reads.
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
        max_batch: the most samples of one call; None for as many as fit into memory.
        open_sizes: False if the axes of inputs other than the batch must be fixed
            (``export.size=fixed``).
        notes: a sentence for each thing else, which an export prints.
    """

    max_batch: int | None = None
    open_sizes: bool = True
    notes: tuple[str, ...] = ()


class BundleFiles(Protocol):
    """The files of a bundle; each is checked as it is read."""

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        ...

    def fetch(self, name: str, path: Path) -> None:
        """Copies a file to a local path, for an engine that reads files only."""
        ...


class Session(Protocol):
    """An opened graph. Several threads may call ``run`` at the same moment."""

    @property
    def about(self) -> Mapping[str, str]:
        """What runs it, as the engine says when it is asked: device or provider, precision."""
        ...

    def run(self, arrays: GraphArrays) -> GraphArrays:
        """The outputs of a batch.

        Raises:
            EngineError: if it does not run.
        """
        ...


class AnyEngine(Protocol):
    """What the config class of every engine has."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def type(self) -> str:
        """Its name in configs and bundles."""
        ...

    def unavailable(self) -> str | None:
        """Why it cannot be used on this machine, in one sentence that says what to install; None if
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
            EngineError: if the graph has something that the engine does not know.
        """
        ...

    def open(self, files: BundleFiles, names: tuple[str, ...], threads: int) -> Session:
        """Opens what ``build`` gave.

        Args:
            files: of the bundle.
            names: the files that ``build`` gave, in its order.
            threads: for one call; 0 takes all cores.

        Raises:
            EngineError: if the engine cannot read them.
        """
        ...
