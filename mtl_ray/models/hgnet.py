"""The backbone ``hgnetv2``: timm's network with stages of any size."""

from collections.abc import Mapping

from timm.models.hgnet import HighPerfGpuNet
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mtl_ray.models.backbone import STRIDES, load_weights
from mtl_ray.models.hybrid_config import HgNetV2Backbone
from mtl_ray.models.imports import Imported, Program, Rename, renamed
from mtl_ray.models.trunk import Backbone, freeze_modes

PUBLISHED_AFFINE = ("b0", "b1", "b2", "b3")
_HF = r"model\.backbone\.model\."
HGNET_RULES = tuple(
    Rename(_HF + part + layer + rest, to + new + last)
    for part, to in (
        (r"embedder\.(stem\w+)\.", r"net.stem.\1."),
        (r"encoder\.stages\.(\d+\.(?:downsample|blocks\..*?))\.", r"net.stages.\1."),
    )
    for layer, new, rest, last in (
        ("convolution", "conv", r"\.(.*)", r".\2"),
        ("normalization", "bn", r"\.(.*)", r".\2"),
        ("lab", "lab", r"\.(.*)", r".\2"),
    )
)
"""Hugging Face's names of HGNetV2, where they are part of a detector, and those of timm."""


class HgNetV2(Backbone):
    """HGNetV2 with feature maps by name (B, channels, H / stride, W / stride), sizes rounded up.

    Raises:
        ValueError: if a level is none of C2 to C5, or the stages have other strides.
    """

    def __init__(self, config: HgNetV2Backbone) -> None:
        super().__init__()
        affine = config.name in PUBLISHED_AFFINE if config.affine is None else config.affine
        self.net = HighPerfGpuNet(config.timm_stages(), num_classes=0, use_lab=affine)
        found = {each["reduction"]: each["num_chs"] for each in self.net.feature_info}
        wrong = [level for level in config.levels if STRIDES.get(level) not in found]
        if wrong:
            raise ValueError(
                f"model.backbone.levels: {', '.join(wrong)} is none of the feature maps of "
                f"strides {', '.join(str(stride) for stride in found)}"
            )
        del self.net.head  # the classifier
        self.levels = tuple(sorted(config.levels))
        self.strides = {level: STRIDES[level] for level in self.levels}
        self.channels = {level: found[STRIDES[level]] for level in self.levels}
        if config.weights is not None:
            load_weights(self.net, config.weights)
        self.frozen_stem, self.frozen_norm = config.frozen_stem, config.frozen_norm
        for part in self._frozen():
            part.requires_grad_(False)

    def _frozen(self) -> list[nn.Module]:
        """Looked up each time: SyncBatchNorm may have taken the place of a layer."""
        norms = [module for module in self.net.modules() if isinstance(module, _BatchNorm)]
        return [self.net.stem] * self.frozen_stem + norms * self.frozen_norm

    def train(self, mode: bool = True) -> "HgNetV2":
        """What is frozen stays in evaluation mode, so its normalisation statistics stay too."""
        super().train(mode)
        freeze_modes(self, self._frozen(), norms=False)
        return self

    def forward(self, values: Tensor) -> dict[str, Tensor]:
        """Normalised images float (B, 3, H, W) -> feature maps (B, C, h, w) by name."""
        maps, level = {}, self.net.stem(values)
        for stage, info in zip(self.net.stages, self.net.feature_info, strict=True):
            level = stage(level)
            maps[info["reduction"]] = level
        return {name: maps[self.strides[name]] for name in self.levels}

    def imported(self, program: Program, tensors: Mapping[str, Tensor]) -> dict[str, Imported]:
        """See ``Importing``: of a detector of Hugging Face with this backbone."""
        return renamed(tensors, HGNET_RULES) if program == "huggingface" else {}
