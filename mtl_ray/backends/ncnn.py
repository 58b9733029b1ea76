"""ncnn, for phones and small boards. pnnx converts the ONNX file.

It has no batch and no open sizes, takes normalised float32 images, and knows neither suppression
nor integers: heads with suppression need ``export.layout=raw``.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.backends.backend import (
    BundleFiles,
    EngineError,
    EngineLimits,
    Exported,
    GraphArrays,
    Session,
    check_precision,
    first_line,
    names_of,
)
from mtl_ray.config.strict import STRICT

FILES = ("ncnn.param", "ncnn.bin", "ncnn.names")
WITHOUT_LAYER = frozenset(
    ("GatherND", "NonMaxSuppression", "NonZero", "ScatterElements", "ScatterND", "TopK")
)
COMPARING = ("And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or")
MOST_S = 600
"""pnnx may take this long."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NcnnEngine:
    """ncnn (https://github.com/Tencent/ncnn) on the CPU."""

    type: Literal["ncnn"]
    precision: Literal["fp32", "fp16"] = "fp32"
    """fp16: weights and activations are stored and computed as fp16 where the CPU can."""
    optimise: bool = Field(default=True)
    """Whether ncnn may pack channels and use Winograd's convolution."""

    def unavailable(self) -> str | None:
        """See ``AnyEngine``."""
        missing = [name for name in ("ncnn", "pnnx") if find_spec(name) is None]
        if missing:
            return f"{' and '.join(missing)} not installed (Fix: pip install 'mtl_ray[ncnn]')"
        return None

    def limits(self) -> EngineLimits:
        """See ``AnyEngine``."""
        return EngineLimits(max_batch=1, open_sizes=False, byte_inputs=False, suppression=False)

    def build(self, exported: Exported, folder: Path) -> Mapping[str, bytes | Path]:
        """See ``AnyEngine``."""
        _check_operators(exported.onnx)
        (folder / "source.onnx").write_bytes(_for_pnnx(exported.onnx))
        shapes = ",".join(_shape(exported.example[name]) for name in exported.inputs)
        _convert(folder, shapes, "1" if self.precision == "fp16" else "0")
        missing = _unknown_layers((folder / FILES[0]).read_text())
        if missing:
            raise EngineError(f"ncnn has no layer for {', '.join(missing)}")
        ranks = [str(rank) for rank in _output_ranks(exported)]
        lines = (",".join(exported.inputs), ",".join(exported.outputs), ",".join(ranks))
        (folder / FILES[2]).write_text("\n".join((*lines, self.precision, str(self.optimise))))
        return {name: folder / name for name in FILES}

    def open(self, files: BundleFiles, names: tuple[str, ...], threads: int) -> Session:
        """See ``AnyEngine``."""
        import ncnn

        net = ncnn.Net()
        half = self.precision == "fp16"
        for option in (
            "use_fp16_packed",
            "use_fp16_storage",
            "use_fp16_arithmetic",
            "use_bf16_storage",
        ):
            setattr(net.opt, option, half and option != "use_bf16_storage")
        net.opt.use_packing_layout = net.opt.use_winograd_convolution = self.optimise
        net.opt.use_vulkan_compute = False
        if threads:
            net.opt.num_threads = threads  # before load_param, or it has no effect
        with TemporaryDirectory() as folder:
            for name in names:
                files.fetch(name, Path(folder) / name)
            for name, load in zip(names, (net.load_param, net.load_model), strict=False):
                if load(str(Path(folder) / name)):
                    raise EngineError(f"ncnn cannot open {name}: it is damaged")
            about = (Path(folder) / names[2]).read_bytes()
        inputs, outputs, ranks, (stored, *_) = names_of(about, names[2], "ncnn", 4)
        if not all(rank.isdigit() for rank in ranks) or len(ranks) != len(outputs):
            raise EngineError(f"ncnn cannot open {names[2]}: it is damaged")
        check_precision(self, names[2], "fp16" if stored == "fp16" else "fp32")
        return _Session(net, inputs, outputs, [int(rank) for rank in ranks], self.precision)


def _shape(array: Any) -> str:
    """Of a batch of one, as pnnx reads it."""
    return f"[{','.join(map(str, (1, *array.shape[1:])))}]f32"


def _check_operators(data: bytes) -> None:
    """Raises an EngineError that names operators for which ncnn has no layer: pnnx would fail at
    another place.
    """
    import onnx

    kinds = {node.op_type for node in onnx.load_from_string(data).graph.node}
    if missing := sorted(kinds & WITHOUT_LAYER):
        raise EngineError(f"ncnn has no layer for {', '.join(missing)}")


def _for_pnnx(data: bytes) -> bytes:
    """The graph with float32 inputs alone, since ncnn has no integers and no casts, and with the
    operators that pnnx translates.

    Raises:
        EngineError: if a number is the result of a comparison.
    """
    import onnx

    model = onnx.load_from_string(data)
    _pool_maxima(model.graph)
    for value in model.graph.input:
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    compared = {
        node.output[0]: node.op_type for node in model.graph.node if node.op_type in COMPARING
    }
    for node in [each for each in model.graph.node if each.op_type == "Cast"]:
        to = next(each.i for each in node.attribute if each.name == "to")
        if to != onnx.TensorProto.FLOAT:
            continue
        if node.input[0] in compared:
            raise EngineError(f"ncnn has no layer for {compared[node.input[0]]}")
        for other in model.graph.node:
            for place, name in enumerate(other.input):
                if name == node.output[0]:
                    other.input[place] = node.input[0]
        if node.output[0] not in {output.name for output in model.graph.output}:
            model.graph.node.remove(node)
    return bytes(model.SerializeToString())


def _pool_maxima(graph: Any) -> None:
    """Writes maxima over rows and columns as the pooling that they are: pnnx leaves ReduceMax."""
    from onnx import helper, numpy_helper

    constants = {each.name: each for each in graph.initializer}
    nodes = []
    for node in graph.node:
        axes = constants.get(node.input[1]) if node.op_type == "ReduceMax" else None
        if axes is None or sorted(numpy_helper.to_array(axes).tolist()) != [2, 3]:
            nodes.append(node)
            continue
        keeps = next((each.i for each in node.attribute if each.name == "keepdims"), 1)
        pooled = node.output[0] if keeps else f"{node.output[0]}/pooled"
        nodes.append(helper.make_node("GlobalMaxPool", node.input[:1], [pooled]))
        if not keeps:
            nodes.append(helper.make_node("Flatten", [pooled], node.output[:1]))
    del graph.node[:]
    graph.node.extend(nodes)


def _output_ranks(exported: Exported) -> list[int]:
    """The number of axes of each output, with the batch."""
    import onnx

    graph = onnx.load_from_string(exported.onnx).graph
    return [len(output.type.tensor_type.shape.dim) for output in graph.output]


def _convert(folder: Path, shapes: str, half: str) -> None:
    """Runs pnnx in the folder.

    Raises:
        EngineError: with its last line, if it fails.
    """
    package = find_spec("pnnx")
    assert package is not None
    assert package.origin is not None
    # the program itself: the script beside Python names an interpreter that may have moved
    command = [
        str(Path(package.origin).with_name("pnnx.exe" if os.name == "nt" else "pnnx")),
        *("source.onnx", f"inputshape={shapes}", f"fp16={half}", "optlevel=2"),
        *("pnnxparam=p.param", "pnnxbin=p.bin", "pnnxpy=p.py", "pnnxonnx=p.onnx"),
        *(f"ncnnparam={FILES[0]}", f"ncnnbin={FILES[1]}", "ncnnpy=n.py"),
    ]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=MOST_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"pnnx did not run: {first_line(error)}") from error
    if done.returncode or not (folder / FILES[0]).exists():
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise EngineError(f"pnnx cannot convert the graph: {(lines or ['no message'])[-1]}")


def _unknown_layers(param: str) -> list[str]:
    """The types of layers in a file of pnnx that ncnn does not have: operators of torch or ONNX."""
    import ncnn

    kinds = [line.split()[0] for line in param.splitlines()[2:] if line.split()]
    return [kind for kind in dict.fromkeys(kinds) if ncnn.layer_to_index(kind) < 0]


class _Session:
    """See ``Session``. ncnn has no batch: samples run one after the other."""

    def __init__(
        self,
        net: Any,
        inputs: Sequence[str],
        outputs: Sequence[str],
        ranks: Sequence[int],
        precision: str,
    ) -> None:
        self._net, self._inputs, self._outputs, self._ranks = net, inputs, outputs, ranks
        self._precision = precision

    @property
    def about(self) -> Mapping[str, str]:
        """The device and the precision."""
        return {"device": "CPU", "precision": self._precision}

    def run(self, arrays: GraphArrays) -> GraphArrays:
        """See ``Session``."""
        batch = len(next(iter(arrays.values())))
        rows = [
            self._one({name: values[i] for name, values in arrays.items()}) for i in range(batch)
        ]
        return {name: np.stack([row[name] for row in rows]) for name in self._outputs}

    def _one(self, arrays: GraphArrays) -> dict[str, Any]:
        import ncnn

        extractor = self._net.create_extractor()
        for place, name in enumerate(self._inputs):
            # a Mat of an array does not hold its memory: the clone does
            array = np.ascontiguousarray(arrays[name], np.float32)
            extractor.input(f"in{place}", ncnn.Mat(array).clone())
        found = {}
        for place, name in enumerate(self._outputs):
            failed, value = extractor.extract(f"out{place}")
            if failed:
                raise EngineError(f"ncnn: the graph does not run ({name})")
            array = np.array(value)
            rank = self._ranks[place] - 1
            found[name] = array.reshape(array.shape[-rank:]) if array.ndim > rank else array
        return found
