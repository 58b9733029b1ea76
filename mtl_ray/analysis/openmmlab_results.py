"""Reads result pickles of OpenMMLab's programs: the output of ``test.py --out`` of all versions."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.evaluation.coco_results import NOTHING
from mtl_ray.evaluation.data import CocoData, EvaluationData
from mtl_ray.evaluation.predictions_file import COCO_RESULTS_HEAD, StoredPredictions
from mtl_ray.geometry.masks import encode_rle
from mtl_ray.inference.predictor import head_of
from mtl_ray.samples import Annotation, Sample, Vocabulary
from mtl_ray.tasks.classification.decode import LabelScores
from mtl_ray.tasks.detection.decode import Detections
from mtl_ray.tasks.segmentation.decode import SemanticMap


def read_openmmlab(
    uri: str, data: EvaluationData, classes: Sequence[str] | None = None
) -> StoredPredictions:
    """Reads a list with an entry for each image.

    * Objects, 3.x: a dict with ``pred_instances`` (bboxes, scores, labels, perhaps masks),
      ``img_path`` and ``img_id``.
    * Objects, 2.x: a list over classes of arrays (n, 5) x1, y1, x2, y2, score; or a tuple of that
      and a list over classes of masks.
    * Class maps: a dict with ``pred_sem_seg``, or an array (H, W).
    * One label an image: a dict with ``pred_score`` of all classes.

    If the entries do not name their images, there must be one for each image of the data, in its
    order.

    Args:
        uri: of the pickle; only arrays, tensors and plain containers are read.
        data: the data of the predictions.
        classes: names of the labels 0, 1, ...; by default see ``paired.open_pairs``.

    Raises:
        ValueError: if it is something else, or does not fit the data.
    """
    from mtl_ray.pickles.unpickle import load_pickle

    content = load_pickle(storage.read(uri))
    if not isinstance(content, list) or not content:
        raise ValueError(
            f"{uri} holds {'nothing' if content == [] else type(content).__name__}, not a list "
            "with an entry for each image"
        )
    annotation, read = _kind_of(uri, content)
    samples = _as_listed(data)
    names = tuple(classes) if classes is not None else _listed_classes(data, annotation)
    try:
        found = {
            sample.key: read(entry, sample)
            for sample, entry in _with_samples(uri, content, samples, data)
        }
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{uri} is no result of OpenMMLab's programs: {error!r}") from error
    _check_labels(uri, found.values(), names)
    name, head = HEADS[annotation]
    vocabulary = _renumbered(data.vocabulary, annotation, names)
    return StoredPredictions(
        heads={name: head()},
        vocabulary=vocabulary,
        by_name={key: {name: each} for key, each in found.items()},
        complete=False,
    )


HEADS: Mapping[Annotation, tuple[str, Callable[[], Any]]] = {
    "instances": ("boxes", lambda: COCO_RESULTS_HEAD),
    "semantic": ("map", lambda: head_of("fcn")),
    "labels": ("label", lambda: head_of("linear")),
}
"""What stands for the head that made the results: its name and how it is made."""


def _kind_of(uri: str, entries: Sequence[Any]) -> tuple[Annotation, Callable[[Any, Sample], Any]]:
    """The kind of prediction, and the function that reads an entry of one image."""
    kinds: Sequence[tuple[Annotation, Callable[[Any], bool], Callable[[Any, Sample], Any]]] = (
        (
            "instances",
            lambda entry: isinstance(entry, Mapping) and "pred_instances" in entry,
            _instances,
        ),
        (
            "semantic",
            lambda entry: isinstance(entry, Mapping) and "pred_sem_seg" in entry,
            _class_map,
        ),
        (
            "labels",
            lambda entry: isinstance(entry, Mapping) and "pred_score" in entry,
            _label_scores,
        ),
        ("semantic", lambda entry: isinstance(entry, np.ndarray) and entry.ndim == 2, _class_map),
        ("instances", lambda entry: isinstance(entry, list | tuple), _by_class),
    )
    for annotation, fits, read in kinds:
        if all(map(fits, entries)):
            return annotation, read
    raise ValueError(
        f"{uri} is no result that is known here: objects (pred_instances, or arrays by class), "
        "class maps or labels"
    )


def _as_listed(data: EvaluationData) -> list[Sample]:
    """The samples in the order in which an annotation file lists its images, or a split stores
    them.
    """
    samples = list(data.samples(0, len(data), images=False))
    if not isinstance(data, CocoData):
        return samples
    by_key = {sample.key: sample for sample in samples}
    return [by_key[key] for key in data.file.file_names]


def _listed_classes(data: EvaluationData, annotation: Annotation) -> tuple[str, ...]:
    if isinstance(data, CocoData) and annotation == "instances":
        return data.file.listed_classes
    return tuple(data.vocabulary.classes.get(annotation, ()))


def _renumbered(
    vocabulary: Vocabulary, annotation: Annotation, names: tuple[str, ...]
) -> Vocabulary:
    """The vocabulary of the labels of a pickle.

    It has no category ids, which belong to the order of the data.
    """
    return Vocabulary(
        classes={annotation: names},
        exclusive_labels=vocabulary.exclusive_labels,
        keypoints=vocabulary.keypoints,
        skeleton=vocabulary.skeleton,
        mirror=vocabulary.mirror,
    )


def _with_samples(
    uri: str, entries: Sequence[Any], samples: Sequence[Sample], data: EvaluationData
) -> Iterator[tuple[Sample, Any]]:
    """Each entry with its sample."""
    if not all(
        isinstance(entry, Mapping) and ("img_path" in entry or "img_id" in entry)
        for entry in entries
    ):
        if len(entries) != len(samples):
            raise ValueError(
                f"{uri} has {len(entries)} entries, which do not say of which images; the data has "
                f"{len(samples)} images"
            )
        yield from zip(samples, entries, strict=True)
        return
    keys = {
        name: sample for sample in samples for name in (data.other_name(sample.key), sample.key)
    }
    seen: set[str] = set()
    for number, entry in enumerate(entries):
        sample = _sample_of(entry, keys)
        if sample is None:
            raise ValueError(
                f"{uri}: entry {number} is of {entry.get('img_path', entry.get('img_id'))}, which "
                "the data does not have"
            )
        if sample.key in seen:
            raise ValueError(
                f"{uri}: entry {number} is of the image {sample.key}, of which there was one before"
            )
        seen.add(sample.key)
        yield sample, entry


def _sample_of(entry: Mapping[str, Any], keys: Mapping[str, Sample]) -> Sample | None:
    """Finds the sample by the end of the path, since a path starts with folders of another machine.

    Else by the id.
    """
    parts = str(entry.get("img_path") or "").replace("\\", "/").split("/")
    endings = ("/".join(parts[start:]) for start in range(len(parts)))
    by_path = next((keys[ending] for ending in endings if ending in keys), None)
    return by_path or keys.get(str(entry.get("img_id")))


def _instances(entry: Mapping[str, Any], sample: Sample) -> Detections:
    found = entry["pred_instances"]
    boxes, scores, labels = (np.asarray(found[name]) for name in ("bboxes", "scores", "labels"))
    masks = found.get("masks")
    return _detections(
        boxes.reshape(-1, 4),
        scores,
        labels,
        None if masks is None else [_mask(mask, sample) for mask in masks],
    )


def _by_class(entry: Any, sample: Sample) -> Detections:
    """An entry of 2.x. Mask scores are ignored, as MMDetection does when it ranks boxes."""
    boxes, masks = (entry[0], entry[1]) if isinstance(entry, tuple) else (entry, None)
    if isinstance(masks, tuple):
        masks = masks[0]
    rows: NDArray[Any] = np.concatenate(
        [np.zeros((0, 5), np.float32), *(np.asarray(each).reshape(-1, 5) for each in boxes)]
    )
    labels = np.repeat(np.arange(len(boxes)), [len(each) for each in boxes])
    flat = (
        None if masks is None else [_mask(mask, sample) for of_class in masks for mask in of_class]
    )
    return _detections(rows[:, :4], rows[:, 4], labels, flat)


def _class_map(entry: Any, sample: Sample) -> SemanticMap:
    """Of 1.x ``pred_sem_seg.data`` (1, H, W), of 0.x the array."""
    array = np.asarray(entry["pred_sem_seg"]["data"]) if isinstance(entry, Mapping) else entry
    array = array.reshape(array.shape[-2:])
    if array.shape != (sample.height, sample.width):
        raise ValueError(
            f"the class map of {sample.key} is of size {array.shape}, the image of "
            f"{(sample.height, sample.width)}"
        )
    return SemanticMap(classes=array.astype(np.uint8))


def _label_scores(entry: Mapping[str, Any], _: Sample) -> LabelScores:
    return LabelScores(scores=np.asarray(entry["pred_score"], np.float32).ravel(), exclusive=True)


def _detections(
    boxes: NDArray[Any], scores: NDArray[Any], labels: NDArray[Any], masks: Sequence[bytes] | None
) -> Detections:
    """The detections, best first; equal ones keep their order."""
    if not len(boxes) == len(scores) == len(labels) or (
        masks is not None and len(masks) != len(boxes)
    ):
        counts = f"{len(boxes)} boxes, {len(scores)} scores, {len(labels)} labels"
        raise ValueError(
            f"an image has {counts}" + (f", {len(masks)} masks" if masks is not None else "")
        )
    if not np.isfinite(scores.astype(np.float64)).all():
        raise ValueError("an image has a score that is no number, so it has no rank")
    if not len(boxes):
        return NOTHING
    order = np.argsort(-scores.astype(np.float64), kind="stable")
    return Detections(
        boxes_xyxy=boxes[order].astype(np.float32),
        scores=scores[order].astype(np.float32),
        classes=labels[order].astype(np.int64),
        masks=None if masks is None else tuple(masks[i] for i in order),
    )


def _mask(mask: Any, sample: Sample) -> bytes:
    """Decodes a mask: an encoding with its size, or an array (H, W)."""
    if not isinstance(mask, Mapping):
        array = np.asarray(mask)
        size: tuple[int, ...] = array.shape
        counts = encode_rle(array.astype(np.bool_)) if array.ndim == 2 else b""
    else:
        size = tuple(int(side) for side in mask["size"])
        counts = (
            mask["counts"].encode() if isinstance(mask["counts"], str) else bytes(mask["counts"])
        )
    if size != (sample.height, sample.width):
        raise ValueError(
            f"a mask of image {sample.key} is of size {size}, the image of "
            f"{(sample.height, sample.width)}"
        )
    return counts


def _check_labels(uri: str, found: Iterable[Any], names: Sequence[str]) -> None:
    highest, lowest = -1, 0
    for each in found:
        if isinstance(each, LabelScores):
            highest = max(highest, len(each.scores) - 1)
        elif each.classes.size:
            highest, lowest = (
                max(highest, int(each.classes.max())),
                min(lowest, int(each.classes.min())),
            )
    if highest >= len(names) or lowest < 0:
        raise ValueError(
            f"{uri} has labels from {lowest} to {highest}, the data has {len(names)} classes; name "
            "the classes in their order"
        )
