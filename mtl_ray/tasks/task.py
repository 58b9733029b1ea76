"""The protocol of a task, one typed object for all about its predictions, and of a head's config.

A task folder holds

* ``config.py``: a pydantic dataclass for each head, and the tuple ``HEADS`` of them
* ``decode.py``: the prediction of one sample, and how it is made of network outputs
* ``metric.py``: the metric
* ``draw.py``: ground truth and predictions drawn on their image
* ``task.py``: the object that follows ``Task``
* ``HEAD.py``: the module of a head, in torch; ``build`` of its config imports it. The others are
  numpy.

Code that depends on the task of a head calls ``head.task``, and never compares the name of a task
or the type of a head. A task gets the vocabulary of its head (``head_classes.py``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    Protocol,
    Self,
    TypeVar,
)

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

from mtl_ray.annotations.annotation import AnnotationKind
from mtl_ray.config.strict import STRICT
from mtl_ray.samples import Annotation, Sample, Vocabulary
from mtl_ray.tasks.charts import Charts
from mtl_ray.tasks.difference import Comparison, Difference, Fields

if TYPE_CHECKING:
    from mtl_ray.models.head import Head

Prediction = TypeVar("Prediction")
"""The prediction of one image: a frozen dataclass of numpy arrays."""
Prediction_contra = TypeVar("Prediction_contra", contravariant=True)
Config_contra = TypeVar("Config_contra", contravariant=True)
"""The part of a head's config that ``decode`` reads."""

View = Literal["boxes", "boxes_3d", "map", "labels", "json"]
"""How the web page shows a prediction: boxes on the image, boxes in a point cloud from above, a
class map on the image, a list of labels beside it, or JSON as text.
"""
CocoResults = Callable[[Prediction_contra, int, int, int, Sequence[int]], list[dict[str, Any]]]
"""Prediction, image id, image height, image width, category id by class index -> entries of a
COCO results file.
"""


class Metric(Protocol[Prediction_contra]):
    """Counts that can be merged: ``a.merge(b)`` over shards, ranks and Ray tasks equals one
    pass.
    """

    main: str
    """The entry of ``result`` by which checkpoints are compared."""
    lower_is_better: frozenset[str]
    """The entries of ``result`` that are better if lower, such as errors."""

    def update(self, sample: Sample, prediction: Prediction_contra) -> None:
        """Counts one image. A sample without the annotation is left out."""
        ...

    def merge(self, other: Self) -> None:
        """Adds the counts of ``other``, which covers other samples."""
        ...

    def result(self) -> Mapping[str, float]:
        """Flat names to numbers: mAP, mAP50, mIoU, top1, ...; NaN without annotations."""
        ...

    def per_class(self) -> Mapping[str, Mapping[str, float]]:
        """The same by class name, for the table."""
        ...

    def charts(self) -> Charts:
        """Confusion matrix and precision-recall curves."""
        ...


class HeadKind(Protocol):
    """What is known of a head by its type, without the options of its config."""

    @property
    def type(self) -> str:
        """Its name in configs, bundles and predictions files."""
        ...

    @property
    def task(self) -> "Task[Any, Any]":
        """The task of its predictions."""
        ...

    @property
    def annotation(self) -> Annotation:
        """The kind of annotation of its ground truth."""
        ...

    @property
    def exclusive(self) -> bool:
        """Whether an image has exactly one of its classes."""
        ...

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The classes that it learns, of those of its annotation; None for all of them."""
        ...


class AnyHead(HeadKind, Protocol):
    """The protocol of a head's config."""

    @property
    def levels(self) -> tuple[str, ...]:
        """The features that it reads."""
        ...

    @property
    def weight(self) -> float:
        """The factor of its losses."""
        ...

    @property
    def train_only(self) -> bool:
        """Whether it is only trained, not evaluated or exported."""
        ...

    @property
    def fields(self) -> frozenset[str]:
        """Further arrays of the batch that it reads; see ``HeadOptions``."""
        ...

    def build(
        self, vocabulary: Vocabulary, channels: Mapping[str, int], strides: Mapping[str, int]
    ) -> "Head":
        """The module, with random weights.

        Args:
            vocabulary: the classes, those of the head alone (``head_vocabulary``).
            channels: of the features of the trunk, by name.
            strides: canvas pixels per cell of each feature; 0 for a pooled one.

        Raises:
            ValueError: if the features or the classes do not fit.
        """
        ...


def _distinct(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if names is not None and (not names or len(set(names)) < len(names)):
        raise ValueError("classes must name at least one class, each only once")
    return names


@pydantic_dataclass(frozen=True, kw_only=True, config=STRICT)
class HeadOptions:
    """The common options of heads. The config of a head inherits it and adds ``task``,
    ``annotation``, ``levels`` and ``build``.

    Attributes:
        train_only: whether it is only trained, not evaluated or exported.
        exclusive: whether an image has exactly one of its classes.
        fields: further arrays of the batch that it reads, such as ``masks`` or ``keypoints``; see
            ``AnnotationKind.fields``.
    """

    type: str
    train_only: ClassVar[bool] = False
    exclusive: ClassVar[bool] = False
    fields: ClassVar[frozenset[str]] = frozenset()
    weight: float = Field(default=1.0, ge=0)
    """Weight of this head's losses in the sum."""
    classes: Annotated[tuple[str, ...] | None, AfterValidator(_distinct)] = None
    """The classes that this head learns, of those of its annotation, in this order; all by
    default.
    """


@dataclass(frozen=True, kw_only=True)
class KnownHead:
    """A ``HeadKind`` without a config, from a server or a predictions file."""

    type: str
    task: "Task[Any, Any]"
    annotation: Annotation
    exclusive: bool
    classes: tuple[str, ...] | None = None


class Task(Protocol[Prediction, Config_contra]):
    """Everything that depends on the kind of prediction. Only the modules of ``AnyHead.build`` need
    torch.

    A vocabulary that a method takes is the head's (``head_vocabulary``), and so are the class
    indices of a sample.
    """

    @property
    def name(self) -> str:
        """Its name in ``/models``."""
        ...

    @property
    def kind(self) -> AnnotationKind[Any, Any]:
        """The kind of annotation that is its ground truth."""
        ...

    @property
    def view(self) -> View:
        """How the web page shows predictions."""
        ...

    @property
    def schema_name(self) -> str:
        """The name of ``response_schema`` in the OpenAPI document."""
        ...

    @property
    def to_coco(self) -> CocoResults[Prediction] | None:
        """Entries of a COCO results file; None if the format does not support the task."""
        ...

    def decode(self, arrays: Fields, frame: Any, head: Config_contra) -> Prediction:
        """The prediction of one sample, in the units of the original (pixels of an image), from
        the network outputs of its frame.
        """
        ...

    def metric(self, head: HeadKind, vocabulary: Vocabulary) -> Metric[Prediction]:
        """An empty metric for the classes of the vocabulary."""
        ...

    def to_response(
        self,
        prediction: Prediction,
        vocabulary: Vocabulary,
        score_threshold: float,
        image_file: str | None = None,
    ) -> Any:
        """The JSON of a prediction.

        Args:
            prediction: of one image.
            vocabulary: the class names.
            score_threshold: entries with a lower score are left out.
            image_file: name of the file with ``plain_image``, which is in the JSON instead of its
                bytes.
        """
        ...

    def from_response(
        self,
        content: Any,
        vocabulary: Vocabulary,
        head: HeadKind,
        size: Mapping[str, int] | None = None,
    ) -> Prediction:
        """The inverse of ``to_response``, for untrusted JSON.

        Args:
            content: the JSON.
            vocabulary: the classes.
            head: that predicted.
            size: of the data (``Input.size``), such as height and width of an image, if it is
                known.

        Raises:
            ValueError, LookupError, TypeError, AttributeError, OverflowError: if it has another
                form, or an invalid class or size.
        """
        ...

    def plain_image(self, prediction: Prediction) -> bytes | None:
        """The prediction as a PNG if it is an image itself, else None."""
        ...

    def response_schema(self) -> dict[str, Any]:
        """The JSON Schema of ``to_response``."""
        ...

    def draw_ground_truth(
        self, image: NDArray[np.uint8], sample: Sample, vocabulary: Vocabulary
    ) -> NDArray[np.uint8]:
        """The annotations of a sample on its image.

        Args:
            image: (H, W, 3) uint8 RGB, the sample's image as shown.
            sample: without the annotation, the image stays as it is.
            vocabulary: names and colours.

        Returns:
            uint8 RGB of the image's size times a whole number (small images are enlarged).
        """
        ...

    def draw_prediction(
        self,
        image: NDArray[np.uint8],
        prediction: Prediction,
        vocabulary: Vocabulary,
        score_threshold: float = 0.3,
    ) -> NDArray[np.uint8]:
        """A prediction on its image, of the same size as from ``draw_ground_truth``; entries with a
        lower score are left out.
        """
        ...

    def row_type(self) -> Any:
        """The Arrow type of a prediction, a ``pyarrow.StructType``."""
        ...

    def to_row(self, prediction: Prediction) -> dict[str, Any]:
        """A value of ``row_type``."""
        ...

    def from_row(self, row: Mapping[str, Any]) -> Prediction:
        """The inverse of ``to_row``."""
        ...

    def difference(self, first: Prediction, second: Prediction, how: Comparison) -> Difference:
        """The difference between two predictions of one image, over all fields."""
        ...

    def array_difference(self, first: Fields, second: Fields, how: Comparison) -> Difference:
        """The difference between the arrays for ``decode`` of one sample, from two networks."""
        ...


class PlainTask:
    """What most tasks have in common; a task may inherit it and replace parts.

    Predictions are no images and not in the COCO format. They are not drawn: figures show the
    sample alone. The web page shows their JSON.
    """

    view: ClassVar[View] = "json"

    @property
    def to_coco(self) -> CocoResults[Any] | None:
        """None: the format does not support the task."""
        return None

    def plain_image(self, prediction: Any) -> bytes | None:
        """None: a prediction is no image."""
        return None

    def draw_ground_truth(
        self, image: NDArray[np.uint8], sample: Sample, vocabulary: Vocabulary
    ) -> NDArray[np.uint8]:
        """The image as it is."""
        return image

    def draw_prediction(
        self,
        image: NDArray[np.uint8],
        prediction: Any,
        vocabulary: Vocabulary,
        score_threshold: float = 0.3,
    ) -> NDArray[np.uint8]:
        """The image as it is."""
        return image
