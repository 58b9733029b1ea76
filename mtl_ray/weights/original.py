"""What a file of a whole detector says about itself: the program that wrote it, its classes, and
how its images were normalised.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from torch import Tensor

from mtl_ray import storage
from mtl_ray.models.imports import Program
from mtl_ray.weights.box_generation import upgraded_boxes
from mtl_ray.weights.foreign import upgraded_tensors
from mtl_ray.weights.hugging_face import ModelDescription, read_model_description
from mtl_ray.weights.weights import Weights

PROGRAMS: tuple[Program, ...] = get_args(Program)
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_MARKS: Mapping[Program, str] = {
    "torchvision": r"backbone\.(body|fpn)\.|head\.(classification|regression)_head\.|roi_heads\.",
    "huggingface": r"(model|detr)\..*(backbone|encoder|decoder)\.|class_labels_classifier\.",
    "openmmlab": r"(backbone|neck|bbox_head|rpn_head|roi_head|mask_head|decode_head)\."
    r"|(pts_)?(voxel_encoder|middle_encoder|backbone|neck|bbox_head)\.",
}
"""Beginnings of names that only the detectors of a program have; the first one found counts."""
_THREE = r"\s*=\s*[\[(]\s*([-\d.]+)\s*,\s*([-\d.]+)\s*,\s*([-\d.]+)\s*,?\s*[\])]"


@dataclass(frozen=True, slots=True)
class Original:
    """A file of a whole network.

    Attributes:
        program: that wrote it.
        tensors: by the names of that program.
        classes: of the network, in its order; None if the file does not say them.
        bgr: True if it was trained on blue, green, red; None if the file does not say it.
        mean, std: red, green, blue, in the scale of 0 to 255; None if the file does not say them.
        caffe: True if its strided blocks have their stride in the first convolution; None if the
            file does not say it.
        notes: what was changed while reading, a sentence each.
    """

    program: Program
    tensors: dict[str, Tensor]
    classes: tuple[str, ...] | None = None
    bgr: bool | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    caffe: bool | None = None
    notes: tuple[str, ...] = ()


def find_program(tensors: Mapping[str, Tensor]) -> Program | None:
    """The program whose names these are; None if they are of no known detector."""
    names = [name.removeprefix("module.") for name in tensors]
    return next(
        (
            program
            for program, pattern in _MARKS.items()
            if any(re.match(pattern, name) for name in names)
        ),
        None,
    )


def read_original(
    weights: Weights,
    program: Program,
    *,
    old_classes: int = 81,
    old_version: str | None = None,
    generation: int | None = None,
    uri: str | None = None,
) -> Original:
    """What is known of a file; its parameters may be anything.

    Args:
        weights: as read.
        program: that wrote them.
        old_classes: of a detector of MMDetection 1.x, with the background.
        old_version: of MMDetection that wrote the file, if the file does not contain it.
        generation: of MMDetection3D that wrote it; see ``upgraded_boxes``.
        uri: of the file or folder. What lies beside the weights of Hugging Face is read, too.

    Raises:
        ValueError: if the generation of a detector of point clouds must be known, and is not; or if
            what lies beside the weights is broken.
    """
    tensors = dict(weights.tensors)
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    if program == "torchvision":  # its detectors know no other colours
        return Original(program, tensors, None, False, IMAGENET_MEAN, IMAGENET_STD, False)
    if program == "huggingface":
        said = ModelDescription(None, None, None) if uri is None else read_model_description(uri)
        names = None if said.classes is None else _distinct(said.classes)
        bgr = None if said.mean is None else False
        return Original(program, tensors, names, bgr, said.mean, said.std)
    plain = Weights(tensors, weights.key, weights.rest, weights.left)
    tensors, notes = upgraded_tensors(plain, old_classes, old_version)
    meta = weights.rest.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    tensors, boxes = upgraded_boxes(tensors, meta, generation)
    text = " ".join(str(meta.get(key, "")) for key in ("config", "cfg"))
    bgr = _bgr(text)
    mean, std = _numbers("mean", text), _numbers("std", text)
    if bgr and mean is None and std is None:  # YOLOX: bytes as they are
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return Original(
        program,
        tensors,
        _classes(meta),
        bgr,
        mean[::-1] if mean is not None and bgr else mean,
        std[::-1] if std is not None and bgr else std,
        _caffe(text),
        (*notes, *boxes),
    )


def _bgr(text: str) -> bool | None:
    """Whether a config of OpenMMLab reads blue, green, red; None if it does not say.

    The preprocessor of 3.x leaves the order of OpenCV unless it is told otherwise.
    """
    said = re.search(r"to_rgb\s*=\s*(True|False)", text)
    if said is not None:
        return said[1] == "False"
    return True if re.search(r"data_preprocessor\s*=", text) else None


def _caffe(text: str) -> bool | None:
    """Whether a config of OpenMMLab has a ResNet of Caffe's style; None if it has no ResNet."""
    said = re.search(r"style['\"]?\s*[=:]\s*['\"](caffe|pytorch)['\"]", text)
    if said is not None:
        return said[1] == "caffe"
    return False if "ResNet" in text else None  # the default of OpenMMLab


def _numbers(name: str, text: str) -> tuple[float, ...] | None:
    found = re.search(rf"\b{name}{_THREE}", text)
    return None if found is None else tuple(float(each) for each in found.groups())


def _classes(meta: Mapping[Any, Any]) -> tuple[str, ...] | None:
    described = meta.get("dataset_meta")
    described = described if isinstance(described, dict) else {}
    names = next(
        (
            value
            for value in (described.get("classes"), described.get("CLASSES"), meta.get("CLASSES"))
            if value is not None
        ),
        None,
    )
    if isinstance(names, str):
        return (names,)
    if not isinstance(names, list | tuple) or not all(isinstance(each, str) for each in names):
        return None
    return tuple(names)


def read_class_list(uri: str) -> tuple[str, ...]:
    """The classes in a file: a JSON list, or one name a line.

    Later classes of the same name (the N/A of torchvision's lists) get a number.

    Raises:
        ValueError: if it has none.
    """
    text = storage.read(uri).decode("utf-8-sig")
    if text.lstrip().startswith("["):
        try:
            names = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{uri} is no JSON list of names: {error}") from error
        if not all(isinstance(each, str) for each in names):
            raise ValueError(f"{uri} holds something that is not a name")
    else:
        names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names:
        raise ValueError(f"{uri} names no class")
    return _distinct(names)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names, later ones of the same name with a number."""
    seen: Counter[str] = Counter()
    before = []
    for name in names:
        before.append(seen[name])
        seen[name] += 1
    return tuple(
        f"{name} ({count + 1})" if count else name
        for name, count in zip(names, before, strict=True)
    )
