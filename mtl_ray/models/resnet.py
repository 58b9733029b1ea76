"""ResNet (He et al. 2016, https://arxiv.org/abs/1512.03385) with the options of detectors; its
tensors have the names of torchvision, timm and OpenMMLab.
"""

from collections.abc import Mapping

import timm
from torch import Tensor, nn

from mtl_ray.models.backbone import fill_backbone, load_weights
from mtl_ray.models.imports import Imported, Program, Rename, renamed
from mtl_ray.models.resnet_config import ResNetBackbone
from mtl_ray.models.trunk import Backbone, freeze_modes

_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_LEVELS = ("C1", "C2", "C3", "C4", "C5")


class ResNet(Backbone):
    """See ``ResNetBackbone``.

    Raises:
        ValueError: if a level is unknown, or the weights do not fit.
    """

    def __init__(self, config: ResNetBackbone) -> None:
        super().__init__()
        unknown = [level for level in config.levels if level not in _LEVELS]
        if unknown or not config.levels:
            raise ValueError(
                f"model.backbone.levels: {', '.join(unknown) or 'nothing'} is none of "
                f"{', '.join(_LEVELS)}"
            )
        self.levels = tuple(sorted(config.levels))
        self.frozen_stages, self.norm_eval = config.frozen_stages, config.norm_eval
        width = config.base_channels
        self.conv1 = _deep_stem(width) if config.stem == "deep" else _conv(3, width, 7, 2)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.stages = _LEVELS[1 : _LEVELS.index(self.levels[-1]) + 1]
        for i, (_, stage) in enumerate(zip(self.stages, _stages(config), strict=False), 1):
            self.add_module(f"layer{i}", stage)
        _initialise(self)
        expansion = 1 if config.depth < 50 else 4
        numbers = {level: int(level[1:]) for level in self.levels}
        self.channels = {
            level: width if n == 1 else expansion * width * 2 ** (n - 2)
            for level, n in numbers.items()
        }
        self.strides = {level: min(2**n, config.output_stride) for level, n in numbers.items()}
        self.pooled = config.shortcut != "conv"
        self._load(config)
        for part in self._frozen():
            part.requires_grad_(False)

    def _load(self, config: ResNetBackbone) -> None:
        if config.weights is not None:
            load_weights(self, config.weights)
        elif config.pretrained:
            deep = "c" if config.shortcut == "conv" else "d"
            default = f"resnet{config.depth}{deep if config.stem == 'deep' else ''}"
            name = default if config.pretrained is True else config.pretrained
            try:
                net = timm.create_model(name, pretrained=True)
            except RuntimeError as error:
                raise ValueError(f"model.backbone.pretrained={name!r}: {error}") from error
            fill_backbone(self, net.state_dict(), name)

    def _frozen(self) -> list[nn.Module]:
        """Looked up by name: SyncBatchNorm may have taken the place of a layer."""
        if self.frozen_stages < 0:
            return []
        names = ["conv1", "bn1", *(f"layer{i}" for i in range(1, self.frozen_stages + 1))]
        return [part for name, part in self.named_children() if name in names]

    def train(self, mode: bool = True) -> "ResNet":
        """Frozen parts, and with ``norm_eval`` all normalisation, stay in evaluation mode."""
        super().train(mode)
        freeze_modes(self, self._frozen(), norms=self.norm_eval)
        return self

    def forward(self, values: Tensor) -> dict[str, Tensor]:
        """Normalised images float (B, 3, H, W) -> feature maps (B, C, h, w) by name."""
        x = self.relu(self.bn1(self.conv1(values)))  # (B, base_channels, H / 2, W / 2)
        maps = {"C1": x}
        x = self.maxpool(x)
        for i, level in enumerate(self.stages, 1):
            maps[level] = x = self.get_submodule(f"layer{i}")(x)
        return {level: maps[level] for level in self.levels}

    def imported(self, program: Program, tensors: Mapping[str, Tensor]) -> dict[str, Imported]:
        """See ``Importing``."""
        return renamed(tensors, _rules(program, 1 if self.pooled else 0))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions. Of a dilated block only the first is dilated, as in OpenMMLab."""

    expansion = 1

    def __init__(
        self, inputs: int, width: int, stride: int, dilation: int, config: ResNetBackbone
    ) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, width, 3, stride, dilation)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != width:
            self.downsample = _shortcut(inputs, width, stride, config)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, width, H / stride, W / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(y)
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, the last four times as wide."""

    expansion = 4

    def __init__(
        self, inputs: int, width: int, stride: int, dilation: int, config: ResNetBackbone
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if config.style == "caffe" else (1, stride)
        self.conv1 = _conv(inputs, width, 1, first)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, second, dilation)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, 4 * width, 1)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != 4 * width:
            self.downsample = _shortcut(inputs, 4 * width, stride, config)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, 4 * width, H / stride, W / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(y)
        return out


def _stages(config: ResNetBackbone) -> list[nn.Sequential]:
    """The four stages. The first block of a dilated one keeps the dilation of the stage before."""
    block = BasicBlock if config.depth < 50 else Bottleneck
    inputs, reached, dilation = config.base_channels, 4, 1
    stages = []
    for i, blocks in enumerate(config.blocks or _BLOCKS[config.depth]):
        width, stride, before = config.base_channels * 2**i, 1 if i == 0 else 2, dilation
        if reached * stride > config.output_stride:
            stride, dilation = 1, dilation * 2
        reached *= stride
        stage = [block(inputs, width, stride, before, config)]
        if config.shortcut == "presnet" and stage[0].downsample is None:
            stage[0].downsample = _shortcut(inputs, width, 1, config)
        inputs = width * block.expansion
        stage += [block(inputs, width, 1, dilation, config) for _ in range(1, blocks)]
        stages.append(nn.Sequential(*stage))
    return stages


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(
        inputs, outputs, kernel, stride, dilation * (kernel // 2), dilation, bias=False
    )


def _deep_stem(width: int) -> nn.Sequential:
    half = width // 2
    return nn.Sequential(
        _conv(3, half, 3, 2),
        nn.BatchNorm2d(half),
        nn.ReLU(inplace=True),
        _conv(half, half, 3),
        nn.BatchNorm2d(half),
        nn.ReLU(inplace=True),
        _conv(half, width, 3),
    )


def _shortcut(inputs: int, outputs: int, stride: int, config: ResNetBackbone) -> nn.Sequential:
    if config.shortcut == "conv":
        return nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
    pool = nn.Identity() if stride == 1 else nn.AvgPool2d(2, stride, ceil_mode=True)
    return nn.Sequential(pool, _conv(inputs, outputs, 1), nn.BatchNorm2d(outputs))


def _initialise(net: nn.Module) -> None:
    """He et al. 2015; each block starts as its shortcut (Goyal et al. 2017)."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, BasicBlock):
            nn.init.zeros_(module.bn2.weight)
        elif isinstance(module, Bottleneck):
            nn.init.zeros_(module.bn3.weight)


_PLAIN = r"((?:conv1|bn1|layer\d)\..*)"
_OPENMMLAB = r"backbone\.(?:0\.body\.)?"  # 0.body: of DETR's authors
_HUGGINGFACE = r"(?:model\.)*backbone\.(?:conv_encoder\.)?(?:model\.)?(?:_backbone\.)?"
_TRANSFORMERS_STEM = {
    r"convolution": "conv1",
    r"normalization": "bn1",
    r"0\.convolution": "conv1.0",
    r"0\.normalization": "conv1.1",
    r"1\.convolution": "conv1.3",
    r"1\.normalization": "conv1.4",
    r"2\.convolution": "conv1.6",
    r"2\.normalization": "bn1",
}


def _rules(program: Program, shortcut: int) -> list[Rename]:
    """The names of a program.

    Args:
        program: that wrote the file.
        shortcut: the place of the convolution in a shortcut.
    """
    if program == "torchvision":
        return [Rename(rf"backbone\.(?:body\.)?{_PLAIN}", r"\1")]
    if program == "openmmlab":
        # the first stage has no pooling, which is counted here all the same
        first = [
            Rename(
                rf"{_OPENMMLAB}layer1\.0\.downsample\.{i}\.(.*)",
                rf"layer1.0.downsample.{i + shortcut}.\1",
            )
            for i in range(2)
        ]
        return [
            *first,
            Rename(_OPENMMLAB + _PLAIN, r"\1"),
            Rename(r"backbone\.stem\.7\.(.*)", r"bn1.\1"),
            Rename(r"backbone\.stem\.(.*)", r"conv1.\1"),
        ]
    parts = {
        r"shortcut\.(?:1\.)?convolution": f"downsample.{shortcut}",
        r"shortcut\.(?:1\.)?normalization": f"downsample.{shortcut + 1}",
        **{rf"layer\.{i}\.convolution": f"conv{i + 1}" for i in range(3)},
        **{rf"layer\.{i}\.normalization": f"bn{i + 1}" for i in range(3)},
    }
    return [  # a backbone of timm, or one of transformers
        Rename(_HUGGINGFACE + _PLAIN, r"\1"),
        *(
            Rename(_HUGGINGFACE + rf"embedder\.embedder\.{theirs}\.(.*)", rf"{ours}.\1")
            for theirs, ours in _TRANSFORMERS_STEM.items()
        ),
        *(
            Rename(
                _HUGGINGFACE + rf"encoder\.stages\.{stage}\.layers\.(\d+)\.{theirs}\.(.*)",
                rf"layer{stage + 1}.\1.{ours}.\2",
            )
            for stage in range(4)
            for theirs, ours in parts.items()
        ),
    ]
