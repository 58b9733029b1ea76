"""A results file of nuScenes for its metric: boxes in the global frame by token of the sample."""

from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.evaluation.coco_file import read_json
from mtl_ray.evaluation.data import SplitData
from mtl_ray.shards.split import Split
from mtl_ray.sources.folders import subfolders
from mtl_ray.sources.json_values import shown
from mtl_ray.sources.lidar.dataset_configs import NuScenes
from mtl_ray.sources.lidar.nuscenes import CLASS_OF, open_nuscenes
from mtl_ray.sources.lidar.nuscenes_frames import KeyFrame
from mtl_ray.sources.lidar.nuscenes_scenes import SPLITS
from mtl_ray.sources.lidar.objects import known_points, rotations
from mtl_ray.tasks.lidar.metric import Detection3dMetric, MeasuredFrame
from mtl_ray.tasks.lidar.nuscenes.columns import (
    MOST_BOXES,
    RANGES,
    NuscenesColumns,
    NuscenesFrame,
    Racks,
)
from mtl_ray.tasks.lidar.nuscenes.frames import (
    RACK,
    Place,
    object_columns,
    racks_of,
)

CLASSES = tuple(name for name in RANGES if name != "cyclist")
ATTRIBUTES = frozenset(
    {
        "",
        *(f"vehicle.{state}" for state in ("moving", "stopped", "parked")),
        *(f"cycle.{state}_rider" for state in ("with", "without")),
        *(f"pedestrian.{state}" for state in ("moving", "standing", "sitting_lying_down")),
    }
)
"""The attributes that a box may have; "" for none."""
TABLE = "sample_annotation.json"
_START = 4096
_FIELDS = {"translation": 3, "size": 3, "rotation": 4, "velocity": 2}


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleTruth:
    """What is known of a sample: its objects, where the vehicle is, the bicycle racks, and the name
    of its scene, which tells the official split; empty if it is not known.
    """

    gt: NuscenesColumns
    vehicle: NDArray[np.float64] | None
    racks: Racks
    scene: str = ""


def is_results_file(uri: str) -> bool:
    """Whether a JSON file may be results of nuScenes: an object; COCO's results are a list."""
    return uri.endswith(".json") and storage.read(uri, 0, _START).lstrip().startswith(b"{")


def is_tables(uri: str) -> bool:
    """Whether a folder has the tables of a version, or versions in it."""
    return TABLE in storage.names(uri) or bool(_versions(uri))


def _versions(uri: str) -> list[str]:
    """The folders of versions; a shard of such a split has the same beginning of its name."""
    return [name for name in subfolders(uri) if name.startswith("v1.0-")]


def measure_results(
    uri: str, scenes: Mapping[str, SampleTruth]
) -> tuple[Detection3dMetric, list[str]]:
    """The metric of a results file, and notes. A sample without results has no detections.

    Args:
        uri: of the file.
        scenes: by token. Of official scenes only those of the smallest official split count that
            has all results, so that results of val are measured on val.

    Raises:
        ValueError: if the file is damaged, or has samples that are not in ``scenes``.
    """
    results = read_nuscenes_results(uri)
    if missing := [token for token in results if token not in scenes]:
        raise ValueError(
            f"{uri} has results of {len(missing)} samples that the data does not have, such as "
            f"{missing[0]}"
        )
    metric = Detection3dMetric(CLASSES)
    split, wanted = _official({scenes[token].scene for token in results})
    measured = {token: each for token, each in scenes.items() if not wanted or each.scene in wanted}
    # equal scores of several samples rank by their order in the file, as in the original
    ordered = [*results, *(token for token in measured if token not in results)]
    for place, token in enumerate(ordered):
        scene = measured[token]
        try:
            found = _detections(token, results.get(token, ()), scene)
        except ValueError as error:
            raise ValueError(f"{uri}, sample {token}: {error}") from None
        frame = NuscenesFrame(gt=scene.gt, found=found)
        key = f"{place} {token}"
        metric.add(MeasuredFrame(key=key, benchmark="nuscenes", kitti=None, nuscenes=frame))
    others = len(measured) - len(results)
    note = (
        f"{others} of {len(measured)} samples{split and f' of {split}'} have no results and count "
        "as without detections"
    )
    return metric, [note] if others else []


def _official(names: Set[str]) -> tuple[str, frozenset[str]]:
    """The smallest official split that has all these scenes, and its scenes; empty if none has."""
    fits = [(name, scenes) for name, scenes in SPLITS.items() if names and names <= scenes]
    return min(fits, key=lambda each: len(each[1]), default=("", frozenset()))


def read_nuscenes_results(uri: str) -> Mapping[str, Sequence[Any]]:
    """The boxes by token.

    Raises:
        ValueError: if it is no such file.
    """
    content = read_json(uri)
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, dict) or not all(
        isinstance(each, list) for each in results.values()
    ):
        raise ValueError(
            f'{uri} is no results file of nuScenes: it has no "results" with a list of boxes for '
            "each token of a sample"
        )
    return results


def _detections(token: str, boxes: Sequence[Any], scene: SampleTruth) -> NuscenesColumns:
    """Of one sample.

    Raises:
        ValueError: in one sentence, if a box has another form.
    """
    if len(boxes) > MOST_BOXES:
        raise ValueError(f"it has {len(boxes)} boxes, more than {MOST_BOXES}")
    try:
        values = {
            name: np.array([each[name] for each in boxes], np.float64).reshape(len(boxes), size)
            for name, size in _FIELDS.items()
        }
        scores = np.array([each["detection_score"] for each in boxes], np.float64)
        names = [each["detection_name"] for each in boxes]
        attributes = [each["attribute_name"] for each in boxes]
        # stated where objects are written as results: the original leaves out those without points
        points = np.array([each.get("num_pts", -1) for each in boxes], np.float64)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            "a box has no translation, size, rotation, velocity, detection_name, detection_score "
            f"and attribute_name: {error!r}"
        ) from None
    _check_names("detection_name", names, CLASSES)
    _check_names("attribute_name", attributes, ATTRIBUTES)
    _check_names("sample_token", [each.get("sample_token", token) for each in boxes], (token,))
    known = [np.isfinite(values[name]).all() for name in ("translation", "size", "rotation")]
    if not all(known) or not np.isfinite(scores).all() or (values["size"] <= 0).any():
        raise ValueError("a box has a size that is not positive or a number that is not finite")
    if (np.abs(values["rotation"]).max(axis=1, initial=0) < 1e-9).any():
        raise ValueError("a box has the rotation 0 0 0 0")
    found = NuscenesColumns(
        classes=np.array([CLASSES.index(name) for name in names], np.int64),
        centres=values["translation"],
        sizes=values["size"][:, [1, 0, 2]],
        yaw=_yaws(values["rotation"]),
        velocity=values["velocity"],
        attributes=np.array(attributes, np.str_).reshape(len(boxes)),
        scores=scores,
        state=np.zeros(len(boxes), np.int64),
        frames=np.zeros(len(boxes), np.int64),
    )
    empty = np.where(points == 0, 0, -1)
    return found.judged(CLASSES, scene.vehicle, scene.racks, empty)


def _check_names(field: str, names: Sequence[Any], allowed: Collection[str]) -> None:
    if unknown := [name for name in names if not isinstance(name, str) or name not in allowed]:
        known = ", ".join(sorted(filter(None, allowed)))
        raise ValueError(f"a box has the {field} {shown(unknown[0])}; it must be one of {known}")


def _yaws(quaternions: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) directions of the first axis of (N, 4) rotations w, x, y, z."""
    turned = rotations(quaternions)
    return np.arctan2(turned[:, 1, 0], turned[:, 0, 0])


def scenes_of_tables(uri: str) -> dict[str, SampleTruth]:
    """The samples of the tables in a folder, or in the only version in it.

    Raises:
        FileNotFoundError, ValueError: if there are none, or they are damaged.
    """
    root, version = uri, None
    if TABLE in storage.names(uri):
        root, _, version = storage.absolute(uri).rstrip("/").rpartition("/")
    else:
        versions = _versions(uri)
        if len(versions) > 1:
            raise ValueError(
                f"{uri} has the tables of {', '.join(versions)}; give the folder of one of them"
            )
        version = versions[0]
    source = open_nuscenes(NuScenes(root=root, split=version, version=version))
    return {frame.token: _scene(frame) for frame in source.records}


def _scene(frame: KeyFrame) -> SampleTruth:
    """Of a key frame, in the global frame."""
    objects = frame.objects or ()
    places = np.array([each.place for each, _, _ in objects], np.float64).reshape(-1, 10)
    names = [CLASS_OF.get(category, category) for _, category, _ in objects]
    is_rack = np.array([name.endswith(RACK) for name in names], np.bool_)
    racks = Racks(
        centres=places[is_rack, :3],
        rotations=rotations(places[is_rack, 6:]),
        sizes=places[is_rack][:, [4, 3, 5]],
    )
    kept = np.flatnonzero([name in CLASSES for name in names])
    chosen = [objects[row] for row in kept]
    gt = NuscenesColumns(
        classes=np.array([CLASSES.index(names[row]) for row in kept], np.int64),
        centres=places[kept, :3],
        sizes=places[kept][:, [4, 3, 5]],
        yaw=_yaws(places[kept, 6:]),
        velocity=frame.velocity[kept, :2],
        attributes=np.array([attribute for _, _, attribute in chosen], np.str_).reshape(len(kept)),
        scores=np.zeros(len(kept)),
        state=np.zeros(len(kept), np.int64),
        frames=np.zeros(len(kept), np.int64),
    )
    points = np.array(
        [known_points(each.lidar_points, each.radar_points) for each, _, _ in chosen], np.int64
    )
    vehicle = frame.ego_to_global[:3, 3]
    judged = gt.judged(CLASSES, vehicle, racks, points)
    return SampleTruth(gt=judged, vehicle=vehicle, racks=racks, scene=frame.scene)


def scenes_of_split(split: Split) -> dict[str, SampleTruth]:
    """The samples of a converted split by token.

    Raises:
        ValueError: if it has no classes of nuScenes or no poses.
    """
    own = split.vocabulary.classes["boxes_3d"]
    if unknown := [name for name in own if name not in CLASSES]:
        raise ValueError(f"the split has the class {unknown[0]}, which nuScenes does not have")
    return dict(_scenes(split, np.array([CLASSES.index(name) for name in own], np.int64)))


def _scenes(split: Split, numbers: NDArray[np.int64]) -> Iterator[tuple[str, SampleTruth]]:
    own = split.vocabulary.classes["boxes_3d"]
    for sample in SplitData(split).samples(0, split.num_samples, images=False):
        value = sample.annotations.get("boxes_3d")
        calibration = sample.inputs["points"].calibration
        if value is None:
            continue
        if calibration.ego_to_global is None or calibration.lidar_to_ego is None:
            raise ValueError(
                f"{sample.key} of the split has no pose of the vehicle, and the boxes of a results "
                "file are in the global frame"
            )
        place = Place.of(calibration)
        gt = object_columns(value, own, place)
        yield (
            calibration.notes.get("token", sample.key),
            SampleTruth(
                gt=gt.renumbered(numbers),
                vehicle=place.vehicle,
                racks=racks_of(value, place),
            ),
        )
