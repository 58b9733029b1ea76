"""ResNet-vd (He et al. 2019, https://arxiv.org/abs/1812.01187, ResNet-D), the backbone of RT-DETR.

Parameters have the names of Hugging Face's ``RTDetrResNetBackbone``.
"""

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from mtl_ray.models.freeze import evaluate
from mtl_ray.models.hybrid_config import ResNetVdBackbone
from mtl_ray.models.imports import Imported, Program, Rename, renamed
from mtl_ray.models.trunk import Backbone

LEVELS = ("C2", "C3", "C4", "C5")


class ConvNormAct(nn.Module):
    """A convolution (B, inputs, H, W) -> (B, outputs, H / stride, W / stride), batch
    normalisation and, unless it is the last of a block, ReLU.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, last: bool = False
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.normalization = nn.BatchNorm2d(outputs)
        self.activation = nn.Identity() if last else nn.ReLU(inplace=True)

    def forward(self, values: Tensor) -> Tensor:
        """See the class."""
        return cast(Tensor, self.activation(self.normalization(self.convolution(values))))


class Block(nn.Module):
    """A residual block. Where it halves the size, its shortcut is averaged before a 1x1 convolution
    of stride 1; the first block of a stage of basic blocks always has that convolution.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, bottleneck: bool, first: bool
    ) -> None:
        super().__init__()
        if bottleneck:
            inner = outputs // 4
            self.layer = nn.Sequential(
                ConvNormAct(inputs, inner, 1),
                ConvNormAct(inner, inner, 3, stride),
                ConvNormAct(inner, outputs, 1, last=True),
            )
        else:
            self.layer = nn.Sequential(
                ConvNormAct(inputs, outputs, 3, stride), ConvNormAct(outputs, outputs, 3, last=True)
            )
        averaged = stride == 2 if bottleneck else inputs != outputs
        projected = inputs != outputs or stride == 2 if bottleneck else first
        self.shortcut: nn.Module = nn.Identity()
        if projected and averaged:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(2, 2, ceil_mode=True), ConvNormAct(inputs, outputs, 1, last=True)
            )
        elif projected:
            self.shortcut = ConvNormAct(inputs, outputs, 1, stride, last=True)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, values: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        return cast(Tensor, self.activation(self.layer(values) + self.shortcut(values)))


class ResNetVd(Backbone):
    """See ``ResNetVdBackbone``; feature maps by name (B, channels, H / stride, W / stride)."""

    def __init__(self, config: ResNetVdBackbone) -> None:
        super().__init__()
        unknown = [level for level in config.levels if level not in LEVELS]
        if unknown:
            raise ValueError(
                f"model.backbone.levels: {', '.join(unknown)} is none of {', '.join(LEVELS)}"
            )
        self.levels, self.frozen_norm = tuple(sorted(config.levels)), config.frozen_norm
        half = config.stem // 2
        self.embedder = nn.Sequential(
            ConvNormAct(3, half, 3, 2), ConvNormAct(half, half), ConvNormAct(half, config.stem)
        )
        self.pooler = nn.MaxPool2d(3, 2, 1)
        self.stages = nn.ModuleList()
        inputs = config.stem
        for number, (width, count) in enumerate(zip(config.channels, config.blocks, strict=True)):
            blocks = []
            for i in range(count):
                stride = 2 if i == 0 and number > 0 else 1
                blocks.append(Block(inputs, width, stride, config.bottleneck, i == 0))
                inputs = width
            self.stages.append(nn.Sequential(*blocks))
        self.strides = {level: 2 ** int(level[1]) for level in self.levels}
        self.channels = {level: config.channels[LEVELS.index(level)] for level in self.levels}
        if self.frozen_norm:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.requires_grad_(False)

    def train(self, mode: bool = True) -> "ResNetVd":
        """Frozen normalisation stays in evaluation mode."""
        super().train(mode)
        evaluate(self, (), norms=self.frozen_norm)
        return self

    def forward(self, values: Tensor) -> dict[str, Tensor]:
        """Normalised images float (B, 3, H, W) -> feature maps (B, C, h, w) by name."""
        level, found = self.pooler(self.embedder(values)), {}
        for name, stage in zip(LEVELS, self.stages, strict=True):
            level = stage(level)
            found[name] = level
        return {name: found[name] for name in self.levels}

    def imported(self, program: Program, tensors: Mapping[str, Tensor]) -> dict[str, Imported]:
        """See ``Importing``: of a detector of Hugging Face with this backbone."""
        if program != "huggingface":
            return {}
        prefix = r"model\.backbone\.model\."
        rules = (
            Rename(prefix + r"embedder\.embedder\.(.*)", r"embedder.\1"),
            Rename(prefix + r"encoder\.stages\.(\d+)\.layers\.(.*)", r"stages.\1.\2"),
        )
        return renamed(tensors, rules)
