"""Detectors of MMDetection3D 0.x as 1.x has them.

Version 1.0.0rc0 changed what a box is. Before, sizes were width, length, height, and a yaw was
counted clockwise from -y: yaw of 1.x = -yaw of 0.x - pi / 2. The last layers of a head are changed
such that the same weights give the same boxes:

* Of the two anchors of a size, that along x was the second and is the first.
* The rows of the logarithms of width and length change places, and that of the yaw its sign. Anchors
  stand at yaw 0 and 1.57 in both, so pi / 2 - 1.57 is added.
* The two classes of directions change places. (0.x decoded headings turned by pi and turned them
  back when it wrote results.)
* CenterPoint's sine is minus the cosine of before, and its cosine minus the sine.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

GENERATIONS = (0, 1)
"""The first numbers of the versions of MMDetection3D."""
_ROTATIONS = 2
_YAW, _ROTATION = 6, 1.57
_ANCHORED = re.compile(r"(?:pts_)?bbox_head\.conv_(cls|reg|dir_cls)\.(?:weight|bias)")
_CENTRED = re.compile(r"(?:pts_)?bbox_head\.task_heads\.\d+\.(dim|rot)\.\d+\.(?:weight|bias)")
_DIRECTION = re.compile(r"(?:pts_)?bbox_head\.conv_dir_cls\.weight")


def upgraded_boxes(
    tensors: Mapping[str, Tensor], meta: Mapping[Any, Any], generation: int | None
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of a detector of point clouds as MMDetection3D 1.x has them; others unchanged.

    Args:
        tensors: of a file.
        meta: of the file, which may be anything.
        generation: 0 or 1, of the program that wrote it; None if the file is to tell.

    Returns:
        The tensors, and a sentence if they were changed.

    Raises:
        ValueError: if the file does not tell its generation.
    """
    directions = [name for name in tensors if _DIRECTION.fullmatch(name)]
    if not directions and not any(_CENTRED.fullmatch(name) for name in tensors):
        return dict(tensors), ()
    found = find_generation(meta) if generation is None else generation
    if found is None:
        raise ValueError(
            "this detector of point clouds does not say whether MMDetection3D 0.x or 1.x wrote it, "
            "whose boxes differ. Fix: --generation 0 or --generation 1"
        )
    if found != 0:
        return dict(tensors), ()
    anchors = len(tensors[directions[0]]) // 2 if directions else 0
    if anchors % _ROTATIONS:
        raise ValueError(
            f"{directions[0]} is of {anchors} anchors, which are not two for each size"
        )
    changed = dict(tensors)
    for name, value in tensors.items():
        if match := _ANCHORED.fullmatch(name):
            change = _CHANGES[match[1]]
            rows = value.reshape(anchors // _ROTATIONS, _ROTATIONS, -1, *value.shape[1:]).flip(1)
            changed[name] = change(rows, name).reshape(value.shape)
        elif match := _CENTRED.fullmatch(name):
            changed[name] = _swapped(value) if match[1] == "dim" else -value.flip(0)
    return changed, ("upgraded from MMDetection3D 0.x: sizes, yaws and directions of boxes",)


def find_generation(meta: Mapping[Any, Any]) -> int | None:
    """0 or 1 by what a file says of itself; None if it says nothing."""
    version = re.match(r"(\d+)\.", str(meta.get("mmdet3d_version", "")))
    if version is not None:
        return min(int(version[1]), 1)
    if "mmengine_version" in meta:
        return 1
    text = " ".join(str(meta.get(key, "")) for key in ("config", "cfg"))
    sides = re.search(r"\bsizes\s*=\s*\[\s*\[\s*([\d.]+)\s*,\s*([\d.]+)", text)
    if sides is None or sides[1] == sides[2]:
        return None
    return int(float(sides[1]) > float(sides[2]))  # length first


def _same(rows: Tensor, name: str) -> Tensor:
    return rows


def _offsets(rows: Tensor, name: str) -> Tensor:
    """(sizes, 2, numbers of a box, ...)."""
    order = [0, 1, 2, 4, 3, *range(5, rows.shape[2])]
    out = rows[:, :, order].clone()
    out[:, :, _YAW] *= -1
    if name.endswith("bias"):
        out[:, :, _YAW] += math.pi / 2 - _ROTATION
    return out


def _directions(rows: Tensor, name: str) -> Tensor:
    return rows.flip(2)


_CHANGES: Mapping[str, Callable[[Tensor, str], Tensor]] = {
    "cls": _same,
    "reg": _offsets,
    "dir_cls": _directions,
}


def _swapped(value: Tensor) -> Tensor:
    return torch.cat([value[1:2], value[:1], value[2:]])
