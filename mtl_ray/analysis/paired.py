"""Pairs stored predictions with their ground truth; every analysis of detections starts here."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.analysis.openmmlab_results import read_openmmlab
from mtl_ray.analysis.picture_source import PictureSource, pictures_of
from mtl_ray.annotations.instance_values import select
from mtl_ray.evaluation.data import CocoData, EvaluationData, class_converter, open_data
from mtl_ray.evaluation.evaluate import Finder, open_stored
from mtl_ray.evaluation.predictions_file import StoredPredictions
from mtl_ray.geometry.masks import mask_box
from mtl_ray.inference.predictor import Predictions
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.tasks.detection.columns import ScoredImage, images_with_masks
from mtl_ray.tasks.detection.decode import Detections
from mtl_ray.tasks.detection.metric import of_known_classes
from mtl_ray.tasks.detection.task import predicts_objects
from mtl_ray.tasks.head_classes import HeadClasses
from mtl_ray.tasks.task import HeadKind

PICKLES = (".pkl", ".pickle")
ROUNDED = 1e-4
"""Rounding error in pixels of a side that is computed from two corners."""
_MOST_NAMED = 10
"""Most entries of a folder that an error names."""
Likeness = Literal["bbox", "segm"]
"""What to compare: boxes or masks."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Predictions of any heads, with their data.

    Attributes:
        data: with the ground truth.
        stored: the predictions; their vocabulary defines the class numbers.
        notes: remarks for the reader of the results.
    """

    data: EvaluationData
    stored: StoredPredictions
    notes: tuple[str, ...]

    def __iter__(self) -> Iterator[tuple[Sample, Predictions | None]]:
        """Each sample in the order of the data, with the class numbers of the predictions.

        Its predictions are None if there are none.

        Raises:
            ValueError: after the last one, if there are predictions of images that the data does
                not have.
        """
        finder = Finder(self.stored, self.data)
        convert, _ = class_converter(self.data, self.stored.vocabulary)
        for sample in self.data.samples(0, len(self.data), images=False):
            yield convert(sample), finder(sample)
        if strange := finder.unused():
            raise ValueError(
                f"there are predictions of {len(strange)} images that the data does not have, such "
                f"as {strange[0]}"
            )

    def likeness(self) -> Likeness:
        """Masks if the predictions have them, else boxes."""
        found = (
            each
            for by_head in self.stored.by_name.values()
            for each in by_head.values()
            if isinstance(each, Detections)
        )
        return "segm" if any(each.masks is not None for each in found) else "bbox"

    def head(self, name: str) -> HeadKind:
        """The head of a name.

        Raises:
            ValueError: if there is no head of this name.
        """
        if name not in self.stored.heads:
            raise ValueError(
                f"the predictions have no head {name}; they have {', '.join(self.stored.heads)}"
            )
        return self.stored.heads[name]


@dataclass(frozen=True, kw_only=True, eq=False)
class Paired:
    """The objects and detections of each image, in the order of the data (for a COCO file: by image
    id).

    Attributes:
        vocabulary: of the predictions; ground truth and detections have the same class numbers.
        images: key, height, width, ground truth, detections.
        file_names: file name of each image by key, in the order of the data.
        rows: of each image in the data.
        pictures: source of the images.
        groups: supercategory of each class from the annotation file; the name of the class if it
            has none.
        notes: remarks for the reader of the results.
    """

    vocabulary: Vocabulary
    images: tuple[ScoredImage, ...]
    file_names: Mapping[str, str]
    rows: tuple[int, ...]
    pictures: PictureSource
    groups: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes of objects."""
        return self.vocabulary.classes["instances"]

    def usable(self) -> "Paired":
        """A copy without the objects that MMDetection's datasets skip.

        These are objects marked ``ignore``, of no area, narrower or lower than a pixel, or wholly
        outside the image.
        """
        return replace(
            self,
            images=tuple(
                image._replace(ground_truth=select(image.ground_truth, _usable(image)))
                for image in self.images
            ),
        )

    def comparable(self, kind: Likeness) -> "Paired":
        """The images that can be compared by boxes or by masks, with a note on those left out.

        Raises:
            ValueError: if there is none.
        """
        images = list(self.images) if kind == "bbox" else images_with_masks(self.images)
        if not images:
            raise ValueError("the data has no masks; compare boxes instead")
        if len(images) == len(self.images):
            return self
        kept = {image.key for image in images}
        return replace(
            self,
            images=tuple(images),
            rows=tuple(
                row for row, image in zip(self.rows, self.images, strict=True) if image.key in kept
            ),
            notes=(
                *self.notes,
                f"{len(self.images) - len(images)} images have boxes without masks and were left "
                "out",
            ),
        )

    def without_masks(self) -> "Paired":
        """A copy without masks, so that boxes are compared."""
        return replace(
            self,
            images=tuple(
                image._replace(predicted=replace(image.predicted, masks=None))
                for image in self.images
            ),
        )

    def above(self, score: float) -> "Paired":
        """A copy without the detections with a lower score."""
        if score <= 0:
            return self
        return replace(
            self,
            images=tuple(
                image._replace(predicted=image.predicted.select(image.predicted.scores >= score))
                for image in self.images
            ),
        )


def open_pairs(
    predictions: str, data: str, *, images: str | None = None, classes: Sequence[str] | None = None
) -> Pairs:
    """Predictions and their data.

    Args:
        predictions: URI of a predictions.arrow, a COCO results file (.json) or a result pickle of
            OpenMMLab (.pkl).
        data: URI of a split, or of a COCO annotation file (.json).
        images: folder of the images of an annotation file.
        classes: names of the labels 0, 1, ... of a pickle; by default the classes of a split, or
            the categories of an annotation file in its order.

    Raises:
        ValueError, FileNotFoundError: if one of them cannot be read, or predictions are a folder.
    """
    _check_place(predictions)
    gt = open_data(data, images)
    if classes is not None and not predictions.endswith(PICKLES):
        raise ValueError(
            "the order of classes is to be given for a pickle only; other files say themselves "
            "what their numbers mean"
        )
    stored = (
        read_openmmlab(predictions, gt, classes)
        if predictions.endswith(PICKLES)
        else open_stored(predictions, gt)
    )
    _, unknown = class_converter(gt, stored.vocabulary)
    left_out = tuple(
        f"the predictions do not know {name}: it was left out of the ground truth"
        for name in unknown
    )
    return Pairs(data=gt, stored=stored, notes=(*stored.notes, *left_out))


def _check_place(uri: str) -> None:
    """Before the data is opened, which may be of a form that only other predictions go with."""
    if not storage.exists(uri):
        raise FileNotFoundError(f"there are no predictions at {uri}")
    inside = storage.names(uri)
    if inside and inside != [uri.rstrip("/").rpartition("/")[2]]:  # a file lists itself
        raise ValueError(
            f"{uri} is a folder without result files. Fix: name what is in it, such as "
            f"predictions.arrow; there is {', '.join(inside[:_MOST_NAMED])}"
        )


def read_paired(
    predictions: str,
    data: str,
    *,
    kind: Likeness = "bbox",
    images: str | None = None,
    head: str | None = None,
    classes: Sequence[str] | None = None,
) -> Paired:
    """The detections of one head beside the objects of each image.

    Images whose objects are not annotated are left out.

    Args:
        predictions: see ``open_pairs``.
        data: the same.
        images: the same.
        classes: the same.
        kind: what will be compared; the detections must have it.
        head: its name, if the predictions have several heads with objects; the first by default.

    Raises:
        ValueError, FileNotFoundError: if one of them cannot be read, or has nothing of the kind.
    """
    pairs = open_pairs(predictions, data, images=images, classes=classes)
    return pair_objects(pairs, head, kind=kind)


def pair_objects(pairs: Pairs, head: str | None = None, *, kind: Likeness = "bbox") -> Paired:
    """Like ``read_paired``, for predictions that are open already.

    Raises:
        ValueError: if there is nothing of the kind.
    """
    finders = [name for name, each in pairs.stored.heads.items() if predicts_objects(each)]
    name = head or next(iter(finders), "")
    if name not in finders:
        known = ", ".join(f"{each} ({kind.task.name})" for each, kind in pairs.stored.heads.items())
        raise ValueError(
            f"the predictions have no head {name} that finds objects; they have {known}".replace(
                "  ", " "
            )
        )
    classes = HeadClasses.of(pairs.stored.heads[name], pairs.stored.vocabulary)
    scored: list[ScoredImage] = []
    rows: list[int] = []
    missing: list[str] = []
    for row, (whole, found) in enumerate(pairs):
        sample = classes.sample(whole)
        if found is None:
            missing.append(sample.key)
        elif sample.instances is not None:
            rows.append(row)
            each = of_known_classes(
                found[name] if kind == "segm" else _boxed(found[name], sample), sample
            )
            scored.append(
                ScoredImage(sample.key, sample.height, sample.width, sample.instances, each)
            )
    _check(scored, kind)
    notes = (
        [
            f"{len(missing)} images of the data have no predictions and were left out, such as "
            f"{missing[0]}"
        ]
        if missing
        else []
    )
    return Paired(
        vocabulary=classes.vocabulary,
        images=tuple(scored),
        file_names=_file_names(pairs.data, scored),
        rows=tuple(rows),
        pictures=pictures_of(pairs.data),
        groups=_groups(pairs.data, classes.vocabulary),
        notes=(*pairs.notes, *notes),
    )


def _check(images: Sequence[ScoredImage], kind: Likeness) -> None:
    if not images:
        raise ValueError("the data has no image with annotated objects")
    if kind == "segm":
        if any(len(image.predicted) and image.predicted.masks is None for image in images):
            raise ValueError("the predictions have no masks; compare boxes instead")
    elif any(np.isnan(image.predicted.boxes_xyxy).any() for image in images):
        raise ValueError("the predictions have no boxes; compare masks instead")


def _file_names(data: EvaluationData, images: Sequence[ScoredImage]) -> dict[str, str]:
    keys = [image.key for image in images]
    if not isinstance(data, CocoData):
        return dict(zip(keys, keys, strict=True))
    known = set(keys)
    return {key: name for key, name in data.file.file_names.items() if key in known}


def _groups(data: EvaluationData, vocabulary: Vocabulary) -> tuple[str, ...]:
    own: Mapping[str, str] = data.file.supercategories if isinstance(data, CocoData) else {}
    return tuple(own.get(name, name) for name in vocabulary.classes["instances"])


def _usable(image: ScoredImage) -> NDArray[np.bool_]:
    gt = image.ground_truth
    sides = gt.boxes_xyxy[:, 2:] - gt.boxes_xyxy[:, :2]
    # an annotation file need not say the size
    edge = np.array([image.width, image.height]) if image.height > 0 else np.inf
    inside = (np.minimum(gt.boxes_xyxy[:, 2:], edge) > np.maximum(gt.boxes_xyxy[:, :2], 0)).all(
        axis=1
    )
    ignored = gt.attributes.get("ignore", np.zeros(len(gt), np.int64)) > 0
    return np.asarray(
        (gt.areas > 0) & (sides > 1 - ROUNDED).all(axis=1) & inside & ~ignored, np.bool_
    )


def _boxed(found: Detections, sample: Sample) -> Detections:
    """Adds boxes around the masks to a results file that has only masks."""
    if found.masks is None or not np.isnan(found.boxes_xyxy).any():
        return found
    around = np.array(
        [mask_box(mask, sample.height, sample.width) for mask in found.masks], np.float64
    )
    return replace(found, boxes_xyxy=np.where(np.isnan(found.boxes_xyxy), around, found.boxes_xyxy))
