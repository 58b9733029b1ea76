"""Networks with published complexity, to check the counting rules.

Built from layers of torch, torchvision and timm. They are counted, not trained::

    python -m jobs.analyze complexity mtl_ray.analysis.published:retinanet_r50_fpn --rule mmcv
    --shape 1280 800
"""

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7


class _Retina(nn.Module):
    """Backbone, pyramid and towers; what comes after the towers has no layers."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        levels = {"layer2": "C3", "layer3": "C4", "layer4": "C5"}
        self.backbone = IntermediateLayerGetter(resnet50(), levels)
        self.neck = FeaturePyramidNetwork(
            [512, 1024, 2048], 256, extra_blocks=LastLevelP6P7(2048, 256)
        )
        self.head = RetinaNetHead(256, 9, classes)
        for part in ("conv1", "bn1", "layer1"):
            self.backbone[part].requires_grad_(False)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> class logits and box offsets of all anchors."""
        outputs: dict[str, Tensor] = self.head(list(self.neck(self.backbone(image)).values()))
        return outputs


class _Psp(nn.Module):
    """PSPNet (Zhao et al. 2017, https://arxiv.org/abs/1612.01105) on a backbone of output stride 8.

    Its published parameters are with the auxiliary head, its operations without.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = timm.create_model(
            "resnet50c", features_only=True, output_stride=8, out_indices=(4,)
        )
        self.bins = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(size), _conv(2048, 512, 1)) for size in (1, 2, 3, 6)
        )
        self.bottleneck = _conv(2048 + 4 * 512, 512, 3)
        self.classify = nn.Conv2d(512, classes, 1)
        self.auxiliary = nn.Sequential(_conv(1024, 256, 3), nn.Conv2d(256, classes, 1))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, classes, H / 8, W / 8)."""
        (coarse,) = self.backbone(image)
        pooled = [
            F.interpolate(each(coarse), size=coarse.shape[2:], mode="bilinear")
            for each in self.bins
        ]
        logits: Tensor = self.classify(self.bottleneck(torch.cat([coarse, *pooled], dim=1)))
        return logits


def retinanet_r50_fpn(classes: int = 80) -> nn.Module:
    """RetinaNet (Lin et al. 2017) on ResNet-50 with stem and first stage frozen: 239.32 GFLOPs
    at 3x1280x800, 37.74 M parameters.
    """
    return _Retina(classes)


def pspnet_r50_d8(classes: int = 19) -> nn.Module:
    """PSPNet on ResNet-50-C of output stride 8: 1429.68 GFLOPs at 3x2048x1024, 48.98 M
    parameters.
    """
    return _Psp(classes)


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
