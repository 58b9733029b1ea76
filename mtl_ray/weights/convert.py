"""Converts weights of another program to the names of this project, and checks them against the
network.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from torch import Tensor

from mtl_ray.experiment import ExperimentConfig
from mtl_ray.models.config import TimmBackbone
from mtl_ray.models.imports import Importing
from mtl_ray.models.model import Model
from mtl_ray.models.resnet_config import ResNetBackbone
from mtl_ray.weights.foreign import ForeignWeights, recognise
from mtl_ray.weights.infer import TimmModel, infer, open_model, whole_name
from mtl_ray.weights.targets import model_of
from mtl_ray.weights.weights import Weights

_CLASSIFIERS = ("fc.", "head.fc.", "head.", "classifier.")


@dataclass(frozen=True, slots=True)
class ConvertedWeights:
    """Converted weights and a report.

    Attributes:
        tensors: under the names of this project's backbone (for ``model.backbone.weights``); with a
            config, under those of its whole model (also for ``runtime.load_from``); if no model was
            found, under those of timm's whole model.
        kind: the program of the file, one of ``families.KINDS``.
        backbone: the section ``model.backbone`` for a config; None if no model of timm has these
            shapes.
        missing: names of the network that the file lacks; only of heads and necks, since an
            incomplete backbone is an error.
        unused: names of the file (timm's names, where timm has the tensor) for which the network
            has no place.
        notes: what the user must know to use the weights, a sentence each.
    """

    tensors: dict[str, Tensor]
    kind: str
    backbone: dict[str, Any] | None
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    notes: tuple[str, ...]

    def to_text(self, most: int = 12) -> str:
        """The report, with at most ``most`` names in each list."""
        lines = [f"a file of {self.kind}: {len(self.tensors)} tensors converted"]
        for about, names in (
            ("without a place in the network", self.unused),
            ("of the network not in the file", self.missing),
        ):
            lines.append(f"{len(names)} {about}" + (":" if names else ""))
            lines += [f"  {name}" for name in names[:most]] + (
                [f"  ... and {len(names) - most} more"] if len(names) > most else []
            )
        lines += [f"note: {note}" for note in self.notes]
        if self.backbone is not None:
            text = yaml.safe_dump(
                {"model": {"backbone": self.backbone}}, sort_keys=False, default_flow_style=None
            )
            lines.append(f"for a config:\n{text.rstrip()}")
        return "\n".join(lines)


def convert_weights(
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
) -> ConvertedWeights:
    """Renames the tensors of a file, finds its network, and fills the backbone strictly.

    Args:
        weights: as ``read_weights`` gives them.
        kind: one of ``families.KINDS``; identified by default.
        model: of timm; by default the first whose shapes fit.
        options: of that model, as in ``model.backbone.options``.
        config: convert for the network of this config: its backbone, and those necks and heads that
            the file contains.
        classes: number of classes of its heads, if its data is not available.
        old_classes: of a detector of MMDetection 1.x, with the background.
        old_version: of MMDetection that wrote the file, if the file does not contain it.
        compat: keep the values exactly as the original converters do.

    Raises:
        ValueError: if the kind is unknown, or the backbone lacks a tensor or has it in another
            shape.
    """
    foreign = recognise(weights, kind, classes=old_classes, version=old_version, compat=compat)
    if config is not None:
        return _for_config(foreign, config, classes)
    timm_model = open_model(model, options) if model else infer(foreign.backbone)
    if timm_model is None:
        note = (
            "no model of timm has these shapes: the names are those of timm's whole models, "
            "unchecked; choose one with --model"
        )
        # an old detector without a known network: its upgraded weights may be useful elsewhere
        if not foreign.backbone:
            return ConvertedWeights(
                foreign.beside,
                foreign.kind,
                None,
                (),
                (),
                (*foreign.notes, "no network of this file is known here"),
            )
        return ConvertedWeights(
            foreign.backbone,
            foreign.kind,
            None,
            (),
            tuple(foreign.beside),
            (*_notes(foreign, None), note),
        )
    tensors = backbone_tensors(foreign.backbone, timm_model)
    used = {whole_name(foreign.backbone, name) for name in tensors}
    unused = (*(name for name in foreign.backbone if name not in used), *foreign.beside)
    backbone: dict[str, Any] = {"name": timm_model.name}
    if timm_model.options:
        backbone["options"] = dict(timm_model.options)
    if foreign.caffe:
        backbone["stride_in_1x1"] = True
    return ConvertedWeights(
        tensors, foreign.kind, backbone, (), unused, _notes(foreign, timm_model)
    )


def backbone_tensors(tensors: Mapping[str, Tensor], model: TimmModel) -> dict[str, Tensor]:
    """The tensors of a backbone under its own names, from those of timm's whole model.

    Raises:
        ValueError: if one is missing or has another shape.
    """
    found, missing, unequal = {}, [], []
    for name, shape in model.features.items():
        whole = whole_name(tensors, name)
        if whole not in tensors:
            missing += [] if name.endswith("num_batches_tracked") else [whole]
        elif tuple(tensors[whole].shape) != shape:
            unequal.append(f"{whole} is {tuple(tensors[whole].shape)} and must be {shape}")
        else:
            found[name] = tensors[whole]
    if missing or unequal:
        parts = (
            [f"{len(missing)} tensors are missing ({', '.join(missing[:5])})"] if missing else []
        )
        parts += (
            [f"{len(unequal)} have another shape ({'; '.join(unequal[:3])})"] if unequal else []
        )
        raise ValueError(f"these weights do not fill {model.name}: {'; '.join(parts)}")
    return found


def _for_config(
    foreign: ForeignWeights, config: ExperimentConfig, classes: int | None
) -> ConvertedWeights:
    """Converts for the whole network of a config: the backbone strictly, a neck and a classifier
    if their shapes agree.
    """
    model = model_of(config, classes)
    own, backbone = model.state_dict(), config.model.backbone
    if not isinstance(backbone, TimmBackbone | ResNetBackbone):
        raise ValueError(
            "weights of a backbone are imported for those of timm and ResNet, not for the type "
            f"{backbone.type!r}"
        )
    prefix = "trunk.backbone." + ("net." if isinstance(backbone, TimmBackbone) else "")
    shapes = {
        name.removeprefix(prefix): tuple(value.shape)
        for name, value in own.items()
        if name.startswith(prefix)
    }
    name, options = (
        (backbone.name, backbone.options)
        if isinstance(backbone, TimmBackbone)
        else (f"resnet{backbone.depth}", {})
    )
    found = backbone_tensors(foreign.backbone, TimmModel(name, options, shapes))
    used = {whole_name(foreign.backbone, name) for name in found}
    tensors = {prefix + name: value for name, value in found.items()}
    offered = {
        **{name: value for name, value in foreign.backbone.items() if name not in used},
        **foreign.beside,
    }
    places = _places(offered, config, model)
    unused = []
    for name, value in offered.items():
        place = places.get(name, "")
        if place in own and own[place].shape == value.shape and place not in tensors:
            tensors[place] = value
        else:
            unused.append(
                name
                if place not in own
                else f"{name} {tuple(value.shape)}, {place} is {tuple(own[place].shape)}"
            )
    missing = tuple(
        name for name in own if name not in tensors and not name.endswith("num_batches_tracked")
    )
    return ConvertedWeights(
        tensors, foreign.kind, None, missing, tuple(unused), _config_notes(foreign, backbone)
    )


def _config_notes(
    foreign: ForeignWeights, backbone: TimmBackbone | ResNetBackbone
) -> tuple[str, ...]:
    own = isinstance(backbone, ResNetBackbone)
    notes = _notes(foreign, None, "style: caffe" if own else "stride_in_1x1: true")
    if isinstance(backbone, ResNetBackbone):
        style = "caffe" if foreign.caffe else "pytorch"
        same = backbone.style == style or backbone.depth < 50
        fix = f"model.backbone.style={style}"
    else:
        same = foreign.caffe == backbone.stride_in_1x1
        fix = f"model.backbone.stride_in_1x1={str(foreign.caffe).lower()}"
    return notes if same else (*notes, f"these weights need {fix}")


def _places(
    offered: Mapping[str, Tensor], config: ExperimentConfig, model: Model
) -> dict[str, str]:
    """The names in the network of a config of tensors outside the backbone: of its necks, and of a
    classifier.
    """
    places = {
        each.sources[0]: f"trunk.necks.{neck}.{name}"
        for neck, module in model.trunk.necks.items()
        if isinstance(module, Importing)
        for name, each in module.imported("openmmlab", offered).items()
    }
    heads = [each for each, head in config.model.heads.items() if head.annotation == "labels"]
    if len(heads) == 1:
        for leaf in ("weight", "bias"):
            places |= {prefix + leaf: f"heads.{heads[0]}.linear.{leaf}" for prefix in _CLASSIFIERS}
    return places


def _notes(
    foreign: ForeignWeights, model: TimmModel | None, caffe: str = "stride_in_1x1: true"
) -> tuple[str, ...]:
    notes = list(foreign.notes)
    if foreign.bgr:
        mean, std = _colours(foreign.kind)
        notes.append(
            "trained on blue, green, red; its first convolution was reversed for RGB. model.mean: "
            f"{mean}, model.std: {std}"
        )
    if foreign.caffe:
        notes.append(
            f"its blocks halve the map in their first (1x1) convolution: model.backbone.{caffe}"
        )
    if model is not None and model.name.startswith("pvt_v2") and "mlp_ratios" in model.options:
        notes.append(
            "MiT is timm's pvt_v2 with these options; its layer norms have eps 1e-5, those of the "
            "original 1e-6"
        )
    return tuple(notes)


def _colours(kind: str) -> tuple[list[float], list[float]]:
    """Mean and standard deviation (RGB) of a network that was trained on BGR."""
    return ([122.7717, 115.9465, 102.9801] if kind == "detectron" else [123.675, 116.28, 103.53]), [
        1.0,
        1.0,
        1.0,
    ]
