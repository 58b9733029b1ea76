"""The parts of a network that are filled from another program's file, each by itself."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import nn

from mtl_ray.models.backbone import TimmFeatures
from mtl_ray.models.imports import Imported, Importing, Program
from mtl_ray.models.model import Model
from mtl_ray.weights.foreign import recognise
from mtl_ray.weights.infer import whole_name
from mtl_ray.weights.original import Original
from mtl_ray.weights.weights import Weights

_BACKBONES: Mapping[Program, tuple[str, ...]] = {
    "openmmlab": ("backbone.",),
    "torchvision": ("backbone.body.", "backbone."),
    "huggingface": (
        "model.backbone.conv_encoder.model.",
        "model.backbone.model.",
        "backbone.conv_encoder.model.",
    ),
}


class ModulePart(NamedTuple):
    """A module of a network that is filled by itself, and what its names begin with."""

    prefix: str
    module: nn.Module


def parts_of(model: Model) -> Iterator[ModulePart]:
    """Backbone, necks and heads."""
    yield ModulePart("trunk.backbone.", model.trunk.backbone)
    for name, neck in model.trunk.necks.items():
        yield ModulePart(f"trunk.necks.{name}.", neck)
    for name, head in model.heads.items():
        yield ModulePart(f"heads.{name}.", head)


def imported_part(part: ModulePart, original: Original) -> dict[str, Imported]:
    """The tensors of a file for a part, under the part's own names."""
    if isinstance(part.module, TimmFeatures):
        return _of_timm(part.module, original)
    if isinstance(part.module, Importing):
        return part.module.imported(original.program, original.tensors)
    return {}


def _of_timm(backbone: TimmFeatures, original: Original) -> dict[str, Imported]:
    """The backbone by timm's names, to which ``recognise`` brings those of many families."""
    for prefix in _BACKBONES[original.program]:
        inner = {
            name.removeprefix(prefix): value
            for name, value in original.tensors.items()
            if name.startswith(prefix)
        }
        if not inner:
            continue
        mark = "backbone." if original.program == "openmmlab" else ""
        try:
            foreign = recognise(
                Weights({mark + name: value for name, value in inner.items()}), compat=True
            )
        except ValueError:
            continue
        left = {name.removeprefix(mark) for name in foreign.beside}
        sources = tuple(prefix + name for name in inner if name not in left)
        return {
            f"net.{name}": Imported(foreign.backbone[whole], sources)
            for name in backbone.net.state_dict()
            if (whole := whole_name(foreign.backbone, name)) in foreign.backbone
        }
    return {}
