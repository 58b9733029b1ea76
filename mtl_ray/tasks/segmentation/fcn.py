"""The semantic segmentation head ``fcn``."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_ray.models.head import Context, Features, Term
from mtl_ray.models.layers import conv_norm_act
from mtl_ray.samples import IGNORE_INDEX
from mtl_ray.tasks.segmentation.config import FcnHead


class Fcn(nn.Module):
    """Fully convolutional head (Long et al. 2015, https://arxiv.org/abs/1411.4038).

    Each level is brought to ``channels`` by a 1x1 convolution and to the size of the finest, and they are added up
    (as in Kirillov et al. 2019, https://arxiv.org/abs/1901.02446); ``convs`` 3x3 convolutions and a classifier follow.

    Args:
        config: the head.
        channels, strides: of the features, by name.
        classes: number of classes.
    """

    def __init__(self, config: FcnHead, channels: Mapping[str, int], strides: Mapping[str, int], classes: int) -> None:
        super().__init__()
        self.annotation = config.annotation
        self.levels = tuple(sorted(config.levels, key=lambda level: strides[level]))
        self.train_only = config.train_only
        self.weight = config.weight
        self.lateral = nn.ModuleList(conv_norm_act(channels[level], config.channels, 1) for level in self.levels)
        self.convs = nn.Sequential(*(conv_norm_act(config.channels, config.channels) for _ in range(config.convs)))
        self.dropout = nn.Dropout2d(config.dropout)
        self.classify = nn.Conv2d(config.channels, classes, 1)

    def logits(self, features: Features, context: Context) -> Tensor:
        """(B, classes, H, W) float32 on the canvas."""
        maps = [lateral(features[level]) for lateral, level in zip(self.lateral, self.levels, strict=True)]
        joined = maps[0]
        for coarse in maps[1:]:
            joined = joined + F.interpolate(coarse, size=joined.shape[-2:], mode="bilinear", align_corners=False)
        scores = self.classify(self.dropout(self.convs(joined)))
        return F.interpolate(scores.float(), size=context.canvas_hw, mode="bilinear", align_corners=False)

    def losses(self, features: Features, targets: Mapping[str, Tensor], context: Context) -> dict[str, Term]:
        """``pixel``: cross entropy, summed over the pixels of annotated images that have a class."""
        ignored = ~targets["annotated"].view(-1, 1, 1) | (targets["classes"] == IGNORE_INDEX)
        truth = targets["classes"].long().masked_fill(ignored, IGNORE_INDEX)
        loss = F.cross_entropy(self.logits(features, context), truth, ignore_index=IGNORE_INDEX, reduction="sum")
        return {"pixel": (loss, (~ignored).sum().float())}

    def predict(self, features: Features, context: Context) -> dict[str, Tensor]:
        """``classes`` uint8 (B, H, W) on the canvas."""
        return {"classes": self.logits(features, context).argmax(dim=1).to(torch.uint8)}
