"""Families of weight files: for each, rules that turn the names of another program into those of
timm's whole model.

The first rule whose pattern matches a whole name applies.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # jobs read KINDS before they import torch
    from torch import Tensor

KINDS = (
    "pycls",
    "detectron",
    "detectron2",
    "swin",
    "mit",
    "torchvision",
    "timm",
    "efficientnet",
    "openmmlab",
)
"""pycls: RegNet. detectron, detectron2: ResNet. swin, mit: of their authors (MiT is SegFormer's).
torchvision: ResNet, RegNet, Swin, ViT. timm: ViT, also from the JAX files of its authors, and
ResNet. efficientnet: of efficientnet_pytorch and efficientnet_lite_pytorch. openmmlab: backbones of
MMDetection, MMSegmentation and MMPretrain."""
NameRules = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]

_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
_TRUNK = r"trunk_output\.block(\d)\.block\d-(\d+)\."


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of file.

    Attributes:
        name: the value of ``--from``.
        has: patterns; a file of this family has a name that matches each.
        rules: (pattern of a whole name, timm's name). Names that match no rule are left over.
        dropped: pattern of names to ignore (buffers that the model computes).
    """

    name: str
    has: tuple[str, ...]
    rules: NameRules
    dropped: str = r"(?!)"


def _block(part: str) -> Callable[[re.Match[str]], str]:
    """Replacement for ``part`` of a block of a RegNet.

    The first two groups are its stage and number (from 0; timm counts from 1).
    """
    return lambda match: match.expand(f"s{match[1]}.b{int(match[2]) + 1}.{part}")


def _same(*patterns: str) -> NameRules:
    return tuple((f"({pattern})", r"\1") for pattern in patterns)


PYCLS = Family(
    "pycls",
    (r"s1\.b1\.f\.a\.weight", r"stem\.conv\.weight"),
    (
        (r"stem\.(conv|bn)\.(\w+)", r"stem.\1.\2"),
        (r"(s\d+\.b\d+)\.proj\.(\w+)", r"\1.downsample.conv.\2"),
        (r"(s\d+\.b\d+)\.bn\.(\w+)", r"\1.downsample.bn.\2"),
        (r"(s\d+\.b\d+)\.f\.a\.(\w+)", r"\1.conv1.conv.\2"),
        (r"(s\d+\.b\d+)\.f\.a_bn\.(\w+)", r"\1.conv1.bn.\2"),
        (r"(s\d+\.b\d+)\.f\.b\.(\w+)", r"\1.conv2.conv.\2"),
        (r"(s\d+\.b\d+)\.f\.b_bn\.(\w+)", r"\1.conv2.bn.\2"),
        (r"(s\d+\.b\d+)\.f\.c\.(\w+)", r"\1.conv3.conv.\2"),
        (r"(s\d+\.b\d+)\.f\.c_bn\.(\w+)", r"\1.conv3.bn.\2"),
        (r"(s\d+\.b\d+)\.f\.se\.f_ex\.0\.(\w+)", r"\1.se.fc1.\2"),
        (r"(s\d+\.b\d+)\.f\.se\.f_ex\.2\.(\w+)", r"\1.se.fc2.\2"),
        (r"head\.fc\.(\w+)", r"head.fc.\1"),
    ),
)
DETECTRON2 = Family(
    "detectron2",
    (r"stem\.conv1\.weight", r"res2\.0\.conv1\.weight"),
    (
        (r"stem\.conv1\.weight", "conv1.weight"),
        (rf"stem\.conv1\.norm\.{_NORM}", r"bn1.\1"),
        *(
            (rf"res{i + 1}\.(\d+)\.conv(\d)\.weight", rf"layer{i}.\1.conv\2.weight")
            for i in range(1, 5)
        ),
        *(
            (rf"res{i + 1}\.(\d+)\.conv(\d)\.norm\.{_NORM}", rf"layer{i}.\1.bn\2.\3")
            for i in range(1, 5)
        ),
        *(
            (rf"res{i + 1}\.(\d+)\.shortcut\.weight", rf"layer{i}.\1.downsample.0.weight")
            for i in range(1, 5)
        ),
        *(
            (rf"res{i + 1}\.(\d+)\.shortcut\.norm\.{_NORM}", rf"layer{i}.\1.downsample.1.\2")
            for i in range(1, 5)
        ),
        (r"(?:stem\.fc|linear)\.(\w+)", r"fc.\1"),
    ),
)
RESNET = Family(
    "torchvision",
    (r"conv1\.weight", r"layer1\.0\.conv1\.weight"),
    _same(
        rf"(?:conv1(?:\.\d+)?|bn1)\.{_NORM}",
        rf"layer\d+\.\d+\.(?:conv|bn)\d\.{_NORM}",
        rf"layer\d+\.\d+\.downsample\.\d\.{_NORM}",
        r"layer\d+\.\d+\.se\.fc\d\.\w+",
        r"fc\.(?:weight|bias)",
    ),
)
RESNET_DEEP_STEM = Family(
    "openmmlab",
    (r"stem\.0\.weight", r"layer1\.0\.conv1\.weight"),
    (
        (rf"stem\.([01346])\.{_NORM}", r"conv1.\1.\2"),
        (rf"stem\.7\.{_NORM}", r"bn1.\1"),
        *RESNET.rules,
    ),
)
OPENMMLAB_REGNET = Family(
    "openmmlab",
    (r"conv1\.weight", r"layer1\.0\.conv3\.weight"),
    (
        (r"conv1\.weight", "stem.conv.weight"),
        (rf"bn1\.{_NORM}", r"stem.bn.\1"),
        (r"layer(\d)\.(\d+)\.conv(\d)\.weight", _block(r"conv\3.conv.weight")),
        (rf"layer(\d)\.(\d+)\.bn(\d)\.{_NORM}", _block(r"conv\3.bn.\4")),
        (r"layer(\d)\.(0)\.downsample\.0\.weight", _block("downsample.conv.weight")),
        (rf"layer(\d)\.(0)\.downsample\.1\.{_NORM}", _block(r"downsample.bn.\3")),
    ),
)
TORCHVISION_REGNET = Family(
    "torchvision",
    (r"stem\.0\.weight", r"trunk_output\.block1\.block1-0\.f\.a\.0\.weight"),
    (
        (r"stem\.0\.weight", "stem.conv.weight"),
        (rf"stem\.1\.{_NORM}", r"stem.bn.\1"),
        (_TRUNK + r"proj\.0\.weight", _block("downsample.conv.weight")),
        (_TRUNK + rf"proj\.1\.{_NORM}", _block(r"downsample.bn.\3")),
        *(
            (_TRUNK + rf"f\.{letter}\.0\.weight", _block(f"conv{i}.conv.weight"))
            for i, letter in enumerate("abc", 1)
        ),
        *(
            (_TRUNK + rf"f\.{letter}\.1\.{_NORM}", _block(rf"conv{i}.bn.\3"))
            for i, letter in enumerate("abc", 1)
        ),
        (_TRUNK + r"f\.se\.fc(\d)\.(\w+)", _block(r"se.fc\3.\4")),
        (r"fc\.(\w+)", r"head.fc.\1"),
    ),
)
SWIN = Family(
    "swin",
    (
        r"patch_embed\.proj\.weight",
        r"layers\.0\.blocks\.0\.attn\.qkv\.weight",
        r"layers\.0\.downsample\.reduction\.weight",
    ),
    (
        *(
            (
                rf"layers\.{i}\.downsample\.(norm|reduction)\.(\w+)",
                rf"layers.{i + 1}.downsample.\1.\2",
            )
            for i in range(3)
        ),
        *_same(
            r"patch_embed\.(?:proj|norm)\.\w+",
            r"layers\.\d+\.blocks\.\d+\.(?:norm\d|attn\.\w+|mlp\.fc\d)(?:\.\w+)*",
            r"norm\.\w+",
        ),
        (r"head\.(weight|bias)", r"head.fc.\1"),
    ),
    r".*\.(relative_position_index|relative_coords_table|attn_mask)",
)
TORCHVISION_SWIN = Family(
    "torchvision",
    (r"features\.0\.0\.weight", r"features\.1\.0\.attn\.qkv\.weight"),
    (
        (r"features\.0\.0\.(\w+)", r"patch_embed.proj.\1"),
        (r"features\.0\.2\.(\w+)", r"patch_embed.norm.\1"),
        *(
            (rf"features\.{2 * i}\.(norm|reduction)\.(\w+)", rf"layers.{i}.downsample.\1.\2")
            for i in range(1, 4)
        ),
        *(
            (rf"features\.{2 * i + 1}\.(\d+)\.mlp\.0\.(\w+)", rf"layers.{i}.blocks.\1.mlp.fc1.\2")
            for i in range(4)
        ),
        *(
            (rf"features\.{2 * i + 1}\.(\d+)\.mlp\.3\.(\w+)", rf"layers.{i}.blocks.\1.mlp.fc2.\2")
            for i in range(4)
        ),
        *(
            (
                rf"features\.{2 * i + 1}\.(\d+)\.(norm\d|attn)\.([\w.]+)",
                rf"layers.{i}.blocks.\1.\2.\3",
            )
            for i in range(4)
        ),
        (r"norm\.(\w+)", r"norm.\1"),
        (r"head\.(weight|bias)", r"head.fc.\1"),
    ),
    r".*\.relative_position_index",
)
OPENMMLAB_SWIN = Family(
    "openmmlab",
    (r"patch_embed\.projection\.weight", r"stages\.0\.blocks\.0\.attn\.w_msa\.qkv\.weight"),
    (
        (r"patch_embed\.projection\.(\w+)", r"patch_embed.proj.\1"),
        (r"patch_embed\.norm\.(\w+)", r"patch_embed.norm.\1"),
        *(
            (
                rf"stages\.{i}\.downsample\.(norm|reduction)\.(\w+)",
                rf"layers.{i + 1}.downsample.\1.\2",
            )
            for i in range(3)
        ),
        (r"stages\.(\d+)\.blocks\.(\d+)\.attn\.w_msa\.([\w.]+)", r"layers.\1.blocks.\2.attn.\3"),
        (r"stages\.(\d+)\.blocks\.(\d+)\.(norm\d)\.(\w+)", r"layers.\1.blocks.\2.\3.\4"),
        (
            r"stages\.(\d+)\.blocks\.(\d+)\.ffn\.layers\.0\.0\.(\w+)",
            r"layers.\1.blocks.\2.mlp.fc1.\3",
        ),
        (r"stages\.(\d+)\.blocks\.(\d+)\.ffn\.layers\.1\.(\w+)", r"layers.\1.blocks.\2.mlp.fc2.\3"),
        (r"norm3\.(\w+)", r"norm.\1"),
    ),
    r".*\.relative_position_index",
)
MIT = Family(
    "mit",
    (r"patch_embed1\.proj\.weight", r"block1\.0\.attn\.q\.weight"),
    (
        (r"patch_embed1\.(proj|norm)\.(\w+)", r"patch_embed.\1.\2"),
        *(
            (rf"patch_embed{i + 1}\.(proj|norm)\.(\w+)", rf"stages.{i}.downsample.\1.\2")
            for i in range(1, 4)
        ),
        *(
            (
                rf"block{i + 1}\.(\d+)\.mlp\.dwconv\.dwconv\.(\w+)",
                rf"stages.{i}.blocks.\1.mlp.dwconv.\2",
            )
            for i in range(4)
        ),
        *((rf"block{i + 1}\.(\d+)\.([\w.]+)", rf"stages.{i}.blocks.\1.\2") for i in range(4)),
        *((rf"norm{i + 1}\.(\w+)", rf"stages.{i}.norm.\1") for i in range(4)),
        (r"head\.(weight|bias)", r"head.\1"),
    ),
)
OPENMMLAB_MIT = Family(
    "openmmlab",
    (r"layers\.0\.0\.projection\.weight", r"layers\.0\.1\.0\.attn\.q\.weight"),
    (
        (r"layers\.0\.0\.projection\.(\w+)", r"patch_embed.proj.\1"),
        (r"layers\.0\.0\.norm\.(\w+)", r"patch_embed.norm.\1"),
        (r"layers\.(\d)\.0\.projection\.(\w+)", r"stages.\1.downsample.proj.\2"),
        (r"layers\.(\d)\.0\.norm\.(\w+)", r"stages.\1.downsample.norm.\2"),
        (r"layers\.(\d)\.1\.(\d+)\.ffn\.layers\.0\.(\w+)", r"stages.\1.blocks.\2.mlp.fc1.\3"),
        (r"layers\.(\d)\.1\.(\d+)\.ffn\.layers\.1\.(\w+)", r"stages.\1.blocks.\2.mlp.dwconv.\3"),
        (r"layers\.(\d)\.1\.(\d+)\.ffn\.layers\.4\.(\w+)", r"stages.\1.blocks.\2.mlp.fc2.\3"),
        (r"layers\.(\d)\.1\.(\d+)\.([\w.]+)", r"stages.\1.blocks.\2.\3"),
        (r"layers\.(\d)\.2\.(\w+)", r"stages.\1.norm.\2"),
    ),
)
EFFICIENTNET = Family(
    "efficientnet",
    (r"_conv_stem\.weight", r"blocks\.0\.0\.conv_dw\.weight"),
    (
        (r"_conv_stem\.weight", "conv_stem.weight"),
        (rf"_bn0\.{_NORM}", r"bn1.\1"),
        *_same(rf"blocks\.\d+\.\d+\.(?:conv_\w+|bn\d|se\.conv_\w+)\.{_NORM}"),
        (r"_conv_head\.weight", "conv_head.weight"),
        (rf"_bn1\.{_NORM}", r"bn2.\1"),
        (r"_fc\.(\w+)", r"classifier.\1"),
    ),
)
VIT = Family(
    "timm",
    (r"patch_embed\.proj\.weight", r"blocks\.0\.attn\.qkv\.weight", r"pos_embed"),
    _same(
        r"(?:cls_token|dist_token|reg_token|pos_embed)",
        r"(?:patch_embed|blocks|norm|norm_pre|fc_norm|head)\.[\w.]+",
    ),
)
TORCHVISION_VIT = Family(
    "torchvision",
    (r"class_token", r"conv_proj\.weight", r"encoder\.layers\.encoder_layer_0\.ln_1\.weight"),
    (
        (r"class_token", "cls_token"),
        (r"conv_proj\.(\w+)", r"patch_embed.proj.\1"),
        (r"encoder\.pos_embedding", "pos_embed"),
        (r"encoder\.layers\.encoder_layer_(\d+)\.ln_(\d)\.(\w+)", r"blocks.\1.norm\2.\3"),
        (
            r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_(\w+)",
            r"blocks.\1.attn.qkv.\2",
        ),
        (
            r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.(\w+)",
            r"blocks.\1.attn.proj.\2",
        ),
        (
            r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:0|linear_1)\.(\w+)",
            r"blocks.\1.mlp.fc1.\2",
        ),
        (
            r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:3|linear_2)\.(\w+)",
            r"blocks.\1.mlp.fc2.\2",
        ),
        (r"encoder\.ln\.(\w+)", r"norm.\1"),
        (r"heads\.head\.(\w+)", r"head.\1"),
    ),
)
OPENMMLAB_VIT = Family(
    "openmmlab",
    (r"patch_embed\.projection\.weight", r"layers\.0\.ln1\.weight"),
    (
        *_same("cls_token", "pos_embed"),
        (r"patch_embed\.projection\.(\w+)", r"patch_embed.proj.\1"),
        (r"layers\.(\d+)\.ln(\d)\.(\w+)", r"blocks.\1.norm\2.\3"),
        (r"layers\.(\d+)\.attn\.(qkv|proj)\.(\w+)", r"blocks.\1.attn.\2.\3"),
        (r"layers\.(\d+)\.attn\.attn\.in_proj_(\w+)", r"blocks.\1.attn.qkv.\2"),
        (r"layers\.(\d+)\.attn\.attn\.out_proj\.(\w+)", r"blocks.\1.attn.proj.\2"),
        (r"layers\.(\d+)\.ffn\.layers\.0\.0\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
        (r"layers\.(\d+)\.ffn\.layers\.1\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
        (r"ln1\.(\w+)", r"norm.\1"),
    ),
)


TIMM = Family(
    "timm", (), _same(r".+"), r".*\.(relative_position_index|relative_coords_table|attn_mask)"
)
"""Any model of timm under its own names."""


def find_family(names: "Mapping[str, Tensor]", families: tuple[Family, ...]) -> Family | None:
    """The first family whose patterns all match some name."""
    return next(
        (
            each
            for each in families
            if all(any(re.fullmatch(has, name) for name in names) for has in each.has)
        ),
        None,
    )


def translate(
    tensors: "Mapping[str, Tensor]", family: Family
) -> "tuple[dict[str, Tensor], dict[str, Tensor]]":
    """The tensors under timm's names, and the tensors that no rule matches, under their own names.

    Raises:
        ValueError: if two tensors would get the same name.
    """
    rules = [(re.compile(pattern), new) for pattern, new in family.rules]
    found: dict[str, Tensor] = {}
    left: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        match = next(
            ((each, new) for pattern, new in rules if (each := pattern.fullmatch(name))), None
        )
        if match is None:
            left.update({} if re.fullmatch(family.dropped, name) else {name: tensor})
            continue
        new = match[0].expand(match[1]) if isinstance(match[1], str) else match[1](match[0])
        if new in found:
            raise ValueError(f"two tensors would get the name {new!r}; one of them is {name!r}")
        found[new] = tensor
    return found, left
