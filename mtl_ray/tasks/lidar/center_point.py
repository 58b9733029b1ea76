"""The head ``center_point``. Parameters have the names of MMDetection3D's ``CenterHead``."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_ray.models.head import Context, Features, HeadModule, Term
from mtl_ray.models.imports import Imported, Program, Rename, renamed
from mtl_ray.tasks.lidar.centres import CentreTargets, centre_targets, heat_maps
from mtl_ray.tasks.lidar.config import CenterPointHead, check_learnt

_BIAS = -2.19
"""Of a new heat map: a score of 0.1."""
_BRANCHES = {"reg": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2}
"""Channels of the numbers of a box, in the order of ``CentreTargets.values``."""


class ConvNormRelu(nn.Module):
    """A 3x3 convolution, batch normalisation and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, level: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        return F.relu(self.bn(self.conv(level)))


class GroupBranches(nn.ModuleDict):
    """The maps of a group of classes, each two convolutions."""

    def __init__(self, config: CenterPointHead, classes: int) -> None:
        wanted = {name: count for name, count in _BRANCHES.items() if name != "vel"}
        if config.velocity:
            wanted["vel"] = _BRANCHES["vel"]
        super().__init__(
            {
                name: nn.Sequential(
                    ConvNormRelu(config.shared_channels, config.branch_channels),
                    nn.Conv2d(config.branch_channels, count, 3, padding=1),
                )
                for name, count in {**wanted, "heatmap": classes}.items()
            }
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        bias = cast(nn.Conv2d, cast(nn.Sequential, self["heatmap"])[1]).bias
        assert bias is not None
        nn.init.constant_(bias, _BIAS)

    def maps(self, level: Tensor) -> dict[str, Tensor]:
        """By name, float32 (B, channels, H, W)."""
        return {name: branch(level).float() for name, branch in self.items()}


class CenterPoint(HeadModule):
    """CenterPoint's first stage (Yin et al. 2021, https://arxiv.org/abs/2006.11275, section 4).

    Args:
        config: the head.
        channels, strides: of the features, by name.
        classes: names of the classes.
    """

    def __init__(
        self,
        config: CenterPointHead,
        channels: Mapping[str, int],
        strides: Mapping[str, int],
        classes: Sequence[str],
    ) -> None:
        super().__init__(config)
        self.config, self.classes = config, tuple(classes)
        self.stride = strides[config.levels[0]]
        self.groups = config.grouped(classes)
        self.shared_conv = ConvNormRelu(channels[config.levels[0]], config.shared_channels)
        self.task_heads = nn.ModuleList(GroupBranches(config, len(group)) for group in self.groups)

    def places(self, group: Sequence[str]) -> list[int]:
        """The index of each class of a group among those of the head."""
        return [self.classes.index(name) if name in self.classes else 0 for name in group]

    def maps(self, features: Features) -> list[dict[str, Tensor]]:
        """Of each group its maps by name."""
        shared = self.shared_conv(features[self.levels[0]])
        return [cast(GroupBranches, branches).maps(shared) for branches in self.task_heads]

    def targets(
        self, targets: Mapping[str, Tensor], size: tuple[int, int], context: Context
    ) -> CentreTargets:
        """See ``centre_targets``; samples that are not annotated have no object."""
        return centre_targets(
            targets["boxes"].float(),
            targets["velocity"].float(),
            targets["has_velocity"],
            targets["present"] & targets["annotated"][:, None],
            context.grid,
            self.stride,
            size,
            self.config.overlap,
            self.config.least_radius,
        )

    def channels_of(self, group: Sequence[str], classes: Tensor) -> Tensor:
        """The map of objects (B, M) of these classes within a group; -1 if it has none."""
        table = torch.full((len(self.classes),), -1, device=classes.device)
        for channel, place in enumerate(self.places(group)):
            table[place] = channel
        return table[classes]

    def losses(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Term]:
        """Of each group i ``heat{i}`` (focal, divided by the number of peaks) and ``box{i}`` (L1 on
        all numbers of a box, divided by the number of objects).

        Raises:
            ValueError: if the groups name other classes than those that the head learns.
        """
        names = [name for group in self.groups for name in group]
        check_learnt(self.config.type, "groups", names, self.classes)
        terms: dict[str, Term] = {}
        every = self.maps(features)
        height, width = every[0]["heatmap"].shape[2:]
        wanted = self.targets(targets, (height, width), context)
        judged = targets["annotated"][:, None] & targets["known_classes"]  # (B, C)
        for index, (group, maps) in enumerate(zip(self.groups, every, strict=True)):
            channels = self.channels_of(group, targets["classes"])  # (B, M)
            heat = heat_maps(wanted, channels, len(group), (height, width))
            of_heat = heatmap_focal_loss(maps["heatmap"], heat)
            of_heat = of_heat.masked_fill(~judged[:, self.places(group), None, None], 0)
            peaks = (heat == 1).sum().float()
            of_box, count = self._box_loss(maps, wanted, channels >= 0)
            terms[f"heat{index}"] = (of_heat.sum() * self.config.heat_weight, peaks)
            terms[f"box{index}"] = (of_box * self.config.box_weight, count)
        return terms

    def _box_loss(self, maps: Mapping[str, Tensor], wanted: CentreTargets, own: Tensor) -> Term:
        """L1 of the cells of the objects of a group (B, M), summed, and the number of objects."""
        sample, place = torch.nonzero(wanted.known[..., 0] & own, as_tuple=True)
        found = torch.cat([maps[name] for name in _BRANCHES if name in maps], dim=1).flatten(2)
        numbers = found.shape[1]
        cells = found[sample, :, wanted.cells[sample, place]]  # (n, numbers)
        weights = wanted.known[sample, place].float()  # (n, 10)
        weights[:, 8:] *= self.config.velocity_weight
        error = (cells - wanted.values[sample, place, :numbers]).abs() * weights[:, :numbers]
        return error.sum(), cells.new_tensor(float(len(sample)))

    def predict(self, features: Features, context: Context) -> dict[str, Tensor]:
        """The best cells of each group, group by group, T * candidates in all, padded with score
        0: ``boxes`` (B, K, 7) in metres, ``scores`` (B, K), ``classes`` int64 (B, K), and
        ``velocity`` (B, K, 2).
        """
        parts = [
            self._group(maps, group, context)
            for maps, group in zip(self.maps(features), self.groups, strict=True)
        ]
        return {name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]}

    def _group(
        self, maps: Mapping[str, Tensor], group: Sequence[str], context: Context
    ) -> dict[str, Tensor]:
        """The best cells of one group."""
        heat = maps["heatmap"].sigmoid()
        _, classes, height, width = heat.shape
        candidates = self.config.select.candidates
        count = min(candidates, classes * height * width)
        scores, index = heat.flatten(1).topk(count, dim=1)  # (B, K)
        cell = index % (height * width)
        box = {
            name: maps[name].flatten(2).gather(2, cell[:, None].expand(-1, maps[name].shape[1], -1))
            for name in maps
            if name != "heatmap"
        }  # (B, channels, K)
        grid = context.grid
        column, row = cell % width, torch.div(cell, width, rounding_mode="floor")
        x, y = (
            (place.float() + box["reg"][:, axis]) * (self.stride * grid.size[axis])
            + grid.minimum[axis]
            for axis, place in enumerate((column, row))
        )
        yaw = torch.atan2(box["rot"][:, 0], box["rot"][:, 1])
        boxes = torch.cat(
            [torch.stack([x, y], dim=1), box["height"], box["dim"].exp(), yaw[:, None]], dim=1
        ).transpose(1, 2)  # (B, K, 7)
        table = torch.tensor(self.places(group), device=heat.device)
        found = {
            "boxes": boxes,
            "scores": scores[..., None],
            "classes": table[torch.div(index, height * width, rounding_mode="floor")][..., None],
        }
        if "vel" in box:
            found["velocity"] = box["vel"].transpose(1, 2)
        padded = {name: F.pad(each, (0, 0, 0, candidates - count)) for name, each in found.items()}
        return padded | {name: padded[name].squeeze(2) for name in ("scores", "classes")}

    def raw_outputs(self, features: Features, context: Context) -> dict[str, Tensor]:
        """See ``InspectedHead``: ``reg0``, ``height0``, ``dim0``, ``rot0``, ``vel0``, ``heatmap0``
        of the first group, and so on.
        """
        return {
            f"{name}{index}": values
            for index, maps in enumerate(self.maps(features))
            for name, values in maps.items()
        }

    def target_arrays(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Tensor]:
        """See ``InspectedHead``: ``target_heatmap0`` (B, classes, H, W) of the first group, and so
        on; ``target_cells`` (B, M) and ``target_values`` (B, M, 10) of the objects.
        """
        height, width = features[self.levels[0]].shape[2:]
        wanted = self.targets(targets, (height, width), context)
        found = {
            f"target_heatmap{index}": heat_maps(
                wanted,
                self.channels_of(group, targets["classes"]),
                len(group),
                (height, width),
            )
            for index, group in enumerate(self.groups)
        }
        known = wanted.known
        return {
            **found,
            "target_labels": targets["classes"].masked_fill(~known[..., 0], len(self.classes)),
            "target_cells": wanted.cells,
            "target_values": torch.where(known, wanted.values, 0),
        }

    def imported(self, program: Program, tensors: Mapping[str, Tensor]) -> dict[str, Imported]:
        """See ``Importing``."""
        if program != "openmmlab":
            return {}
        pattern = r"(?:pts_)?bbox_head\.((?:shared_conv|task_heads)\..*)"
        return renamed(tensors, [Rename(pattern, r"\1")])


def heatmap_focal_loss(logits: Tensor, heat: Tensor) -> Tensor:
    """The focal loss of heat maps, elementwise (Law and Deng 2018, equation 1: alpha 2, beta 4);
    scores are kept within [1e-4, 1 - 1e-4].
    """
    score = logits.sigmoid().clamp(1e-4, 1 - 1e-4)
    peak = heat == 1
    at_peak = -torch.log(score) * (1 - score).square()
    beside = -torch.log(1 - score) * score.square() * (1 - heat) ** 4
    return torch.where(peak, at_peak, beside)
