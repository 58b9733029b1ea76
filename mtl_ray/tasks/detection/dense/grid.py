"""What the dense heads with one prediction on each cell share: ``fcos``, ``atss`` and ``gfl``."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mtl_ray.models.head import Context, Features, HeadModule
from mtl_ray.models.imports import Imported, Program, below
from mtl_ray.tasks.detection.candidates import (
    DenseModule,
    cell_corners,
    in_crowd,
    level_masks,
)
from mtl_ray.tasks.detection.dense.assign import assign_adaptively, valid_cells
from mtl_ray.tasks.detection.dense.config import AtssHead, FcosHead, GflHead
from mtl_ray.tasks.detection.dense.layers import Scale, tower

LevelSizes = list[tuple[int, int]]
"""(height, width) of each level in cells."""


class Grid(DenseModule, HeadModule):
    """Two towers that all levels share, and the cells of the levels.

    Args:
        config: the head.
        channels, strides: of the features, by name.
        classes: number of classes.
    """

    def __init__(
        self,
        config: FcosHead | AtssHead | GflHead,
        channels: Mapping[str, int],
        strides: Mapping[str, int],
        classes: int,
        conv_bias: bool = False,
    ) -> None:
        super().__init__(config)
        self.box_weight, self.class_weight = config.box_weight, config.class_weight
        self.selection = config.select
        self.classes = classes
        self.strides = tuple(strides[level] for level in config.levels)
        size = (channels[config.levels[0]], config.channels, config.convs, config.norm_groups)
        self.cls_convs = tower(*size, bias=conv_bias)
        self.reg_convs = tower(*size, bias=conv_bias)
        self.scales = nn.ModuleList(Scale() for _ in config.levels)

    def maps(self, features: Features) -> list[Tensor]:
        """The features of each level."""
        return [features[level] for level in self.levels]

    def corners(self, features: Features) -> tuple[Tensor, Tensor]:
        """The top left corner (N, 2) x, y and the stride (N, 1) of each cell in canvas pixels."""
        return cell_corners(self.sizes(features), self.strides, 1, features[self.levels[0]].device)

    def sizes(self, features: Features) -> LevelSizes:
        """The cells of each level."""
        return [(level.shape[2], level.shape[3]) for level in self.maps(features)]

    def level_masks(self, features: Features) -> Tensor:
        """See ``candidates.level_masks``."""
        counts = [height * width for height, width in self.sizes(features)]
        return level_masks(counts, features[self.levels[0]].device)

    def by_level(self, arrays: Mapping[str, Tensor], sizes: LevelSizes) -> dict[str, Tensor]:
        """Targets (B, N, ...) also under the names of OpenMMLab's heads: of each level ``NAME_l0``
        (B * cells, ...), image after image.
        """
        counts = [height * width for height, width in sizes]
        parts = {
            f"{name}_l{i}": part.flatten(0, 1)
            for name, values in arrays.items()
            for i, part in enumerate(torch.split(values, counts, dim=1))
        }
        return {**arrays, **parts}

    def imported(self, program: Program, tensors: Mapping[str, Tensor]) -> dict[str, Imported]:
        """See ``Importing``; OpenMMLab has the same names after its prefix."""
        return below("bbox_head.", tensors) if program == "openmmlab" else {}


class AssignedCells(NamedTuple):
    """What each of N cells of B images learns: its object int64 (B, N), whether it is positive, its
    class int64 (B, N), the number of classes where it is not, and whether it has a class loss.
    """

    object: Tensor
    positive: Tensor
    labels: Tensor
    judged: Tensor


class AdaptiveGrid(Grid):
    """A grid whose cells find their objects as in ATSS, by a square anchor at the corner of each
    cell: ``atss`` and ``gfl``.
    """

    config: AtssHead | GflHead

    def anchors(self, features: Features) -> Tensor:
        """(N, 4) xyxy in canvas pixels; their centres are the corners of the cells."""
        points, strides = self.corners(features)
        half = strides * self.config.anchor_scale / 2  # (N, 1)
        return torch.cat([points - half, points + half], dim=1)

    def assigned(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> AssignedCells:
        """The object of each cell."""
        sizes = self.sizes(features)
        valid = valid_cells(sizes, self.strides, context.valid_hw)  # (B, N)
        match, positive = assign_adaptively(
            self.anchors(features),
            [height * width for height, width in sizes],
            targets["boxes"],
            wanted_boxes(targets),
            valid,
            self.config.nearest,
        )
        labels = labels_of(targets, match, positive, self.classes)
        judged = counted(targets, positive, self.corners(features)[0]) & valid
        return AssignedCells(match, positive, labels, judged)

    def target_arrays(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Tensor]:
        """See ``InspectedHead``; boxes of cells that are not positive are 0."""
        match, positive, labels, judged = self.assigned(features, targets, context)
        arrays = {
            "target_labels": torch.where(judged, labels, -1),
            "target_boxes": matched(targets["boxes"], match) * positive[..., None],
        }
        return {
            **self.by_level(arrays, self.sizes(features)),
            "anchors": self.anchors(features),
            "points": self.corners(features)[0],
        }


def floored_corners(
    sizes: Sequence[tuple[int, int]],
    canvas_hw: tuple[int, int],
    anchors: int,
    device: torch.device,
) -> Tensor:
    """The corners (N, 2) x, y of cells as torchvision places its anchors: the stride of a level is
    the canvas divided by its cells, rounded down, so that it is smaller where the map is padded.
    """
    corners = []
    for height, width in sizes:
        y, x = torch.meshgrid(
            torch.arange(height, device=device) * (canvas_hw[0] // height),
            torch.arange(width, device=device) * (canvas_hw[1] // width),
            indexing="ij",
        )
        cells = torch.stack([x, y], dim=-1).reshape(-1, 1, 2)
        corners.append(cells.expand(-1, anchors, 2).reshape(-1, 2).float())
    return torch.cat(corners)


def wanted_boxes(targets: Mapping[str, Tensor]) -> Tensor:
    """Bool (B, M), the boxes to learn."""
    return targets["present"] & ~targets["crowd"] & targets["annotated"][:, None]


def matched(values: Tensor, match: Tensor) -> Tensor:
    """The values (B, N) or (B, N, 4) of the object ``match`` (B, N) of each candidate, of those of
    all objects (B, M) or (B, M, 4). Without objects they are 0.
    """
    if values.shape[1] == 0:
        return values.new_zeros((*match.shape, *values.shape[2:]))
    if values.dim() == 2:
        return values.gather(1, match)
    return values.gather(1, match[..., None].expand(-1, -1, values.shape[2]))


def labels_of(
    targets: Mapping[str, Tensor], match: Tensor, positive: Tensor, classes: int
) -> Tensor:
    """Int64 (B, N): the class of each positive candidate, ``classes`` of the others."""
    return torch.where(positive, matched(targets["classes"], match).clamp(min=0), classes)


def counted(targets: Mapping[str, Tensor], positive: Tensor, centres: Tensor) -> Tensor:
    """Bool (B, N): which candidates with centres (N, 2) have a class loss. Negative ones in a crowd
    region and those of images that are not annotated have none.
    """
    crowd = in_crowd(centres, targets["boxes"], targets["present"] & targets["crowd"])
    return (positive | ~crowd) & targets["annotated"][:, None]


def positives(positive: Tensor, annotated: Tensor) -> Tensor:
    """How many candidates of bool (B, N) are positive; as in OpenMMLab's heads with anchors at
    least one for each annotated image.
    """
    return (positive.sum(dim=1).clamp(min=1) * annotated).sum().float()


def foreground(value: Tensor, anchors: int, classes: int) -> Tensor:
    """Rows (anchors * (1 + classes), ...) of a layer of class logits without those of torchvision's
    background, class 0 of each anchor; of any other number of rows unchanged.
    """
    if value.shape[0] != anchors * (classes + 1):
        return value
    return value.reshape(anchors, classes + 1, *value.shape[1:])[:, 1:].flatten(0, 1)
