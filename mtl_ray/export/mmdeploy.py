"""The files with which MMDeploy's runtime (``mmdeploy_runtime``) loads a bundle's folder.

``deploy.json`` names the model, ``pipeline.json`` what happens to an image, ``detail.json`` where
the model comes from (``mmdeploy/backend/sdk/export_info.py`` of MMDeploy 1.3.1). The runtime has
ONNX Runtime 1.15 inside, so the folder gets a graph of its own, ``end2end.onnx``. It is compared
with torch like every other graph.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray.backends.onnxruntime import OnnxRuntimeEngine
from mtl_ray.export.build import trace
from mtl_ray.export.config import ExportConfig
from mtl_ray.export.mmdeploy_files import (
    FORMS,
    MODEL_FILE,
    Form,
    deploy_json,
    detail_json,
    pipeline_json,
)
from mtl_ray.export.mmdeploy_graph import INPUT, OPSET, sdk_graph
from mtl_ray.export.parity import Parity, ParityCheck, ParityError, compare_predictions
from mtl_ray.geometry.masks import encode_part
from mtl_ray.inference.torch_predictor import TorchPredictor
from mtl_ray.inputs.image import Canvas
from mtl_ray.tasks.detection.mask_decode import mask_frame_of
from mtl_ray.tasks.head_classes import head_vocabulary

DUMPED = ("deploy.json", "pipeline.json", "detail.json", MODEL_FILE)

MOST_MASKED_PX = 1_000_000
"""About the most pixels of an image on which a graph with masks is compared: each object has four
bytes for every pixel.
"""


def dump_info(
    predictor: TorchPredictor, images: Sequence[NDArray[np.uint8]], config: ExportConfig
) -> dict[str, bytes]:
    """The files of one head by name.

    Args:
        predictor: the model.
        images: (H, W, 3) uint8 RGB, on which the graph is compared with torch.
        config: the head (``dump_head``) and the tolerances.

    Raises:
        ParityError: if the graph differs from torch.
        ValueError: if the runtime has no counterpart for the input or the head.
    """
    canvas = predictor.canvas
    if not isinstance(canvas, Canvas):
        raise ValueError(
            f"MMDeploy's runtime reads images, and this model reads {canvas.input.noun}s. Fix: "
            "export without --dump-info"
        )
    head = _head(predictor, config.dump_head)
    traced = trace(
        predictor,
        replace(
            config,
            engine=OnnxRuntimeEngine(),
            engines=(),
            opset=OPSET,
            layout="end2end",
            maps="classes",
            input="uint8",
            size="fixed",
            names="readable",
        ),
    )
    outputs = {each.field: each.name for each in traced.outputs if each.head == head}
    form = _form(outputs, head)
    inputs = {field: traced.names[field] for field in traced.traced.inputs}
    frame = mask_frame_of(predictor.heads[head])
    model = sdk_graph(traced.traced.model, canvas, inputs, outputs, frame).SerializeToString()
    check = _checked(model, predictor, head, images, config)
    own = head_vocabulary(predictor.heads[head], predictor.vocabulary)
    classes = own.classes[predictor.heads[head].annotation]
    contents = {
        "deploy.json": deploy_json(form, head),
        "pipeline.json": pipeline_json(form, head, len(classes)),
        "detail.json": detail_json(form, head, classes, check),
    }
    return {
        MODEL_FILE: model,
        **{name: json.dumps(content, indent=4).encode() for name, content in contents.items()},
    }


def _head(predictor: TorchPredictor, name: str | None) -> str:
    """The head that the runtime gets, which has one answer only."""
    names = list(predictor.heads)
    if name is None and len(names) == 1:
        return names[0]
    if name not in names:
        raise ValueError(
            f"MMDeploy's runtime has one answer, and this model has the heads {', '.join(names)}. "
            "Fix: name one with export.dump_head=NAME"
        )
    return name


def _form(outputs: Mapping[str, str], head: str) -> Form:
    form = FORMS.get(frozenset(outputs))
    if "logits" in outputs:
        raise ValueError(
            f"MMDeploy's runtime predicts whole images, and the head {head} predicts in windows "
            "(evaluate.slide). Fix: evaluate.slide=null, or export without --dump-info"
        )
    if form is None:
        raise ValueError(
            f"MMDeploy's runtime has no counterpart here for the head {head} with its "
            f"{', '.join(sorted(outputs))}. Fix: export without --dump-info"
        )
    return form


def _checked(
    model: bytes,
    predictor: TorchPredictor,
    head: str,
    images: Sequence[NDArray[np.uint8]],
    config: ExportConfig,
) -> ParityCheck:
    """Runs the graph on images of different sizes, and compares its answers with torch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    kind, head_config = predictor.canvas.input, predictor.heads[head]
    if mask_frame_of(head_config) is not None:
        images = [thinned(image) for image in images]
    images = [*kind.pieces(images[0]), *images]
    found, frames = [], [kind.own_frame(image) for image in images]
    for image, frame in zip(images, frames, strict=True):
        planes = image.transpose(2, 0, 1)[None].astype(np.float32)
        arrays = dict(zip(names, session.run(names, {INPUT: planes}), strict=True))
        answer = head_config.task.decode(_fields(arrays), frame, head_config)
        found.append(_with_masks(answer, arrays["masks"][0]) if "masks" in arrays else answer)
    expected = [each[head] for each in predictor.predict(images)]
    check, failures = compare_predictions(
        ParityCheck(head=head, canvas=predictor.canvas.input.size_of(predictor.canvas), batch=1),
        head_config.task,
        expected,
        found,
        frames,
        config,
    )
    if failures:
        sentences = [f"{MODEL_FILE}: {each}" for each in failures]
        raise ParityError(
            Parity(layout="end2end", samples=len(images), checks=[check], failures=sentences)
        )
    return check


def thinned(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Every n-th pixel of an image, so that the masks of all its objects fit into memory."""
    step = math.ceil(math.sqrt(image.shape[0] * image.shape[1] / MOST_MASKED_PX))
    return np.ascontiguousarray(image[::step, ::step])


def _with_masks(answer: Any, masks: NDArray[np.float32]) -> Any:
    """A prediction with masks (N, height, width) of the image, which are no array of ``decode``."""
    height, width = masks.shape[1:]
    kept = (mask.astype(np.bool_) for mask in masks[: len(answer)])
    return replace(answer, masks=tuple(encode_part(mask, 0, 0, height, width) for mask in kept))


def _fields(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The arrays of ``decode`` in the frame of the image, from the outputs of the graph."""
    if "dets" in arrays:
        boxes, labels = arrays["dets"][0], arrays["labels"][0]
        return {"boxes": boxes[:, :4], "scores": boxes[:, 4], "classes": labels}
    output = arrays["output"][0]
    return {"scores": output} if output.ndim == 1 else {"classes": output[0].astype(np.uint8)}
