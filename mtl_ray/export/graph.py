"""From a model to an ONNX file: all predicting heads in one graph, with symbolic sizes.

The graph takes the arrays of the input that it reads (of images ``image`` and ``valid_hw``).

It is traced by the exporter of torch 2 (``torch.export``, then onnxscript). A head can use
operators that only ONNX has, such as NonMaxSuppression, if ``Context.exporting`` is set.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from mtl_ray.export.config import ExportConfig
from mtl_ray.inputs.input import AnyCanvas, empty_batch
from mtl_ray.models.head import NotExportableError, dense
from mtl_ray.models.model import Model
from mtl_ray.terminal import errors_only

HeadTensors = dict[str, dict[str, Tensor]]
"""By head, then by name."""


class ExportGraph(nn.Module):
    """The exported module: from the arrays of an input to those of each predicting head.

    Args:
        model: the trained model; it is set to evaluation mode.
        canvas: of the network.
        config: the layout and the kind of input.
    """

    def __init__(self, model: Model, canvas: AnyCanvas, config: ExportConfig) -> None:
        super().__init__()
        self.model = model.eval()
        self.canvas = canvas
        self.raw = config.layout == "raw"
        self.logits = self.raw or config.maps == "logits"
        self.normalised = config.input == "float32"
        self.names = tuple(canvas.input.arrays(canvas))

    def forward(self, *arrays: Tensor, exporting: bool = True) -> HeadTensors:
        """``arrays`` in the order of ``names``, batch first. The trunk's array may be
        normalised float32.
        """
        inputs = dict(zip(self.names, arrays, strict=True))
        if not self.raw:
            return self.model.predict(inputs, exporting, self.logits)
        features, context = self.model.prepare(inputs, exporting=exporting, logits=True)
        outputs: HeadTensors = {}
        for name, head in self.model.predicting():
            if (proposing := dense(head)) is not None:
                outputs[name] = {
                    "candidates": join_candidates(proposing.candidates(features, context))
                }
            else:
                outputs[name] = head.predict(features, context)
        return outputs

    def arguments(self, arrays: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The arguments of ``forward`` for the arrays of the input."""
        read = self.model.trunk.input
        inputs = (
            {**arrays, read: self.model.normalise(arrays[read]).contiguous()}
            if self.normalised
            else arrays
        )
        return tuple(inputs[name] for name in self.names)


class TorchGraph(nn.Module):
    """The graph with torch's own operators and outputs by position, for engines that read torch
    instead of ONNX.

    Args:
        graph: the whole.
        read: the fields of the inputs that it reads; it takes these alone, in this order.
    """

    def __init__(self, graph: ExportGraph, read: tuple[str, ...]) -> None:
        super().__init__()
        self.whole, self.read = graph, read  # ``graph`` is an attribute of torch.fx's modules
        self.rest = {
            name: array
            for name, array in zip(graph.names, example_inputs(graph), strict=True)
            if name not in read
        }

    def forward(self, *arrays: Tensor) -> tuple[Tensor, ...]:
        """As ``ExportGraph``; the outputs are in the order of ``output_names``."""
        given = {**self.rest, **dict(zip(self.read, arrays, strict=True))}
        heads = self.whole(*(given[name] for name in self.whole.names), exporting=False)
        return tuple(value for fields in heads.values() for value in fields.values())


def join_candidates(candidates: Mapping[str, Tensor]) -> Tensor:
    """Candidates before suppression as (B, N, 5 + C): box xyxy in canvas pixels, objectness, class
    scores.
    """
    return torch.cat(
        [candidates["boxes"], candidates["objectness"][..., None], candidates["scores"]], dim=-1
    )


def output_names(graph: ExportGraph) -> list[tuple[str, str]]:
    """(head, array) of each output, in the order of the graph."""
    with torch.no_grad():
        return [
            (head, array)
            for head, arrays in graph(*example_inputs(graph), exporting=False).items()
            for array in arrays
        ]


def example_inputs(graph: ExportGraph) -> tuple[Tensor, ...]:
    """A batch of two empty samples: the tracer takes a size of one for a constant."""
    arrays = empty_batch(graph.canvas, 2)
    return graph.arguments(
        {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()}
    )


@dataclass(frozen=True, kw_only=True)
class Traced:
    """A traced graph.

    Attributes:
        model: the ONNX file.
        program: of ``torch.export``.
        inputs: the fields of the inputs of the file.
    """

    model: onnx.ModelProto
    program: ExportedProgram | None
    inputs: tuple[str, ...]


def to_onnx(
    graph: ExportGraph, inputs: Mapping[str, str], outputs: Sequence[str], config: ExportConfig
) -> Traced:
    """Traces the graph and checks the file, which has only the inputs that the graph reads.

    Args:
        graph: what to export, on the CPU.
        inputs: the names of the arrays of the input in the file, by field.
        outputs: their names in the file.
        config: the opset, and which sizes are symbolic.

    Raises:
        ValueError: if the network cannot be traced with these symbolic sizes.
        NotExportableError: of a part of it.
    """
    arrays = example_inputs(graph)
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                graph,
                arrays,
                dynamo=True,
                dynamic_shapes=(_open_axes(graph, config),),
                input_names=[inputs[name] for name in graph.names],
                output_names=list(outputs),
                opset_version=config.opset,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            if isinstance(error.__cause__, NotExportableError):
                raise error.__cause__ from None
            reason = str(error.__cause__ or error).strip().splitlines()[0].partition(" See the ")[0]
            hint = (
                ". Fix: export.size=fixed, which keeps the canvas of the training"
                if config.size == "dynamic"
                else ""
            )
            raise ValueError(f"this network cannot be written as ONNX ({reason}){hint}") from error
    assert program is not None
    model = program.model_proto
    read = set(_read_names(model.graph))
    for value in [each for each in model.graph.input if each.name not in read]:
        model.graph.input.remove(value)
    _name_anchors(model)
    _forget_sources(model.graph)
    del model.graph.value_info[
        :
        # the declared shape of NonMaxSuppression is a bound, by which onnxruntime would share a
        # buffer between two heads
    ]
    onnx.checker.check_model(model, full_check=True)
    kept = {each.name for each in model.graph.input}
    return Traced(
        model=model,
        program=program.exported_program,
        inputs=tuple(field for field in graph.names if inputs[field] in kept),
    )


def _open_axes(graph: ExportGraph, config: ExportConfig) -> tuple[dict[int, str], ...]:
    """The names of the symbolic axes of each input; the batch is the first."""
    specs = graph.canvas.input.arrays(graph.canvas).values()
    dynamic = config.size == "dynamic"
    return tuple(
        {
            0: "batch",
            **{axis + 1: name for axis, name in spec.open_axes.items() if dynamic or spec.ragged},
        }
        for spec in specs
    )


def _read_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Every name that a node of the graph or of a nested graph reads, and the outputs."""
    yield from (output.name for output in graph.output)
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                yield from _read_names(inner)


def _name_anchors(model: onnx.ModelProto) -> None:
    """Names the number of candidates, which is an expression of height and width, ``anchors``."""
    for output in model.graph.output:
        for dim in output.type.tensor_type.shape.dim:
            if "(" in dim.dim_param:
                dim.dim_param = "anchors"


def _forget_sources(graph: onnx.GraphProto) -> None:
    """Removes the exporter's notes of where in the code a node came from: they hold paths of this
    machine, and would make equal models differ. ``namespace``, the module, stays for viewers.
    """
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        kept = [each for each in part.metadata_props if each.key == "namespace"]
        del part.metadata_props[:]
        part.metadata_props.extend(kept)
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _forget_sources(inner)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses log messages and warnings of the exporter."""
    loggers = map(logging.getLogger, ("onnx_ir", "onnxscript"))
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            stack.enter_context(errors_only(logger))
        yield
