"""Info files of MMDetection3D as a raw dataset (https://github.com/open-mmlab/mmdetection3d).

Both generations: 0.x writes a list of frames, or ``{"infos": [...], "metadata": {...}}``; 1.x
writes ``{"metainfo": {...}, "data_list": [...]}``, as ``.pkl``, or the same content as ``.json``.
Where the boxes are stated in the frame of a camera, or by the centre of their bottom, they are
converted here; see ``openmmlab_generation.py``.
"""

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.inputs.image_header import MAX_PIXELS
from mtl_ray.inputs.point_cloud import Camera, SensorCalibration, encoded_points
from mtl_ray.layout import CLOUDS
from mtl_ray.pickles.unpickle import load_pickle
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.sources.folders import stamps_of
from mtl_ray.sources.image_reading import checked_size
from mtl_ray.sources.json_values import parse_json
from mtl_ray.sources.lidar.clouds import read_cloud
from mtl_ray.sources.lidar.dataset_configs import OpenmmlabInfos
from mtl_ray.sources.lidar.objects import read_classes, to_boxes_3d
from mtl_ray.sources.lidar.openmmlab_datasets import DATASETS, Dataset
from mtl_ray.sources.lidar.openmmlab_frames import InfoFrame, read_second
from mtl_ray.sources.lidar.openmmlab_generation import InfoGeneration
from mtl_ray.sources.lidar.openmmlab_old_frames import read_kitti, read_nuscenes
from mtl_ray.sources.lidar.sweeps import with_sweeps
from mtl_ray.sources.source import Reading, SkippedItem, Source, UnreadableError, fingerprint_of


@dataclass(frozen=True, kw_only=True, slots=True)
class _Record:
    """A frame as its file has it, its place there, and the files that were found for it."""

    place: int
    info: Mapping[str, Any]
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rules:
    root: str
    file: str
    dataset: str
    generation: InfoGeneration
    classes: tuple[str, ...]
    sweeps: int
    images: bool


def open_openmmlab_infos(config: OpenmmlabInfos) -> Source:
    """Lists the frames of an info file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: in one sentence, if it is no info file of a known dataset, or would execute
            code.
    """
    root = storage.absolute(config.root)
    file = _file(root, config)
    data = storage.read(storage.join(root, file))
    try:
        content = parse_json(data) if file.endswith(".json") else load_pickle(data)
    except ValueError as error:
        raise ValueError(f"{file} cannot be read: {error}") from None
    infos, meta = _infos(content, file)
    dataset = config.dataset or _dataset_of(infos, meta, file)
    kind = DATASETS[dataset]
    generation = InfoGeneration.of(dataset, meta, kind.labels, second="data_list" in meta)
    try:
        generation = generation.as_stated(infos)
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{file} has boxes that are not of numbers: {error}") from None
    classes = read_classes(config.classes, kind.classes)
    places = _Places(root, config.clouds, kind, testing="test" in config.split)
    records = [
        _Record(place=place, info=info, files=dict(places.files(info, generation, config)))
        for place, info in enumerate(infos)
        if isinstance(info, dict)
    ]
    odd = (place for place, info in enumerate(infos) if not isinstance(info, dict))
    rules = _Rules(
        root=root,
        file=file,
        dataset=dataset,
        generation=generation,
        classes=classes,
        sweeps=config.sweeps,
        images=config.camera_images,
    )
    options = (dataset, *classes, str(config.sweeps), str(config.camera_images))
    paths = (path for record in records for path in record.files.values())
    return Source(
        vocabulary=Vocabulary(classes={"boxes_3d": classes}),
        records=records,
        reader=partial(_read, rules),
        skipped=tuple(SkippedItem(file, f"entry {place}", "it is no frame") for place in odd),
        fingerprint=fingerprint_of([data, *options, *stamps_of(root, paths)]),
        layout=CLOUDS,
    )


def _file(root: str, config: OpenmmlabInfos) -> str:
    """The info file, relative to the root."""
    if config.infos is not None:
        if not storage.exists(storage.join(root, config.infos)):
            raise FileNotFoundError(f"there is no info file {config.infos} in {root}")
        return config.infos
    names = [
        posixpath.join(folder, name)
        for folder in ("", "infos", "kitti_format")
        for name in storage.names(storage.join(root, folder) if folder else root)
        if name.endswith((".pkl", ".json")) and "dbinfos" not in name and ".coco." not in name
    ]
    for suffix in (".pkl", ".json"):
        for end in (f"infos_{config.split}{suffix}", f"{config.split}{suffix}"):
            fits = [name for name in names if posixpath.basename(name).endswith(end)]
            exact = [name for name in fits if posixpath.basename(name) == end]
            if len(exact or fits) == 1:
                return (exact or fits)[0]
    raise FileNotFoundError(
        f"there is no file *infos_{config.split}.pkl in {root}, or several; Fix: --infos FILE; "
        f"files there: {', '.join(names[:20]) or 'none'}"
    )


def _infos(content: Any, file: str) -> tuple[Sequence[Any], dict[str, Any]]:
    """The frames of a file, and what it says of all; with "data_list" in it for 1.x."""
    if isinstance(content, list):
        return content, {}
    for frames, about in (("data_list", "metainfo"), ("infos", "metadata")):
        if isinstance(content, dict) and isinstance(content.get(frames), list):
            meta = content.get(about)
            found = {str(key): value for key, value in meta.items()} if meta else {}
            return content[frames], {**found, frames: True}
    raise ValueError(
        f"{file} is no info file of MMDetection3D: a list of frames, or a dict with data_list or "
        "infos"
    )


def _dataset_of(infos: Sequence[Any], meta: Mapping[str, Any], file: str) -> str:
    """Whose conventions the frames follow."""
    stated = str(meta.get("dataset") or meta.get("DATASET") or "").lower()
    if str(meta.get("version", "")).startswith("v1.01"):
        return "lyft"  # whose files of 1.x say nuScenes
    if stated in DATASETS:
        return stated
    first = next((info for info in infos if isinstance(info, dict)), {})
    if "calib" in first and "point_cloud" in first:
        return "waymo" if "pose" in first else "kitti"
    if "cams" in first and "lidar2ego_rotation" in first:
        return "nuscenes"
    raise ValueError(
        f"{file} does not say of which dataset it is; Fix: --dataset {'|'.join(DATASETS)}"
    )


class _Places:
    """Finds files by the paths that an info file states, which begin with folders of another
    machine, or are names only.
    """

    def __init__(self, root: str, clouds: str | None, kind: Dataset, *, testing: bool) -> None:
        def ordered(folders: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(sorted(folders, key=lambda each: each.startswith("test") != testing))

        own = () if clouds is None else (clouds.strip("/"),)
        self._root = root
        self._clouds = (*own, *ordered(kind.clouds))
        self._sweeps = (*kind.sweeps, *own)
        self._images = ordered(kind.images)
        self._names: dict[str, frozenset[str]] = {}

    def files(
        self, info: Mapping[str, Any], generation: InfoGeneration, config: OpenmmlabInfos
    ) -> Iterator[tuple[str, str]]:
        """Each stated path of a frame with the file in the dataset, where it is there."""
        stated = generation.cloud(info)
        groups = [([stated], self._clouds)]
        groups.append((generation.sweep_files(info)[: config.sweeps], self._sweeps))
        for camera, path in generation.image_files(info):
            of_camera = [each for each in self._images if each.endswith(f"/{camera}")]
            groups.append(([path], tuple(of_camera) or self._images))
        for paths, folders in groups:
            for path in paths:
                if path and (found := self._find(path, folders)):
                    yield path, found

    def _find(self, path: str, folders: tuple[str, ...]) -> str | None:
        steps = [step for step in path.replace("\\", "/").split("/") if step not in ("", ".")]
        if not steps or ".." in steps:
            return None
        tails = ("/".join(steps[first:]) for first in range(len(steps)))
        usual = (f"{folder}/{steps[-1]}" for folder in folders)
        return next((each for each in (*usual, *tails) if self._is_there(each)), None)

    def _is_there(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        if folder not in self._names:
            uri = storage.join(self._root, folder) if folder else self._root
            self._names[folder] = frozenset(storage.names(uri))
        return name in self._names[folder]


def _read(rules: _Rules, record: _Record) -> Reading:
    kind = DATASETS[rules.dataset]
    where = f"{rules.file} entry {record.place}"
    try:
        frame = _frame(record, rules.generation)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        reason = f"has no {error}" if isinstance(error, KeyError) else str(error)
        raise UnreadableError(where, f"the frame is invalid: {reason}") from None
    if not frame.cloud:
        raise UnreadableError(where, "the frame is invalid: it states no cloud")
    calibration, images = _calibration(rules, record, frame)

    def read(path: str) -> NDArray[np.float32]:
        if path not in record.files:
            raise UnreadableError(path, "listed but not there")
        file = record.files[path]
        return read_cloud(storage.join(rules.root, file), file, len(kind.features)).points

    points = read(frame.cloud)
    cloud, items = with_sweeps(points, frame.sweeps, rules.sweeps, read, calibration)
    if not rules.sweeps:
        cloud = type(cloud)(points=points, features=kind.features, calibration=calibration)
    annotations = {}
    if frame.objects is not None:
        annotations["boxes_3d"], invalid = to_boxes_3d(frame.objects, rules.classes, frame.key)
        items += invalid
    return Sample(
        key=frame.key, inputs={"points": encoded_points(cloud, images)}, annotations=annotations
    ), items


def _frame(record: _Record, generation: InfoGeneration) -> InfoFrame:
    if generation.second:
        return read_second(record.info, generation, record.place)
    if generation.dataset in ("kitti", "waymo"):
        return read_kitti(record.info, generation)
    return read_nuscenes(record.info, generation)


def _calibration(
    rules: _Rules, record: _Record, frame: InfoFrame
) -> tuple[SensorCalibration, tuple[bytes, ...]]:
    """The calibration, of cameras whose size is known, and their images where they are wanted."""
    cameras, images = list[Camera](), list[bytes]()
    for path, camera in frame.cameras:
        sized, data = camera, b""
        if path in record.files and (rules.images or not camera.width):
            uri = storage.join(rules.root, record.files[path])
            try:
                data = storage.read(uri)
                height, width = checked_size(data, MAX_PIXELS)
            except (OSError, ValueError) as error:
                raise UnreadableError(record.files[path], str(error)) from None
            sized = Camera(
                name=camera.name,
                width=width,
                height=height,
                lidar_to_camera=camera.lidar_to_camera,
                projection=camera.projection,
            )
        if sized.width and sized.height:
            cameras.append(sized)
            images.append(data)
    calibration = SensorCalibration(
        benchmark=DATASETS[rules.dataset].benchmark,
        cameras=tuple(cameras),
        lidar_to_ego=frame.lidar_to_ego,
        ego_to_global=frame.ego_to_global,
        ground=frame.ground,
        notes=frame.notes,
    )
    return calibration, tuple(images) if rules.images else ()
