"""From a checkpoint to a published bundle: traced, compared with torch, and only then written."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from mtl_ray import storage
from mtl_ray.artifact import MANIFEST, open_artifact, publish
from mtl_ray.experiment import ExperimentConfig
from mtl_ray.export.config import ExportConfig
from mtl_ray.export.graph import Graph, output_names, to_onnx
from mtl_ray.export.parity import Parity, ParityError
from mtl_ray.export.samples import Pictured, check_samples
from mtl_ray.export.verify import verify
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inference.checkpoint import find_checkpoint, open_checkpoint
from mtl_ray.inference.open import artifact_kind
from mtl_ray.inference.signature import InputSignature, OutputSignature, Signature
from mtl_ray.inference.stored_config import read_config
from mtl_ray.inference.torch_predictor import TorchPredictor
from mtl_ray.loading.config import DataConfig

MAX_BYTES = 2_000_000_000
"""An ONNX file is a protobuf message, and those end at 2 GiB."""

VALID_HW = {"readable": "valid_hw", "triton": "INPUT__1"}
"""The name of the second input, by ``ExportConfig.names``."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What was written.

    Attributes:
        uri: where it lies.
        bytes: size of the graph with its weights.
        parity: how far it is from torch.
        samples: what it was checked on.
    """

    uri: str
    bytes: int
    parity: Parity
    samples: str


def export(target: str, to: str, config: ExportConfig, data: DataConfig | None = None) -> Bundle:
    """Writes the bundle of a checkpoint.

    Args:
        target: URI of a checkpoint, or of a run, whose best checkpoint is taken.
        to: URI of the bundle; there may not be one already.
        config: layout, names, sizes, tolerances.
        data: where pictures for the comparison with torch come from; by default the data that the checkpoint was trained on.

    Raises:
        ParityError: if the graph does not say what torch says; nothing is written then.
        ValueError: if there is a bundle already, the checkpoint is not whole, or its network cannot be traced.
    """
    to = storage.absolute(to)
    if storage.exists(storage.join(to, MANIFEST)):
        raise ValueError(f"{to} holds a bundle already; remove it or write to another place")
    checkpoint = open_artifact(checkpoint_of(target), kind="checkpoint")
    predictor = open_checkpoint(checkpoint.uri)
    samples, source = check_samples(data or read_config(checkpoint).data, predictor.vocabulary, config.samples)
    state = json.loads(checkpoint.read("state.json"))
    metrics = {"checkpoint": checkpoint.uri, "step": state["step"], "metrics": state["metrics"]}
    further = {"config.yaml": checkpoint.read("config.yaml"), "metrics.json": json.dumps(metrics, indent=1).encode()}
    return write_bundle(predictor, samples, source, to, config, further)


def checkpoint_of(target: str) -> str:
    """The URI of a checkpoint: ``target`` itself, or the best of the run that it is."""
    return target if artifact_kind(target) else find_checkpoint(target)


def config_of(target: str, overrides: Sequence[str]) -> ExperimentConfig:
    """The config of a checkpoint, or of a run's best one, with changes of the form ``section.key=value``."""
    checkpoint = open_artifact(checkpoint_of(target), kind="checkpoint")
    return read_config(checkpoint, overrides)


def write_bundle(
    predictor: TorchPredictor, samples: Sequence[Pictured], source: str, to: str, config: ExportConfig, further: Mapping[str, bytes]
) -> Bundle:
    """Traces a model, checks the graph on ``samples`` and publishes it with its signature, ``parity.json`` and ``further`` files."""
    graph = Graph(predictor.model, config)
    canvas_hw = (predictor.canvas.height, predictor.canvas.width)
    signature = sign(predictor, output_names(graph, canvas_hw), config)
    outputs = [output.name for output in signature.outputs]
    valid_hw = VALID_HW[config.names]
    model = to_onnx(graph, canvas_hw, [signature.input.name, valid_hw], outputs, config)
    if any(each.name == valid_hw for each in model.graph.input):
        signature = replace(signature, valid_hw=valid_hw, version=2)
    if model.ByteSize() > MAX_BYTES:
        raise ValueError(f"the graph has {model.ByteSize():,} bytes, an ONNX file may have {MAX_BYTES:,}")
    files = {"model.onnx": model.SerializeToString(), "signature.json": signature.to_json(), **further}
    with tempfile.TemporaryDirectory() as folder:
        publish(folder, files, kind="bundle")
        parity = verify(predictor, graph, BundlePredictor(folder), samples, config)
    if parity.failures:
        raise ParityError(parity)
    files["parity.json"] = json.dumps({**parity.to_json(), "source": source}, indent=1, allow_nan=False).encode()
    if not publish(to, files, kind="bundle"):
        raise ValueError(f"{to} was written by somebody else in the meantime")
    return Bundle(uri=to, bytes=len(files["model.onnx"]), parity=parity, samples=source)


def sign(predictor: TorchPredictor, arrays: Sequence[tuple[str, str]], config: ExportConfig) -> Signature:
    """How the graph is called and what its outputs, (head, array) in their order, mean."""
    triton = config.names == "triton"
    model = predictor.model
    return Signature(
        input=InputSignature(name="INPUT__0" if triton else "image", dtype=config.input),
        outputs=tuple(
            OutputSignature(name=f"OUTPUT__{index}" if triton else f"{head}.{array}", head=head, field=array)
            for index, (head, array) in enumerate(arrays)
        ),
        layout=config.layout,
        canvas=predictor.canvas,
        mean=_three(model.mean),
        std=_three(model.std),
        heads=dict(predictor.heads),
        vocabulary=predictor.vocabulary,
    )


def _three(channels: Tensor) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in channels.flatten().tolist())
    return red, green, blue
