"""The graph of a folder for MMDeploy's runtime: it takes an image as it is, and gives what the
runtime returns.

The runtime's own transforms cannot express ``place``: their letterbox swaps the sides of the canvas
for upright images, and they have no mean over what a pixel covers. So the graph does it, in the
integers of OpenCV (``modules/imgproc/src/resize.cpp``), bit for bit, and maps predictions back to
the image. All that is left to the runtime is the order of the channels.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper

from mtl_ray.export.mmdeploy_answers import add_answers
from mtl_ray.export.mmdeploy_nodes import DOUBLE, FLOAT, INT32, INT64, AxisScalars, Nodes
from mtl_ray.inputs.image import Canvas

INPUT = "input"
"""float32 (1, 3, height, width) RGB, 0 to 255, any size."""
OPSET, IR_VERSION = 18, 8
"""ONNX Runtime 1.15, which the runtime has inside, reads opset 19 and IR 9 at most; the exporter
writes 18 without a conversion.
"""
_BITS = 11
"""OpenCV's weights are integers of 1 / 2 ** 11."""


def sdk_graph(
    model: onnx.ModelProto,
    canvas: Canvas,
    inputs: dict[str, str],
    outputs: dict[str, str],
    mask_frame: str | None = None,
) -> onnx.ModelProto:
    """The graph with the image's own size at both ends.

    Args:
        model: a graph that takes uint8 images on the canvas; it is changed.
        canvas: how images are placed.
        inputs: the names of its inputs by field (``image``, ``valid_hw``).
        outputs: the names of the arrays of one head by field: boxes, scores and classes, and masks;
            or classes; or scores. Other outputs are dropped.
        mask_frame: of a head with masks.

    Returns:
        The graph with the input ``INPUT``, and the outputs of ``add_answers``.
    """
    before, after = Nodes("place"), Nodes("answer")
    rows, columns = _axes(before, canvas)
    placed = _placed(before, canvas, rows, columns)
    before("Cast", placed, name=inputs["image"], to=TensorProto.UINT8)
    if "valid_hw" in inputs:
        valid = before("Reshape", before.vector(rows.valid, columns.valid), np.array([1, 2]))
        before("Cast", valid, name=inputs["valid_hw"], to=INT32)
    answers = add_answers(after, outputs, rows, columns, mask_frame)
    graph = model.graph
    nodes = [*before.nodes, *graph.node, *after.nodes]
    constants = [*graph.initializer, *before.constants, *after.constants]
    shape = [1, 3, "height", "width"]
    taken = helper.make_tensor_value_info(INPUT, FLOAT, shape)
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


def _axes(n: Nodes, canvas: Canvas) -> tuple[AxisScalars, AxisScalars]:
    """``frame_of`` for rows and columns, in its double precision."""
    shape = n("Shape", INPUT)
    lengths = [n("Gather", shape, np.int64(axis)) for axis in (2, 3)]
    sides = canvas.height, canvas.width
    ratios = [
        n("Div", np.float64(side), n.cast(length, DOUBLE))
        for side, length in zip(sides, lengths, strict=True)
    ]
    scale = n("Min" if canvas.kind == "letterbox" else "Max", *ratios)
    axes = []
    for length, side in zip(lengths, sides, strict=True):
        shown, valid = length, n("Identity", np.int64(side))
        if canvas.kind == "letterbox":
            valid = _rounded(n, n("Mul", n.cast(length, DOUBLE), scale))
        elif canvas.kind == "crop":
            shown = _rounded(n, n("Div", np.float64(side), scale))
        first = n("Div", n("Sub", length, shown), np.int64(2))
        ratio = n("Div", n.cast(valid, DOUBLE), n.cast(shown, DOUBLE))
        offset = n("Neg", n("Mul", n.cast(first, DOUBLE), ratio))
        axes.append(
            AxisScalars(
                side=n("Identity", np.int64(side)),
                length=length,
                shown=shown,
                first=first,
                valid=valid,
                scale=ratio,
                offset=offset,
            )
        )
    return axes[0], axes[1]


def _rounded(n: Nodes, value: str) -> str:
    """A side of at least one pixel, halves to even as Python rounds."""
    return n("Max", n.cast(n("Round", value), INT64), np.int64(1))


def _placed(n: Nodes, canvas: Canvas, rows: AxisScalars, columns: AxisScalars) -> str:
    """``place``: (1, 3, canvas height, canvas width) int32."""
    values = n.cast(INPUT, INT32)
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


def _area(n: Nodes, values: str, rows: AxisScalars, columns: AxisScalars) -> str:
    """``resized``: bilinear samples, and the mean of those of a pixel."""
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
    share = n.cast(n("Div", np.float64(1), n.cast(number, DOUBLE)), FLOAT)
    mean = n.cast(n("Round", n("Mul", n.cast(total, FLOAT), share)), INT32)
    # OpenCV has a code of its own for 2 x 2, which rounds halves up
    four = n("And", *[n("Equal", count, np.int64(2)) for count in samples])
    return n("Where", four, n("Div", n("Add", total, np.int32(2)), np.int32(4)), mean)


def _bilinear(
    n: Nodes, values: str, rows: AxisScalars, columns: AxisScalars, height: str, width: str
) -> str:
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


def _weights(n: Nodes, source: str, target: str, edge: bool) -> tuple[str, str, str, str]:
    """For each target pixel two source pixels (int64) and their weights (int32).

    Args:
        n: where the nodes go.
        source: pixels of the source.
        target: pixels of the target.
        edge: beyond the border all weight is on the last pixel; else the last one is taken twice,
            as OpenCV does with rows.
    """
    last = n("Sub", source, np.int64(1))
    ratio = n("Div", n.cast(target, DOUBLE), n.cast(source, DOUBLE))
    step = n("Div", np.float64(1), ratio)
    index = n.cast(n("Range", np.int64(0), target, np.int64(1)), DOUBLE)
    at = n("Sub", n("Mul", n("Add", index, np.float64(0.5)), step), np.float64(0.5))
    at = n.cast(at, FLOAT)
    whole = n("Floor", at)
    share, first = n("Sub", at, whole), n.cast(whole, INT64)
    if edge:
        outside = n("Or", n("Less", first, np.int64(0)), n("GreaterOrEqual", first, last))
        share = n("Where", outside, np.float32(0), share)
    second = n("Min", n("Max", n("Add", first, np.int64(1)), np.int64(0)), last)
    first = n("Min", n("Max", first, np.int64(0)), last)
    one = np.float32(1 << _BITS)
    weights = [
        n.cast(n("Round", n("Mul", each, one)), INT32)
        for each in (n("Sub", np.float32(1), share), share)
    ]
    return first, second, weights[0], weights[1]
