"""The words Trunk (a backbone and its necks) and Model (a trunk and its heads)."""

from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from mtl_ray.loading.batch import Batch
from mtl_ray.models.backbone import Backbone
from mtl_ray.models.config import BackboneConfig, NeckConfig
from mtl_ray.models.head import Context, Features, Head, NarrowTargets, Term
from mtl_ray.models.necks import build_neck

_ONEDNN_BLOCK = 16
"""Input channels below which oneDNN's weight gradient of a strided 1x1 convolution writes past its buffer (channels last, AVX-512;
https://github.com/uxlfoundation/oneDNN/issues/6035, oneDNN 3.14 in torch 2.15)."""


class Trunk(nn.Module):
    """A backbone and the necks upon it.

    Attributes:
        channels: channels of each feature that it gives, by name.
        strides: canvas pixels per cell of each feature; 0 for a pooled one.
    """

    def __init__(self, backbone: Backbone, necks: Mapping[str, NeckConfig]) -> None:
        super().__init__()
        self.backbone = backbone
        self.channels = dict(backbone.channels)
        self.strides = dict(backbone.strides)
        self.necks = nn.ModuleDict()
        givers = dict.fromkeys(self.channels, "the backbone")
        for name, config in necks.items():
            neck = build_neck(name, config, self.channels, self.strides)
            _add_features(givers, name, neck.channels)
            self.necks[name] = neck
            self.channels |= neck.channels
            self.strides |= neck.strides

    def forward(self, image: Tensor) -> Features:
        """``image`` float (B, 3, H, W), normalised -> features by name."""
        features: dict[str, Tensor] = self.backbone(image)
        for neck in self.necks.values():
            features = features | neck(features)
        return features


def _add_features(givers: dict[str, str], neck: str, names: Iterable[str]) -> None:
    """Notes which features a neck gives.

    Raises:
        ValueError: if the backbone or an earlier neck gives a feature of the same name.
    """
    for name in names:
        if name in givers:
            raise ValueError(
                f"{givers[name]} and neck {neck!r} both give the feature {name}: give one a prefix (model.necks.{neck}.prefix=NAME_)"
            )
        givers[name] = f"neck {neck!r}"


def build_trunk(backbone: BackboneConfig, necks: Mapping[str, NeckConfig]) -> Trunk:
    """The trunk of a config, with random or the configured weights.

    Raises:
        ValueError: if the backbone is unknown, a neck reads a feature that is not there, or two give features of one name.
    """
    return Trunk(Backbone(backbone), necks)


class Model(nn.Module):
    """One trunk and one or more heads.

    Args:
        trunk: gives the features.
        heads: by name.
        mean, std: of each channel (RGB, 0 to 255): the first layer subtracts the one and divides by the other.
        narrow: by head, for those that do not learn all classes of the run in their order.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        trunk: Trunk,
        heads: Mapping[str, Head],
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        narrow: Mapping[str, NarrowTargets] | None = None,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleDict(cast(Mapping[str, nn.Module], heads))
        self.narrow = nn.ModuleDict(narrow or {})
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self._layout = _layout(self)

    def normalise(self, image: Tensor) -> Tensor:
        """``image`` uint8 (B, 3, H, W) RGB -> float32, normalised, in the memory layout in which convolutions are fastest."""
        return ((image.float() - self.mean) / self.std).contiguous(memory_format=self._layout)

    def losses(self, batch: Batch, step: int = 0) -> dict[str, Term]:
        """The terms of all heads as ``{"HEAD/TERM": (sum, count)}``, each sum multiplied by its head's weight."""
        image = batch.inputs["image"]
        context = Context(canvas_hw=(image.shape[2], image.shape[3]), valid_hw=batch.inputs["valid_hw"], step=step)
        features = self.trunk(self.normalise(image))
        terms: dict[str, Term] = {}
        for name, module in self.heads.items():
            head = cast(Head, module)
            targets = batch.targets[head.annotation]
            targets = self.narrow[name](targets) if name in self.narrow else targets
            for term, (total, count) in head.losses(features, targets, context).items():
                terms[f"{name}/{term}"] = (total * head.weight, count)
        return terms

    def forward(self, batch: Batch, step: int = 0) -> dict[str, Term]:
        """``losses``: the training forward of a ``torch.nn.Module``."""
        return self.losses(batch, step)

    def predict(self, image: Tensor, valid_hw: Tensor, exporting: bool = False) -> dict[str, dict[str, Tensor]]:
        """What each head that predicts says.

        Args:
            image: uint8 (B, 3, H, W) RGB canvases.
            valid_hw: int32 (B, 2), the part of each canvas that holds image.
            exporting: True while the graph is traced for ONNX.

        Returns:
            By head, the arrays that go into ``decode``, batch first.
        """
        context = Context(canvas_hw=(image.shape[2], image.shape[3]), valid_hw=valid_hw, exporting=exporting)
        features = self.trunk(self.normalise(image))
        heads = {name: cast(Head, module) for name, module in self.heads.items()}
        return {name: head.predict(features, context) for name, head in heads.items() if not head.train_only}


def _layout(model: nn.Module) -> torch.memory_format:
    """Channels last, in which convolutions are fastest, but for a model so narrow that oneDNN would spoil memory in it."""
    convolutions = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    unsafe = any(c.kernel_size == (1, 1) and max(c.stride) > 1 and c.in_channels // c.groups < _ONEDNN_BLOCK for c in convolutions)
    return torch.contiguous_format if unsafe else torch.channels_last
