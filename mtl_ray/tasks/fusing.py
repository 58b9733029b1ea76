"""The protocol of a task whose predictions on several variants of one image can be fused: test-time
augmentation.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.task import HeadKind


class FusionRule(Protocol):
    """How predictions are fused."""

    @property
    def fuse(self) -> Literal["wbf", "nms"]:
        """Weighted boxes fusion, or suppression of all boxes but the best."""
        ...

    @property
    def iou(self) -> float | None:
        """Boxes of one class that overlap by more are the same object; None for what fits the
        head.
        """
        ...


@runtime_checkable
class FusingTask(Protocol):
    """A task whose predictions have scores."""

    def mirrored(self, prediction: Any, size: Mapping[str, int], vocabulary: Vocabulary) -> Any:
        """The prediction on the image, given that on the image mirrored from left to right.

        Args:
            prediction: on the mirrored image.
            size: of the image, as ``Input.size`` gives it.
            vocabulary: of the head.
        """
        ...

    def fused(self, predictions: Sequence[Any], rule: FusionRule, head: HeadKind) -> Any:
        """One prediction of those of ``head`` on several variants of an image, all in pixels of the
        image.
        """
        ...
