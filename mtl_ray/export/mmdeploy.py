"""The files with which MMDeploy's runtime (``mmdeploy_runtime``) loads a bundle's folder.

``deploy.json`` names the model, ``pipeline.json`` what happens to an image, ``detail.json`` where
the model comes from (``mmdeploy/backend/sdk/export_info.py`` of MMDeploy 1.3.1). The runtime has
ONNX Runtime 1.15 inside, so the folder gets a graph of its own, ``end2end.onnx``. It is compared
with torch like every other graph.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray.backends.onnxruntime import OnnxRuntimeEngine
from mtl_ray.export.build import trace
from mtl_ray.export.config import ExportConfig
from mtl_ray.export.mmdeploy_graph import INPUT, OPSET, sdk_graph
from mtl_ray.export.parity import Parity, ParityCheck, ParityError, compare_predictions
from mtl_ray.geometry.masks import encode_part
from mtl_ray.inference.torch_predictor import TorchPredictor
from mtl_ray.inputs.image import Canvas
from mtl_ray.tasks.detection.mask_decode import mask_frame_of
from mtl_ray.tasks.head_classes import head_vocabulary

VERSION = "1.3.1"
"""Of MMDeploy whose form this is."""
MODEL_FILE = "end2end.onnx"
DUMPED = ("deploy.json", "pipeline.json", "detail.json", MODEL_FILE)


@dataclass(frozen=True, kw_only=True)
class _Form:
    """What the runtime calls a kind of answer.

    Attributes:
        task: the class of ``mmdeploy_runtime``.
        codebase: whose answers these are: its name and its task in ``detail.json``.
        module: of the last step.
        component: of the last step.
    """

    task: str
    codebase: tuple[str, str]
    module: str
    component: str

    def params(self, num_classes: int) -> dict[str, Any]:
        """The options of the last step."""
        if self.component == "ResizeBBox":
            return {"score_thr": 0.0, "min_bbox_size": 0}
        if self.component == "ResizeInstanceMask":
            # masks have the size of the image already
            thresholds = {"score_thr": 0.0, "min_bbox_size": 0, "mask_thr_binary": 0.5}
            return {**thresholds, "is_resize_mask": False}
        if self.component == "ResizeMask":
            return {"num_classes": num_classes, "with_argmax": True}
        return {"num_classes": num_classes, "topk": num_classes}


_FORMS = {
    frozenset({"boxes", "scores", "classes"}): _Form(
        task="Detector",
        codebase=("mmdet", "ObjectDetection"),
        module="mmdet",
        component="ResizeBBox",
    ),
    frozenset({"boxes", "scores", "classes", "masks"}): _Form(
        task="Detector",
        codebase=("mmdet", "InstanceSegmentation"),
        module="mmdet",
        component="ResizeInstanceMask",
    ),
    frozenset({"classes"}): _Form(
        task="Segmentor", codebase=("mmseg", "Segmentation"), module="mmseg", component="ResizeMask"
    ),
    frozenset({"scores"}): _Form(
        task="Classifier",
        codebase=("mmpretrain", "Classification"),
        module="mmcls",
        component="LinearClsHead",
    ),
}
"""By the arrays of a head."""


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
            f"MMDeploy's runtime reads images, and this model reads a {canvas.input.name}. Fix: "
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
        "deploy.json": _deploy(form, head),
        "pipeline.json": _pipeline(form, head, len(classes)),
        "detail.json": _detail(form, head, classes, check),
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


def _form(outputs: Mapping[str, str], head: str) -> _Form:
    form = _FORMS.get(frozenset(outputs))
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


def _deploy(form: _Form, name: str) -> dict[str, Any]:
    model = {
        "name": name,
        "net": MODEL_FILE,
        "weights": "",
        "backend": "onnxruntime",
        "precision": "FP32",
        "batch_size": 1,
        "dynamic_shape": True,
    }
    return {"version": VERSION, "task": form.task, "models": [model], "customs": []}


def _pipeline(form: _Form, name: str, num_classes: int) -> dict[str, Any]:
    """The image goes into the graph as it is, as RGB."""
    transforms = [
        {"type": "LoadImageFromFile"},
        {"type": "Normalize", "mean": [0, 0, 0], "std": [1, 1, 1], "to_rgb": True},
        {"type": "Pad", "size_divisor": 1},  # states what steps for masks read
        {"type": "DefaultFormatBundle"},
        {
            "type": "Collect",
            "keys": ["img"],
            "meta_keys": ["img_shape", "pad_shape", "ori_shape", "img_norm_cfg", "scale_factor"],
        },
    ]
    before = {
        "type": "Task",
        "module": "Transform",
        "name": "Preprocess",
        "input": ["img"],
        "output": ["prep_output"],
        "transforms": transforms,
    }
    network = {
        "name": name,
        "type": "Task",
        "module": "Net",
        "is_batched": False,
        "input": ["prep_output"],
        "output": ["infer_output"],
        "input_map": {"img": INPUT},
        "output_map": {},
    }
    alone = form.component == "LinearClsHead"
    after = {
        "type": "Task",
        "module": form.module,
        "name": "postprocess",
        "component": form.component,
        "params": form.params(num_classes),
        "output": ["post_output"],
        "input": ["infer_output"] if alone else ["prep_output", "infer_output"],
    }
    tasks = [before, network, after]
    return {"pipeline": {"input": ["img"], "output": ["post_output"], "tasks": tasks}}


def _detail(form: _Form, head: str, classes: Sequence[str], check: ParityCheck) -> dict[str, Any]:
    """Read by people: the runtime needs none of it."""
    codebase, task = form.codebase
    onnx = {"type": "onnx", "opset_version": OPSET, "save_file": MODEL_FILE}
    return {
        "version": VERSION,
        "codebase": {
            "task": task,
            "codebase": codebase,
            "version": "mtl_ray",
            "pth": "metrics.json",
            "config": "config.yaml",
        },
        "codebase_config": {"type": codebase, "task": task, "head": head, "classes": list(classes)},
        "onnx_config": {**onnx, "input_names": [INPUT], "input_shape": None},
        "backend_config": {"type": "onnxruntime"},
        "calib_config": {},
        "parity": asdict(check),
    }
