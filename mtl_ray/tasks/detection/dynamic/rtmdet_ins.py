"""The detection head ``rtmdet_ins``: ``rtmdet`` with instance masks."""

import itertools
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_ray.models.csp import RTMDET_NORM, ConvUnit
from mtl_ray.models.head import Context, Features, Term
from mtl_ray.tasks.detection.candidates import flatten_levels, select_indexed
from mtl_ray.tasks.detection.dynamic.config import RtmdetInsHead
from mtl_ray.tasks.detection.dynamic.matching import AssignedCandidates
from mtl_ray.tasks.detection.dynamic.rtmdet import RtmdetBase, RtmdetOutputs

REACH = 8
"""Coordinates relative to a detection are in units of this many strides of its level."""
EPSILON = 5e-6
"""Added to the squared sums of the dice loss."""


class MaskFeatures(nn.Module):
    """The features that all masks share: all levels at the size of the first, convolutions.

    Args:
        inputs: channels of each level.
        levels: their number.
        config: the head.
    """

    def __init__(self, inputs: int, levels: int, config: RtmdetInsHead) -> None:
        super().__init__()
        self.fusion_conv = nn.Conv2d(levels * inputs, inputs, 1)
        widths = [inputs, *[config.channels] * config.feature_convs]
        self.stacked_convs = nn.Sequential(
            *(ConvUnit(before, config.channels, 3, RTMDET_NORM) for before in widths[:-1])
        )
        self.projection = nn.Conv2d(widths[-1], config.prototypes, 1)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """(B, inputs, H_i, W_i) each -> (B, prototypes, H_0, W_0)."""
        size = levels[0].shape[-2:]
        further = [F.interpolate(level, size=size, mode="bilinear") for level in levels[1:]]
        fused = self.fusion_conv(torch.cat([levels[0], *further], dim=1))
        out: Tensor = self.projection(self.stacked_convs(fused))
        return out


class RtmdetIns(RtmdetBase):
    """RTMDet-Ins (Lyu et al. 2022, https://arxiv.org/abs/2212.07784, section 3.5).

    Boxes and classes have one tower. A second one, whose convolutions levels do not share, gives
    each candidate the weights of a network of 1x1 convolutions, which makes its mask of the shared
    features and of coordinates relative to the candidate (Tian et al. 2020, CondInst).
    """

    def __init__(
        self,
        config: RtmdetInsHead,
        channels: Mapping[str, int],
        strides: Mapping[str, int],
        classes: int,
    ) -> None:
        super().__init__(config, channels, strides, classes)
        self.config, self.mask_weight = config, config.mask_weight
        widths = [config.prototypes + 2, *[config.mask_channels] * (config.mask_convs - 1), 1]
        self.layers = list(itertools.pairwise(widths))  # (inputs, outputs)
        width, levels = self.width, len(config.levels)
        before = [self.inputs, *[width] * config.convs]
        self.kernel_convs = nn.ModuleList(
            nn.ModuleList(ConvUnit(inputs, width, 3, RTMDET_NORM) for inputs in before[:-1])
            for _ in range(levels)
        )
        count = sum((inputs + 1) * outputs for inputs, outputs in self.layers)
        self.rtm_kernel = nn.ModuleList(nn.Conv2d(before[-1], count, 1) for _ in range(levels))
        self.mask_head = MaskFeatures(self.inputs, levels, config)
        self.start()

    def start(self) -> None:
        """See ``RtmdetBase``; distances start at one stride."""
        super().start()
        for output in self.rtm_reg:
            assert isinstance(output.bias, Tensor)
            nn.init.ones_(output.bias)

    def distances(self, raw: Tensor) -> Tensor:
        """From the output of ``rtm_reg`` to distances in strides."""
        return F.relu(raw)

    def kernels(self, features: Features) -> list[Tensor]:
        """Of each level the weights of the candidates' networks (B, G, H, W)."""
        found = []
        for name, convs, output in zip(
            self.levels, self.kernel_convs, self.rtm_kernel, strict=True
        ):
            values = features[name]
            assert isinstance(convs, nn.ModuleList)
            for conv in convs:
                values = conv(values)
            found.append(output(values))
        return found

    def prototypes(self, features: Features) -> Tensor:
        """The features that all masks share, (B, prototypes, H, W)."""
        out: Tensor = self.mask_head([features[level] for level in self.levels])
        return out

    def mask_logits(self, features: Features, outputs: RtmdetOutputs, index: Tensor) -> Tensor:
        """The masks of some candidates.

        Args:
            features: of the trunk.
            outputs: of this head.
            index: int64 (B, K), the candidates.

        Returns:
            (B, K, H, W) float32 at the stride of the first level.
        """
        kernels = flatten_levels(self.kernels(features), 1)  # (B, N, G)
        kernels = kernels.gather(1, index[..., None].expand(-1, -1, kernels.shape[2]))
        prototypes = self.prototypes(features).float()
        with torch.autocast(prototypes.device.type, enabled=False):
            return dynamic_masks(
                kernels,
                self.layers,
                prototypes,
                self.strides[0],
                outputs.points[index],
                outputs.strides[index],
            )

    def centres(self, targets: Mapping[str, Tensor]) -> Tensor:
        """(B, M, 2) x, y: the centres of mass of the masks, or of the boxes where there is no
        mask.
        """
        masks = targets["masks"]  # (B, M, H, W)
        across = masks.sum(dim=2, dtype=torch.float32)  # (B, M, W), exact below 2^24
        down = masks.sum(dim=3, dtype=torch.float32)  # (B, M, H)
        area = across.sum(dim=2)
        column = torch.arange(across.shape[2], device=masks.device, dtype=torch.float32)
        row = torch.arange(down.shape[2], device=masks.device, dtype=torch.float32)
        moments = torch.stack([(across * column).sum(dim=2), (down * row).sum(dim=2)], dim=-1)
        known = targets["has_mask"] & (area > 0)
        return torch.where(
            known[..., None], moments / area.clamp(min=1)[..., None], super().centres(targets)
        )

    def losses(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Term]:
        """See ``RtmdetBase``, and ``mask`` (dice), divided by the number of positive candidates
        whose objects have a mask.
        """
        outputs = self.outputs(features)
        assigned = self.assign(outputs, targets)
        return {
            **self.terms(outputs, assigned, targets),
            "mask": self.mask_term(features, outputs, assigned, targets),
        }

    def mask_term(
        self,
        features: Features,
        outputs: RtmdetOutputs,
        assigned: AssignedCandidates,
        targets: Mapping[str, Tensor],
    ) -> Term:
        """Masks are compared at ``mask_loss_stride``."""
        stride = self.config.mask_loss_stride
        learnt = assigned.positive & targets["has_mask"].gather(1, assigned.object)  # (B, N)
        most = max(int(learnt.sum(dim=1).max()), 1)
        used, index = learnt.to(torch.uint8).topk(most, dim=1)  # (B, K)
        logits = self.mask_logits(features, outputs, index)
        scale = self.strides[0] // stride
        logits = F.interpolate(logits, scale_factor=float(scale), mode="bilinear")
        gt_masks = targets["masks"][..., stride // 2 :: stride, stride // 2 :: stride]
        objects = assigned.object.gather(1, index)[..., None, None]
        gt_masks = gt_masks.gather(1, objects.expand(-1, -1, *gt_masks.shape[2:])).float()
        logits = logits[..., : gt_masks.shape[2], : gt_masks.shape[3]]
        loss = dice_loss(logits, gt_masks) * used
        return loss.sum() * self.mask_weight, learnt.sum().float()

    def predict(self, features: Features, context: Context) -> dict[str, Tensor]:
        """``boxes``, ``scores`` and ``classes`` as of ``rtmdet``, and ``masks`` float32 (B, K, H,
        W), probabilities on the whole canvas at the stride of the first level.
        """
        outputs = self.outputs(features)
        found = select_indexed(
            self.proposed(outputs, context), self.config.select, context.exporting
        )
        return {
            "boxes": found.boxes,
            "scores": found.scores,
            "classes": found.classes,
            "masks": self.mask_logits(features, outputs, found.candidate).sigmoid(),
        }

    def raw_outputs(self, features: Features, context: Context) -> dict[str, Tensor]:
        """See ``InspectedHead``."""
        kernels = {f"kernel{i}": level for i, level in enumerate(self.kernels(features))}
        shared = {"mask_feat": self.prototypes(features)}
        return {**super().raw_outputs(features, context), **kernels, **shared}


def dynamic_masks(
    kernels: Tensor,
    layers: list[tuple[int, int]],
    prototypes: Tensor,
    stride: int,
    points: Tensor,
    strides: Tensor,
) -> Tensor:
    """The logits of masks, by a network of 1x1 convolutions for each (Tian et al. 2020, section
    3.1).

    Args:
        kernels: (B, K, G), the weights of all layers, then their biases.
        layers: channels of the input and output of each layer.
        prototypes: (B, P, H, W), the shared features.
        stride: canvas pixels per cell of the shared features.
        points: (B, K, 2) x, y in canvas pixels, from which coordinates count.
        strides: (B, K, 1) of the levels of the candidates.

    Returns:
        (B, K, H, W).
    """
    height, width = prototypes.shape[2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=prototypes.device) * stride,
        torch.arange(width, device=prototypes.device) * stride,
        indexing="ij",
    )
    cells = torch.stack([x, y]).flatten(1).float()  # (2, H * W)
    relative = (points[..., None] - cells) / (strides[..., None] * REACH)  # (B, K, 2, H * W)
    shared = prototypes.flatten(2)[:, None].expand(-1, points.shape[1], -1, -1)
    values = torch.cat([relative, shared], dim=2)  # (B, K, 2 + P, H * W)
    sizes = [a * b for a, b in layers] + [b for _, b in layers]
    parts = kernels.split_with_sizes(sizes, dim=2)
    for i, (inputs, outputs) in enumerate(layers):
        weight = parts[i].reshape(*parts[i].shape[:2], outputs, inputs)  # (B, K, outputs, inputs)
        values = weight @ values + parts[len(layers) + i][..., None]
        values = values if i == len(layers) - 1 else F.relu(values)
    return values.reshape(*values.shape[:2], height, width)


def dice_loss(logits: Tensor, gt_masks: Tensor) -> Tensor:
    """Dice loss (Milletari et al. 2016, V-Net, section 3) of masks (B, K, H, W) -> (B, K)."""
    masks, gt_masks = logits.sigmoid().flatten(2), gt_masks.flatten(2)
    shared = (masks * gt_masks).sum(dim=2)
    squares = (masks.square().sum(dim=2) + EPSILON) + (gt_masks.square().sum(dim=2) + EPSILON)
    return 1 - 2 * shared / squares
