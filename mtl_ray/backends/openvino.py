"""OpenVINO, Intel's engine for CPUs: it reads the ONNX file.

Two losses that it would choose by itself are switched off: on processors with bf16 it computes in
bf16 (errors of 5e-2 were seen), and it stores weights as fp16.
"""

import gzip
import io
import logging
import threading
import zlib
from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic.dataclasses import dataclass

from mtl_ray.backends.backend import (
    BundleFiles,
    Calibration,
    EngineError,
    EngineLimits,
    Exported,
    GraphArrays,
    Precision,
    Session,
    check_precision,
    first_line,
)
from mtl_ray.config.strict import STRICT
from mtl_ray.terminal import errors_only

FILES = ("openvino.xml", "openvino.bin")
GZIP = ".gz"
"""Of the graph of int8, whose text would be a third of the file of a small network."""
MOST_XML_BYTES = 256 << 20
"""Most bytes of a graph's text."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OpenVinoEngine:
    """OpenVINO (https://docs.openvino.ai) on the CPU."""

    packages: ClassVar[tuple[str, ...]] = ("openvino", "nncf")
    type: Literal["openvino"]
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    """fp16: weights are stored as fp16, and the processor chooses what it computes with, which
    ``about`` says. int8: by NNCF.
    """

    def unavailable(self) -> str | None:
        """See ``AnyEngine``."""
        if find_spec("openvino") is None:
            return "openvino is not installed (Fix: pip install 'mtl_ray[openvino]')"
        return None

    def limits(self) -> EngineLimits:
        """See ``AnyEngine``."""
        return EngineLimits()

    def build(self, exported: Exported, folder: Path) -> Mapping[str, bytes | Path]:
        """See ``AnyEngine``."""
        import openvino

        source = folder / "source.onnx"
        source.write_bytes(exported.onnx)
        try:
            with errors_only(logging.getLogger()):  # which OpenVINO sets up for itself
                model = openvino.convert_model(source)
            if self.precision == "int8":
                model = _quantised(model, exported.calibration)
            openvino.save_model(model, folder / FILES[0], compress_to_fp16=self.precision == "fp16")
        except Exception as error:  # OpenVINO raises classes of its own for each frontend
            raise EngineError(f"openvino cannot hold the graph: {first_line(error)}") from error
        if self.precision != "int8":
            return {name: folder / name for name in FILES}
        graph = gzip.compress((folder / FILES[0]).read_bytes(), mtime=0)
        return {FILES[0] + GZIP: graph, FILES[1]: folder / FILES[1]}

    def open(self, files: BundleFiles, names: tuple[str, ...], threads: int) -> Session:
        """See ``AnyEngine``."""
        import openvino

        core = openvino.Core()
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if threads:
            options["INFERENCE_NUM_THREADS"] = str(threads)
        with TemporaryDirectory() as folder:
            for name in names:
                files.fetch(name, Path(folder) / name)
            graph = Path(folder) / names[0]
            try:
                model = core.read_model(_plain(graph))
                compiled = core.compile_model(model, "CPU", options)
            except (RuntimeError, OSError, EOFError, zlib.error) as error:
                raise EngineError(
                    f"openvino cannot open {names[0]}: {first_line(error)}"
                ) from error
        check_precision(self, names[0], _precision_of(model))
        return _Session(compiled)


def _precision_of(model: Any) -> Precision:
    """The precision that a model was stored with."""
    constants = set()
    for node in model.get_ops():
        if (kind := node.get_type_name()) == "FakeQuantize":
            return "int8"
        if kind == "Constant":
            constants.add(node.get_output_element_type(0).get_type_name())
    return "fp16" if "f16" in constants else "fp32"


def _plain(graph: Path) -> Path:
    """The file of a graph, decompressed if need be.

    Raises:
        OSError, EOFError, zlib.error: if it is damaged, or larger than a graph is.
    """
    if graph.suffix != GZIP:
        if not graph.read_bytes().startswith(b"<"):
            # OpenVINO would try to read it as the files of other programs, loudly
            raise OSError("it is damaged")
        return graph
    with gzip.open(graph) as file:
        text = file.read(MOST_XML_BYTES + 1)
    if len(text) > MOST_XML_BYTES:
        raise OSError(f"its graph has more than {MOST_XML_BYTES:,} bytes")
    plain = graph.with_suffix("")
    plain.write_bytes(text)
    return plain


def _quantised(model: Any, calibration: Calibration) -> Any:
    """The model with 8-bit convolutions and matrix products where NNCF places them."""
    if find_spec("nncf") is None:
        raise EngineError(
            "int8 of openvino needs nncf, which is not installed (Fix: pip install "
            "'mtl_ray[openvino]')"
        )
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    kept = _after_computing(model) | _encoding(model)
    calibration.check(
        [
            node.get_friendly_name()
            for node in model.get_ordered_ops()
            if node.get_type_name() in _PRODUCTS and node.get_friendly_name() not in kept
        ]
    )
    ignored = [
        node.get_friendly_name()
        for node in model.get_ordered_ops()
        if node.get_type_name() not in ("Constant", "Parameter", "Result")
        and (node.get_friendly_name() in kept or calibration.excluded(node.get_friendly_name()))
    ]
    about_cuda = errors_only(logging.getLogger("torch.utils.cpp_extension"))
    # bars of progress, which no option switches off
    with about_cuda, redirect_stdout(io.StringIO()):
        return nncf.quantize(
            model,
            nncf.Dataset([dict(batch) for batch in calibration.batches]),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=max(1, len(calibration.batches)),
            ignored_scope=nncf.IgnoredScope(names=ignored) if ignored else None,
        )


def _after_computing(model: Any) -> set[str]:
    """The names of the nodes that no convolution or matrix product follows: the coordinates of
    boxes do not fit into 256 steps.
    """
    feeding: set[str] = set()
    after: set[str] = set()
    for node in reversed(model.get_ordered_ops()):
        name = node.get_friendly_name()
        if node.get_type_name() in _PRODUCTS or name in feeding:
            read = node.inputs()[:1] if node.get_type_name() in _AT_PLACES else node.inputs()
            feeding.update(each.get_source_output().get_node().get_friendly_name() for each in read)
        else:
            after.add(name)
    return after


def _encoding(model: Any) -> set[str]:
    """The names of the nodes before the first convolution, if there are matrix products among them:
    the coordinates of points do not fit into 256 steps either.
    """
    convolved: set[str] = set()
    products, first = False, set[str]()
    for node in model.get_ordered_ops():
        name, kind = node.get_friendly_name(), node.get_type_name()
        read = {each.get_source_output().get_node().get_friendly_name() for each in node.inputs()}
        if kind in _PRODUCTS - {"MatMul"} or read & convolved:
            convolved.add(name)
        else:
            first.add(name)
            products |= kind == "MatMul"
    return first if products and convolved else set()


_PRODUCTS = frozenset(("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul"))
_AT_PLACES = frozenset(("ROIAlign", "GridSample"))
"""The operators that read a feature map at coordinates, which are no feature map themselves."""


class _Requests(threading.local):
    """The request of each thread."""

    request: Any = None


class _Session:
    """See ``Session``. Each thread has a request of its own."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._outputs = [output.get_any_name() for output in compiled.outputs]
        self._local = _Requests()

    @property
    def about(self) -> Mapping[str, str]:
        """The device, and the precisions that its operators really have."""
        kinds: dict[str, int] = {}
        for node in self._compiled.get_runtime_model().get_ordered_ops():
            info = node.get_rt_info()
            if info["layerType"].astype(str) in _COMPUTING:
                kind = info["runtimePrecision"].astype(str)
                kinds[kind] = kinds.get(kind, 0) + 1
        ran = " and ".join(f"{count} x {kind}" for kind, count in sorted(kinds.items()))
        return {"device": "CPU", "precision": ran or "no convolution"}

    def run(self, arrays: GraphArrays) -> GraphArrays:
        """See ``Session``."""
        if self._local.request is None:
            self._local.request = self._compiled.create_infer_request()
        request = self._local.request
        try:
            found = request.infer(dict(arrays), share_inputs=True)
        except (RuntimeError, KeyError, TypeError) as error:
            raise EngineError(f"openvino: {first_line(error)}") from error
        return {name: np.array(found[index]) for index, name in enumerate(self._outputs)}


_COMPUTING = frozenset(
    ("Convolution", "GroupConvolution", "Deconvolution", "MatMul", "FullyConnected")
)
"""The types of operators whose precision is reported."""
