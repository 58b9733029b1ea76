"""Weights of another program under this project's names, checked against the network that they are for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from torch import Tensor

from mtl_ray.experiment import ExperimentConfig
from mtl_ray.models.config import FpnNeck, TimmBackbone
from mtl_ray.weights.foreign import Foreign, recognise
from mtl_ray.weights.infer import TimmModel, infer, open_model, whole_name
from mtl_ray.weights.targets import model_of
from mtl_ray.weights.weights import Weights

_BACKBONE = "trunk.backbone.net."
_CLASSIFIERS = ("fc.", "head.fc.", "head.", "classifier.")


@dataclass(frozen=True, slots=True)
class Taken:
    """What an import came to.

    Attributes:
        tensors: under the names of this project's backbone (``model.backbone.weights`` reads them), with a config under those of its
            whole model (``runtime.load_from`` reads them, too), or under those of timm's whole model where no model was found.
        kind: whose file it is, one of ``foreign.KINDS``.
        backbone: what to write under ``model.backbone`` of a config; None where no model of timm has these shapes.
        missing: names of the network that the file has nothing for; of heads and necks only, a backbone is filled or refused.
        unused: names of the file, as timm has them where it has them, that the network has no place for.
        notes: what must be known to use the weights, a sentence each.
    """

    tensors: dict[str, Tensor]
    kind: str
    backbone: dict[str, Any] | None
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    notes: tuple[str, ...]

    def to_text(self, most: int = 12) -> str:
        """The report, ``most`` names of each kind."""
        lines = [f"a file of {self.kind}: {len(self.tensors)} tensors taken over"]
        for about, names in (("without a place in the network", self.unused), ("of the network not in the file", self.missing)):
            lines.append(f"{len(names)} {about}" + (":" if names else ""))
            lines += [f"  {name}" for name in names[:most]] + ([f"  ... and {len(names) - most} more"] if len(names) > most else [])
        lines += [f"note: {note}" for note in self.notes]
        if self.backbone is not None:
            text = yaml.safe_dump({"model": {"backbone": self.backbone}}, sort_keys=False, default_flow_style=None)
            lines.append(f"for a config:\n{text.rstrip()}")
        return "\n".join(lines)


def take_over(
    weights: Weights,
    kind: str | None = None,
    *,
    model: str | None = None,
    options: Mapping[str, Any] | None = None,
    config: ExperimentConfig | None = None,
    classes: int | None = None,
    old_classes: int = 81,
    old_version: str | None = None,
    compat: bool = False,
) -> Taken:
    """Translates the names of a file, finds its network, and fills that strictly.

    Args:
        weights: as ``read_weights`` gives them.
        kind: one of ``foreign.KINDS``; by default it is found out.
        model: of timm; by default the first whose shapes fit.
        options: of that model, as in ``model.backbone.options``.
        config: the network is that of the config: its backbone, and what the file has of its necks and heads.
        classes: of its heads, if its data is not at hand.
        old_classes: of a detector of MMDetection 1.x, with the background.
        old_version: of MMDetection that wrote the file, if the file does not say it.
        compat: values exactly as the original converters leave them.

    Raises:
        ValueError: if the kind is unknown, or the backbone lacks a tensor or has it in another shape.
    """
    foreign = recognise(weights, kind, classes=old_classes, version=old_version, compat=compat)
    if config is not None:
        return _for_config(foreign, config, classes)
    timm_model = open_model(model, options) if model else infer(foreign.backbone)
    if timm_model is None:
        note = "no model of timm has these shapes: the names are those of timm's whole models, unchecked; name one with --model"
        if not foreign.backbone:  # an old detector of which no part is known here: upgraded, it may be of use elsewhere
            return Taken(foreign.beside, foreign.kind, None, (), (), (*foreign.notes, "no network of this file is known here"))
        return Taken(foreign.backbone, foreign.kind, None, (), tuple(foreign.beside), (*_notes(foreign, None), note))
    tensors = fill(foreign.backbone, timm_model)
    used = {whole_name(foreign.backbone, name) for name in tensors}
    unused = (*(name for name in foreign.backbone if name not in used), *foreign.beside)
    backbone: dict[str, Any] = {"name": timm_model.name}
    if timm_model.options:
        backbone["options"] = dict(timm_model.options)
    if foreign.caffe:
        backbone["stride_in_1x1"] = True
    return Taken(tensors, foreign.kind, backbone, (), unused, _notes(foreign, timm_model))


def fill(tensors: Mapping[str, Tensor], model: TimmModel) -> dict[str, Tensor]:
    """The tensors of a backbone by its own names, from those of timm's whole model.

    Raises:
        ValueError: if one is missing or has another shape.
    """
    found, missing, unequal = {}, [], []
    for name, shape in model.features.items():
        whole = whole_name(tensors, name)
        if whole not in tensors:
            missing += [] if name.endswith("num_batches_tracked") else [whole]
        elif tuple(tensors[whole].shape) != shape:
            unequal.append(f"{whole} is {tuple(tensors[whole].shape)} and would have to be {shape}")
        else:
            found[name] = tensors[whole]
    if missing or unequal:
        parts = [f"{len(missing)} tensors are missing ({', '.join(missing[:5])})"] if missing else []
        parts += [f"{len(unequal)} have another shape ({'; '.join(unequal[:3])})"] if unequal else []
        raise ValueError(f"these weights do not fill {model.name}: {'; '.join(parts)}")
    return found


def _for_config(foreign: Foreign, config: ExperimentConfig, classes: int | None) -> Taken:
    """For the whole network of a config: the backbone strictly, a neck and a classifier where they are the same."""
    own = model_of(config, classes).state_dict()
    shapes = {name.removeprefix(_BACKBONE): tuple(value.shape) for name, value in own.items() if name.startswith(_BACKBONE)}
    backbone = config.model.backbone
    if not isinstance(backbone, TimmBackbone):
        raise ValueError(f"weights are imported for backbones of timm, not of the type {backbone.type!r}")
    found = fill(foreign.backbone, TimmModel(backbone.name, backbone.options, shapes))
    used = {whole_name(foreign.backbone, name) for name in found}
    tensors = {_BACKBONE + name: value for name, value in found.items()}
    offered = {**{name: value for name, value in foreign.backbone.items() if name not in used}, **foreign.beside}
    unused = []
    for name, value in offered.items():
        place = _place(name, config)
        if place in own and own[place].shape == value.shape and place not in tensors:
            tensors[place] = value
        else:
            unused.append(name if place not in own else f"{name} {tuple(value.shape)}, {place} is {tuple(own[place].shape)}")
    missing = tuple(name for name in own if name not in tensors and not name.endswith("num_batches_tracked"))
    notes = [*_notes(foreign, None)]
    if foreign.caffe != backbone.stride_in_1x1:
        notes.append(f"these weights want model.backbone.stride_in_1x1={str(foreign.caffe).lower()}")
    return Taken(tensors, foreign.kind, None, missing, tuple(unused), tuple(notes))


def _place(name: str, config: ExperimentConfig) -> str:
    """Where a tensor that is not of the backbone belongs in the network of a config; empty if nowhere."""
    pyramids = [each for each, neck in config.model.necks.items() if isinstance(neck, FpnNeck) and not neck.norm]
    heads = [each for each, head in config.model.heads.items() if head.annotation == "labels"]
    if len(pyramids) == 1 and (match := re.fullmatch(r"neck\.(lateral|fpn)_convs\.(\d+)\.conv\.(weight|bias)", name)):
        part = "lateral" if match[1] == "lateral" else "smooth"
        return f"trunk.necks.{pyramids[0]}.{part}.{match[2]}.0.{match[3]}"
    leaf = name.rpartition(".")[2]
    if len(heads) == 1 and leaf in ("weight", "bias") and name in [prefix + leaf for prefix in _CLASSIFIERS]:
        return f"heads.{heads[0]}.linear.{leaf}"
    return ""


def _notes(foreign: Foreign, model: TimmModel | None) -> tuple[str, ...]:
    notes = list(foreign.notes)
    if foreign.bgr:
        mean, std = _colours(foreign.kind)
        notes.append(f"trained on blue, green, red; the first convolution was turned round for RGB. model.mean: {mean}, model.std: {std}")
    if foreign.caffe:
        notes.append("its blocks halve the map in their first (1x1) convolution: model.backbone.stride_in_1x1: true")
    if model is not None and model.name.startswith("pvt_v2") and "mlp_ratios" in model.options:
        notes.append(
            "MiT is timm's pvt_v2 with these options; the variance of a layer norm is raised by 1e-5 there, by 1e-6 in the original"
        )
    return tuple(notes)


def _colours(kind: str) -> tuple[list[float], list[float]]:
    """Mean and scale (RGB) of a network that was trained on BGR."""
    return ([122.7717, 115.9465, 102.9801] if kind == "detectron" else [123.675, 116.28, 103.53]), [1.0, 1.0, 1.0]
