"""The order and the scale of the colours that an imported network expects."""

from dataclasses import replace

from torch import Tensor, nn

from mtl_ray.experiment import ExperimentConfig
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
    backbone = config.model.backbone
    if isinstance(backbone, ResNetBackbone) and original.caffe is not None:
        style = "caffe" if original.caffe else "pytorch"
        if backbone.depth >= 50 and backbone.style != style:
            notes.append(f"these weights need model.backbone.style={style}")
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
