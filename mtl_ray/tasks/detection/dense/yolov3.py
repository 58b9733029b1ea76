"""The detection head ``yolov3``."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import complete_box_iou_loss

from mtl_ray.models.head import (
    Candidates,
    Context,
    Features,
    GroupedOutput,
    HeadModule,
    Term,
)
from mtl_ray.models.necks import conv_norm_act
from mtl_ray.tasks.detection.candidates import (
    DenseModule,
    cell_corners,
    flatten_levels,
    in_crowd,
)
from mtl_ray.tasks.detection.dense.config import Yolov3Head


class Yolov3(DenseModule, HeadModule):
    """YOLOv3 (Redmon and Farhadi 2018, https://arxiv.org/abs/1804.02767): boxes, objectness and
    class scores of each anchor.

    The training follows its successors: box offsets beyond the cell and sizes of up to four anchors
    (Scaled-YOLOv4, Wang et al. 2021), several positive anchors for each object, a CIoU loss (Zheng
    et al. 2020, eq. 10), and the overlap as the target of objectness.

    Args:
        config: the head.
        channels, strides: of the features, by name.
        classes: number of classes.
    """

    sides_px: Tensor

    def __init__(
        self,
        config: Yolov3Head,
        channels: Mapping[str, int],
        strides: Mapping[str, int],
        classes: int,
    ) -> None:
        super().__init__(config)
        self.box_weight, self.objectness_weight, self.class_weight = (
            config.box_weight,
            config.objectness_weight,
            config.class_weight,
        )
        self.selection = config.select
        self.classes = classes
        self.anchors = tuple(len(level) for level in config.anchors)
        self.strides = tuple(strides[level] for level in config.levels)
        every = [anchor for level in config.anchors for anchor in level]
        self.register_buffer("sides_px", torch.tensor(every, dtype=torch.float32), persistent=False)
        self.towers = nn.ModuleList(
            conv_norm_act(channels[level], config.channels) for level in config.levels
        )
        outputs = [
            GroupedOutput(config.channels, count * (5 + classes), 1) for count in self.anchors
        ]
        for output, count in zip(outputs, self.anchors, strict=True):
            _start_rare(output, count, classes)
        self.outputs = nn.ModuleList(outputs)

    @property
    def anchors_px(self) -> tuple[Tensor, ...]:
        """(A, 2) width and height in canvas pixels of the anchors of each level."""
        return tuple(self.sides_px.split_with_sizes(list(self.anchors)))

    def raw(self, features: Features) -> tuple[Tensor, list[tuple[int, int]]]:
        """Raw outputs (B, N, 5 + classes): x, y, width, height, objectness, classes; and (height,
        width) of each level in cells.
        """
        maps = [
            output(tower(features[level]))
            for output, tower, level in zip(self.outputs, self.towers, self.levels, strict=True)
        ]
        return flatten_levels(maps, self.anchors), [
            (level.shape[2], level.shape[3]) for level in maps
        ]

    def boxes(self, raw: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
        """Raw outputs (B, N, >= 4) -> boxes (B, N, 4) xyxy in canvas pixels."""
        corners, cell = cell_corners(
            sizes, self.strides, self.anchors, raw.device
        )  # (N, 2), (N, 1) canvas px
        spread = raw[..., :4].sigmoid() * 2  # (B, N, 4) in (0, 2)
        centre = corners + (spread[..., :2] - 0.5) * cell  # (B, N, 2) x, y, canvas px
        half = (
            spread[..., 2:].square() * self.anchors_of(sizes) / 2
        )  # (B, N, 2), up to four anchors
        return torch.cat([centre - half, centre + half], dim=-1)

    def anchors_of(self, sizes: list[tuple[int, int]]) -> Tensor:
        """(N, 2) width and height of each candidate's anchor in canvas pixels."""
        return torch.cat(
            [
                anchors.repeat(height * width, 1)
                for anchors, (height, width) in zip(self.anchors_px, sizes, strict=True)
            ]
        )

    def losses(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Term]:
        """``box`` (CIoU), ``objectness`` and ``class`` (binary cross entropies), all divided by the
        number of positive anchors.

        ``class`` is ignored for classes that the dataset of an image does not know: the image may
        show their objects. So an anchor without an annotated object is not trained as background
        (it has no ``objectness`` loss) if one of these classes has its highest score.
        """
        raw, sizes = self.raw(features)
        boxes = self.boxes(raw, sizes)  # (B, N, 4) xyxy, canvas px
        wanted = targets["present"] & ~targets["crowd"] & targets["annotated"][:, None]
        # Each (B, S): the candidate and the object of a slot, and whether the slot is used.
        place, match, positive = assign_anchors(
            targets["boxes"], wanted, sizes, self.strides, self.anchors_px
        )
        count = positive.sum().float()
        pred_boxes = boxes.gather(
            1, place[..., None].expand(-1, -1, 4)
        )  # (B, S, 4) xyxy, canvas px
        gt_boxes = targets["boxes"].gather(1, match[..., None].expand(-1, -1, 4))  # (B, S, 4)
        # An unused slot may have an empty box, whose loss is NaN.
        gt_boxes = torch.where(positive[..., None], gt_boxes, pred_boxes.detach())
        box_loss = complete_box_iou_loss(pred_boxes, gt_boxes) * positive  # (B, S); CIoU, eq. 10
        overlap = torch.where(positive, (1 - box_loss.detach()).clamp(0, 1), 0.0)  # (B, S)
        objectness = torch.zeros_like(raw[..., 4]).scatter_reduce(
            1, place, overlap, "amax"
        )  # (B, N), the target
        objectness_loss = F.binary_cross_entropy_with_logits(
            raw[..., 4], objectness, reduction="none"
        )
        known = targets["known_classes"]  # (B, C)
        judged = (objectness > 0) | _likely_known(
            raw[..., 5:], known
        )  # (B, N); all of them if all classes are known
        counts = targets["annotated"][:, None] & ~self._ignored(targets, sizes) & judged
        logits = raw[..., 5:].gather(1, place[..., None].expand(-1, -1, self.classes))  # (B, S, C)
        gt_classes = F.one_hot(
            targets["classes"].gather(1, match).clamp(min=0), self.classes
        ).float()
        class_loss = F.binary_cross_entropy_with_logits(logits, gt_classes, reduction="none")
        class_loss = class_loss.masked_fill(~known[:, None], 0).sum(dim=2)
        return {
            "box": (box_loss.sum() * self.box_weight, count),
            "objectness": ((objectness_loss * counts).sum() * self.objectness_weight, count),
            "class": ((class_loss * positive).sum() * self.class_weight, count),
        }

    def _ignored(self, targets: Mapping[str, Tensor], sizes: list[tuple[int, int]]) -> Tensor:
        corners, cell = cell_corners(sizes, self.strides, self.anchors, targets["boxes"].device)
        return in_crowd(corners + cell / 2, targets["boxes"], targets["present"] & targets["crowd"])

    def candidates(self, features: Features, context: Context) -> Candidates:
        """All anchors before suppression: ``boxes`` (B, N, 4), ``objectness`` (B, N), ``scores``
        (B, N, classes).
        """
        raw, sizes = self.raw(features)
        return {
            "boxes": self.boxes(raw, sizes),
            "objectness": raw[..., 4].sigmoid(),
            "scores": raw[..., 5:].sigmoid(),
        }


def _likely_known(logits: Tensor, known: Tensor) -> Tensor:
    """(B, N) whether the most likely class of each anchor is known; logits (B, N, C), known (B,
    C).
    """
    return known.gather(1, logits.detach().argmax(dim=2))


def _start_rare(output: nn.Conv2d, anchors: int, classes: int) -> None:
    """Sets biases so that a new head has an objectness of 0.01 (Lin et al. 2017, focal loss,
    section 3.3).
    """
    assert output.bias is not None
    with torch.no_grad():
        bias = output.bias.view(anchors, 5 + classes)
        bias.zero_()
        bias[:, 4] = math.log(0.01 / 0.99)
        bias[:, 5:] = -math.log(max(classes - 0.99, 0.01) / 0.99) if classes > 1 else 0.0


NEAR = ((0.0, 0.0), (-0.5, 0.0), (0.5, 0.0), (0.0, -0.5), (0.0, 0.5))
"""Offsets in cells: an object belongs to the cell of its centre and to the two nearest neighbours
of that.
"""
MAX_RATIO = 2.0
"""An anchor fits an object if the ratio of both sides is below this; the nearest anchor always
fits.

Scaled-YOLOv4 has 4, with which most anchors of all levels fit most objects: on BCCD, 20 epochs, mAP
0.50 instead of 0.52.
"""


def assign_anchors(
    boxes: Tensor,
    wanted: Tensor,
    sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    anchors_px: Sequence[Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Assigns candidates to objects, as Scaled-YOLOv4 (Wang et al. 2021).

    Args:
        boxes: (B, M, 4) xyxy in canvas pixels.
        wanted: (B, M) bool, the boxes to learn.
        sizes: (height, width) of each level in cells.
        strides: canvas pixels per cell of each level.
        anchors_px: (A, 2) width and height of the anchors of each level.

    Returns:
        Each (B, S), S = M * anchors of all levels * 5 slots: the candidate (in the order of
        ``cell_corners``), the object, and whether the slot is used.
    """
    batch, objects = wanted.shape
    counts = [len(anchors) for anchors in anchors_px]
    centre, size = (
        (boxes[..., :2] + boxes[..., 2:]) / 2,
        boxes[..., 2:] - boxes[..., :2],
    )  # (B, M, 2), canvas px
    ratio = size[:, :, None] / torch.cat(list(anchors_px))  # (B, M, anchors of all levels, 2)
    misfit = torch.maximum(ratio, 1 / ratio.clamp(min=1e-6)).amax(
        dim=-1
    )  # (B, M, anchors of all levels)
    fits = (misfit < MAX_RATIO) | (misfit == misfit.amin(dim=2, keepdim=True))
    near = torch.tensor(NEAR, device=boxes.device)
    places, useds = [], []
    start = 0
    for (height, width), stride, count, of_level in zip(
        sizes, strides, counts, fits.split_with_sizes(counts, dim=2), strict=True
    ):
        home = centre[:, :, None] / stride  # (B, M, 1, 2) x, y in cells
        cell = (home + near).floor()  # (B, M, 5, 2)
        moved = (cell != home.floor()).any(
            dim=-1
        )  # (B, M, 5), without repetitions of the centre's cell
        moved[:, :, 0] = True  # the centre's cell itself
        limit = torch.tensor([width, height], device=boxes.device)
        inside = ((cell >= 0) & (cell < limit)).all(dim=-1) & moved
        x, y = (cell.clamp(min=0).minimum(limit - 1)).long().unbind(dim=-1)
        # (B, M, 5, A) index of the candidate: level, row, column, anchor
        place = (
            start + ((y * width + x) * count)[..., None] + torch.arange(count, device=boxes.device)
        )
        used = inside[..., None] & of_level[:, :, None] & wanted[:, :, None, None]  # (B, M, 5, A)
        places.append(place.flatten(2))
        useds.append(used.flatten(2))
        start += height * width * count
    place, used = torch.cat(places, dim=2), torch.cat(useds, dim=2)
    match = torch.arange(objects, device=boxes.device)[:, None].expand(objects, place.shape[2])
    return place.flatten(1), match.flatten()[None].expand(batch, -1), used.flatten(1)
