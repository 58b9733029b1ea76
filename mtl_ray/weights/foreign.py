"""Identifies which program wrote a file of weights, and renames the tensors of its backbone to
timm's names.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from mtl_ray.weights import families as known
from mtl_ray.weights.families import KINDS
from mtl_ray.weights.reshaped import prepare, red_first, resnet_of_detectron
from mtl_ray.weights.upgrade import describe_detector, upgrade, upgrade_ssd
from mtl_ray.weights.weights import Weights

_OF_OPENMMLAB = (
    *(known.OPENMMLAB_SWIN, known.OPENMMLAB_MIT, known.OPENMMLAB_VIT, known.RESNET_DEEP_STEM),
    *(known.SWIN, known.MIT, known.VIT, known.RESNET),
)
_FAMILIES: Mapping[str, tuple[known.Family, ...]] = {
    "pycls": (known.PYCLS,),
    "detectron2": (known.DETECTRON2,),
    "swin": (known.SWIN,),
    "mit": (known.MIT,),
    "torchvision": (
        known.TORCHVISION_VIT,
        known.TORCHVISION_SWIN,
        known.TORCHVISION_REGNET,
        known.RESNET,
    ),
    "timm": (known.VIT, known.RESNET),
    "efficientnet": (known.EFFICIENTNET,),
    "openmmlab": _OF_OPENMMLAB,
}
_PREFIXES = (
    "",
    "module.",
    "backbone.bottom_up.",
    "backbone.",
    "module.backbone.",
    "encoder.",
    "model.",
    "model.backbone.",
)


@dataclass(frozen=True, slots=True)
class ForeignWeights:
    """The weights of another program, under timm's names.

    Attributes:
        kind: one of ``KINDS``.
        backbone: under the names of timm's whole model, including a classifier.
        beside: the other tensors (necks, heads), under the names of the file (upgraded names, if
            the file was old).
        notes: what the user must know to use the weights, a sentence each.
        bgr: the network was trained on blue, green, red; the channels of its first convolution have
            been reversed.
        caffe: the strided blocks halve the map in their first convolution.
    """

    kind: str
    backbone: dict[str, Tensor]
    beside: dict[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    bgr: bool = False
    caffe: bool = False


def recognise(
    weights: Weights,
    kind: str | None = None,
    *,
    classes: int = 81,
    version: str | None = None,
    compat: bool = False,
) -> ForeignWeights:
    """Identifies a file of weights and renames its tensors.

    Args:
        weights: as read.
        kind: one of ``KINDS``; by default the first whose names are in the file.
        classes: of a detector of MMDetection 1.x, with the background.
        version: of MMDetection that wrote the file, if the file does not contain it.
        compat: keep the order of the colour channels.

    Raises:
        ValueError: if the kind is unknown.
    """
    if kind in (None, "detectron") and any(
        re.fullmatch(r"res2_0_branch2a_w", name) for name in weights.tensors
    ):
        return _of_detectron(weights, compat)
    if kind == "detectron":
        raise ValueError("this is not a ResNet of Detectron: it has no blob res2_0_branch2a_w")
    old = kind in (None, "openmmlab")
    tensors, notes = upgraded_tensors(weights, classes, version) if old else (weights.tensors, ())
    found = _find(tensors, kind)
    if found is None and notes:
        return ForeignWeights("openmmlab", {}, tensors, notes)
    if found is None:
        example = ", ".join(list(tensors)[:3])
        raise ValueError(
            f"these names belong to no network that is known here ({example}, ...), or not to "
            f"{kind or 'any of ' + ', '.join(KINDS)}; "
            "for a model of timm use --from timm --model NAME"
        )
    family, prefix, inner = found
    backbone, left = known.translate(inner, family)
    beside = {name: value for name, value in tensors.items() if not name.startswith(prefix)} | {
        prefix + name: v for name, v in left.items()
    }
    foreign = ForeignWeights(
        "openmmlab" if prefix.endswith("backbone.") else family.name, backbone, beside, notes
    )
    return _coloured(foreign, weights, compat)


def _find(
    tensors: Mapping[str, Tensor], kind: str | None
) -> tuple[known.Family, str, dict[str, Tensor]] | None:
    """The family, the prefix of its names, and its tensors without the prefix."""
    for prefix in _PREFIXES:
        inner = prepare(
            {
                name.removeprefix(prefix): value
                for name, value in tensors.items()
                if name.startswith(prefix)
            }
        )
        for each in (kind,) if kind else _FAMILIES:
            listed = _FAMILIES[each]
            if each == "openmmlab" and _is_regnet(inner):
                return known.OPENMMLAB_REGNET, prefix, inner
            if (
                kind or not prefix.endswith("backbone.") or each in ("openmmlab", "detectron2")
            ) and (family := known.find_family(inner, listed)):
                return replace(family, name=each), prefix, inner
    return (known.TIMM, "", dict(tensors)) if kind == "timm" else None


def _is_regnet(tensors: Mapping[str, Tensor]) -> bool:
    """OpenMMLab gives a RegNet the names of a ResNet, but its stem is 3x3, and its blocks have
    the same width inside and at the end.
    """
    stem, inside, end = (
        tensors.get(name)
        for name in ("conv1.weight", "layer1.0.conv2.weight", "layer1.0.conv3.weight")
    )
    return (
        stem is not None
        and inside is not None
        and end is not None
        and stem.shape[-1] == 3
        and inside.shape[0] == end.shape[0]
    )


def _of_detectron(weights: Weights, compat: bool) -> ForeignWeights:
    backbone, left = resnet_of_detectron(weights.tensors)
    if not compat:
        backbone["conv1.weight"] = red_first(backbone["conv1.weight"])
    return ForeignWeights("detectron", backbone, left, (), bgr=not compat, caffe=True)


def _coloured(foreign: ForeignWeights, weights: Weights, compat: bool) -> ForeignWeights:
    """Reverses the channels of the first convolution if the network was trained on BGR images."""
    text = _config_text(weights)
    caffe = re.search(r"style\s*=\s*['\"]caffe['\"]", text) is not None
    bgr = re.search(r"(?:bgr_)?to_rgb\s*=\s*False", text) is not None
    if foreign.kind == "detectron2":
        bgr = caffe = "torchvision" not in str(weights.rest.get("__author__", "")).lower()
    if not bgr or compat:
        return replace(foreign, caffe=caffe)
    stem = next(
        name
        for name in (
            "conv1.weight",
            "conv1.0.weight",
            "stem.conv.weight",
            "patch_embed.proj.weight",
        )
        if name in foreign.backbone
    )
    turned = foreign.backbone | {stem: red_first(foreign.backbone[stem])}
    return replace(foreign, backbone=turned, bgr=True, caffe=caffe)


def _config_text(weights: Weights) -> str:
    meta = weights.rest.get("meta")
    return (
        " ".join(str(meta.get(key, "")) for key in ("config", "cfg"))
        if isinstance(meta, dict)
        else ""
    )


def upgraded_tensors(
    weights: Weights, classes: int = 81, version: str | None = None, *, compat: bool = False
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Upgrades the tensors of a detector of MMDetection 1.x to 2.x.

    All other weights stay unchanged.

    Args:
        weights: as read.
        classes: of the old model, with the background.
        version: of MMDetection that wrote the file, if the file does not contain it.
        compat: apply the rules of MMDetection's tool, including its faults, to any version.

    Returns:
        The tensors, and a sentence for each change.
    """
    meta: Any = weights.rest.get("meta")
    found = version or (
        str(meta["mmdet_version"]) if isinstance(meta, dict) and "mmdet_version" in meta else None
    )
    if found is None:
        return weights.tensors, ()
    old = describe_detector(weights.tensors, found, _config_text(weights), classes, compat)
    tensors, notes = weights.tensors, []
    if compat or not old.at_least("2.0.0"):
        tensors = upgrade(tensors, old)
        notes.append(
            f"upgraded from MMDetection {found}: the background class of {classes} moved to the end"
        )
    if old.ssd and not compat and not old.at_least("2.14.0"):
        tensors = upgrade_ssd(tensors)
        notes.append("the extra layers of SSD became a neck (MMDetection 2.14)")
    return tensors, tuple(notes)
