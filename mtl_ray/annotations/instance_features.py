"""Instances as features of a ``tf.train.Example``, of this project and of ObjectiveMTL."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.instance_values import Instances
from mtl_ray.columns import Feature, Features, byte_list, first_number, numbers

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_ATTRIBUTE = "mtl/attribute/"


def instances_to_features(value: Instances, keypoints: Sequence[str]) -> dict[str, Feature]:
    """The names that ObjectiveMTL's readers look for, boxes and points in whole pixels; ``mtl/``
    holds what these cannot.

    Args:
        value: the objects of one image.
        keypoints: names of the keypoints, under which others find them.
    """
    whole = _whole(value.boxes_xyxy)
    features: dict[str, Feature] = {
        f"bbox/{name}": whole[:, index] for index, name in enumerate(_CORNERS)
    }
    features |= {
        "bbox/class": value.classes,
        "difficult": value.difficult.astype(np.int64),
        "truncated": value.truncated.astype(np.int64),
        "mtl/boxes_xyxy": value.boxes_xyxy.ravel(),
        "mtl/ids": value.ids,
        "mtl/areas": value.areas,
        "mtl/crowd": value.crowd.astype(np.int64),
    }
    if value.masks is not None:
        features["mtl/masks"] = list(value.masks)
    if value.keypoints is not None:
        features["mtl/num_keypoints"] = np.array([value.keypoints.shape[1]])
        features["mtl/keypoints"] = value.keypoints.ravel()
        for index, name in enumerate(keypoints):
            x, y, visibility = value.keypoints[:, index].T
            for axis, place in (("x", x), ("y", y)):
                features[f"{name}/{axis}"] = np.where(visibility > 0, np.rint(place), -1).astype(
                    np.int64
                )
    return features | {_ATTRIBUTE + name: values for name, values in value.attributes.items()}


def _whole(pixels: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.fmin(np.fmax(np.rint(pixels), -(2.0**31)), 2.0**31).astype(np.int64)


def from_own(features: Features) -> Instances:
    """Exactly the objects that were written."""
    boxes_xyxy = numbers(features, "mtl/boxes_xyxy", np.float32).reshape(-1, 4)
    keypoints = None
    if "mtl/num_keypoints" in features:
        size = first_number(features, "mtl/num_keypoints")
        keypoints = numbers(features, "mtl/keypoints", np.float32).reshape(len(boxes_xyxy), size, 3)
    named = {
        name.removeprefix(_ATTRIBUTE): name for name in features if name.startswith(_ATTRIBUTE)
    }
    return Instances(
        boxes_xyxy=boxes_xyxy,
        classes=numbers(features, "bbox/class", np.int64),
        ids=numbers(features, "mtl/ids", np.int64),
        areas=numbers(features, "mtl/areas", np.float32),
        crowd=numbers(features, "mtl/crowd", np.bool_),
        difficult=numbers(features, "difficult", np.bool_),
        truncated=numbers(features, "truncated", np.bool_),
        masks=tuple(bytes(value) for value in byte_list(features, "mtl/masks"))
        if "mtl/masks" in features
        else None,
        keypoints=keypoints,
        attributes={name: numbers(features, feature, np.int64) for name, feature in named.items()},
    )


def from_elsewhere(features: Features, keypoints: Sequence[str]) -> Instances:
    """What ObjectiveMTL's names say; ``keypoints`` are the names of the nodes to look for."""
    classes = numbers(features, "bbox/class", np.int64)
    boxes_xyxy = _columns(features, [f"bbox/{name}" for name in _CORNERS], len(classes))
    none = np.zeros(len(classes), np.bool_)
    points = None
    if keypoints:
        x, y = (
            _columns(features, [f"{name}/{axis}" for name in keypoints], len(classes))
            for axis in "xy"
        )
        points = np.stack([x, y, np.where(x >= 0, 2, 0)], axis=2).astype(np.float32)
    return Instances(
        boxes_xyxy=boxes_xyxy,
        classes=classes,
        ids=np.full(len(classes), -1),
        areas=np.prod(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], axis=1),
        crowd=none,
        difficult=numbers(features, "difficult", np.bool_) if "difficult" in features else none,
        truncated=numbers(features, "truncated", np.bool_) if "truncated" in features else none,
        keypoints=points,
        attributes=_attributes_from_elsewhere(features),
    )


def _attributes_from_elsewhere(features: Features) -> dict[str, NDArray[np.int64]]:
    """``gender`` and ``age`` have a value for each box whose ``property`` is 1."""
    if "property" not in features:
        return {}
    known = numbers(features, "property", np.int64) == 1
    found = {}
    for name in ("gender", "age"):
        values = np.full(len(known), -1)
        values[known] = numbers(features, name, np.int64)
        found[name] = values
    return found


def _columns(features: Features, names: list[str], rows: int) -> NDArray[np.float32]:
    columns = [numbers(features, name, np.float32) for name in names]
    if any(len(column) != rows for column in columns):
        raise ValueError(f"a record has {rows} boxes, but not as many values of {', '.join(names)}")
    return np.stack(columns, axis=1)
