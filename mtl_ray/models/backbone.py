"""Backbones of timm, with feature maps named by stride and weights from a file."""

from collections.abc import Mapping
from itertools import takewhile
from typing import Any

import timm
from timm.layers import Format
from timm.models import FeatureListNet
from torch import Tensor, nn

from mtl_ray.models.config import TimmBackbone
from mtl_ray.models.imports import read_state_dict
from mtl_ray.models.trunk import Backbone, freeze_modes

_PREFIXES = ("", "trunk.backbone.net.", "trunk.backbone.", "module.", "model.", "backbone.")
STRIDES = {"C1": 2, "C2": 4, "C3": 8, "C4": 16, "C5": 32}


class TimmFeatures(Backbone):
    """A network of timm that gives feature maps by name.

    Each is (B, channels, H / stride, W / stride), sizes rounded up; see ``channels`` and
    ``strides``.

    Raises:
        ValueError: if timm has no such model, or the model has no feature map of a configured
            stride.
    """

    def __init__(self, config: TimmBackbone) -> None:
        super().__init__()
        indices = _indices(config)
        self.net = _create(config, pretrained=config.pretrained, out_indices=indices)
        self.levels = tuple(sorted(config.levels))
        self.channels = dict(zip(self.levels, self.net.feature_info.channels(), strict=True))
        self.strides = {level: STRIDES[level] for level in self.levels}
        self.channels_last = (
            getattr(self.net, "output_fmt", None) == Format.NHWC
        )  # (B, H, W, C), as of Swin
        self.frozen = config.frozen
        self.norm_eval = config.norm_eval
        self.frozen_parts = _frozen_parts(self.net, config)
        if config.stride_in_1x1:
            _stride_first(self.net, config.name)
        if config.weights is not None:
            load_weights(self.net, config.weights)
        if self.frozen:
            self.requires_grad_(False)
        for part in self._frozen():
            part.requires_grad_(False)

    def _frozen(self) -> list[nn.Module]:
        """Looked up by name: SyncBatchNorm may have taken the place of a layer."""
        return [part for name, part in self.net.named_children() if name in self.frozen_parts]

    def train(self, mode: bool = True) -> "TimmFeatures":
        """What is frozen stays in evaluation mode, so its normalisation statistics stay too."""
        super().train(mode and not self.frozen)
        freeze_modes(self, self._frozen(), norms=self.norm_eval)
        return self

    def forward(self, values: Tensor) -> dict[str, Tensor]:
        """Normalised images float (B, 3, H, W) -> feature maps (B, C, h, w) by name."""
        maps = self.net(values)
        return dict(
            zip(
                self.levels,
                (each.permute(0, 3, 1, 2) for each in maps) if self.channels_last else maps,
                strict=True,
            )
        )


def _stride_first(net: nn.Module, name: str) -> None:
    """Moves the stride of each bottleneck from its 3x3 convolution to the 1x1 before it (He et al.
    2015, as released in Caffe).
    """
    blocks = [
        module
        for module in net.modules()
        if hasattr(module, "conv3") and getattr(module.conv2, "stride", None) == (2, 2)
    ]
    if not blocks:
        raise ValueError(f"model.backbone.stride_in_1x1: {name} has no strided bottlenecks")
    for block in blocks:
        assert isinstance(block.conv1, nn.Conv2d)
        assert isinstance(block.conv2, nn.Conv2d)
        block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)


def _frozen_parts(net: Any, config: TimmBackbone) -> tuple[str, ...]:
    """The names of the parts that are not trained: all before the feature map that is coarser than
    those of ``frozen_stages``.
    """
    if config.frozen_stages < 0:
        return ()
    if not isinstance(net, FeatureListNet):
        raise ValueError(
            f"model.backbone.frozen_stages: the stages of {config.name} cannot be told apart. Fix: "
            "frozen=true, or none frozen"
        )
    coarser = {
        info["module"].replace(".", "_")
        for info in net.feature_info.info
        if info["reduction"] > 2 ** (config.frozen_stages + 1)
    }
    return tuple(takewhile(lambda name: name not in coarser, dict(net.named_children())))


def _create(config: TimmBackbone, **more: Any) -> Any:
    options = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in config.options.items()
    }
    try:
        return timm.create_model(config.name, features_only=True, **options, **more)
    except (RuntimeError, TypeError) as error:
        near = ", ".join(timm.list_models(f"*{config.name[:5]}*")[:8]) or "see timm.list_models()"
        raise ValueError(
            f"timm does not make a backbone of model.backbone.name={config.name!r}: {error} (near: "
            f"{near})"
        ) from error


def _indices(config: TimmBackbone) -> tuple[int, ...]:
    """The indices of timm's feature maps with the strides of the configured levels."""
    unknown = [level for level in config.levels if level not in STRIDES]
    if unknown:
        raise ValueError(
            f"model.backbone.levels: {', '.join(unknown)} is none of {', '.join(STRIDES)}"
        )
    reductions = [each["reduction"] for each in _create(config, out_indices=(0,)).feature_info.info]
    missing = [level for level in config.levels if STRIDES[level] not in reductions]
    if missing:
        raise ValueError(
            f"{config.name} has feature maps of stride {reductions}, none for {', '.join(missing)}"
        )
    last = {reduction: index for index, reduction in enumerate(reductions)}
    return tuple(last[STRIDES[level]] for level in sorted(config.levels))


def load_weights(net: nn.Module, uri: str) -> None:
    """Loads a backbone from a file of safetensors or of ``torch.save`` (no code is unpickled).

    Names may be those of timm or of a checkpoint of this project (``trunk.backbone.net.``). Entries
    that the backbone does not have, such as a classifier, are ignored.

    Raises:
        ValueError: if a parameter of the backbone is missing in the file or has another shape.
    """
    fill_backbone(net, read_state_dict(uri), uri)


def fill_backbone(net: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copies tensors into a backbone; ``source`` names them in errors, see ``load_weights``."""
    own = net.state_dict()
    prefix = next(
        (prefix for prefix in _PREFIXES if prefix + next(iter(own)) in state),
        "",
    )
    matching = {name: state[prefix + name] for name in own if prefix + name in state}
    missing_names = [
        name for name in own if name not in matching and not name.endswith("num_batches_tracked")
    ]
    if missing_names:
        raise ValueError(
            f"{source} has no {missing_names[0]!r} ({len(missing_names)} of {len(own)} entries of "
            "the backbone are not in it)"
        )
    unequal = [name for name, value in matching.items() if value.shape != own[name].shape]
    if unequal:
        name = unequal[0]
        raise ValueError(
            f"{source}: {name!r} is {tuple(matching[name].shape)}, but the backbone has "
            f"{tuple(own[name].shape)}"
        )
    net.load_state_dict(matching, strict=False)
