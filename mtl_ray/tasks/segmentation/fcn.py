"""The semantic segmentation head ``fcn``."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_ray.models.head import IMPOSSIBLE, Context, Features, HeadModule, Term
from mtl_ray.models.necks import conv_norm_act
from mtl_ray.samples import IGNORE_INDEX
from mtl_ray.tasks.segmentation.config import FcnHead


class Fcn(HeadModule):
    """Fully convolutional head (Long et al. 2015, https://arxiv.org/abs/1411.4038).

    A 1x1 convolution maps each level to ``channels``. The levels are upsampled to the finest and
    summed (as in Kirillov et al. 2019, https://arxiv.org/abs/1901.02446). ``convs`` 3x3
    convolutions and a classifier follow. Logits are upsampled to the canvas; a ``train_only`` head
    is trained on its finest level instead, at a fraction of the cost.

    Args:
        config: the head.
        channels, strides: of the features, by name.
        classes: number of classes.
    """

    def __init__(
        self, config: FcnHead, channels: Mapping[str, int], strides: Mapping[str, int], classes: int
    ) -> None:
        super().__init__(config)
        self.levels = tuple(sorted(config.levels, key=lambda level: strides[level]))
        self.lateral = nn.ModuleList(
            conv_norm_act(channels[level], config.channels, 1) for level in self.levels
        )
        self.convs = nn.Sequential(
            *(conv_norm_act(config.channels, config.channels) for _ in range(config.convs))
        )
        self.dropout = nn.Dropout2d(config.dropout)
        self.classify = nn.Conv2d(config.channels, classes, 1)

    def cells(self, features: Features) -> Tensor:
        """Logits float32 (B, classes, h, w) on the finest level, contiguous, since these are
        fastest to upsample.
        """
        maps = [
            lateral(features[level])
            for lateral, level in zip(self.lateral, self.levels, strict=True)
        ]
        joined = maps[0]  # (B, channels, h, w), the finest
        for coarse in maps[1:]:
            joined = joined + F.interpolate(
                coarse, size=joined.shape[-2:], mode="bilinear", align_corners=False
            )
        logits: Tensor = self.classify(self.dropout(self.convs(joined)))
        return logits.float().contiguous()

    def logits(self, features: Features, context: Context) -> Tensor:
        """Logits float32 (B, classes, H, W) on the canvas."""
        return _upsampled(self.cells(features), context)

    def losses(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Term]:
        """``pixel``: cross entropy, summed over the pixels of annotated images that have a class.

        The softmax is over the classes that the dataset of the image knows; the others are ignored.
        """
        cells = self.cells(features).masked_fill(
            ~targets["known_classes"][:, :, None, None], IMPOSSIBLE
        )
        logits = cells if self.train_only else _upsampled(cells, context)
        classes = _nearest(
            targets["classes"], logits.shape[2], logits.shape[3]
        )  # (B, h, w) of the logits
        ignored = ~targets["annotated"].view(-1, 1, 1) | (classes == IGNORE_INDEX)
        wanted = classes.long().masked_fill(ignored, IGNORE_INDEX)
        return {"pixel": (_cross_entropy(logits, wanted), (~ignored).sum().float())}

    def predict(self, features: Features, context: Context) -> dict[str, Tensor]:
        """``classes`` uint8 (B, H, W) on the canvas, or ``logits`` float32 (B, classes, H, W)."""
        logits = self.logits(features, context)
        if context.logits:
            return {"logits": logits}
        return {"classes": logits.argmax(dim=1).to(torch.uint8)}


def _upsampled(cells: Tensor, context: Context) -> Tensor:
    """Logits on the canvas, (B, classes, H, W)."""
    return F.interpolate(cells, size=context.canvas_hw, mode="bilinear", align_corners=False)


def _cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """The sum over pixels that are not ``IGNORE_INDEX``; torch's own is not deterministic for maps
    on a GPU.
    """
    if not (logits.is_cuda and torch.are_deterministic_algorithms_enabled()):
        return F.cross_entropy(logits, classes, ignore_index=IGNORE_INDEX, reduction="sum")
    ignored = classes == IGNORE_INDEX
    log_p = F.log_softmax(logits, dim=1).gather(1, classes.masked_fill(ignored, 0)[:, None])[
        :, 0
    ]  # (B, h, w)
    return -log_p.masked_fill(ignored, 0).sum()


def _nearest(classes: Tensor, height: int, width: int) -> Tensor:
    """(B, H, W) -> (B, height, width): the class at the centre of each cell."""
    if classes.shape[1:] == (height, width):
        return classes
    rows = (torch.arange(height, device=classes.device) + 0.5) * (classes.shape[1] / height)
    columns = (torch.arange(width, device=classes.device) + 0.5) * (classes.shape[2] / width)
    return classes[:, rows.long()][:, :, columns.long()]
