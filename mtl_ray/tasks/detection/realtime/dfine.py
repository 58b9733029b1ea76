"""The heads ``dfine`` and ``rtdetr_v2``."""

from collections.abc import Mapping, Sequence

from mtl_ray.models.head import Term
from mtl_ray.tasks.detection.query.matcher import SetTargets
from mtl_ray.tasks.detection.realtime.config import DFineHead, RtDetrV2Head
from mtl_ray.tasks.detection.realtime.decoder import DFineDecoder, LayerOutput, RtDetrDecoder
from mtl_ray.tasks.detection.realtime.head import RealTimeDetr, SetGroup
from mtl_ray.tasks.detection.realtime.losses import (
    NamedOutput,
    Shifts,
    box_terms,
    class_terms,
    distillation_terms,
    layer_outputs,
    shift_terms,
    shifted_outputs,
    union_of_matches,
)


class DFine(RealTimeDetr):
    """D-FINE (Peng et al. 2024, https://arxiv.org/abs/2410.13842) with the losses of DEIM (Huang et
    al. 2024, https://arxiv.org/abs/2412.04234).

    Args:
        config: of the head.
        channels: of the trunk's features.
        classes: their number.
    """

    config: DFineHead
    decoder: DFineDecoder

    def __init__(self, config: DFineHead, channels: Mapping[str, int], classes: int) -> None:
        super().__init__(config, channels, classes, DFineDecoder(config, classes), projected=False)

    def sets(self, outputs: Sequence[LayerOutput], noisy: bool = False) -> list[NamedOutput]:
        """See ``RealTimeDetr``; how they differ by criterion is said in ``DFineHead``."""
        outputs = [self.limited(each) for each in outputs]
        if self.config.criterion == "published":
            return layer_outputs(outputs)
        shifted = shifted_outputs(outputs)
        if noisy:
            return shifted
        return [*shifted[:-1], NamedOutput("", outputs[-1]._replace(corners=None, anchors=None))]

    def limited(self, output: LayerOutput) -> LayerOutput:
        """Losses take boxes that are limited to the canvas."""
        return output._replace(boxes=output.boxes.clamp(0, 1))

    def set_terms(self, group: SetGroup, objects: SetTargets) -> dict[str, Term]:
        """Besides ``class``, ``box`` and ``iou`` also ``fgl`` (fine-grained localization) and
        ``ddf`` (distillation of the last layer).
        """
        config, sets, matched = self.config, group.sets, group.matched
        count = group.objects(objects)
        terms = class_terms(config, sets, matched, objects, group.masks, count)
        published = config.criterion == "published"
        if published and not group.noisy:
            union = union_of_matches(matched, objects.present.shape[1])
            matched, count = union.expand_as(matched), (union >= 0).sum().float()
        terms |= box_terms(config, sets, matched, objects, count)
        refined = [i for i, each in enumerate(sets) if each.output.corners is not None]
        shifts = Shifts(self.decoder.steps(), self.decoder.reg_scale)
        if refined:
            chosen = [sets[i] for i in refined]
            terms |= shift_terms(config, chosen, matched[refined], objects, count, shifts)
        taught = [i for i in refined if not published or sets[i].prefix]
        if taught:
            chosen = [sets[i] for i in taught]
            terms |= distillation_terms(
                config, chosen, group.teacher, matched[taught], objects, group.real
            )
        return terms


class RtDetrV2(RealTimeDetr):
    """RT-DETRv2 (Lv et al. 2024, https://arxiv.org/abs/2407.17140); see ``DFine``."""

    def __init__(self, config: RtDetrV2Head, channels: Mapping[str, int], classes: int) -> None:
        super().__init__(config, channels, classes, RtDetrDecoder(config, classes), projected=True)
