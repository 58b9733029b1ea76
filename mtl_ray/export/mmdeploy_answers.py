"""From the arrays of a head on the canvas to what MMDeploy's runtime takes: the ``decode`` of
tasks, which is numpy code elsewhere, as nodes of a graph.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import helper

from mtl_ray.export.mmdeploy_nodes import DOUBLE, FLOAT, INT32, INT64, AxisScalars, Nodes

_ZERO = np.float32(0)
_SURE = 1e-7
"""See ``mask_decode``."""


def add_answers(
    n: Nodes,
    outputs: Mapping[str, str],
    rows: AxisScalars,
    columns: AxisScalars,
    mask_frame: str | None,
) -> list[Any]:
    """Adds the nodes, and returns the outputs of the graph.

    They are ``dets`` (1, N, 5) boxes of the image and scores, best first, ``labels`` (1, N) and, of
    a head with masks, ``masks`` (1, N, height, width), 0 or 1; or ``output``: (1, 1, height, width)
    classes, or (1, C) scores.
    """
    if "boxes" in outputs:
        shape: list[Any] = [1, "objects"]
        infos = [
            helper.make_tensor_value_info("dets", FLOAT, [*shape, 5]),
            helper.make_tensor_value_info("labels", INT64, shape),
        ]
        order = _boxes(n, outputs, rows, columns)
        if "masks" not in outputs:
            return infos
        _masks(n, outputs, order, rows, columns, mask_frame)
        masks = helper.make_tensor_value_info("masks", FLOAT, [*shape, "height", "width"])
        return [*infos, masks]
    if "classes" in outputs:
        _class_map(n, outputs["classes"], rows, columns)
        return [helper.make_tensor_value_info("output", INT32, [1, 1, "height", "width"])]
    n("Identity", outputs["scores"], name="output")
    return [helper.make_tensor_value_info("output", FLOAT, [1, "classes"])]


def _boxes(n: Nodes, outputs: Mapping[str, str], rows: AxisScalars, columns: AxisScalars) -> str:
    """``decode_detections``; returns the places of the N objects in the arrays of the head.

    N is 1 at least. If there is no object, its score is 0, and the runtime leaves it out.
    """
    limit = n.cast(n.vector(*(columns.length, rows.length) * 2), FLOAT)
    boxes = n("Min", n("Max", _to_image(n, outputs["boxes"], rows, columns, FLOAT), _ZERO), limit)
    corners = [
        n("Slice", boxes, np.array([each]), np.array([each + 2]), np.array([2])) for each in (0, 2)
    ]
    least = n("ReduceMin", n("Sub", corners[1], corners[0]), np.array([2]), keepdims=0)
    score = n("Where", n("Greater", least, _ZERO), outputs["scores"], _ZERO)
    positive = n.cast(n("Greater", score, _ZERO), INT64)
    count = n("Max", n("ReduceSum", positive, keepdims=0), np.int64(1))
    ordered, order = f"{n.prefix}/ordered", f"{n.prefix}/order"
    n.nodes.append(helper.make_node("TopK", [score, n.vector(count)], [ordered, order], axis=1))
    chosen = n("Reshape", order, np.array([-1]))
    columns_of = [n("Gather", boxes, chosen, axis=1), n("Unsqueeze", ordered, np.array([2]))]
    n("Concat", *columns_of, name="dets", axis=2)
    n("Gather", n.cast(outputs["classes"], INT64), chosen, name="labels", axis=1)
    return chosen


def _to_image(n: Nodes, boxes: str, rows: AxisScalars, columns: AxisScalars, kind: int) -> str:
    """(1, K, 4) canvas pixels -> image pixels, not clipped."""
    scale, offset = (
        n.cast(n("Concat", *[n("Reshape", each, np.array([1])) for each in pair * 2], axis=0), kind)
        for pair in ((columns.scale, rows.scale), (columns.offset, rows.offset))
    )
    return n("Div", n("Sub", n.cast(boxes, kind), offset), scale)


def _masks(
    n: Nodes,
    outputs: Mapping[str, str],
    order: str,
    rows: AxisScalars,
    columns: AxisScalars,
    mask_frame: str | None,
) -> None:
    """``decode_masks``, of the N objects alone."""
    masks = n("Gather", n.cast(outputs["masks"], FLOAT), order, axis=1)
    boxes = _to_image(n, n("Gather", outputs["boxes"], order, axis=1), rows, columns, DOUBLE)
    shape = n("Shape", masks)
    weights = []
    for number, axis in enumerate((rows, columns)):
        cells = n("Gather", shape, np.int64(2 + number))
        weights.append(
            _on_canvas(n, axis, cells)
            if mask_frame == "canvas"
            else _in_box(n, axis, cells, boxes, 1 - number)
        )
    if mask_frame == "canvas":
        kept = n("Min", n("Max", masks, np.float32(_SURE)), np.float32(1 - _SURE))
        values, least = n("Log", n("Div", kept, n("Sub", np.float32(1), kept))), _ZERO
        turned = n("Transpose", weights[1], perm=[1, 0])
    else:
        values, least = n("Pad", masks, np.array([0, 0, 1, 1, 0, 0, 1, 1])), np.float32(0.5)
        turned = n("Transpose", weights[1], perm=[0, 1, 3, 2])
    whole = n("MatMul", n("MatMul", weights[0], values), turned)
    above = n("Greater" if mask_frame == "canvas" else "GreaterOrEqual", whole, least)
    n("Cast", above, name="masks", to=FLOAT)


def _centres(n: Nodes, axis: AxisScalars) -> str:
    """The centres of the image's pixels, image pixels, double."""
    index = n.cast(n("Range", np.int64(0), axis.length, np.int64(1)), DOUBLE)
    return n("Add", index, np.float64(0.5))


def _blend(n: Nodes, cells: str, at: str) -> str:
    """(..., cells): the weights of linear interpolation at positions (...), double."""
    last = n.cast(n("Sub", cells, np.int64(1)), DOUBLE)
    at = n("Min", n("Max", at, np.float64(0)), last)
    index = n.cast(n("Range", np.int64(0), cells, np.int64(1)), DOUBLE)
    apart = n("Abs", n("Sub", n("Unsqueeze", at, np.array([-1])), index))
    return n("Max", n("Sub", np.float64(1), apart), np.float64(0))


def _on_canvas(n: Nodes, axis: AxisScalars, cells: str) -> str:
    """(length, cells) of masks over the canvas; rows of pixels that it does not show are 0."""
    side = n.cast(axis.side, DOUBLE)
    index = n.cast(n("Range", np.int64(0), axis.side, np.int64(1)), DOUBLE)
    at = n("Div", n("Mul", n("Add", index, np.float64(0.5)), n.cast(cells, DOUBLE)), side)
    upsample = _blend(n, cells, n("Sub", at, np.float64(0.5)))
    at = n("Add", n("Mul", _centres(n, axis), axis.scale), axis.offset)
    weights = n("MatMul", _blend(n, axis.side, n("Sub", at, np.float64(0.5))), upsample)
    shown = n("And", n("Greater", at, np.float64(0)), n("Less", at, n.cast(axis.valid, DOUBLE)))
    return _where(n, shown, weights)


def _in_box(n: Nodes, axis: AxisScalars, cells: str, boxes: str, first: int) -> str:
    """(1, N, length, cells + 2) of masks over boxes (1, N, 4); pixels outside a box are 0."""
    low, high = (
        n("Slice", boxes, np.array([each]), np.array([each + 1]), np.array([2]))
        for each in (first, first + 2)
    )
    centres = _centres(n, axis)
    share = n("Div", n("Sub", centres, low), n("Sub", high, low))  # (1, N, length)
    at = n("Add", n("Mul", share, n.cast(cells, DOUBLE)), np.float64(0.5))
    weights = _blend(n, n("Add", cells, np.int64(2)), at)
    inside = n("And", n("GreaterOrEqual", centres, low), n("LessOrEqual", centres, high))
    return _where(n, inside, weights)


def _where(n: Nodes, kept: str, weights: str) -> str:
    """The weights (..., length, cells) as float32, 0 where a pixel (..., length) is not kept."""
    kept = n("Unsqueeze", kept, np.array([-1]))
    return n("Where", kept, n.cast(weights, FLOAT), _ZERO)


def _class_map(n: Nodes, classes: str, rows: AxisScalars, columns: AxisScalars) -> None:
    """``map_to_image``."""
    for axis, position in ((rows, 1), (columns, 2)):
        at = n("Mul", _centres(n, axis), axis.scale)
        cell = n.cast(n("Add", at, axis.offset), INT64)
        cell = n("Min", n("Max", cell, np.int64(0)), n("Sub", axis.valid, np.int64(1)))
        classes = n("Gather", classes, cell, axis=position)
    n("Unsqueeze", n.cast(classes, INT32), np.array([1]), name="output")
