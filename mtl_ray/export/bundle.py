"""From a checkpoint to a published bundle: the graph is traced, compared with torch, and only then
written.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from mtl_ray import storage
from mtl_ray.artifact import MANIFEST, open_artifact, publish
from mtl_ray.backends.backend import Exported
from mtl_ray.config.extend import extended, used_plugins
from mtl_ray.experiment import ExperimentConfig
from mtl_ray.export.config import ExportConfig
from mtl_ray.export.graph import ExportGraph, Traced, example_inputs, output_names, to_onnx
from mtl_ray.export.parity import Parity, ParityError
from mtl_ray.export.verify import DecodedSample, check_samples, verify
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inference.checkpoint import find_checkpoint, open_checkpoint
from mtl_ray.inference.predictor import artifact_kind
from mtl_ray.inference.signature import InputSignature, OutputSignature, Signature
from mtl_ray.inference.stored_config import read_config
from mtl_ray.inference.torch_predictor import TorchPredictor
from mtl_ray.loading.config import DataConfig
from mtl_ray.models.head import dense

MAX_BYTES = 2_000_000_000
"""An ONNX file is a protobuf message, whose limit is 2 GiB."""


@dataclass(frozen=True, kw_only=True)
class WrittenBundle:
    """A bundle that was written.

    Attributes:
        uri: of the bundle.
        bytes: size of the engine's files.
        parity: its difference from torch.
        samples: the samples that it was checked on, in words.
        notes: what its engine cannot do.
    """

    uri: str
    bytes: int
    parity: Parity
    samples: str
    notes: tuple[str, ...] = ()


def export(
    target: str,
    to: str,
    config: ExportConfig,
    data: DataConfig | None = None,
    plugins: tuple[str, ...] = (),
) -> WrittenBundle:
    """Writes the bundle of a checkpoint.

    Args:
        target: URI of a checkpoint, or of a run, whose best checkpoint is used.
        to: URI of the bundle, which must not exist.
        config: layout, names, sizes, tolerances.
        data: samples for the comparison with torch; by default the data that the checkpoint was
            trained on.
        plugins: modules of the engine, beside those of the checkpoint.

    Raises:
        ParityError: if the graph differs from torch; nothing is written then.
        ValueError: if the bundle exists, the checkpoint is incomplete, its network cannot be
            traced, or the engine is not installed.
    """
    to = storage.absolute(to)
    _check_engine(config)
    if storage.exists(storage.join(to, MANIFEST)):
        raise ValueError(f"{to} holds a bundle already. Fix: remove it, or write to another place")
    checkpoint = open_artifact(checkpoint_of(target), kind="checkpoint")
    predictor = open_checkpoint(checkpoint.uri)
    samples, source = check_samples(
        data or read_config(checkpoint).data, predictor.vocabulary, config.samples
    )
    state = json.loads(checkpoint.read("state.json"))
    metrics = {"checkpoint": checkpoint.uri, "step": state["step"], "metrics": state["metrics"]}
    further = {
        "config.yaml": checkpoint.read("config.yaml"),
        "metrics.json": json.dumps(metrics, indent=1).encode(),
    }
    return write_bundle(predictor, samples, source, to, config, further, plugins)


def checkpoint_of(target: str) -> str:
    """The URI of a checkpoint: ``target`` itself, or the best one if ``target`` is a run."""
    return target if artifact_kind(target) else find_checkpoint(target)


def checkpoint_config(target: str, overrides: Sequence[str]) -> ExperimentConfig:
    """The config of a checkpoint, or of a run's best one, with changes of the form
    ``section.key=value``.
    """
    checkpoint = open_artifact(checkpoint_of(target), kind="checkpoint")
    return read_config(checkpoint, overrides)


def _check_engine(config: ExportConfig) -> None:
    """Raises a ValueError if the engine is not installed or cannot do what the config says."""
    engine = config.engine
    if (reason := engine.unavailable()) is not None:
        raise ValueError(f"export.engine: {reason}")
    if config.size == "dynamic" and not engine.limits().open_sizes:
        raise ValueError(f"export.engine: {engine.type} needs fixed sizes (Fix: export.size=fixed)")


def _check_layout(predictor: TorchPredictor, config: ExportConfig) -> None:
    """Raises a ValueError if the layout ``raw`` would lose masks or keypoints: candidates are boxes
    and scores.
    """
    for name, head in predictor.model.predicting() if config.layout == "raw" else ():
        if dense(head) is not None and (further := predictor.heads[name].fields):
            raise ValueError(
                f"export.layout=raw holds boxes and scores only, and the head {name} predicts "
                f"{' and '.join(sorted(further))}. Fix: export.layout=end2end"
            )


def write_bundle(
    predictor: TorchPredictor,
    samples: Sequence[DecodedSample],
    source: str,
    to: str,
    config: ExportConfig,
    further: Mapping[str, bytes],
    plugins: tuple[str, ...] = (),
) -> WrittenBundle:
    """Traces a model, builds the engine's files, checks them on ``samples`` and publishes the
    bundle.

    It also holds the signature, ``parity.json`` and the ``further`` files.
    """
    _check_engine(config)
    _check_layout(predictor, config)
    graph = ExportGraph(predictor.model, predictor.canvas, config)
    names = {
        field: f"INPUT__{i}" if config.names == "triton" else field
        for i, field in enumerate(graph.names)
    }
    outputs = _outputs(output_names(graph), config)
    traced = to_onnx(graph, names, [output.name for output in outputs], config)
    if traced.model.ByteSize() > MAX_BYTES:
        raise ValueError(
            f"the graph has {traced.model.ByteSize():,} bytes, an ONNX file may have {MAX_BYTES:,}"
        )
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as folder:
        arrays = {
            names[field]: values.numpy()
            for field, values in zip(graph.names, example_inputs(graph), strict=True)
        }
        onnx, outs = traced.model.SerializeToString(), tuple(output.name for output in outputs)
        built = config.engine.build(
            Exported(onnx=onnx, program=traced.program, example=arrays, outputs=outs), Path(scratch)
        )
        signature = _sign(
            predictor, _inputs(graph, traced, names), outputs, config, tuple(built), plugins
        )
        files: dict[str, bytes | Path] = {**built, "signature.json": signature.to_json(), **further}
        publish(folder, files, kind="bundle")
        bundle = BundlePredictor(folder)
        parity = verify(predictor, graph, bundle, samples, config)
        if parity.failures:
            raise ParityError(parity)
        report = {
            **parity.to_json(),
            "source": source,
            "engine": {"type": config.engine.type, **bundle.session.about},
        }
        files["parity.json"] = json.dumps(report, indent=1, allow_nan=False).encode()
        if not publish(to, files, kind="bundle"):
            raise ValueError(f"{to} was written by another process in the meantime")
        size = sum(
            len(each) if isinstance(each, bytes) else each.stat().st_size for each in built.values()
        )
    return WrittenBundle(
        uri=to, bytes=size, parity=parity, samples=source, notes=config.engine.limits().notes
    )


def _inputs(
    graph: ExportGraph, traced: Traced, names: Mapping[str, str]
) -> tuple[InputSignature, ...]:
    """The inputs of the graph, in their order."""
    specs = graph.canvas.input.arrays(graph.canvas)
    dtypes = {field: np.dtype(spec.dtype).name for field, spec in specs.items()}
    read = graph.model.trunk.input
    if graph.normalised and dtypes[read] == "uint8":
        dtypes[read] = "float32"
    return tuple(
        InputSignature(name=names[field], field=field, dtype=dtypes[field])
        for field in traced.inputs
    )


def _outputs(
    arrays: Sequence[tuple[str, str]], config: ExportConfig
) -> tuple[OutputSignature, ...]:
    """The names and meaning of the outputs of the graph, of (head, array) in their order."""
    triton = config.names == "triton"
    return tuple(
        OutputSignature(
            name=f"OUTPUT__{index}" if triton else f"{head}.{array}", head=head, field=array
        )
        for index, (head, array) in enumerate(arrays)
    )


def _sign(
    predictor: TorchPredictor,
    inputs: tuple[InputSignature, ...],
    outputs: tuple[OutputSignature, ...],
    config: ExportConfig,
    files: tuple[str, ...],
    plugins: tuple[str, ...],
) -> Signature:
    """The signature of the bundle."""
    plugins = tuple(dict.fromkeys((*predictor.plugins, *plugins)))
    return extended(Signature, plugins)(
        plugins=used_plugins((predictor.heads, predictor.canvas, config.engine), plugins),
        engine=config.engine,
        files=files,
        inputs=inputs,
        outputs=outputs,
        layout=config.layout,
        canvas=cast(Any, predictor.canvas),  # its class may come from a plugin
        mean=tuple(predictor.model.mean.flatten().tolist()),
        std=tuple(predictor.model.std.flatten().tolist()),
        heads=dict(predictor.heads),
        vocabulary=predictor.vocabulary,
    )
