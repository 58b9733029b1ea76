"""Config of the semantic segmentation head ``fcn``."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT
from mtl_ray.samples import IGNORE_INDEX, Annotation, Vocabulary
from mtl_ray.tasks.segmentation.task import SEGMENTATION, SegmentationTask
from mtl_ray.tasks.task import AnyHead, HeadOptions

if TYPE_CHECKING:
    from mtl_ray.models.head import Head


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FcnHead(HeadOptions):
    """Fully convolutional head (Long et al. 2015) on one or several levels, which are upsampled to
    the finest and summed.
    """

    type: Literal["fcn"] = "fcn"
    task: ClassVar[SegmentationTask] = SEGMENTATION
    annotation: ClassVar[Annotation] = "semantic"
    levels: tuple[str, ...] = ("P3",)
    channels: int = Field(default=128, ge=1)
    convs: int = Field(default=2, ge=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    train_only: bool = False  # type: ignore[misc] # an option here, a constant of other heads
    """An auxiliary head: only trained, not evaluated or exported."""

    def build(
        self, vocabulary: Vocabulary, channels: Mapping[str, int], strides: Mapping[str, int]
    ) -> "Head":
        """See ``AnyHead``."""
        from mtl_ray.tasks.segmentation.fcn import Fcn

        pooled = [level for level in self.levels if strides[level] == 0]
        if pooled:
            raise ValueError(
                f"head {self.type!r} reads feature maps, not pooled features ({', '.join(pooled)})"
            )
        classes = len(vocabulary.classes[self.annotation])
        if classes > IGNORE_INDEX:
            raise ValueError(
                f"a semantic map holds at most {IGNORE_INDEX} classes; this dataset has {classes}"
            )
        return Fcn(self, channels, strides, classes)


HEADS: tuple[type[AnyHead], ...] = (FcnHead,)
