"""The colours and the kind of backbone that an imported network expects."""

import re
from dataclasses import replace
from typing import Literal

from torch import Tensor, nn

from mtl_ray.experiment import ExperimentConfig, ModelConfig
from mtl_ray.models.config import BackboneConfig, TimmBackbone
from mtl_ray.models.model import Model
from mtl_ray.models.resnet_config import ResNetBackbone
from mtl_ray.weights.original import Original


def with_colours(
    tensors: dict[str, Tensor],
    model: Model,
    original: Original,
    config: ExperimentConfig,
    notes: list[str],
    *,
    compat: bool,
) -> ExperimentConfig:
    """Makes a network one for red, green, blue; others than of images are left as they are.

    Args:
        tensors: of the network; its first convolution is turned in place of the one there.
        model: with the names and layers of these tensors.
        original: the file that they come from.
        config: of the network.
        notes: what was done is added.
        compat: keep the order of the colours.

    Returns:
        The config with the original's mean and standard deviation, where it says them.
    """
    if model.trunk.input != "image":
        return config
    if original.bgr and not compat:
        name = next(
            f"trunk.backbone.{name}.weight"
            for name, module in model.trunk.backbone.named_modules()
            if isinstance(module, nn.Conv2d) and module.in_channels % 3 == 0
        )
        weight = tensors[name]
        # (C, 3 * n, h, w): three colours, of n pixels in a stem that folds its input
        turned = weight.reshape(len(weight), -1, 3, *weight.shape[2:]).flip(2)
        tensors[name] = turned.reshape(weight.shape)
        notes.append("trained on blue, green, red; its first convolution was reversed for RGB")
    elif original.bgr is None:
        notes.append("the file does not say the order of its colours: taken for red, green, blue")
    mean, std = original.mean, original.std
    if mean is None or std is None or (original.bgr and compat):
        return config
    pairs = zip((*mean, *std), (*config.model.mean, *config.model.std), strict=False)
    if len(config.model.mean) == len(mean) and all(abs(a - b) < 0.01 for a, b in pairs):
        return config
    notes.append(
        f"trained with model.mean: {list(mean)}, model.std: {list(std)}, not with those of the "
        "config; a checkpoint gets those of the file"
    )
    return replace(config, model=replace(config.model, mean=mean, std=std))


def with_style(network: ModelConfig, original: Original, notes: list[str]) -> ModelConfig:
    """The network with the strides of a ResNet where the file says that they were.

    Args:
        network: of the config.
        original: the file.
        notes: what was changed is added.
    """
    backbone = network.backbone
    if original.caffe is None:
        return network
    if isinstance(backbone, ResNetBackbone) and backbone.depth >= 50:
        style: Literal["pytorch", "caffe"] = "caffe" if original.caffe else "pytorch"
        changed: BackboneConfig = replace(backbone, style=style)
        said = f"style: {style}"
    elif isinstance(backbone, TimmBackbone) and re.match(r"resnet(50|101|152)\b", backbone.name):
        changed = replace(backbone, stride_in_1x1=original.caffe)
        said = f"stride_in_1x1: {str(original.caffe).lower()}"
    else:
        return network
    if changed == backbone:
        return network
    notes.append(f"trained with model.backbone.{said}, which is taken in place of the config's")
    return replace(network, backbone=changed)
