"""The heads of this task, from their configs."""

from collections.abc import Mapping

from mtl_ray.models.head import Head
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.detection.config import RetinaNetHead, Yolov3Head
from mtl_ray.tasks.detection.retinanet import RetinaNet
from mtl_ray.tasks.detection.yolov3 import Yolov3


def build(head: Yolov3Head | RetinaNetHead, vocabulary: Vocabulary, channels: Mapping[str, int], strides: Mapping[str, int]) -> Head:
    """A detection head for the instance classes of ``vocabulary``.

    Raises:
        ValueError: if a level is pooled, or the levels of a ``retinanet`` head differ in their number of channels.
    """
    pooled = [level for level in head.levels if strides[level] == 0]
    if pooled:
        raise ValueError(f"head {head.type!r} reads feature maps, not pooled features ({', '.join(pooled)})")
    classes = len(vocabulary.classes["instances"])
    if isinstance(head, Yolov3Head):
        return Yolov3(head, channels, strides, classes)
    if len({channels[level] for level in head.levels}) > 1:
        raise ValueError(
            "head type 'retinanet' shares its convolutions among levels, which must have the same number of channels: use a neck"
        )
    return RetinaNet(head, channels, strides, classes)
