"""An engine's part of a bundle: the graph is traced in a form that the engine holds, its files are
built and signed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from mtl_ray.backends.backend import AnyEngine, Calibration, EngineError, Exported, first_line
from mtl_ray.config.extend import extended, used_plugins
from mtl_ray.export.calibrated import build_cached
from mtl_ray.export.config import ExportConfig
from mtl_ray.export.graph import (
    ExportGraph,
    TorchGraph,
    Traced,
    example_inputs,
    output_names,
    to_onnx,
)
from mtl_ray.inference.signature import InputSignature, OutputSignature, Signature
from mtl_ray.inference.torch_predictor import TorchPredictor
from mtl_ray.models.head import dense

MAX_BYTES = 2_000_000_000
"""An ONNX file is a protobuf message, whose limit is 2 GiB."""


def check_engine(config: ExportConfig) -> None:
    """Raises a ValueError if the engine is not installed or cannot do what the config says."""
    engine = config.engine
    if (reason := engine.unavailable()) is not None:
        raise ValueError(f"export.engine: {reason}")
    if config.size == "dynamic" and not engine.limits().open_sizes:
        raise ValueError(f"export.engine: {engine.type} needs fixed sizes (Fix: export.size=fixed)")


def check_layout(predictor: TorchPredictor, config: ExportConfig) -> None:
    """Raises a ValueError if the layout ``raw`` would lose masks or keypoints: candidates are boxes
    and scores.
    """
    for name, head in predictor.model.predicting() if config.layout == "raw" else ():
        if dense(head) is not None and (further := predictor.heads[name].fields):
            raise ValueError(
                f"export.layout=raw holds boxes and scores only, and the head {name} predicts "
                f"{' and '.join(sorted(further))}. Fix: export.layout=end2end"
            )


def form_for(engine: AnyEngine, config: ExportConfig) -> ExportConfig:
    """The config of the graph that a further engine can hold: as ``config`` where it can."""
    limits = engine.limits()
    return replace(
        config,
        engine=engine,
        engines=(),
        layout=config.layout if limits.suppression else "raw",
        input=config.input if limits.byte_inputs else "float32",
        size=config.size if limits.open_sizes else "fixed",
    )


@dataclass(frozen=True, kw_only=True)
class TracedGraph:
    """A graph in one form, before any engine.

    Attributes:
        graph: the module.
        traced: its ONNX file.
        names: of its inputs, by field.
        outputs: what they mean.
    """

    graph: ExportGraph
    traced: Traced
    names: Mapping[str, str]
    outputs: tuple[OutputSignature, ...]

    def exported(self, calibration: Calibration) -> Exported:
        """What an engine builds from."""
        arrays = {
            self.names[field]: values.numpy()
            for field, values in zip(self.graph.names, example_inputs(self.graph), strict=True)
        }
        return Exported(
            onnx=self.traced.model.SerializeToString(),
            program=self.traced.program,
            module=TorchGraph(self.graph, self.traced.inputs),
            example=arrays,
            inputs=tuple(self.names[field] for field in self.traced.inputs),
            outputs=tuple(output.name for output in self.outputs),
            calibration=calibration,
        )


def trace(predictor: TorchPredictor, config: ExportConfig) -> TracedGraph:
    """Traces the graph of a model.

    Raises:
        ValueError: if the layout does not fit its heads, or it cannot be traced.
    """
    check_layout(predictor, config)
    if predictor.slide is not None:
        config = replace(config, maps="logits")
    graph = ExportGraph(predictor.model, predictor.canvas, config)
    names = {
        field: f"INPUT__{i}" if config.names == "triton" else field
        for i, field in enumerate(graph.names)
    }
    outputs = _outputs(output_names(graph), config)
    traced = to_onnx(graph, names, [output.name for output in outputs], config)
    if traced.model.ByteSize() > MAX_BYTES:
        raise ValueError(
            f"the graph has {traced.model.ByteSize():,} bytes, an ONNX file may have {MAX_BYTES:,}"
        )
    return TracedGraph(graph=graph, traced=traced, names=names, outputs=outputs)


@dataclass(frozen=True, kw_only=True)
class Built:
    """The files of an engine and its signature."""

    files: Mapping[str, bytes | Path]
    signature: Signature

    @property
    def num_bytes(self) -> int:
        """Of its files."""
        return sum(
            len(each) if isinstance(each, bytes) else each.stat().st_size
            for each in self.files.values()
        )


def build(
    predictor: TorchPredictor,
    traced: TracedGraph,
    config: ExportConfig,
    folder: Path,
    plugins: tuple[str, ...] = (),
    calibration: Calibration | None = None,
) -> Built:
    """Builds the files of ``config.engine`` in an empty folder.

    Raises:
        EngineError: if the engine does not hold the graph, or its library is not whole.
    """
    exported = traced.exported(calibration or Calibration())
    try:
        built = build_cached(config.engine, exported, folder)
    except ImportError as error:
        raise EngineError(
            f"{config.engine.type} cannot be imported: {first_line(error)}"
        ) from error
    precision = config.engine.precision
    files = {
        name if precision == "fp32" or precision in name else f"{precision}.{name}": file
        for name, file in built.items()
    }  # an engine may be in a bundle with each of its precisions
    return Built(files=files, signature=sign(predictor, traced, config, tuple(files), plugins))


def _inputs(
    graph: ExportGraph, traced: Traced, names: Mapping[str, str]
) -> tuple[InputSignature, ...]:
    """The inputs of the graph, in their order."""
    specs = graph.canvas.input.arrays(graph.canvas)
    dtypes = {field: np.dtype(spec.dtype).name for field, spec in specs.items()}
    read = graph.model.trunk.input
    if graph.normalised and dtypes[read] == "uint8":
        dtypes[read] = "float32"
    return tuple(
        InputSignature(name=names[field], field=field, dtype=dtypes[field])
        for field in traced.inputs
    )


def _outputs(
    arrays: Sequence[tuple[str, str]], config: ExportConfig
) -> tuple[OutputSignature, ...]:
    """The names and meaning of the outputs of the graph, of (head, array) in their order."""
    triton = config.names == "triton"
    return tuple(
        OutputSignature(
            name=f"OUTPUT__{index}" if triton else f"{head}.{array}", head=head, field=array
        )
        for index, (head, array) in enumerate(arrays)
    )


def sign(
    predictor: TorchPredictor,
    traced: TracedGraph,
    config: ExportConfig,
    files: tuple[str, ...],
    plugins: tuple[str, ...] = (),
) -> Signature:
    """The signature of a bundle with one engine and these files."""
    plugins = tuple(dict.fromkeys((*predictor.plugins, *plugins)))
    return extended(Signature, plugins)(
        plugins=used_plugins((predictor.heads, predictor.canvas, config.engine), plugins),
        engine=config.engine,
        files=files,
        inputs=_inputs(traced.graph, traced.traced, traced.names),
        outputs=traced.outputs,
        layout=config.layout,
        canvas=cast(Any, predictor.canvas),  # its class may come from a plugin
        mean=tuple(predictor.model.mean.flatten().tolist()),
        std=tuple(predictor.model.std.flatten().tolist()),
        heads=dict(predictor.heads),
        vocabulary=predictor.vocabulary,
        slide=predictor.slide,
    )
