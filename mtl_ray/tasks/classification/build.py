"""The heads of this task, from their configs."""

from collections.abc import Mapping

from mtl_ray.models.head import Head
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.classification.config import LinearHead, MultilabelHead
from mtl_ray.tasks.classification.heads import Linear, Multilabel


def build(head: LinearHead | MultilabelHead, vocabulary: Vocabulary, channels: Mapping[str, int], strides: Mapping[str, int]) -> Head:
    """A classification head for the labels of ``vocabulary``.

    Raises:
        ValueError: if a level is not pooled, or a ``linear`` head is to learn images with several labels.
    """
    maps = [level for level in head.levels if strides[level] != 0]
    if maps:
        raise ValueError(f"head {head.type!r} reads pooled features such as G5 (neck type pool), not {', '.join(maps)}")
    classes = len(vocabulary.classes["labels"])
    if isinstance(head, MultilabelHead):
        return Multilabel(head, channels, classes)
    if not vocabulary.exclusive_labels:
        raise ValueError(
            "head type 'linear' learns one label an image, but images of this data set may have several; use type 'multilabel'"
        )
    return Linear(head, channels, classes)
