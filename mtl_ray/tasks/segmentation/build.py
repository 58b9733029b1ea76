"""The heads of this task, from their configs."""

from collections.abc import Mapping

from mtl_ray.models.head import Head
from mtl_ray.samples import IGNORE_INDEX, Vocabulary
from mtl_ray.tasks.segmentation.config import FcnHead
from mtl_ray.tasks.segmentation.fcn import Fcn


def build(head: FcnHead, vocabulary: Vocabulary, channels: Mapping[str, int], strides: Mapping[str, int]) -> Head:
    """A segmentation head for the semantic classes of ``vocabulary``.

    Raises:
        ValueError: if a level is pooled, or there are more classes than a uint8 map can hold.
    """
    pooled = [level for level in head.levels if strides[level] == 0]
    if pooled:
        raise ValueError(f"head {head.type!r} reads feature maps, not pooled features ({', '.join(pooled)})")
    classes = len(vocabulary.classes["semantic"])
    if classes > IGNORE_INDEX:
        raise ValueError(f"a semantic map holds at most {IGNORE_INDEX} classes; this data set has {classes}")
    return Fcn(head, channels, strides, classes)
