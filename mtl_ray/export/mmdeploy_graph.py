"""The graph of a folder for MMDeploy's runtime: it takes an image as it is, and gives what the
runtime returns.

The runtime's own transforms cannot express ``place``: their letterbox swaps the sides of the canvas
for upright images, and they have no mean over what a pixel covers. So the graph does it, in the
integers of OpenCV (``modules/imgproc/src/resize.cpp``), bit for bit, and maps predictions back to
the image. All that is left to the runtime is the order of the channels.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mtl_ray.inputs.image import Canvas

INPUT = "input"
"""float32 (1, 3, height, width) RGB, 0 to 255, any size."""
OPSET, IR_VERSION = 18, 8
"""ONNX Runtime 1.15, which the runtime has inside, reads opset 19 and IR 9 at most; the exporter
writes 18 without a conversion.
"""
_BITS = 11
"""OpenCV's weights are integers of 1 / 2 ** 11."""
_INT32, _INT64 = TensorProto.INT32, TensorProto.INT64
_FLOAT, _DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE


@dataclass
class _Nodes:
    """Nodes of a graph as they are added; a call adds one and returns the name of its output."""

    prefix: str
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def __call__(self, kind: str, *inputs: Any, name: str | None = None, **attributes: Any) -> str:
        """Inputs are names, or numpy values that become constants."""
        names = [each if isinstance(each, str) else self.constant(each) for each in inputs]
        output = name or f"{self.prefix}/{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [output], **attributes))
        return output

    def constant(self, value: Any) -> str:
        """A constant with the type of a numpy value."""
        name = f"{self.prefix}/constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def cast(self, value: str, kind: int) -> str:
        """``value`` in another type."""
        return self("Cast", value, to=kind)

    def vector(self, *values: Any) -> str:
        """Scalars as one int64 vector."""
        rows = [
            self("Reshape", each, np.array([1])) if isinstance(each, str) else np.array([each])
            for each in values
        ]
        return self("Concat", *rows, axis=0)


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """Names of the scalars of one axis, as in ``Frame``: int64, the last two double."""

    length: str
    shown: str
    first: str
    valid: str
    scale: str
    offset: str


def sdk_graph(
    model: onnx.ModelProto,
    canvas: Canvas,
    inputs: dict[str, str],
    outputs: dict[str, str],
) -> onnx.ModelProto:
    """The graph with the image's own size at both ends.

    Args:
        model: a graph that takes uint8 images on the canvas; it is changed.
        canvas: how images are placed.
        inputs: the names of its inputs by field (``image``, ``valid_hw``).
        outputs: the names of the arrays of one head by field; other outputs are dropped.

    Returns:
        The graph with the input ``INPUT``, and the outputs ``dets`` (1, N, 5) canvas boxes on the
        image with scores and ``labels`` (1, N), or ``output``: (1, 1, height, width) classes, or
        (1, C) scores.

    Raises:
        ValueError: if MMDeploy's runtime has nothing for such arrays.
    """
    before, after = _Nodes("place"), _Nodes("answer")
    rows, columns = _axes(before, canvas)
    placed = _placed(before, canvas, rows, columns)
    before("Cast", placed, name=inputs["image"], to=TensorProto.UINT8)
    if "valid_hw" in inputs:
        valid = before("Reshape", before.vector(rows.valid, columns.valid), np.array([1, 2]))
        before("Cast", valid, name=inputs["valid_hw"], to=_INT32)
    answers = _answers(after, outputs, rows, columns)
    graph = model.graph
    nodes = [*before.nodes, *graph.node, *after.nodes]
    constants = [*graph.initializer, *before.constants, *after.constants]
    shape = [1, 3, "height", "width"]
    taken = helper.make_tensor_value_info(INPUT, _FLOAT, shape)
    whole = helper.make_graph(nodes, "mmdeploy", [taken], answers, constants)
    made = helper.make_model(
        whole,
        opset_imports=list(model.opset_import),
        functions=list(model.functions),
        producer_name="mtl_ray",
    )
    made.ir_version = IR_VERSION
    onnx.checker.check_model(made)
    return made


def _axes(n: _Nodes, canvas: Canvas) -> tuple[_Axis, _Axis]:
    """``frame_of`` for rows and columns, in its double precision."""
    shape = n("Shape", INPUT)
    lengths = [n("Gather", shape, np.int64(axis)) for axis in (2, 3)]
    sides = canvas.height, canvas.width
    ratios = [
        n("Div", np.float64(side), n.cast(length, _DOUBLE))
        for side, length in zip(sides, lengths, strict=True)
    ]
    scale = n("Min" if canvas.kind == "letterbox" else "Max", *ratios)
    axes = []
    for length, side in zip(lengths, sides, strict=True):
        shown, valid = length, n("Identity", np.int64(side))
        if canvas.kind == "letterbox":
            valid = _rounded(n, n("Mul", n.cast(length, _DOUBLE), scale))
        elif canvas.kind == "crop":
            shown = _rounded(n, n("Div", np.float64(side), scale))
        first = n("Div", n("Sub", length, shown), np.int64(2))
        ratio = n("Div", n.cast(valid, _DOUBLE), n.cast(shown, _DOUBLE))
        offset = n("Neg", n("Mul", n.cast(first, _DOUBLE), ratio))
        axes.append(
            _Axis(length=length, shown=shown, first=first, valid=valid, scale=ratio, offset=offset)
        )
    return axes[0], axes[1]


def _rounded(n: _Nodes, value: str) -> str:
    """A side of at least one pixel, halves to even as Python rounds."""
    return n("Max", n.cast(n("Round", value), _INT64), np.int64(1))


def _placed(n: _Nodes, canvas: Canvas, rows: _Axis, columns: _Axis) -> str:
    """``place``: (1, 3, canvas height, canvas width) int32."""
    values = n.cast(INPUT, _INT32)
    end = [n("Add", axis.first, axis.shown) for axis in (rows, columns)]
    begin = n.vector(rows.first, columns.first)
    shown = n("Slice", values, begin, n.vector(*end), np.array([2, 3]))
    resized = (
        _area(n, shown, rows, columns)
        if canvas.kernel == "area"
        else _bilinear(n, shown, rows, columns, rows.valid, columns.valid)
    )
    missing = [
        n("Sub", np.int64(side), axis.valid)
        for side, axis in ((canvas.height, rows), (canvas.width, columns))
    ]
    pads = n.vector(0, 0, 0, 0, 0, 0, *missing)
    padded = n("Pad", resized, pads, np.int32(canvas.pad))
    return n("Reshape", padded, np.array([1, 3, canvas.height, canvas.width]))


def _area(n: _Nodes, values: str, rows: _Axis, columns: _Axis) -> str:
    """``scaled``: bilinear samples, and the mean of those of a pixel."""
    samples = [
        n("Div", n("Sub", n("Add", axis.shown, axis.valid), np.int64(1)), axis.valid)
        for axis in (rows, columns)
    ]
    heights, widths = (
        n("Mul", count, axis.valid) for count, axis in zip(samples, (rows, columns), strict=True)
    )
    sampled = _bilinear(n, values, rows, columns, heights, widths)
    cells = n.vector(1, 3, rows.valid, samples[0], columns.valid, samples[1])
    total = n("ReduceSum", n("Reshape", sampled, cells), np.array([3, 5]), keepdims=0)
    number = n("Mul", *samples)
    share = n.cast(n("Div", np.float64(1), n.cast(number, _DOUBLE)), _FLOAT)
    mean = n.cast(n("Round", n("Mul", n.cast(total, _FLOAT), share)), _INT32)
    # OpenCV has a code of its own for 2 x 2, which rounds halves up
    four = n("And", *[n("Equal", count, np.int64(2)) for count in samples])
    return n("Where", four, n("Div", n("Add", total, np.int32(2)), np.int32(4)), mean)


def _bilinear(n: _Nodes, values: str, rows: _Axis, columns: _Axis, height: str, width: str) -> str:
    """``cv2.resize`` with INTER_LINEAR of (1, 3, h, w) int32 to (height, width)."""
    left, right, a, b = _weights(n, columns.shown, width, edge=True)
    across = n(
        "Add",
        n("Mul", n("Gather", values, left, axis=3), a),
        n("Mul", n("Gather", values, right, axis=3), b),
    )
    across = n("Div", across, np.int32(16))
    upper, lower, a, b = _weights(n, rows.shown, height, edge=False)
    parts = []
    for index, weight in ((upper, a), (lower, b)):
        weight = n("Unsqueeze", weight, np.array([1]))
        product = n("Mul", n("Gather", across, index, axis=2), weight)
        parts.append(n("Div", product, np.int32(1 << 16)))
    return n("Div", n("Add", n("Add", *parts), np.int32(2)), np.int32(4))


def _weights(n: _Nodes, source: str, target: str, edge: bool) -> tuple[str, str, str, str]:
    """For each target pixel two source pixels (int64) and their weights (int32).

    Args:
        n: where the nodes go.
        source: pixels of the source.
        target: pixels of the target.
        edge: beyond the border all weight is on the last pixel; else the last one is taken twice,
            as OpenCV does with rows.
    """
    last = n("Sub", source, np.int64(1))
    ratio = n("Div", n.cast(target, _DOUBLE), n.cast(source, _DOUBLE))
    step = n("Div", np.float64(1), ratio)
    index = n.cast(n("Range", np.int64(0), target, np.int64(1)), _DOUBLE)
    at = n("Sub", n("Mul", n("Add", index, np.float64(0.5)), step), np.float64(0.5))
    at = n.cast(at, _FLOAT)
    whole = n("Floor", at)
    share, first = n("Sub", at, whole), n.cast(whole, _INT64)
    if edge:
        outside = n("Or", n("Less", first, np.int64(0)), n("GreaterOrEqual", first, last))
        share = n("Where", outside, np.float32(0), share)
    second = n("Min", n("Max", n("Add", first, np.int64(1)), np.int64(0)), last)
    first = n("Min", n("Max", first, np.int64(0)), last)
    one = np.float32(1 << _BITS)
    weights = [
        n.cast(n("Round", n("Mul", each, one)), _INT32)
        for each in (n("Sub", np.float32(1), share), share)
    ]
    return first, second, weights[0], weights[1]


def _answers(n: _Nodes, outputs: dict[str, str], rows: _Axis, columns: _Axis) -> list[Any]:
    """Adds the nodes of the answer, and returns the outputs of the graph."""
    fields = frozenset(outputs)
    if fields == {"boxes", "scores", "classes"}:
        _boxes(n, outputs, rows, columns)
        return [
            helper.make_tensor_value_info("dets", _FLOAT, [1, "objects", 5]),
            helper.make_tensor_value_info("labels", _INT64, [1, "objects"]),
        ]
    if fields == {"classes"}:
        _class_map(n, outputs["classes"], rows, columns)
        return [helper.make_tensor_value_info("output", _INT32, [1, 1, "height", "width"])]
    if fields == {"scores"}:
        n("Identity", outputs["scores"], name="output")
        return [helper.make_tensor_value_info("output", _FLOAT, [1, "classes"])]
    raise ValueError(
        f"MMDeploy's runtime has no counterpart for a head with {', '.join(sorted(fields))}. Fix: "
        "export without --dump-info"
    )


def _boxes(n: _Nodes, outputs: dict[str, str], rows: _Axis, columns: _Axis) -> None:
    """``decode_detections``: image pixels, best first; what has no area gets the score 0, which
    the runtime leaves out.
    """
    scale, offset, limit = (
        n.cast(n("Concat", *[n("Reshape", each, np.array([1])) for each in four], axis=0), _FLOAT)
        for four in (
            (columns.scale, rows.scale) * 2,
            (columns.offset, rows.offset) * 2,
            (columns.length, rows.length) * 2,
        )
    )
    boxes = n("Div", n("Sub", n.cast(outputs["boxes"], _FLOAT), offset), scale)
    boxes = n("Min", n("Max", boxes, np.float32(0)), limit)
    corners = [
        n("Slice", boxes, np.array([each]), np.array([each + 2]), np.array([2])) for each in (0, 2)
    ]
    sides = n("Sub", corners[1], corners[0])
    least = n("ReduceMin", sides, np.array([2]), keepdims=0)
    score = n("Where", n("Greater", least, np.float32(0)), outputs["scores"], np.float32(0))
    count = n("Shape", score, start=1)
    ordered, order = f"{n.prefix}/ordered", f"{n.prefix}/order"
    n.nodes.append(helper.make_node("TopK", [score, count], [ordered, order], axis=1))
    column = n("Unsqueeze", order, np.array([2]))
    index = n("Expand", column, n("Shape", boxes))
    boxes = n("GatherElements", boxes, index, axis=1)
    n("Concat", boxes, n("Unsqueeze", ordered, np.array([2])), name="dets", axis=2)
    n("GatherElements", n.cast(outputs["classes"], _INT64), order, name="labels", axis=1)


def _class_map(n: _Nodes, classes: str, rows: _Axis, columns: _Axis) -> None:
    """``map_to_image``."""
    for axis, position in ((rows, 1), (columns, 2)):
        index = n.cast(n("Range", np.int64(0), axis.length, np.int64(1)), _DOUBLE)
        at = n("Mul", n("Add", index, np.float64(0.5)), axis.scale)
        cell = n.cast(n("Add", at, axis.offset), _INT64)
        cell = n("Min", n("Max", cell, np.int64(0)), n("Sub", axis.valid, np.int64(1)))
        classes = n("Gather", classes, cell, axis=position)
    n("Unsqueeze", n.cast(classes, _INT32), np.array([1]), name="output")
