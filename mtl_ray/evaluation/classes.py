"""Truth and predictor must mean the same by a number: samples are recoded by class name."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.instance_values import Instances
from mtl_ray.inputs.decode import decode_semantic
from mtl_ray.samples import IGNORE_INDEX, Annotation, Sample, Vocabulary

UNKNOWN = -1
Codes = Mapping[Annotation, NDArray[np.int64]]
"""By kind of annotation, what each class index of the data is for the predictor; ``UNKNOWN`` where it has no such class."""


def recoder(data: Vocabulary, wanted: Vocabulary) -> tuple[Callable[[Sample], Sample], list[str]]:
    """What turns a sample's numbers into those of ``wanted``, and the classes that ``wanted`` does not have.

    Labels and objects of such a class are left out, pixels of it are ignored. A kind of annotation that ``wanted`` does not
    have at all goes through unchanged: nobody measures it.
    """
    codes: dict[Annotation, NDArray[np.int64]] = {}
    unknown: list[str] = []
    for kind, names in data.classes.items():
        known = wanted.classes.get(kind, names)
        if names != known:
            codes[kind] = np.array([known.index(name) if name in known else UNKNOWN for name in names], np.int64)
            unknown += [f"{kind}: {name}" for name in names if name not in known]
    return (lambda sample: _recode(sample, codes)) if codes else _same, unknown


def _same(sample: Sample) -> Sample:
    return sample


def _recode(sample: Sample, codes: Codes) -> Sample:
    if "labels" in codes and sample.labels is not None:
        labels = codes["labels"][sample.labels]
        sample = sample.with_annotations(labels=labels[labels != UNKNOWN])
    if "instances" in codes and sample.instances is not None:
        sample = sample.with_annotations(instances=_instances(sample.instances, codes["instances"]))
    if "semantic" in codes and sample.semantic is not None:
        sample = sample.with_annotations(semantic=_semantic(sample.semantic, codes["semantic"]))
    return sample


def _instances(found: Instances, codes: NDArray[np.int64]) -> Instances:
    classes = codes[found.classes]
    return objects_at(replace(found, classes=classes), classes != UNKNOWN)


def objects_at(found: Instances, kept: NDArray[np.bool_]) -> Instances:
    """The objects of N for which ``kept`` (N,) is True."""
    return replace(
        found,
        boxes_xyxy=found.boxes_xyxy[kept],
        classes=found.classes[kept],
        ids=found.ids[kept],
        areas=found.areas[kept],
        crowd=found.crowd[kept],
        difficult=found.difficult[kept],
        truncated=found.truncated[kept],
        masks=None if found.masks is None else tuple(mask for mask, keep in zip(found.masks, kept, strict=True) if keep),
        keypoints=None if found.keypoints is None else found.keypoints[kept],
        attributes={name: column[kept] for name, column in found.attributes.items()},
    )


def _semantic(png: bytes, codes: NDArray[np.int64]) -> bytes:
    table = np.full(256, IGNORE_INDEX, np.uint8)
    table[: len(codes)] = np.where(codes == UNKNOWN, IGNORE_INDEX, codes)
    done, data = cv2.imencode(".png", table[decode_semantic(png)], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    return bytes(data)
