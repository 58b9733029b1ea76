"""Samples, and the Vocabulary that names their classes.

Everything here is in the original image as it is shown (EXIF orientation applied). An annotation
that is absent means "not annotated": it gives neither loss nor score. An empty array means
"annotated, and there is nothing".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mtl_ray.annotations.instance_values import Instances

Annotation = str
"""The name of a kind of annotation, such as ``labels``, ``instances``, ``semantic``; a head
reads exactly one.
"""

IGNORE_INDEX = 255
"""The value of a semantic map that means "this pixel has no class": it gives neither loss nor
score.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedImage:
    """An image file as it was found.

    Attributes:
        data: JPEG, PNG, ..., at most a few megabytes; empty where only the annotations are known.
        height, width: pixels of the image as it is shown.
    """

    data: bytes
    height: int
    width: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sample:
    """One sample: its inputs and whatever is annotated.

    The properties are short forms for samples with an image and for the built-in kinds of
    annotation.

    Attributes:
        key: unique in its split; for files, the path relative to the folder of the images.
        inputs: by the name of the input, such as ``{"image": EncodedImage(...)}``.
        annotations: by kind; a kind that is absent is not annotated. What stands there is said by
            the kind (``annotations/``).
        known_classes: by kind, (C,) bool: which classes of the vocabulary that the sample is
            measured with its dataset annotates; a kind that is absent has all of them known.
    """

    key: str
    inputs: Mapping[str, Any]
    annotations: Mapping[str, Any] = field(default_factory=dict)
    known_classes: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    @property
    def annotated(self) -> bool:
        """Whether it carries annotations of any kind, be it an empty list."""
        return bool(self.annotations)

    def with_annotations(self, **annotations: Any) -> "Sample":
        """The same sample with other annotations of some kinds; None takes a kind away."""
        return replace(self, annotations=present({**self.annotations, **annotations}))

    def with_image(self, **changes: Any) -> "Sample":
        """The same sample with other ``data``, ``height`` or ``width`` of its image."""
        return replace(
            self, inputs={**self.inputs, "image": replace(self.encoded_image, **changes)}
        )

    @property
    def encoded_image(self) -> EncodedImage:
        """The image file.

        Raises:
            ValueError: if the sample has no image.
        """
        if "image" not in self.inputs:
            raise ValueError(
                f"the sample {self.key!r} has no image; it has {', '.join(self.inputs)}"
            )
        found: EncodedImage = self.inputs["image"]
        return found

    @property
    def image(self) -> bytes:
        """The bytes of the image file."""
        return self.encoded_image.data

    @property
    def height(self) -> int:
        """Pixels of the image as it is shown."""
        return self.encoded_image.height

    @property
    def width(self) -> int:
        """Pixels of the image as it is shown."""
        return self.encoded_image.width

    @property
    def image_size(self) -> Mapping[str, int]:
        """``height`` and ``width`` of the image; empty if the sample has none."""
        image = self.inputs.get("image")
        return {} if image is None else {"height": image.height, "width": image.width}

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """(K,) indices of the classes that the image has, into ``Vocabulary.classes["labels"]``."""
        return self.annotations.get("labels")

    @property
    def instances(self) -> "Instances | None":
        """The objects."""
        return self.annotations.get("instances")

    @property
    def semantic(self) -> bytes | None:
        """A PNG of one uint8 class index a pixel, (height, width), ``IGNORE_INDEX`` where there
        is none.
        """
        return self.annotations.get("semantic")


def present(annotations: Mapping[str, Any]) -> dict[str, Any]:
    """The annotations that are not None."""
    return {kind: value for kind, value in annotations.items() if value is not None}


def image_sample(
    *,
    key: str,
    image: bytes,
    height: int,
    width: int,
    labels: NDArray[np.int64] | None = None,
    instances: "Instances | None" = None,
    semantic: bytes | None = None,
) -> Sample:
    """A sample with an image and built-in annotations; see the properties of ``Sample``. None is
    "not annotated".
    """
    annotations = present({"labels": labels, "instances": instances, "semantic": semantic})
    return Sample(
        key=key,
        inputs={"image": EncodedImage(data=image, height=height, width=width)},
        annotations=annotations,
    )


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The names behind the numbers of a split; it travels inside every manifest, checkpoint and
    bundle.

    Attributes:
        classes: class names by kind of annotation; a kind that the split does not annotate is
            absent.
        exclusive_labels: True if every image has exactly one label.
        keypoints: names of the keypoints of an instance, in order.
        skeleton: pairs of keypoint indices (from 0) to be joined by a line.
        mirror: for each keypoint the index of the one it becomes when the image is flipped from
            left to right.
        colours: RGB of each class by kind of annotation, where the source has its own.
        category_ids: the source's own category number of each class by kind (COCO's have gaps),
            where it has them.
    """

    classes: Mapping[Annotation, tuple[str, ...]]
    exclusive_labels: bool = False
    keypoints: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    mirror: tuple[int, ...] = ()
    colours: Mapping[Annotation, tuple[tuple[int, int, int], ...]] = field(default_factory=dict)
    category_ids: Mapping[Annotation, tuple[int, ...]] = field(default_factory=dict)
