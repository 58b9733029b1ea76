"""Result pickles of OpenMMLab's programs: what MMDetection's ``test.py --out`` writes, of 2.x and 3.x."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.evaluation.data import CocoData, EvaluationData
from mtl_ray.evaluation.stored import NOTHING, CocoResultsHead, Stored
from mtl_ray.geometry.masks import encode
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.tasks.detection.decode import Detections


def read_openmmlab(uri: str, data: EvaluationData, classes: Sequence[str] | None = None) -> Stored:
    """Reads a list with an entry for each image.

    * 3.x: a dict with ``pred_instances`` (bboxes, scores, labels, perhaps masks), ``img_path`` and ``img_id``.
    * 2.x: a list over classes of arrays (n, 5) x1, y1, x2, y2, score; or a tuple of that and a list over classes of masks. The
      entries do not say of which image they are, so there must be as many as the data has images, in its order.

    Args:
        uri: of the pickle; only arrays, tensors and plain containers are taken from it.
        data: what was predicted on.
        classes: names of the labels 0, 1, ...; by default see ``paired.open_pairs``.

    Raises:
        ValueError: if it is something else, or does not fit the data.
    """
    from mtl_ray.weights.unpickle import load_pickle

    content = load_pickle(storage.read(uri))
    if not isinstance(content, list):
        raise ValueError(f"{uri} holds a {type(content).__name__}; a result pickle holds a list with an entry for each image")
    samples = _as_listed(data)
    names = tuple(classes) if classes is not None else _listed_classes(data)
    try:
        if all(isinstance(entry, Mapping) and "pred_instances" in entry for entry in content):
            by_name = _named(uri, content, samples, data)
        elif all(isinstance(entry, list | tuple) for entry in content):
            by_name = _in_order(uri, content, samples)
        else:
            raise ValueError(f"{uri} is no detection result of MMDetection: an entry has neither pred_instances nor arrays by class")
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{uri} is no detection result of MMDetection: {error!r}") from error
    _check_labels(uri, by_name, names)
    vocabulary = _renumbered(data.vocabulary, names)
    return Stored(
        heads={"boxes": CocoResultsHead},
        vocabulary=vocabulary,
        by_name={key: {"boxes": found} for key, found in by_name.items()},
        complete=False,
    )


def _as_listed(data: EvaluationData) -> list[Sample]:
    """The samples in the order in which an annotation file lists its images, or a split stores them."""
    samples = list(data.samples(0, len(data), pictures=False))
    if not isinstance(data, CocoData):
        return samples
    by_key = {sample.key: sample for sample in samples}
    return [by_key[key] for key in data.file.file_names]


def _listed_classes(data: EvaluationData) -> tuple[str, ...]:
    return data.file.listed_classes if isinstance(data, CocoData) else tuple(data.vocabulary.classes.get("instances", ()))


def _renumbered(vocabulary: Vocabulary, names: tuple[str, ...]) -> Vocabulary:
    """What the labels of a pickle mean; category numbers belong to the data's own order and are left out."""
    return Vocabulary(classes={"instances": names}, keypoints=vocabulary.keypoints, skeleton=vocabulary.skeleton, mirror=vocabulary.mirror)


def _named(uri: str, entries: Sequence[Mapping[str, Any]], samples: Sequence[Sample], data: EvaluationData) -> dict[str, Detections]:
    keys = {name: sample for sample in samples for name in (data.other_name(sample.key), sample.key)}
    found: dict[str, Detections] = {}
    for number, entry in enumerate(entries):
        sample = _sample_of(entry, keys)
        if sample is None:
            raise ValueError(f"{uri}: entry {number} is of {entry.get('img_path', entry.get('img_id'))}, which the data does not have")
        if sample.key in found:
            raise ValueError(f"{uri}: entry {number} is of the image {sample.key}, of which there was one before")
        found[sample.key] = _instances(entry["pred_instances"], sample)
    return found


def _sample_of(entry: Mapping[str, Any], keys: Mapping[str, Sample]) -> Sample | None:
    """By the end of its path that the data knows, else by its id: a path begins with folders of another machine."""
    parts = str(entry.get("img_path") or "").replace("\\", "/").split("/")
    endings = ("/".join(parts[start:]) for start in range(len(parts)))
    by_path = next((keys[ending] for ending in endings if ending in keys), None)
    return by_path or keys.get(str(entry.get("img_id")))


def _instances(found: Mapping[str, Any], sample: Sample) -> Detections:
    boxes, scores, labels = (np.asarray(found[name]) for name in ("bboxes", "scores", "labels"))
    masks = found.get("masks")
    return _detections(boxes.reshape(-1, 4), scores, labels, None if masks is None else [_mask(mask, sample) for mask in masks])


def _in_order(uri: str, entries: Sequence[Any], samples: Sequence[Sample]) -> dict[str, Detections]:
    if len(entries) != len(samples):
        raise ValueError(f"{uri} has {len(entries)} entries, which do not say of which images; the data has {len(samples)} images")
    return {sample.key: _by_class(entry, sample) for sample, entry in zip(samples, entries, strict=True)}


def _by_class(entry: Any, sample: Sample) -> Detections:
    """An entry of 2.x; of a model that scores its masks the scores of these are left out, as its program does in ranking boxes."""
    boxes, masks = (entry[0], entry[1]) if isinstance(entry, tuple) else (entry, None)
    if isinstance(masks, tuple):
        masks = masks[0]
    rows: NDArray[Any] = np.concatenate([np.zeros((0, 5), np.float32), *(np.asarray(each).reshape(-1, 5) for each in boxes)])
    labels = np.repeat(np.arange(len(boxes)), [len(each) for each in boxes])
    flat = None if masks is None else [_mask(mask, sample) for of_class in masks for mask in of_class]
    return _detections(rows[:, :4], rows[:, 4], labels, flat)


def _detections(boxes: NDArray[Any], scores: NDArray[Any], labels: NDArray[Any], masks: Sequence[bytes] | None) -> Detections:
    """Best first, equal ones in their order."""
    if not len(boxes) == len(scores) == len(labels) or (masks is not None and len(masks) != len(boxes)):
        counts = f"{len(boxes)} boxes, {len(scores)} scores, {len(labels)} labels"
        raise ValueError(f"an image has {counts}" + (f", {len(masks)} masks" if masks is not None else ""))
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
    """An encoding with its size, or an array (H, W)."""
    if not isinstance(mask, Mapping):
        array = np.asarray(mask)
        size: tuple[int, ...] = array.shape
        counts = encode(array.astype(np.bool_)) if array.ndim == 2 else b""
    else:
        size = tuple(int(side) for side in mask["size"])
        counts = mask["counts"].encode() if isinstance(mask["counts"], str) else bytes(mask["counts"])
    if size != (sample.height, sample.width):
        raise ValueError(f"a mask of image {sample.key} is of size {size}, the image of {(sample.height, sample.width)}")
    return counts


def _check_labels(uri: str, by_name: Mapping[str, Detections], names: Sequence[str]) -> None:
    highest = max((int(found.classes.max()) for found in by_name.values() if len(found)), default=-1)
    lowest = min((int(found.classes.min()) for found in by_name.values() if len(found)), default=0)
    if highest >= len(names) or lowest < 0:
        raise ValueError(f"{uri} has labels from {lowest} to {highest}, the data has {len(names)} classes; name the classes in their order")
