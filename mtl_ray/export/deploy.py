"""What MMDeploy's ``tools/deploy.py`` does, with a comparison of numbers: a bundle by a deploy
config, and images predicted by torch and by the engine.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mtl_ray import storage
from mtl_ray.backends.config import engine_overrides
from mtl_ray.export.bundle import WrittenBundle, checkpoint_config, checkpoint_of, export
from mtl_ray.export.deploy_config import DeployRequest, counterpart, read_deploy_config
from mtl_ray.geometry.panels import jpeg
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inference.checkpoint import open_checkpoint
from mtl_ray.inference.files import draw_predictions
from mtl_ray.inference.predictor import Predictor, artifact_kind
from mtl_ray.inputs.image import Canvas
from mtl_ray.inputs.image_header import MAX_PIXELS
from mtl_ray.inputs.input import AnyCanvas
from mtl_ray.tasks.difference import Comparison

SCORE_THRESHOLD = 0.3
"""Of what is drawn and compared."""
_SIDES = ("torch", "the engine")


@dataclass(frozen=True, kw_only=True)
class DeployJob:
    """The arguments of ``tools/deploy.py``.

    Attributes:
        deploy_config: path of a deploy config of MMDeploy.
        model_config: a config or run of ours.
        checkpoint: a run or checkpoint of ours.
        images: paths or URIs that are predicted.
        to: URI of the bundle.
        device: cpu or cuda.
        dump_info: adds the files for MMDeploy's runtime.
        overrides: changes of the config of the run.
    """

    deploy_config: str
    model_config: str
    checkpoint: str
    images: tuple[str, ...]
    to: str
    device: str = "cpu"
    dump_info: bool = False
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """What was done.

    Attributes:
        bundle: that was written.
        lines: for a terminal.
        agrees: whether the engine answered as torch on all images.
    """

    bundle: WrittenBundle
    lines: tuple[str, ...]
    agrees: bool


def deploy(job: DeployJob) -> Deployed:
    """Writes the bundle, predicts the images with torch and the engine, and draws both beside it.

    Raises:
        ParityError: if the graph differs from torch; nothing was written.
        ValueError, FileNotFoundError: if the deploy config asks for what there is not here, or the
            model is none of ours; the message has the command that does it.
    """
    device = job.device.partition(":")[0]
    if device not in ("cpu", "cuda"):
        raise ValueError(f"--device is {job.device!r}; it must be cpu or cuda")
    request = read_deploy_config(job.deploy_config)
    _check_model(job)
    predictor = open_checkpoint(checkpoint_of(job.checkpoint))
    _check_size(request, predictor.canvas)
    images = [_read(image, predictor.canvas) for image in job.images]
    # ONNX Runtime holds every graph; another engine is beside it, in the form that it can hold
    overrides = [*engine_overrides(["onnxruntime", request.engine]), *request.overrides()]
    if device == "cuda":
        overrides.append("export.engine.device=cuda")
    if job.dump_info:
        overrides.append("export.dump_info=true")
    overrides += job.overrides
    config = checkpoint_config(job.checkpoint, overrides)
    bundle = export(job.checkpoint, job.to, config.export, config.data, config.plugins)
    failed = [f"{row.name}: {row.failure}" for row in bundle.engines if row.failure is not None]
    lines = [f"checked on {bundle.samples}", *request.notes, *bundle.notes, *failed]
    agrees = not failed
    if agrees:
        ran = BundlePredictor(job.to, engine=request.engine)
        pair: dict[str, Predictor] = {"pytorch": predictor, request.engine.partition(":")[0]: ran}
        for number, image in enumerate(images):
            equal = _compare(pair, image, job, number, lines)
            agrees &= equal or ":" in request.engine  # of less precision; the metric was compared
    return Deployed(bundle=bundle, lines=(*lines, f"wrote {bundle.uri}"), agrees=agrees)


def _compare(
    pair: Mapping[str, Predictor], image: Any, job: DeployJob, number: int, lines: list[str]
) -> bool:
    """Draws the answers of torch and of the engine, and adds a line for each head; False if they
    differ.
    """
    found = {name: each.predict([image])[0] for name, each in pair.items()}
    for name, each in pair.items():
        drawing = draw_predictions(each, image, found[name], SCORE_THRESHOLD)
        part = f"_{number}" if number else ""
        storage.write(storage.join(job.to, f"output_{name}{part}.jpg"), jpeg(drawing))
    predictor, equal = pair["pytorch"], True
    frame = predictor.canvas.input.own_frame(image)
    how = Comparison(frame=frame, sides=_SIDES, score_threshold=SCORE_THRESHOLD)
    for head, kind in predictor.heads.items():
        first, second = (each[head] for each in found.values())
        apart = kind.task.difference(first, second, how)
        equal &= not apart.alone and not apart.incomparable
        lines.append(
            f"{job.images[number]}, {head}: {apart.agreeing} of {apart.count} {apart.unit} agree"
        )
    return equal


def _check_model(job: DeployJob) -> None:
    """Raises a ValueError with the command that brings a foreign model here."""
    if job.model_config.endswith(".py"):
        command = counterpart(job.model_config, job.checkpoint)
        raise ValueError(
            f"{job.model_config} is a config of OpenMMLab. Its model comes here with: {command}; "
            f"then: python -m jobs.deploy {job.deploy_config} imported imported {job.images[0]}"
        )
    if artifact_kind(job.checkpoint) == "bundle":
        raise ValueError(f"{job.checkpoint} is a bundle already. Fix: python -m jobs.predict")
    if re.search(r"\.(pth|pt|pkl|pyth|safetensors)$", job.checkpoint):
        raise ValueError(
            f"{job.checkpoint} is a file of weights, not a run. Fix: python -m jobs.weights import "
            f"{job.checkpoint} imported --config {job.model_config}, then name imported"
        )
    if not storage.exists(job.model_config) and not storage.names(job.model_config):
        raise FileNotFoundError(f"there is nothing at {job.model_config}")


def _check_size(request: DeployRequest, canvas: AnyCanvas) -> None:
    if request.size is None or not isinstance(canvas, Canvas):
        return
    if request.size != (canvas.height, canvas.width):
        height, width = request.size
        raise ValueError(
            f"the deploy config fixes {width}x{height} pixels (input_shape), and the model was "
            f"trained on {canvas.width}x{canvas.height}. Fix: name a deploy config with that size, "
            "or a dynamic one"
        )


def _read(uri: str, canvas: AnyCanvas) -> object:
    data = storage.read(uri)
    canvas.input.check_name(data, uri)
    return canvas.input.file_reader(canvas, {})(data, MAX_PIXELS)
