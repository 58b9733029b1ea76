"""A bundle as a predictor: its engine runs it, without torch."""

import json
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt, TypeAdapter, ValidationError

from mtl_ray.artifact import Artifact, open_artifact
from mtl_ray.backends.backend import AnyEngine, EngineError, first_line
from mtl_ray.backends.config import engine_name
from mtl_ray.inference.predictor import HeadArrays, Predictions
from mtl_ray.inference.signature import Signature, read_signature
from mtl_ray.inference.slide import predict_all, window_canvas
from mtl_ray.inference.statistics import STATISTICS_FILE, Statistics, read_statistics
from mtl_ray.inputs.input import AnyCanvas, Arrays, empty_batch
from mtl_ray.tasks.task import AnyHead

RANGE_FILE = "range.json"
"""The sizes and batches at which each engine was checked. Older bundles have no such file, and
take any.
"""


@dataclass(frozen=True, kw_only=True)
class CheckedRange:
    """Where an engine of a bundle may run.

    Attributes:
        canvases: at which it was checked; empty if any will do.
        max_batch: most samples of one call that was checked; None if any number will do.
    """

    canvases: tuple[AnyCanvas, ...] = ()
    max_batch: int | None = None


class BundlePredictor:
    """Runs the files of a bundle as ``signature.json`` says.

    Args:
        uri: of the bundle.
        threads: of the engine within one call; 0 takes all cores.
        batch: most samples of one call of the network; fewer if the engine takes fewer, or was
            checked with fewer.
        engine: the name of one of its engines; None for the default.

    Attributes:
        entries: of each file of the bundle, as it was opened.

    Raises:
        FileNotFoundError, ValueError: if there is no bundle, it is incomplete, or its engine or a
            plugin is not installed.
    """

    def __init__(
        self, uri: str, threads: int = 0, batch: int = 16, engine: str | None = None
    ) -> None:
        bundle = open_artifact(uri, kind="bundle")
        signature = read_signature(bundle.read("signature.json"))
        self.signature = signature if engine is None else signature.of_engine(engine)
        self.entries = bundle.entries
        self._open(bundle, uri, threads, batch)

    def _open(self, bundle: Artifact, uri: str, threads: int, batch: int) -> None:
        _check_heads(self.signature, uri)
        engine = self.signature.engine
        if (reason := engine.unavailable()) is not None:
            raise EngineError(f"{uri} cannot be opened: {reason}")
        try:
            self.session = engine.open(bundle, self.signature.files, threads)
        except ImportError as error:  # installed, but not whole, such as without a shared library
            raise EngineError(
                f"{uri} cannot be opened: {engine.type} cannot be imported: {first_line(error)}"
            ) from error
        self.heads: Mapping[str, AnyHead] = self.signature.heads
        self.vocabulary = self.signature.vocabulary
        self.canvas: AnyCanvas = self.signature.canvas
        self.slide = self.signature.slide
        if self.slide is not None:
            self.canvas = window_canvas(self.slide, self.canvas, self.heads)
        self.plugins = self.signature.plugins
        range_ = read_range(bundle, engine, self.canvas)
        self.checked = range_.canvases
        limits = (engine.limits().max_batch, range_.max_batch)
        self.max_batch = min((most for most in limits if most is not None), default=None)
        self.batch = min(batch, self.max_batch or batch)
        self.baseline: Statistics | None = (
            read_statistics(bundle.read(STATISTICS_FILE))
            if STATISTICS_FILE in bundle.names
            else None
        )

    @property
    def about(self) -> str:
        """The engine, its device and precision."""
        return ", ".join((self.signature.engine.type, *self.session.about.values()))

    def predict(self, raws: Sequence[Any]) -> list[Predictions]:
        """See ``Predictor``."""
        return predict_all(self, raws)

    def with_canvas(self, canvas: AnyCanvas) -> "BundlePredictor":
        """The same graph on another canvas, which is tried at once.

        Raises:
            ValueError: if its size is outside the range that was checked, or the graph does not run
                at it.
        """
        if self.checked and (range_ := canvas.input.outside(canvas, self.checked)) is not None:
            raise ValueError(
                f"the bundle was not checked at {canvas.input.size_of(canvas)}: {range_}. Fix: "
                "export it with a data.canvas near that size"
            )
        other = copy(self)
        other.canvas, other.slide = canvas, None
        try:
            other.run(empty_batch(canvas, 1))
        except EngineError as error:
            raise ValueError(
                f"the graph of the bundle does not run at {canvas.input.size_of(canvas)} "
                f"(export.size=fixed?): {error}"
            ) from error
        return other

    def run(self, arrays: Arrays) -> HeadArrays:
        """The output arrays of each head for the input arrays of a batch.

        Raises:
            EngineError: if the graph does not run, or is none of this signature.
        """
        values = self.session.run(to_graph(arrays, self.signature))
        names = [output.name for output in self.signature.outputs]
        if missing := [name for name in names if name not in values]:
            raise EngineError(
                f"the graph has no output {missing[0]!r}, which signature.json names: they are of "
                "different bundles"
            )
        outputs: dict[str, dict[str, NDArray[Any]]] = {name: {} for name in self.heads}
        for output in self.signature.outputs:
            outputs[output.head][output.field] = values[output.name]
        return outputs


def _check_heads(signature: Signature, uri: str) -> None:
    """Raises a ValueError if the outputs of a signature are not those of its heads, or an input is
    none of its canvas.
    """
    named = {output.head for output in signature.outputs}
    if strange := sorted(named ^ signature.heads.keys()):
        raise ValueError(
            f"signature.json of {uri} is damaged: {strange[0]!r} is in only one of its heads and "
            "outputs"
        )
    known = signature.canvas.input.arrays(signature.canvas)
    if unknown := [each.field for each in signature.inputs if each.field not in known]:
        raise ValueError(
            f"signature.json of {uri} is damaged: {unknown[0]!r} is no array of its input; there "
            f"is {', '.join(known)}"
        )


def read_range(bundle: Artifact, engine: AnyEngine, own: AnyCanvas) -> CheckedRange:
    """The range at which an engine was checked; its only canvas is ``own``, of the bundle, if the
    file names none.

    Raises:
        ValueError: if the file has another form.
    """
    if RANGE_FILE not in bundle.names:
        return CheckedRange()
    try:
        found = json.loads(bundle.read(RANGE_FILE))["engines"].get(engine_name(engine), {})
        kind = TypeAdapter(type(own))
        canvases = tuple(kind.validate_python(each) for each in found.get("canvases", ()))
        batches = TypeAdapter(tuple[PositiveInt, ...]).validate_python(found.get("batches", ()))
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{RANGE_FILE} of the bundle is damaged: {first['msg']}") from error
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{RANGE_FILE} of the bundle is damaged: {error}") from error
    return CheckedRange(canvases=canvases or (own,), max_batch=max(batches, default=None))


def to_graph(arrays: Arrays, signature: Signature) -> dict[str, NDArray[Any]]:
    """The input arrays by their names in the graph; normalised if the graph does not normalise."""
    return {
        each.name: _for_graph(arrays[each.field], each.dtype, signature)
        for each in signature.inputs
    }


def _for_graph(values: NDArray[Any], dtype: str, signature: Signature) -> NDArray[Any]:
    if values.dtype != np.uint8 or dtype == "uint8":
        return values
    shape = (1, -1) + (1,) * (values.ndim - 2)
    mean, std = (
        np.array(channels, np.float32).reshape(shape)
        for channels in (signature.mean, signature.std)
    )
    return (values.astype(np.float32) - mean) / std
