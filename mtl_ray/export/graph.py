"""From a model to the bytes of an ONNX file: all predicting heads in one graph, sizes left open.

The graph takes an image and, only if a head reads it, ``valid_hw``.

The graph is traced by the exporter of torch 2 (``torch.export``, then onnxscript): shapes stay symbolic, and operators that
only ONNX has, such as NonMaxSuppression, can be put in by a head when ``Context.exporting`` is set.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import onnx
import torch
from torch import Tensor, nn

from mtl_ray.export.config import ExportConfig
from mtl_ray.models.head import Context, Head, dense
from mtl_ray.models.model import Model

Arrays = dict[str, dict[str, Tensor]]
"""By head, then by name."""


class Graph(nn.Module):
    """What is exported: an image and the part of the canvas that it fills become the arrays of each predicting head.

    Args:
        model: the trained model; it is put into evaluation mode.
        config: the layout and the kind of input.
    """

    def __init__(self, model: Model, config: ExportConfig) -> None:
        super().__init__()
        self.model = model.eval()
        self.raw = config.layout == "raw"
        self.normalised = config.input == "float32"

    def forward(self, image: Tensor, valid_hw: Tensor, exporting: bool = True) -> Arrays:
        """``image`` is uint8, or float32 that is normalised already, (B, 3, H, W); ``valid_hw`` is int32 (B, 2)."""
        features = self.model.trunk(image if self.normalised else self.model.normalise(image))
        context = Context(canvas_hw=(image.shape[2], image.shape[3]), valid_hw=valid_hw, exporting=exporting)
        found: Arrays = {}
        for name, module in self.model.heads.items():
            head = cast(Head, module)
            if head.train_only:
                continue
            if self.raw and (proposing := dense(head)) is not None:
                found[name] = {"candidates": join_candidates(proposing.candidates(features, context))}
            else:
                found[name] = head.predict(features, context)
        return found


def join_candidates(candidates: Mapping[str, Tensor]) -> Tensor:
    """Candidates before suppression as (B, N, 5 + C): box xyxy in canvas pixels, objectness, class scores."""
    return torch.cat([candidates["boxes"], candidates["objectness"][..., None], candidates["scores"]], dim=-1)


def output_names(graph: Graph, canvas_hw: tuple[int, int]) -> list[tuple[str, str]]:
    """(head, array) of each output, in the order of the graph."""
    with torch.no_grad():
        return [(head, array) for head, arrays in graph(*example(graph, canvas_hw), False).items() for array in arrays]


def example(graph: Graph, canvas_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """A grey batch of two, which fills half of its canvases: a size of one would be taken for a constant by the tracer."""
    image = torch.full((2, 3, *canvas_hw), 114, dtype=torch.uint8)
    valid_hw = torch.tensor([[canvas_hw[0], canvas_hw[1] // 2]] * 2, dtype=torch.int32)
    return image / 255 if graph.normalised else image, valid_hw


def to_onnx(
    graph: Graph, canvas_hw: tuple[int, int], inputs: Sequence[str], outputs: Sequence[str], config: ExportConfig
) -> onnx.ModelProto:
    """Traces the graph and checks the file, which has the second input only if a head reads ``valid_hw``.

    Args:
        graph: what to export, on the CPU.
        canvas_hw: height and width of the example, pixels.
        inputs: the names of ``image`` and ``valid_hw`` in the file.
        outputs: their names in the file.
        config: the opset, and which sizes stay open.

    Raises:
        ValueError: if the network cannot be traced with these sizes left open.
    """
    sizes = {0: "batch", 2: "height", 3: "width"} if config.size == "dynamic" else {0: "batch"}
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                graph,
                example(graph, canvas_hw),
                dynamo=True,
                dynamic_shapes=(sizes, {0: "batch"}),
                input_names=list(inputs),
                output_names=list(outputs),
                opset_version=config.opset,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().splitlines()[0]
            hint = "; export.size=fixed keeps the canvas as it was trained" if config.size == "dynamic" else ""
            raise ValueError(f"this network cannot be written as ONNX ({reason}){hint}") from error
    assert program is not None
    model = program.model_proto
    _drop_unread(model, inputs[1])
    _name_anchors(model)
    del model.graph.value_info[:]  # NonMaxSuppression's is a bound, and onnxruntime would share a buffer among two heads' by it
    onnx.checker.check_model(model, full_check=True)
    return model


def _drop_unread(model: onnx.ModelProto, name: str) -> None:
    """Takes an input that nothing reads out of the file."""
    if name not in set(_read_names(model.graph)):
        for value in [each for each in model.graph.input if each.name == name]:
            model.graph.input.remove(value)


def _read_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Every name that is read by a node of the graph, or of a graph within one of its nodes, or given back."""
    yield from (output.name for output in graph.output)
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                yield from _read_names(inner)


def _name_anchors(model: onnx.ModelProto) -> None:
    """The number of candidates is an expression in height and width; a reader of the file wants a name there."""
    for output in model.graph.output:
        for dim in output.type.tensor_type.shape.dim:
            if "(" in dim.dim_param:
                dim.dim_param = "anchors"


@contextmanager
def _quiet() -> Iterator[None]:
    """Holds back what the exporter says of its own insides."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
