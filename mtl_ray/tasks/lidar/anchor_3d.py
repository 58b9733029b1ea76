"""The head ``anchor_3d``. Parameters have the names of MMDetection3D's ``Anchor3DHead``."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from mtl_ray.models.head import Context, Features, HeadModule, Term
from mtl_ray.models.imports import Imported, Program, Rename, renamed
from mtl_ray.tasks.lidar.anchors import (
    BACKGROUND,
    IGNORED,
    AnchorGrid,
    anchors_of,
    decode,
    direction_bins,
    encode,
    match_anchors_3d,
    with_direction,
)
from mtl_ray.tasks.lidar.config import Anchor3dHead, check_learnt

_PRIOR = 0.01
"""The score of a new head: objects are rare (Lin et al. 2017, focal loss, section 4.1)."""
_BETA = 1 / 9


class AnchorDetector(HeadModule):
    """SECOND's head (Yan et al. 2018, https://doi.org/10.3390/s18103337, section 3.2).

    Args:
        config: the head.
        channels: of the features, by name.
        classes: names of the classes.
    """

    allowed: Tensor

    def __init__(
        self, config: Anchor3dHead, channels: Mapping[str, int], classes: Sequence[str]
    ) -> None:
        super().__init__(config)
        self.config, self.classes = config, tuple(classes)
        self.kinds = len(config.anchors) * len(config.rotations)
        width = channels[config.levels[0]]
        self.conv_cls = nn.Conv2d(width, self.kinds * len(classes), 1)
        self.conv_reg = nn.Conv2d(width, self.kinds * 7, 1)
        self.conv_dir_cls = nn.Conv2d(width, self.kinds * 2, 1)
        allowed = [
            [not spec.classes or name in spec.classes for spec in config.anchors]
            for name in self.classes
        ]  # (C, sizes)
        self.register_buffer("allowed", torch.tensor(allowed), persistent=False)
        for layer in (self.conv_cls, self.conv_reg, self.conv_dir_cls):
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        assert self.conv_cls.bias is not None
        nn.init.constant_(self.conv_cls.bias, math.log(_PRIOR / (1 - _PRIOR)))

    def outputs(self, features: Features) -> tuple[Tensor, Tensor, Tensor]:
        """The maps of logits (B, A * C, H, W), offsets (B, A * 7, H, W) and directions (B, A * 2,
        H, W).
        """
        level = features[self.levels[0]]
        return self.conv_cls(level), self.conv_reg(level), self.conv_dir_cls(level)

    def raw(
        self, features: Features, context: Context
    ) -> tuple[Tensor, Tensor, Tensor, AnchorGrid]:
        """Class logits (B, N, C), offsets (B, N, 7), direction logits (B, N, 2), all float32, and
        the anchors.
        """
        maps = self.outputs(features)
        height, width = maps[0].shape[2:]
        logits, offsets, directions = (
            each.float().permute(0, 2, 3, 1).reshape(each.shape[0], -1, last)
            for each, last in zip(maps, (len(self.classes), 7, 2), strict=True)
        )
        anchors = anchors_of(self.config, context.grid, (height, width), logits.device)
        return logits, offsets, directions, anchors

    def assign(self, anchors: AnchorGrid, targets: Mapping[str, Tensor]) -> Tensor:
        """(B, N): index of the object of each anchor, ``BACKGROUND`` or ``IGNORED``; all of a
        sample that is not annotated are ignored.
        """
        wanted = targets["present"] & targets["annotated"][:, None]  # (B, M)
        found = []
        for row, boxes in enumerate(targets["boxes"]):
            if not bool(targets["annotated"][row]):
                found.append(torch.full((anchors.total,), IGNORED, device=boxes.device))
                continue
            allowed = self.allowed[targets["classes"][row]] & wanted[row, :, None]
            found.append(match_anchors_3d(anchors, self.config.anchors, boxes.float(), allowed))
        return torch.stack(found)

    def losses(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Term]:
        """``class`` (focal), ``box`` (smooth L1, of the yaw the sine of the difference) and
        ``direction`` (cross-entropy), all divided by the number of positive anchors.

        Raises:
            ValueError: if the anchors name other classes than those that the head learns.
        """
        self._check_classes()
        logits, offsets, directions, anchors = self.raw(features, context)
        chosen = self.assign(anchors, targets)  # (B, N)
        sample, anchor = torch.nonzero(chosen >= 0, as_tuple=True)
        object_ = chosen[sample, anchor]
        wanted = torch.zeros_like(logits)
        wanted[sample, anchor, targets["classes"][sample, object_]] = 1
        counts = (chosen != IGNORED)[..., None] & targets["known_classes"][:, None]  # (B, N, C)
        of_class = sigmoid_focal_loss(logits, wanted, alpha=0.25, gamma=2.0)
        of_class = of_class.masked_fill(~counts, 0)
        boxes, examples = targets["boxes"][sample, object_].float(), anchors.boxes(anchor)
        of_box = box_loss(offsets[sample, anchor], encode(boxes, examples))
        bins = direction_bins(boxes[:, 6], self.config.direction_offset)
        of_direction = F.cross_entropy(directions[sample, anchor], bins, reduction="sum")
        count = logits.new_tensor(float(len(sample)))
        return {
            "class": (of_class.sum() * self.config.class_weight, count),
            "box": (of_box.sum() * self.config.box_weight, count),
            "direction": (of_direction * self.config.direction_weight, count),
        }

    def _check_classes(self) -> None:
        named = [name for spec in self.config.anchors for name in spec.classes]
        if all(spec.classes for spec in self.config.anchors):
            check_learnt(self.config.type, "anchors.classes", named, self.classes)
        elif named:
            check_learnt(self.config.type, "anchors.classes", [*named, *self.classes], self.classes)

    def predict(self, features: Features, context: Context) -> dict[str, Tensor]:
        """The best anchors by their best class: ``boxes`` (B, K, 7) in metres, ``scores`` (B, K,
        C).
        """
        logits, offsets, directions, anchors = self.raw(features, context)
        scores = logits.sigmoid()
        count = min(self.config.select.candidates, anchors.total)
        _, index = scores.amax(dim=2).topk(count, dim=1)  # (B, K)
        chosen, direction = (
            each.gather(1, index[..., None].expand(-1, -1, each.shape[2]))
            for each in (offsets, directions)
        )
        boxes = decode(chosen, anchors.boxes(index))
        yaw = with_direction(boxes[..., 6], direction.argmax(dim=2), self.config.direction_offset)
        return {
            "boxes": torch.cat([boxes[..., :6], yaw[..., None]], dim=2),
            "scores": scores.gather(1, index[..., None].expand(-1, -1, scores.shape[2])),
        }

    def raw_outputs(self, features: Features, context: Context) -> dict[str, Tensor]:
        """See ``InspectedHead``: ``cls0``, ``reg0`` and ``dir0``."""
        return dict(zip(("cls0", "reg0", "dir0"), self.outputs(features), strict=True))

    def target_arrays(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Tensor]:
        """See ``InspectedHead``; ``target_boxes`` (B, N, 7) are in metres, offsets and directions
        of anchors that are no examples are 0.
        """
        logits, _, _, anchors = self.raw(features, context)
        chosen = self.assign(anchors, targets)  # (B, N)
        positive = chosen >= 0
        index = chosen.clamp(min=0)
        labels = targets["classes"].gather(1, index).masked_fill(~positive, len(self.classes))
        boxes = targets["boxes"].float().gather(1, index[..., None].expand(-1, -1, 7))
        every = anchors.boxes(torch.arange(anchors.total, device=logits.device))
        offsets = torch.where(positive[..., None], encode(boxes, every), 0)
        directions = direction_bins(boxes[..., 6], self.config.direction_offset)
        return {
            "target_labels": labels.masked_fill(chosen == IGNORED, BACKGROUND),
            "target_boxes": boxes * positive[..., None],
            "target_offsets": offsets,
            "target_directions": directions * positive,
            "anchors": every,
        }

    def imported(self, program: Program, tensors: Mapping[str, Tensor]) -> dict[str, Imported]:
        """See ``Importing``."""
        if program != "openmmlab":
            return {}
        return renamed(
            tensors, [Rename(r"(?:pts_)?bbox_head\.(conv_(?:cls|reg|dir_cls)\..*)", r"\1")]
        )


def box_loss(offsets: Tensor, wanted: Tensor) -> Tensor:
    """Smooth L1 (n, 7) of offsets; of the yaw it is that of sin(offset - wanted), so that boxes
    that point the other way are equal.
    """
    own, theirs = offsets[:, 6:], wanted[:, 6:]
    offsets = torch.cat([offsets[:, :6], torch.sin(own) * torch.cos(theirs)], dim=1)
    wanted = torch.cat([wanted[:, :6], torch.cos(own) * torch.sin(theirs)], dim=1)
    return F.smooth_l1_loss(offsets, wanted, reduction="none", beta=_BETA)
