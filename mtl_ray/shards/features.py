"""Which features of a ``tf.train.Example`` a Sample becomes, and back.

The names are those that ObjectiveMTL's readers look for, boxes and points in whole pixels. Names under ``mtl/`` hold what these
cannot; where ``mtl/annotated`` is there, they are preferred and a Sample comes back exactly.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.instance_values import Instances
from mtl_ray.inputs.image_file import NO_LIMIT, shown_size
from mtl_ray.samples import Annotation, Sample, image_sample
from mtl_ray.shards.example import Feature, ReadFeature

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_ATTRIBUTE = "mtl/attribute/"


def to_features(sample: Sample, keypoints: tuple[str, ...]) -> dict[str, Feature]:
    """The features of a Sample; ``keypoints`` are the names under which others find them."""
    annotated = []
    features: dict[str, Feature] = {
        "name": [sample.key.encode()],
        "image": [sample.image],
        "height": np.array([sample.height]),
        "width": np.array([sample.width]),
    }
    if sample.labels is not None:
        annotated.append(b"labels")
        features["label"] = sample.labels
        features["confidence"] = np.ones(len(sample.labels), np.int64)
    if sample.semantic is not None:
        features["segmentation"] = [sample.semantic]
    if sample.instances is not None:
        annotated.append(b"instances")
        features |= _of_instances(sample.instances, keypoints)
    return features | {"mtl/annotated": annotated}


def _of_instances(instances: Instances, keypoints: tuple[str, ...]) -> dict[str, Feature]:
    whole = _whole(instances.boxes_xyxy)
    features: dict[str, Feature] = {f"bbox/{name}": whole[:, index] for index, name in enumerate(_CORNERS)}
    features |= {
        "bbox/class": instances.classes,
        "difficult": instances.difficult.astype(np.int64),
        "truncated": instances.truncated.astype(np.int64),
        "mtl/boxes_xyxy": instances.boxes_xyxy.ravel(),
        "mtl/ids": instances.ids,
        "mtl/areas": instances.areas,
        "mtl/crowd": instances.crowd.astype(np.int64),
    }
    if instances.masks is not None:
        features["mtl/masks"] = list(instances.masks)
    if instances.keypoints is not None:
        features["mtl/num_keypoints"] = np.array([instances.keypoints.shape[1]])
        features["mtl/keypoints"] = instances.keypoints.ravel()
        for index, name in enumerate(keypoints):
            x, y, visibility = instances.keypoints[:, index].T
            features[f"{name}/x"], features[f"{name}/y"] = (
                np.where(visibility > 0, np.rint(value), -1).astype(np.int64) for value in (x, y)
            )
    return features | {_ATTRIBUTE + name: values for name, values in instances.attributes.items()}


def _whole(pixels: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.fmin(np.fmax(np.rint(pixels), -(2.0**31)), 2.0**31).astype(np.int64)


def to_sample(features: Mapping[str, ReadFeature], keypoints: tuple[str, ...] = ()) -> Sample:
    """The Sample of some features: exactly the one that was written, or what ObjectiveMTL's names say of it.

    Args:
        features: of an Example.
        keypoints: names of the nodes of an Example from elsewhere.

    Raises:
        ValueError: if there is no image, or the features do not fit together.
    """
    image = _bytes(features, "image")
    key = next((found for name in ("name", "image_name", "image_id") if (found := _bytes(features, name)) is not None), None)
    if image is None or key is None:
        raise ValueError(f"a record has no image or no name; it has {', '.join(sorted(features)) or 'nothing'}")
    own = {bytes(value) for value in _list(features, "mtl/annotated")} if "mtl/annotated" in features else None
    sized = "height" in features and "width" in features
    height, width = (int(_numbers(features, name, np.int64)[0]) for name in ("height", "width")) if sized else shown_size(image, NO_LIMIT)
    if own is None:
        labels = _positive_labels(features) if "label" in features else None
        instances = _foreign_instances(features, keypoints) if "bbox/class" in features else None
    else:
        labels = _numbers(features, "label", np.int64) if b"labels" in own else None
        instances = _own_instances(features) if b"instances" in own else None
    semantic = semantic_of(features)
    return image_sample(key=key.decode(), image=image, height=height, width=width, labels=labels, instances=instances, semantic=semantic)


def classes_of(features: Mapping[str, ReadFeature], annotation: Annotation) -> NDArray[np.int64]:
    """The class indices of labels or instances; empty where there are none."""
    return _positive_labels(features) if annotation == "labels" else _numbers(features, "bbox/class", np.int64)


def semantic_of(features: Mapping[str, ReadFeature]) -> bytes | None:
    """The encoded semantic map."""
    return _bytes(features, "segmentation")


def _own_instances(features: Mapping[str, ReadFeature]) -> Instances:
    boxes_xyxy = _numbers(features, "mtl/boxes_xyxy", np.float32).reshape(-1, 4)
    keypoints = None
    if "mtl/num_keypoints" in features:
        size = int(_numbers(features, "mtl/num_keypoints", np.int64)[0])
        keypoints = _numbers(features, "mtl/keypoints", np.float32).reshape(len(boxes_xyxy), size, 3)
    return Instances(
        boxes_xyxy=boxes_xyxy,
        classes=_numbers(features, "bbox/class", np.int64),
        ids=_numbers(features, "mtl/ids", np.int64),
        areas=_numbers(features, "mtl/areas", np.float32),
        crowd=_numbers(features, "mtl/crowd", np.bool_),
        difficult=_numbers(features, "difficult", np.bool_),
        truncated=_numbers(features, "truncated", np.bool_),
        masks=tuple(bytes(value) for value in _list(features, "mtl/masks")) if "mtl/masks" in features else None,
        keypoints=keypoints,
        attributes={name.removeprefix(_ATTRIBUTE): _numbers(features, name, np.int64) for name in features if name.startswith(_ATTRIBUTE)},
    )


def _foreign_instances(features: Mapping[str, ReadFeature], keypoints: tuple[str, ...]) -> Instances:
    classes = _numbers(features, "bbox/class", np.int64)
    boxes_xyxy = _columns(features, [f"bbox/{name}" for name in _CORNERS], len(classes))
    none = np.zeros(len(classes), np.bool_)
    points = None
    if keypoints:
        x, y = (_columns(features, [f"{name}/{axis}" for name in keypoints], len(classes)) for axis in "xy")
        points = np.stack([x, y, np.where(x >= 0, 2, 0)], axis=2).astype(np.float32)
    return Instances(
        boxes_xyxy=boxes_xyxy,
        classes=classes,
        ids=np.full(len(classes), -1),
        areas=np.prod(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], axis=1),
        crowd=none,
        difficult=_numbers(features, "difficult", np.bool_) if "difficult" in features else none,
        truncated=_numbers(features, "truncated", np.bool_) if "truncated" in features else none,
        keypoints=points,
        attributes=_foreign_attributes(features),
    )


def _foreign_attributes(features: Mapping[str, ReadFeature]) -> dict[str, NDArray[np.int64]]:
    """``gender`` and ``age`` have a value for each box whose ``property`` is 1."""
    if "property" not in features:
        return {}
    known = _numbers(features, "property", np.int64) == 1
    found = {}
    for name in ("gender", "age"):
        values = np.full(len(known), -1)
        values[known] = _numbers(features, name, np.int64)
        found[name] = values
    return found


def _positive_labels(features: Mapping[str, ReadFeature]) -> NDArray[np.int64]:
    labels = _numbers(features, "label", np.int64)
    return labels[_numbers(features, "confidence", np.int64) > 0] if "confidence" in features else labels


def _columns(features: Mapping[str, ReadFeature], names: list[str], rows: int) -> NDArray[np.float32]:
    columns = [_numbers(features, name, np.float32) for name in names]
    if any(len(column) != rows for column in columns):
        raise ValueError(f"a record has {rows} boxes, but not as many values of {', '.join(names)}")
    return np.stack(columns, axis=1)


def _numbers(features: Mapping[str, ReadFeature], name: str, dtype: type) -> NDArray[Any]:
    values = features.get(name, [])
    if isinstance(values, list) and values:
        raise ValueError(f"a record has bytes where {name} should be numbers")
    return np.asarray(values, dtype)


def _list(features: Mapping[str, ReadFeature], name: str) -> list[memoryview]:
    values = features.get(name, [])
    if not isinstance(values, list):
        if len(values):
            raise ValueError(f"a record has numbers where {name} should be bytes")
        return []
    return values


def _bytes(features: Mapping[str, ReadFeature], name: str) -> bytes | None:
    values = _list(features, name)
    return bytes(values[0]) if values else None
