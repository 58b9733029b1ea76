"""Deploy configs of MMDeploy, read without running them.

They are Python files, so they are code. Here only assignments of literals count: ``dict(...)``,
lists, numbers, strings and names of earlier assignments, with the files that ``_base_`` names
(``mmengine/config/config.py`` has the rules: a dict replaces keys, ``_delete_`` all of them).
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_BYTES, MAX_FILES = 1_000_000, 40
_UNKNOWN = object()
"""The value of an expression that is no literal."""
_CODEBASES = ("mmdet", "mmseg", "mmpretrain", "mmcls", "mmdet3d", "mmyolo")
_ENGINES = ("onnxruntime", "openvino", "ncnn", "torchscript", "tensorrt", "pplnn")
COUNTERPARTS = {
    "FCOS": "configs/detection/fcos_r50_coco.yaml",
    "RetinaNet": "configs/detection/retinanet_r50_coco.yaml",
    "ATSS": "configs/detection/atss_r50_coco.yaml",
    "GFL": "configs/detection/gfl_r50_coco.yaml",
    "FasterRCNN": "configs/detection/faster_rcnn_r50_coco.yaml",
    "CascadeRCNN": "configs/detection/cascade_rcnn_r50_coco.yaml",
    "MaskRCNN": "configs/detection/mask_rcnn_r50_coco.yaml",
    "DETR": "configs/detection/detr_r50_coco.yaml",
    "DeformableDETR": "configs/detection/deformable_detr_r50_coco.yaml",
    "YOLOX": "configs/detection/yolox_s_coco.yaml",
    "RTMDet": "configs/detection/rtmdet_tiny_coco.yaml",
}
"""By ``model.type`` of an OpenMMLab config, ours into which ``jobs.weights import`` brings its
weights.
"""


@dataclass(frozen=True, kw_only=True)
class DeployRequest:
    """What a deploy config asks for.

    Attributes:
        engine: as ``--engine`` takes it.
        codebase: the project whose model it is for.
        size: height and width that it fixes, canvas pixels; None if it fixes none.
        dynamic: whether height and width are open.
        notes: a sentence for each part that is not taken.
    """

    engine: str
    codebase: str
    size: tuple[int, int] | None
    dynamic: bool
    notes: tuple[str, ...] = ()

    def overrides(self) -> list[str]:
        """Changes of the ``export`` section."""
        return [f"export.size={'dynamic' if self.dynamic else 'fixed'}"]


def read_deploy_config(path: str) -> DeployRequest:
    """What a deploy config asks for.

    Raises:
        FileNotFoundError: if it or a file of its ``_base_`` is not there.
        ValueError: if it is no deploy config, is too large, or asks for what there is not here.
    """
    config = read_literals(path)
    codebase, backend = (
        _section(config, name, path) for name in ("codebase_config", "backend_config")
    )
    names = [name for name in ("ir_config", "onnx_config") if isinstance(config.get(name), dict)]
    form: Mapping[str, Any] = config[names[0]] if names else {}
    if config.get("partition_config"):
        raise ValueError(
            f"{path}: partition_config cuts a graph into pieces, which there is not here. Fix: a "
            "deploy config without it; export.layout=raw leaves out the suppression"
        )
    if codebase.get("model_type", "end2end") == "sdk" or backend.get("type") == "sdk":
        raise ValueError(
            f"{path} runs a model that is exported already. Fix: python -m jobs.predict BUNDLE IMG"
        )
    if codebase.get("type") not in _CODEBASES:
        raise ValueError(
            f"{path} is for {codebase.get('type')!r}; here there are models of "
            f"{', '.join(_CODEBASES)}"
        )
    size = _size(form.get("input_shape"), path)
    engine, notes = _engine(backend, path), []
    if codebase.get("post_processing"):
        notes.append(
            "post_processing of the deploy config is not taken: the head's own select is part of "
            "the model (score_threshold, iou_threshold, max_detections)"
        )
    if config.get("quantizer"):
        engine = f"{engine.partition(':')[0]}:int8"
        notes.append("the quantizer of the deploy config is not run: int8 is calibrated here")
    return DeployRequest(
        engine=engine,
        codebase=str(codebase["type"]),
        size=size,
        dynamic=size is None and _open_sides(form.get("dynamic_axes")),
        notes=tuple(notes),
    )


def _section(config: Mapping[str, Any], name: str, path: str) -> Mapping[str, Any]:
    section = config.get(name)
    if not isinstance(section, dict):
        raise ValueError(
            f"{path} is no deploy config of MMDeploy: it has no {name} of literals. Fix: name one "
            "of mmdeploy/configs"
        )
    return section


def _engine(backend: Mapping[str, Any], path: str) -> str:
    name = backend.get("type")
    if name not in _ENGINES:
        raise ValueError(
            f"{path}: there is no engine {name!r} here. Fix: a deploy config for one of "
            f"{', '.join(_ENGINES[:-1])}"
        )
    common = backend.get("common_config")
    common = common if isinstance(common, dict) else {}
    stated = str(backend.get("precision", common.get("precision", ""))).lower()
    if common.get("int8_mode") is True or stated == "int8":
        return f"{name}:int8"
    if common.get("fp16_mode") is True or stated == "fp16":
        return f"{name}:fp16"
    return str(name)


def _size(shape: Any, path: str) -> tuple[int, int] | None:
    """``input_shape`` is width and height."""
    if shape is None or shape == []:
        return None
    if isinstance(shape, list | tuple) and len(shape) == 2 and all(type(n) is int for n in shape):
        return shape[1], shape[0]
    raise ValueError(f"{path}: input_shape is [width, height], not {shape!r}")


def _open_sides(axes: Any) -> bool:
    """Whether an input has another open axis than the batch."""
    if not isinstance(axes, dict):
        return False
    inputs = [value for name, value in axes.items() if name in ("input", "voxels")]
    return any(
        any(axis in (2, 3, "2", "3") for axis in value)
        for value in inputs
        if isinstance(value, dict | list | tuple)
    )


def counterpart(path: str, checkpoint: str) -> str:
    """The commands that bring a model of an OpenMMLab config here.

    Raises:
        ValueError: if there is none.
    """
    model = read_literals(path, lenient=True).get("model")
    name = model.get("type") if isinstance(model, dict) else None
    name = name.rpartition(".")[2] if isinstance(name, str) else name
    if name not in COUNTERPARTS:
        raise ValueError(
            f"{path} is a config of OpenMMLab, and its model {name!r} has no counterpart here; "
            f"there is one of {', '.join(COUNTERPARTS)}. Fix: train one with jobs.train, and name "
            "its run as MODEL_CFG and CHECKPOINT"
        )
    return (
        f"python -m jobs.weights import {checkpoint} imported --config {COUNTERPARTS[name]} "
        "--classes CLASSES.txt"
    )


def read_literals(
    path: str, *, lenient: bool = False, read: list[str] | None = None
) -> dict[str, Any]:
    """The variables of a config file and of its bases.

    Args:
        path: of the file.
        lenient: leaves out variables that are no literals, instead of refusing the file.
        read: the files that were read before; this one is added. It bounds their number.

    Raises:
        FileNotFoundError, ValueError: see ``read_deploy_config``.
    """
    file, read = Path(path), [] if read is None else read
    read.append(path)
    if len(read) > MAX_FILES:
        raise ValueError(f"{read[0]}: its _base_ names more than {MAX_FILES} files, or itself")
    if file.suffix != ".py":
        raise ValueError(f"{path} is no config of OpenMMLab: these end with .py")
    with file.open("rb") as opened:
        data = opened.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{path} has more than {MAX_BYTES:,} bytes, a config has fewer")
    try:
        tree = ast.parse(data)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{path} is no Python file: {error}") from None
    own: dict[str, Any] = {}
    bases: list[str] = []
    for name, value, line in _assignments(tree):
        known = _literal(value, own)
        if not lenient and _has_unknown(known):
            raise ValueError(
                f"{path}, line {line}: {name} is code, which is not run. Fix: write literals"
            )
        if name == "_base_":
            bases = [known] if isinstance(known, str) else list(known or [])
        elif known is not _UNKNOWN:
            own[name] = known
    merged: dict[str, Any] = {}
    for base in bases:
        if not isinstance(base, str):
            raise ValueError(f"{path}: _base_ is a path or a list of paths")
        below = read_literals(str(file.parent / base), lenient=lenient, read=read)
        merged = _merged(merged, below)
    return _merged(merged, own)


def _assignments(tree: ast.Module) -> Iterator[tuple[str, ast.expr, int]]:
    for node in tree.body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield target.id, node.value, node.lineno


def _literal(node: ast.expr, known: Mapping[str, Any]) -> Any:
    """The value of an expression, or ``_UNKNOWN``."""
    match node:
        case ast.Name(id=name):
            return known.get(name, _UNKNOWN)
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=pairs):
            if any(each.arg is None for each in pairs):
                return _UNKNOWN
            return {str(each.arg): _literal(each.value, known) for each in pairs}
        case ast.Dict(keys=keys, values=values):
            if any(not isinstance(key, ast.Constant) for key in keys):
                return _UNKNOWN
            return {
                key.value: _literal(value, known)
                for key, value in zip(keys, values, strict=True)
                if isinstance(key, ast.Constant)
            }
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_literal(each, known) for each in items]
        case ast.Constant(value=value):
            return value
        case ast.BinOp(left=first, op=ast.LShift(), right=second):  # max_workspace_size=1 << 30
            size, shift = _literal(first, known), _literal(second, known)
            if type(size) is int and type(shift) is int and size < 2**32 and 0 <= shift < 64:
                return size << shift
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
    return _UNKNOWN


def _has_unknown(value: Any) -> bool:
    """Whether a part of a value is no literal."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return value is _UNKNOWN or any(map(_has_unknown, items))


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """``own`` over ``base``: dicts are merged, all else is replaced."""
    made = dict(base)
    for key, value in own.items():
        below = made.get(key)
        if isinstance(value, dict) and isinstance(below, dict) and not value.get("_delete_"):
            made[key] = _merged(below, value)
        elif isinstance(value, dict):
            made[key] = {name: each for name, each in value.items() if name != "_delete_"}
        else:
            made[key] = value
    return made
