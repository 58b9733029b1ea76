"""A calibrated int8 form of an ONNX graph, with QuantizeLinear and DequantizeLinear nodes.

Convolutions and matrix products become int8, and the operators between them that keep a feature map
one. What the last of them give, and what follows, stays fp32: the coordinates of boxes, and their
logits beside those of classes, do not fit into 256 steps. Neither do the coordinates of points, so
matrix products before the first convolution stay fp32, too.
"""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from mtl_ray.backends.backend import Calibration, EngineError, GraphArrays, first_line
from mtl_ray.terminal import errors_only

CONVOLUTIONS = ("Conv", "ConvTranspose")
COMPUTING = (*CONVOLUTIONS, "Gemm", "MatMul")
"""The operators that gain from int8."""
BETWEEN = ("Add", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Resize")
"""The operators between them that can stay in int8."""
AT_PLACES = ("RoiAlign", "GridSample")
"""The operators that read a feature map at coordinates, which are no feature map themselves."""
SHARED_FROM, ROUNDED = 1024, 0.001
"""Weights of at least so many values are stored once if at most this share of them differs, by one
step of 127.
"""
CPU_INFO = Path("/proc/cpuinfo")
VNNI = ("avx512_vnni", "avx_vnni")


def activation_type(flags: frozenset[str]) -> tuple[str, bool]:
    """The type of activations and whether to use 7 bits, by the flags of the processor.

    With VNNI unsigned activations are three times as fast as signed ones. Without it, x86 adds two
    products in 16 bits, which overflow with 8-bit weights.
    """
    x86 = "sse2" in flags
    if x86 and not flags.intersection(VNNI):
        return "QUInt8", True
    return ("QUInt8", False) if x86 else ("QInt8", False)


def cpu_flags() -> frozenset[str]:
    """The flags of the processor; none where the system does not say them."""
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(
        next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), ())
    )


def quantised(data: bytes, calibration: Calibration, folder: Path) -> bytes:
    """The int8 form of an ONNX file.

    Raises:
        EngineError: if there are no calibration samples, or the graph cannot be quantised.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    if not calibration.batches:
        raise EngineError("int8 needs samples of the training split for its calibration")
    source, prepared, done = (folder / name for name in ("fp32.onnx", "prepared.onnx", "int8.onnx"))
    source.write_bytes(data)
    kind, narrow = activation_type(cpu_flags())
    try:
        with errors_only(logging.getLogger()):  # onnxruntime's tools warn there
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            model = onnx.load(str(prepared))
            candidates = list(_chosen(model.graph))
            products = {node.name for node in model.graph.node if node.op_type in COMPUTING}
            calibration.check([name for name in candidates if name in products])
            chosen = [name for name in candidates if not calibration.excluded(name)]
            if not chosen:
                raise EngineError("every node is excluded from int8 (export.calibration.exclude)")
            quantize_static(
                str(prepared),
                str(done),
                _Reader(calibration.batches),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=narrow,
                activation_type=QuantType[kind],
                weight_type=QuantType.QInt8,
                nodes_to_quantize=chosen,
                op_types_to_quantize=[*COMPUTING, *BETWEEN],
            )
    except EngineError:
        raise
    except Exception as error:  # the tools of onnxruntime raise whatever occurs
        raise EngineError(f"the graph cannot be quantised: {first_line(error)}") from error
    model = onnx.load(str(done))
    keep_last_outputs(model.graph)
    share_weights(model.graph)
    return bytes(model.SerializeToString())


def keep_last_outputs(graph: onnx.GraphProto) -> None:
    """Removes the rounding of what the last convolutions and products give: their weights and what
    they read are int8, their results are not.
    """
    before = _before(graph, COMPUTING)
    last = {
        name
        for node in graph.node
        if node.op_type in COMPUTING and node.name not in before
        for name in node.output
    }
    rounded = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] in last
    }
    results = {output.name for output in graph.output}
    removed = [n for n in graph.node if rounded.keys() & {*n.input[:1], *n.output}]
    names: dict[str, str] = {}
    for back in [node for node in removed if node.op_type == "DequantizeLinear"]:
        exact, read = rounded[back.input[0]], back.output[0]
        names |= {exact: read, read: read} if read in results else {read: exact}
    unread = {name for node in removed for name in node.input}
    for node in removed:
        graph.node.remove(node)
    _rename(graph, names)
    unread.difference_update(name for node in graph.node for name in node.input)
    for constant in [each for each in graph.initializer if each.name in unread]:
        graph.initializer.remove(constant)


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Gives tensors other names, where they are made and where they are read."""
    for node in graph.node:
        for listed in (node.input, node.output):
            for index, name in enumerate(listed):
                listed[index] = names.get(name, name)


def share_weights(graph: onnx.GraphProto) -> None:
    """Stores int8 weights once that are the same but for their scales.

    A head whose convolutions serve every level, with a batch normalisation of each level's own, has
    one weight a level after the two are joined. Their int8 values are the same where the factors of
    the normalisation are positive; rounding changes a few by one step.
    """
    kept: dict[tuple[int, ...], list[tuple[str, NDArray[np.int8]]]] = {}
    same: dict[str, str] = {}
    for weight in graph.initializer:
        if weight.data_type != onnx.TensorProto.INT8 or math.prod(weight.dims) < SHARED_FROM:
            continue
        values = numpy_helper.to_array(weight)
        alike = kept.setdefault(tuple(weight.dims), [])
        for name, others in alike:
            steps = np.abs(values.astype(np.int16) - others)
            if steps.max() <= 1 and np.count_nonzero(steps) <= ROUNDED * steps.size:
                same[weight.name] = name
                break
        else:
            alike.append((weight.name, values))
    _rename(graph, same)
    for weight in [each for each in graph.initializer if each.name in same]:
        graph.initializer.remove(weight)


def _chosen(graph: onnx.GraphProto) -> Iterator[str]:
    """The nodes that become int8: computing ones, and those before one of them that give a feature
    map (four axes).
    """
    before, encoding = _before(graph, COMPUTING), _encoding(graph)
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.output)
    }
    for node in graph.node:
        maps = node.op_type in BETWEEN and ranks.get(node.output[0]) == 4
        computing = node.op_type in COMPUTING and node.name not in encoding
        if computing or (maps and node.name in before):
            yield node.name


def _encoding(graph: onnx.GraphProto) -> set[str]:
    """The names of the matrix products before the first convolution."""
    convolved: set[str] = set()
    found: set[str] = set()
    before = _before(graph, CONVOLUTIONS)
    for node in graph.node:
        if node.op_type in CONVOLUTIONS or convolved.intersection(node.input):
            convolved.update(node.output)
        elif node.op_type in COMPUTING and node.name in before:
            found.add(node.name)
    return found


def _before(graph: onnx.GraphProto, kinds: tuple[str, ...]) -> set[str]:
    """The names of the nodes whose output a node of some kinds reads, directly or not."""
    needed: set[str] = set()
    found: set[str] = set()
    for node in reversed(graph.node):  # in topological order, as ONNX demands
        if node.op_type in kinds or needed.intersection(node.output):
            if needed.intersection(node.output):
                found.add(node.name)
            needed.update(node.input[:1] if node.op_type in AT_PLACES else node.input)
    return found


class _Reader:
    """What onnxruntime calls for calibration samples, until there is none."""

    def __init__(self, batches: Iterable[GraphArrays]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        """The next sample."""
        batch = next(self._batches, None)
        return None if batch is None else dict(batch)
