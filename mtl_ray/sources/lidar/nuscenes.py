"""nuScenes (Caesar et al. 2020, https://www.nuscenes.org): key frames of a lidar, ten classes.

Frame: that of LIDAR_TOP, in which OpenMMLab's networks work too; its x points to the right of the
car and its y to the front. Boxes are in that frame, with the yaw that OpenMMLab's converter gives
them (rotation about z of the intrinsic order z, y, x). Intensities are 0 to 255, as in the files:
CenterPoint reads them so.

The velocity of an object is that between its annotations before and after, at most 1.5 seconds from
this one; NaN where there are none.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.inputs.point_cloud import Camera
from mtl_ray.layout import CLOUDS
from mtl_ray.samples import Vocabulary
from mtl_ray.sources.folders import read_lines, stamps_of, subfolders
from mtl_ray.sources.image_reading import USUAL_RULE, ImageRule
from mtl_ray.sources.lidar.dataset_configs import MOST_SWEEPS, Lyft, NuScenes
from mtl_ray.sources.lidar.nuscenes_frames import KeyFrame, KeyFrameRules, read_key_frame
from mtl_ray.sources.lidar.nuscenes_scenes import SPLITS, VERSIONS
from mtl_ray.sources.lidar.nuscenes_tables import (
    LIDAR,
    NuscenesAnnotation,
    NuscenesTables,
    SensorData,
    read_tables,
)
from mtl_ray.sources.lidar.objects import pose, read_classes, sensor_to_sensor
from mtl_ray.sources.lidar.sweeps import Sweep
from mtl_ray.sources.paths import inside
from mtl_ray.sources.source import SkippedItem, Source, fingerprint_of

CLASSES = (
    *("car", "truck", "construction_vehicle", "bus", "trailer", "barrier", "motorcycle"),
    *("bicycle", "pedestrian", "traffic_cone"),
)
"""The classes of detection in CenterPoint's order."""
CAMERAS = tuple(
    f"CAM_{place}"
    for place in ("FRONT", "FRONT_RIGHT", "FRONT_LEFT", "BACK", "BACK_LEFT", "BACK_RIGHT")
)
CLASS_OF: Mapping[str, str] = MappingProxyType(
    {
        **{
            f"human.pedestrian.{who}": "pedestrian"
            for who in ("adult", "child", "construction_worker", "police_officer")
        },
        **{f"vehicle.bus.{kind}": "bus" for kind in ("bendy", "rigid")},
        **{
            f"vehicle.{name}": name for name in ("bicycle", "car", "motorcycle", "trailer", "truck")
        },
        "vehicle.construction": "construction_vehicle",
        "movable_object.barrier": "barrier",
        "movable_object.trafficcone": "traffic_cone",
    }
)
"""The class of each category that has one; others keep their name, such as bicycle racks, which the
metric asks for.
"""
MICROSECONDS = 1e-6
_LONGEST_GAP_S = 1.5


def open_nuscenes(config: NuScenes, rule: ImageRule = USUAL_RULE, *, files: bool = True) -> Source:
    """Lists the key frames of the scenes of a split.

    Args:
        config: the dataset.
        rule: whether clouds may be missing.
        files: False to read no files but the tables: the samples then have empty clouds, and the
            annotations and calibrations that results are measured with.

    Raises:
        FileNotFoundError: if there is no such version, or a table is missing.
        ValueError: if a table is damaged, or no scene of the split is there.
    """
    root = storage.absolute(config.root)
    found = [name for name in subfolders(root) if name.startswith("v1.0-")]
    version = config.version or VERSIONS.get(config.split)
    if version is None:  # a version by its name, or the end of it
        fits = [name for name in found if config.split in (name, name.rpartition("-")[2])]
        version = fits[0] if fits else config.split
    if version not in found:
        raise FileNotFoundError(
            f"{root} has no folder {version} with the tables of {config.split!r}; it has "
            f"{', '.join(found) or 'none'}; splits: {', '.join(VERSIONS)}"
        )
    names = scene_names(config.scenes) or SPLITS.get(config.split)
    rules = KeyFrameRules(
        root=root,
        classes=read_classes(config.classes, CLASSES),
        benchmark="nuscenes",
        sweeps=config.sweeps,
        images=config.camera_images,
        needed=rule.needed,
        files=files,
        class_of=dict(CLASS_OF),
    )
    return list_key_frames(config, storage.join(root, version), names, rules)


def scene_names(uri: str | None) -> frozenset[str] | None:
    """The names in a file; None without a file."""
    return None if uri is None else frozenset(read_lines(storage.absolute(uri)))


def list_key_frames(
    config: NuScenes | Lyft, folder: str, names: frozenset[str] | None, rules: KeyFrameRules
) -> Source:
    """The Source of the tables in a folder.

    Args:
        config: for messages.
        folder: with the tables.
        names: of the scenes; None for all.
        rules: how the frames are read.
    """
    tables = read_tables(folder, lambda name: names is None or name in names, CAMERAS)
    if not tables.scenes:
        raise ValueError(
            f"{folder} has no scene of {config.split!r}; Fix: another --split, or --scenes with "
            "the names of scenes that are there"
        )
    frames, skipped = list[KeyFrame](), [SkippedItem(*each) for each in tables.invalid]
    of_sample = _by_sample(tables)
    for token in tables.samples:
        try:
            frames.append(_frame(tables, token, of_sample.get(token, ()), rules))
        except ValueError as error:
            skipped.append(SkippedItem(f"sample {token}", "", str(error)))
    return Source(
        vocabulary=Vocabulary(classes={"boxes_3d": rules.classes}),
        records=frames,
        reader=partial(read_key_frame, rules),
        skipped=tuple(skipped),
        fingerprint=fingerprint_of(_parts(folder, frames, rules)),
        layout=CLOUDS,
    )


def _parts(folder: str, frames: Sequence[KeyFrame], rules: KeyFrameRules) -> Iterable[str]:
    """What the samples depend on."""
    yield from storage.stamps(folder).values()
    yield from (*rules.classes, str(rules.sweeps), str(rules.images))
    yield from (frame.token for frame in frames)
    yield from stamps_of(rules.root, (frame.file for frame in frames))


def _by_sample(tables: NuscenesTables) -> dict[str, list[NuscenesAnnotation]]:
    found: dict[str, list[NuscenesAnnotation]] = {}
    for each in tables.annotations.values():
        found.setdefault(each.sample, []).append(each)
    return found


def _frame(
    tables: NuscenesTables, token: str, objects: Sequence[NuscenesAnnotation], rules: KeyFrameRules
) -> KeyFrame:
    """The record of a sample.

    Raises:
        ValueError: in one sentence, if a row that it refers to is missing or damaged.
    """
    scene, time = tables.samples[token]
    if not math.isfinite(time):
        raise ValueError("has no timestamp")
    measured = tables.keys.get(token, {})
    if LIDAR not in measured:
        raise ValueError(f"has no measurement of {LIDAR}: sample_data has no key frame of it")
    lidar = measured[LIDAR]
    places = _places(tables, lidar)
    earlier = _earlier(tables, lidar, rules.sweeps)
    cameras = tuple(
        _camera(tables, name, measured[name], places) for name in CAMERAS if name in measured
    )
    return KeyFrame(
        token=token,
        scene=tables.scenes[scene],
        time=time,
        file=inside(lidar.file),
        lidar_to_ego=places[0],
        ego_to_global=places[1],
        sweeps=tuple(
            Sweep(
                inside(each.file),
                sensor_to_sensor(_places(tables, each), places),
                time * MICROSECONDS - each.time * MICROSECONDS,
            )
            for each in earlier
        ),
        cameras=cameras,
        objects=tuple(_named(tables, each) for each in objects) if tables.annotated else None,
        velocity=np.array([_velocity(tables, each) for each in objects]).reshape(-1, 3),
    )


def _places(
    tables: NuscenesTables, data: SensorData
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sensor to vehicle, and vehicle to global frame, of a measurement."""
    found = []
    tables_of = (
        ("calibrated_sensor", tables.sensors, data.sensor),
        ("ego_pose", tables.poses, data.pose),
    )
    for table, rows, token in tables_of:
        if token not in rows:
            raise ValueError(f"a row that sample_data refers to is missing: {table} {token}")
        row = rows[token]
        try:
            found.append(pose(row["rotation"], row["translation"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"a row of {table} is invalid: {token}: {error}") from None
    return found[0], found[1]


def _earlier(tables: NuscenesTables, lidar: SensorData, count: int) -> list[SensorData]:
    """Earlier measurements of the lidar, the latest first."""
    found: list[SensorData] = []
    while len(found) < min(count, MOST_SWEEPS) and lidar.previous:
        if lidar.previous not in tables.lidar:
            raise ValueError(
                f"a row that sample_data refers to is missing: sample_data {lidar.previous}"
            )
        lidar = tables.lidar[lidar.previous]
        if not math.isfinite(lidar.time):
            raise ValueError(f"a row of sample_data is invalid: {lidar.token}: timestamp")
        found.append(lidar)
    return found


def _camera(
    tables: NuscenesTables,
    name: str,
    data: SensorData,
    lidar: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> tuple[Camera, str]:
    """A camera, which measures a little before or after the lidar, and its file."""
    own = _places(tables, data)
    given = tables.sensors[data.sensor].get("camera_intrinsic")
    try:
        intrinsic = np.array(given, np.float64)
    except (TypeError, ValueError):
        intrinsic = np.zeros(0)
    if intrinsic.shape != (3, 3) or not np.isfinite(intrinsic).all():
        raise ValueError(f"a row of calibrated_sensor is invalid: {data.sensor}: camera_intrinsic")
    camera = Camera(
        name=name,
        width=data.width,
        height=data.height,
        lidar_to_camera=sensor_to_sensor(lidar, own),
        projection=np.column_stack([intrinsic, np.zeros(3)]),
    )
    return camera, inside(data.file)


def _named(tables: NuscenesTables, each: NuscenesAnnotation) -> tuple[NuscenesAnnotation, str, str]:
    """An annotation, its category (empty if its instance is not there) and its attribute."""
    attribute = next((tables.attributes.get(token, "") for token in each.attributes), "")
    return each, tables.categories.get(each.instance, ""), attribute


def _velocity(tables: NuscenesTables, each: NuscenesAnnotation) -> NDArray[np.float64]:
    """(3,) metres per second in the global frame; the rule of the development kit."""
    first = tables.annotations.get(each.previous, each)
    last = tables.annotations.get(each.next, each)
    times = [tables.samples[end.sample][1] * MICROSECONDS for end in (first, last)]
    longest = _LONGEST_GAP_S * (2 if first is not each and last is not each else 1)
    seconds = times[1] - times[0]
    if first is last or not 0 < seconds <= longest:
        return np.full(3, np.nan)
    moved = np.array(last.place[:3]) - np.array(first.place[:3])
    return np.asarray(moved / seconds, np.float64)
