"""A model repository of Triton Inference Server around a bundle
(https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_configuration.html).

``MODEL/config.pbtxt`` and ``MODEL/1/model.onnx``. The folder of the version is the bundle, whole:
``jobs.serve`` and ``jobs.evaluate`` take it too.
"""

import json
from collections.abc import Iterable
from typing import Any

import onnx

from mtl_ray import storage
from mtl_ray.artifact import open_artifact
from mtl_ray.backends.onnxruntime import OnnxRuntimeEngine
from mtl_ray.export.config import ExportConfig
from mtl_ray.inference.bundle import read_range
from mtl_ray.inference.signature import read_signature

CONFIG_FILE = "config.pbtxt"
MAX_BATCH = 16
"""Most samples that Triton joins into one call, if the bundle was checked with as many."""


def check_repository(config: ExportConfig) -> None:
    """Raises a ValueError if the first engine has no ONNX file, which Triton's backend runs."""
    if not isinstance(config.engine, OnnxRuntimeEngine):
        raise ValueError(
            f"--layout triton writes ONNX files, and the first engine is {config.engine.type}. "
            "Fix: --engine onnxruntime first"
        )


def next_version(model: str) -> str:
    """The URI of the next version of a model in a repository.

    Args:
        model: URI of its folder, whose last part is its name.
    """
    versions = [int(name) for name in storage.names(model) if name.isascii() and name.isdigit()]
    return storage.join(model, str(max(versions, default=0) + 1))


def write_config(version: str) -> str:
    """Writes ``config.pbtxt`` beside the folder of a version, which is a bundle.

    Returns:
        Its URI.
    """
    bundle = open_artifact(version, kind="bundle")
    signature = read_signature(bundle.read("signature.json"))
    (file,) = signature.files
    model = version.rstrip("/").rpartition("/")[0]
    graph = onnx.load_model_from_string(bundle.read(file)).graph
    uri = storage.join(model, CONFIG_FILE)
    most = read_range(bundle, signature.engine, signature.canvas).max_batch
    text = model_config(
        model.rpartition("/")[2],
        min(MAX_BATCH, most or MAX_BATCH),
        file,
        graph,
        (each.name for each in signature.inputs),
        (each.name for each in signature.outputs),
    )
    storage.write(uri, text.encode())
    return uri


def model_config(
    name: str,
    max_batch: int,
    file: str,
    graph: Any,
    inputs: Iterable[str],
    outputs: Iterable[str],
) -> str:
    """The content of ``config.pbtxt``: protobuf's text format of Triton's ``ModelConfig``.

    Args:
        name: of the model.
        max_batch: most samples of one call.
        file: of the graph in the folder of a version.
        graph: ``onnx.GraphProto``; its first axes are the batch.
        inputs: names in the order of the signature.
        outputs: the same of the outputs.
    """
    values = {each.name: each for each in (*graph.input, *graph.output)}
    return "\n".join(
        [
            f"name: {json.dumps(name)}",
            'backend: "onnxruntime"',
            f"default_model_filename: {json.dumps(file)}",
            f"max_batch_size: {max_batch}",
            *(_tensor("input", each, values[each]) for each in inputs),
            *(_tensor("output", each, values[each]) for each in outputs),
            "# requests that wait are joined into one batch",
            "dynamic_batching { }",
            "",
        ]
    )


def _tensor(kind: str, name: str, value: Any) -> str:
    """One input or output; -1 is an axis whose length the graph leaves open."""
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    dims = ", ".join(
        str(dim.dim_value) if dim.HasField("dim_value") else "-1" for dim in tensor.shape.dim[1:]
    )
    shape = f"dims: [ {dims} ]" if dims else "dims: [ 1 ] reshape: { shape: [ ] }"
    return f"{kind} [ {{ name: {json.dumps(name)} data_type: TYPE_{_type(dtype)} {shape} }} ]"


def _type(dtype: str) -> str:
    """Triton's name of a dtype, such as FP32."""
    return dtype.upper().replace("FLOAT", "FP")
