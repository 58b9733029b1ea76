"""The branches of the second stage, and torchvision's names for the parameters of the heads."""

from typing import cast

from torch import nn

from mtl_ray.models.imports import Rename
from mtl_ray.tasks.detection.two_stage.config import TwoStageHead
from mtl_ray.tasks.detection.two_stage.mask import MaskHead
from mtl_ray.tasks.detection.two_stage.roi import BoxHead


class RoiHead(nn.Module):
    """The branches of the second stage, of which a cascade has one for each of its stages."""

    def __init__(self, config: TwoStageHead, inputs: int, classes: int) -> None:
        super().__init__()
        stages = len(config.roi.stages)
        boxes = [BoxHead(config.roi, inputs, classes) for _ in range(stages)]
        self.bbox_head: nn.Module = boxes[0] if stages == 1 else nn.ModuleList(boxes)
        self.stages = stages
        if config.mask_branch is not None:
            masks = [MaskHead(config.mask_branch, inputs, classes) for _ in range(stages)]
            self.mask_head: nn.Module = masks[0] if stages == 1 else nn.ModuleList(masks)

    def of_stage(self, branch: str, stage: int) -> nn.Module:
        """The branch ``bbox_head`` or ``mask_head`` of a stage."""
        module = cast(nn.Module, getattr(self, branch))
        return module if self.stages == 1 else cast(nn.ModuleList, module)[stage]


def torchvision_rules(config: TwoStageHead) -> list[Rename]:
    """Of torchvision's Faster and Mask R-CNN, versions 1 and 2, and of their older files."""
    rpn = r"rpn_head.rpn_conv" if config.rpn.convs == 1 else r"rpn_head.rpn_conv.\1.conv"
    box, mask = "roi_head.bbox_head", "roi_head.mask_head"
    return [
        Rename(r"rpn\.head\.conv\.(weight|bias)", r"rpn_head.rpn_conv.\1"),
        Rename(r"rpn\.head\.conv\.(\d+)\.0\.(weight|bias)", rpn + r".\2"),
        Rename(r"rpn\.head\.cls_logits\.(.*)", r"rpn_head.rpn_cls.\1"),
        Rename(r"rpn\.head\.bbox_pred\.(.*)", r"rpn_head.rpn_reg.\1"),
        Rename(r"roi_heads\.box_head\.(\d+)\.0\.(.*)", box + r".shared_convs.\1.conv.\2"),
        Rename(r"roi_heads\.box_head\.(\d+)\.1\.(.*)", box + r".shared_convs.\1.bn.\2"),
        Rename(r"roi_heads\.box_head\.(?:fc6|\d+)\.(weight|bias)", box + r".shared_fcs.0.\1"),
        Rename(r"roi_heads\.box_head\.fc7\.(.*)", box + r".shared_fcs.1.\1"),
        Rename(
            r"roi_heads\.box_predictor\.cls_score\.(.*)",
            box + r".fc_cls.\1",
            lambda value: value.roll(-1, 0),
        ),
        Rename(
            r"roi_heads\.box_predictor\.bbox_pred\.(.*)",
            box + r".fc_reg.\1",
            lambda value: value[4:],
        ),
        Rename(r"roi_heads\.mask_head\.(\d+)\.0\.(.*)", mask + r".convs.\1.conv.\2"),
        Rename(r"roi_heads\.mask_head\.(\d+)\.1\.(.*)", mask + r".convs.\1.bn.\2"),
        *(
            Rename(
                rf"roi_heads\.mask_head\.mask_fcn{number + 1}\.(.*)",
                mask + rf".convs.{number}.conv.\1",
            )
            for number in range(4)
        ),
        Rename(r"roi_heads\.mask_predictor\.conv5_mask\.(.*)", mask + r".upsample.\1"),
        Rename(
            r"roi_heads\.mask_predictor\.mask_fcn_logits\.(.*)",
            mask + r".conv_logits.\1",
            lambda value: value[1:],
        ),
    ]
