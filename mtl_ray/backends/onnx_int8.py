"""A calibrated int8 form of an ONNX graph, with QuantizeLinear and DequantizeLinear nodes.

Convolutions and matrix products become int8, and the operators between them that keep a feature map
one. What follows the last of them stays fp32: the coordinates of boxes do not fit into 256 steps.
"""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import onnx

from mtl_ray.backends.backend import Calibration, EngineError, GraphArrays, first_line

COMPUTING = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""The operators that gain from int8."""
BETWEEN = ("Add", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Resize")
"""The operators between them that can stay in int8."""
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
    logging.getLogger("root").setLevel(logging.ERROR)  # quantize_static warns there of itself
    try:
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        model = onnx.load(str(prepared))
        chosen = [name for name in _chosen(model.graph) if not calibration.excluded(name)]
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
    return done.read_bytes()


def _chosen(graph: onnx.GraphProto) -> Iterator[str]:
    """The nodes that become int8: computing ones, and those before one of them that give a feature
    map (four axes).
    """
    before = _before_computing(graph)
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.output)
    }
    for node in graph.node:
        maps = node.op_type in BETWEEN and ranks.get(node.output[0]) == 4
        if node.op_type in COMPUTING or (maps and node.name in before):
            yield node.name


def _before_computing(graph: onnx.GraphProto) -> set[str]:
    """The names of the nodes whose output a computing node reads, directly or not."""
    needed: set[str] = set()
    found: set[str] = set()
    for node in reversed(graph.node):  # in topological order, as ONNX demands
        if node.op_type in COMPUTING or needed.intersection(node.output):
            if needed.intersection(node.output):
                found.add(node.name)
            needed.update(node.input)
    return found


class _Reader:
    """What onnxruntime calls for calibration samples, until there is none."""

    def __init__(self, batches: Iterable[GraphArrays]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        """The next sample."""
        batch = next(self._batches, None)
        return None if batch is None else dict(batch)
