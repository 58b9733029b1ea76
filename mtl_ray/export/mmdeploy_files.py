"""What stands in ``deploy.json``, ``pipeline.json`` and ``detail.json`` of a folder for MMDeploy's
runtime (``mmdeploy/backend/sdk/export_info.py`` of MMDeploy 1.3.1).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mtl_ray.export.mmdeploy_graph import INPUT, OPSET
from mtl_ray.export.parity import ParityCheck

VERSION = "1.3.1"
"""Of MMDeploy whose form this is."""
MODEL_FILE = "end2end.onnx"


@dataclass(frozen=True, kw_only=True)
class Form:
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
            # masks have the size of the image already; "rcnn" lets the step take those of the
            # boxes that it keeps
            thresholds = {"score_thr": 0.0, "min_bbox_size": 0, "mask_thr_binary": 0.5}
            return {**thresholds, "is_resize_mask": False, "rcnn": {}}
        if self.component == "ResizeMask":
            return {"num_classes": num_classes, "with_argmax": True}
        return {"num_classes": num_classes, "topk": num_classes}


FORMS = {
    frozenset({"boxes", "scores", "classes"}): Form(
        task="Detector",
        codebase=("mmdet", "ObjectDetection"),
        module="mmdet",
        component="ResizeBBox",
    ),
    frozenset({"boxes", "scores", "classes", "masks"}): Form(
        task="Detector",
        codebase=("mmdet", "InstanceSegmentation"),
        module="mmdet",
        component="ResizeInstanceMask",
    ),
    frozenset({"classes"}): Form(
        task="Segmentor", codebase=("mmseg", "Segmentation"), module="mmseg", component="ResizeMask"
    ),
    frozenset({"scores"}): Form(
        task="Classifier",
        codebase=("mmpretrain", "Classification"),
        module="mmcls",
        component="LinearClsHead",
    ),
}
"""By the arrays of a head."""


def deploy_json(form: Form, name: str) -> dict[str, Any]:
    """Names the model."""
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


def pipeline_json(form: Form, name: str, num_classes: int) -> dict[str, Any]:
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
    masks = form.component == "ResizeInstanceMask"
    last = _last_step(form, num_classes)
    tasks = [before, _waiting(network, form) if masks else network, last]
    return {"pipeline": {"input": ["img"], "output": ["post_output"], "tasks": tasks}}


def _last_step(form: Form, num_classes: int) -> dict[str, Any]:
    """What makes an answer of the outputs of the graph."""
    alone = form.component == "LinearClsHead"
    return {
        "type": "Task",
        "module": form.module,
        "name": "postprocess",
        "component": form.component,
        "params": form.params(num_classes),
        "output": ["post_output"],
        "input": ["infer_output"] if alone else ["prep_output", "infer_output"],
    }


def _waiting(network: Mapping[str, Any], form: Form) -> dict[str, Any]:
    """The network, whose outputs are there when the next step begins.

    The runtime copies them in a thread of its own. Its step for masks reads the boxes without
    waiting for that (``csrc/mmdeploy/codebase/mmdet/instance_segmentation.cpp``); its step for
    boxes waits. So that one runs first, within a pipeline that ends when both have ended.
    """
    boxes = {
        "type": "Task",
        "module": form.module,
        "name": "boxes",
        "component": "ResizeBBox",
        "params": {"score_thr": 0.0, "min_bbox_size": 0},
        "input": ["prep_output", "infer_output"],
        "output": ["boxes_output"],
    }
    return {
        "type": "Pipeline",
        "name": "network",
        "input": ["prep_output"],
        "output": ["infer_output", "boxes_output"],
        "tasks": [network, boxes],
    }


def detail_json(
    form: Form, head: str, classes: Sequence[str], check: ParityCheck
) -> dict[str, Any]:
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
