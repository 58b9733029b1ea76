"""One frame of an info file of MMDetection3D, of either generation, and its boxes in our frame.

What its files state:

* KITTI: camera frame, centre of the bottom, length, height, width, rotation around the camera's y.
* nuScenes, Lyft: lidar frame, centre of the box, length, width, height, yaw; before version 1.0.0rc0
  of MMDetection3D width, length, height, -yaw - pi / 2. No file says which, so the vehicles decide:
  they are longer than wide.
* Waymo in KITTI's form: as KITTI; of version 1.4 of MMDetection3D the lidar frame, with the centre
  of the bottom.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mtl_ray.geometry.boxes_3d import wrap_angle
from mtl_ray.geometry.cameras import kitti_to_lidar
from mtl_ray.inputs.point_cloud import Camera
from mtl_ray.sources.lidar_objects import FoundBox, between, inverse, points_of, pose
from mtl_ray.sources.sweeps import Sweep

DONT_CARE = "DontCare"
UNKNOWN = "unknown"
"""The name of an object of which only is known that its class is none of those listed."""
_NUSCENES_SIZE = (1600, 900)
_MOST_OBJECTS = 100_000
_LONG = frozenset({"car", "truck", "bus", "trailer", "motorcycle", "bicycle"})
"""Objects that are longer than wide."""
_LOOKED_AT = 1000
"""Frames of which the vehicles decide."""
_KITTI_CAMERA = "image_2"
_COLUMNS = ("location", "dimensions", "rotation_y", "bbox", "alpha", "truncated", "occluded")
"""Of the objects of 0.x."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InfoFrame:
    """A frame.

    Attributes:
        key: unique in its file.
        cloud: the path of the cloud as stated.
        sweeps: earlier ones, the latest first; their files as stated.
        cameras: the path of each image as stated, and its calibration; 0 pixels where the file
            does not say how many.
        objects: None if the file has no annotations.
        lidar_to_ego, ego_to_global, ground, notes: as of ``Calibration``.
    """

    key: str
    cloud: str
    sweeps: tuple[Sweep, ...]
    cameras: tuple[tuple[str, Camera], ...]
    objects: tuple[FoundBox, ...] | None
    lidar_to_ego: NDArray[np.float64] | None
    ego_to_global: NDArray[np.float64] | None
    ground: NDArray[np.float64] | None
    notes: Mapping[str, str] = field(default_factory=dict)


BoxForm = Literal["camera", "centre", "centre_wide", "bottom"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """What holds for all frames of a file.

    Attributes:
        dataset: ``kitti``, ``nuscenes``, ``lyft``, ``waymo``.
        second: whether 1.x wrote it.
        boxes: in which frame its boxes are: of a camera, of the lidar with the centre, the same
            with width before length, or of the lidar with the centre of the bottom.
        labels: the name of each number, of 1.x.
        other: the name of the number -1.
    """

    dataset: str
    second: bool
    boxes: BoxForm
    labels: Mapping[int, str]
    other: str

    @staticmethod
    def of(
        dataset: str, meta: Mapping[str, Any], labels: Sequence[str], *, second: bool
    ) -> "Generation":
        """What the head of a file says.

        Args:
            dataset: its name.
            meta: ``metainfo`` or ``metadata``.
            labels: the usual names.
            second: whether 1.x wrote it.
        """
        names: dict[int, str] = dict(enumerate(labels))
        others = [DONT_CARE] if dataset == "kitti" else []
        listed = meta.get("CLASSES", meta.get("classes"))
        categories = meta.get("categories")
        if isinstance(categories, dict):
            names = {int(number): str(name) for name, number in categories.items()}
            others = [str(name) for name, number in categories.items() if int(number) == -1]
        elif isinstance(listed, list | tuple) and listed:
            names = {number: str(name) for number, name in enumerate(listed)}
        boxes: BoxForm = "centre"
        if dataset in ("kitti", "waymo"):
            newest = str(meta.get("info_version", "")).startswith("mmdet3d_v1.4")
            boxes = "bottom" if dataset == "waymo" and newest else "camera"
        other = others[0] if len(others) == 1 else UNKNOWN
        return Generation(dataset=dataset, second=second, boxes=boxes, labels=names, other=other)

    def as_stated(self, infos: Sequence[Any]) -> "Generation":
        """The same with the order of length and width that the vehicles of the frames have."""
        if self.boxes != "centre":
            return self
        longer = sum(_votes(info, self) for info in infos[:_LOOKED_AT] if isinstance(info, dict))
        return replace(self, boxes="centre_wide") if longer < 0 else self

    def cloud(self, info: Mapping[str, Any]) -> str:
        """The path of the cloud as stated; empty if it is not."""
        if self.second:
            return _text(_dict(info, "lidar_points").get("lidar_path"))
        return _text(info.get("lidar_path") or _dict(info, "point_cloud").get("velodyne_path"))

    def sweep_files(self, info: Mapping[str, Any]) -> list[str]:
        """The paths of earlier sweeps as stated."""
        if self.second:
            sweeps = [_dict(each, "lidar_points") for each in _dicts(info, "lidar_sweeps")]
            return [_text(each.get("lidar_path")) for each in sweeps]
        return [_text(each.get("data_path")) for each in _dicts(info, "sweeps")]

    def image_files(self, info: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The name of each camera and the path of its image as stated."""
        if self.second:
            images = _dict(info, "images")
            return [
                (_camera_folder(self.dataset, name), _text(each["img_path"]))
                for name, each in images.items()
                if isinstance(each, dict) and each.get("img_path")
            ]
        if self.dataset in ("kitti", "waymo"):
            path = _text(_dict(info, "image").get("image_path"))
            return [(_camera_folder(self.dataset, "CAM2"), path)] if path else []
        return [
            (str(name), _text(each.get("data_path"))) for name, each in _dict(info, "cams").items()
        ]


def _votes(info: Mapping[str, Any], generation: Generation) -> int:
    """How many more vehicles of a frame state a first size that is the longer one."""
    if generation.second:
        rows = [
            (generation.labels.get(int(row.get("bbox_label_3d", -1)), ""), row.get("bbox_3d"))
            for row in _dicts(info, "instances")
        ]
    else:
        names, boxes = info.get("gt_names"), info.get("gt_boxes")
        rows = [] if names is None or boxes is None else list(zip(names, boxes, strict=False))
    sizes = [box[3:5] for name, box in rows if str(name) in _LONG and box is not None]
    return sum(1 if float(size[0]) > float(size[1]) else -1 for size in sizes if len(size) == 2)


def _camera_folder(dataset: str, name: str) -> str:
    """The folder of the images of a camera."""
    if dataset == "kitti":
        return _KITTI_CAMERA
    if dataset == "waymo":
        order = ("FRONT", "FRONT_LEFT", "FRONT_RIGHT", "SIDE_LEFT", "SIDE_RIGHT")
        place = name.removeprefix("CAM_")
        return f"image_{order.index(place) if place in order else 0}"
    return name


def read_info(info: Mapping[str, Any], generation: Generation, place: int) -> InfoFrame:
    """The frame of an entry.

    Args:
        info: the entry.
        generation: of its file.
        place: of the entry in the file.

    Raises:
        ValueError, KeyError, TypeError: if something is missing or invalid.
    """
    if generation.second:
        return _read_second(info, generation, place)
    if generation.dataset in ("kitti", "waymo"):
        return _read_first_kitti(info, generation)
    return _read_first_nuscenes(info, generation)


def _read_second(info: Mapping[str, Any], generation: Generation, place: int) -> InfoFrame:
    """Of 1.x."""
    images = _dict(info, "images")
    cameras = [
        (_text(each["img_path"]), _camera_of(name, each, generation.dataset))
        for name, each in images.items()
        if isinstance(each, dict) and {"img_path", "cam2img", "lidar2cam"} <= each.keys()
    ]
    lidar = _dict(info, "lidar_points")
    to_ego = _optional(lidar.get("lidar2ego"))
    to_global = _optional(info.get("ego2global"))
    plane = info.get("plane")
    ground = None
    if plane is not None and cameras:
        ground = _plane(plane, cameras[0][1].lidar_to_camera)
    objects = None
    if isinstance(info.get("instances"), list):
        to_camera = cameras[0][1].lidar_to_camera if cameras else None
        objects = _instances(info["instances"], generation, to_camera)
    number = info.get("sample_idx", info.get("sample_id", place))
    return InfoFrame(
        key=_text(info.get("token")) or _key(generation.dataset, number),
        cloud=generation.cloud(info),
        sweeps=_sweeps_of_second(info, to_ego, to_global),
        cameras=tuple(cameras),
        objects=objects,
        lidar_to_ego=to_ego,
        ego_to_global=to_global,
        ground=ground,
        notes=_notes(info, "token", "context_name", "timestamp"),
    )


def _camera_of(name: str, image: Mapping[str, Any], dataset: str) -> Camera:
    projection = np.zeros((3, 4))
    given = np.array(image["cam2img"], np.float64)
    projection[:, : given.shape[1]] = given[:3]
    width, height = _NUSCENES_SIZE if dataset == "nuscenes" else (0, 0)
    return Camera(
        name=_KITTI_CAMERA if dataset == "kitti" else str(name),
        width=int(image.get("width") or width),
        height=int(image.get("height") or height),
        lidar_to_camera=_matrix(image["lidar2cam"]),
        projection=projection,
    )


def _sweeps_of_second(
    info: Mapping[str, Any],
    to_ego: NDArray[np.float64] | None,
    to_global: NDArray[np.float64] | None,
) -> tuple[Sweep, ...]:
    """The sweeps of nuScenes and Lyft. ``lidar2sensor`` is from the key frame to the sweep."""
    found = []
    for each in _dicts(info, "lidar_sweeps"):
        points = _dict(each, "lidar_points")
        if points.get("lidar2sensor") is not None:
            to_key = np.asarray(np.linalg.inv(_matrix(points["lidar2sensor"])), np.float64)
        elif to_ego is None or to_global is None or points.get("lidar2ego") is None:
            continue
        else:
            own = (_matrix(points["lidar2ego"]), _matrix(each["ego2global"]))
            to_key = between(own, (to_ego, to_global))
        lag = float(info["timestamp"]) - float(each["timestamp"])
        found.append(Sweep(_text(points.get("lidar_path")), to_key, lag))
    return tuple(found)


def _instances(
    rows: Sequence[Any], generation: Generation, to_camera: NDArray[np.float64] | None
) -> tuple[FoundBox, ...]:
    """The objects of a frame of 1.x."""
    if len(rows) > _MOST_OBJECTS:
        raise ValueError(f"it has {len(rows):,} objects")
    found = []
    for place, row in enumerate(rows):
        label = int(row.get("bbox_label_3d", row.get("bbox_label", -1)))
        name = generation.other if label < 0 else generation.labels.get(label, UNKNOWN)
        lidar, radar = (int(row.get(key, -1)) for key in ("num_lidar_pts", "num_radar_pts"))
        box = _box(row["bbox_3d"], name, generation, to_camera)
        found.append(
            FoundBox(
                name=name,
                box=box,
                where=f"instance {place}",
                id=_text(row.get("index", "")),
                num_points=points_of(lidar, radar) if box is not None else -1,
                velocity=_pair(row.get("velocity")),
                truncation=float(row.get("truncated", -1)),
                occlusion=int(row.get("occluded", -1)),
                alpha=float(row.get("alpha", np.nan)) if box is not None else float("nan"),
                box_2d=_rectangle(row.get("bbox")),
            )
        )
    return tuple(found)


def _box(
    values: Any, name: str, generation: Generation, to_camera: NDArray[np.float64] | None
) -> tuple[float, ...] | None:
    """x, y, z of the centre, length, width, height, yaw in the frame of the lidar."""
    if name == DONT_CARE:
        return None
    box = np.array(values, np.float64).ravel()[:7]
    if len(box) != 7:
        raise ValueError(f"a box has {len(box)} numbers, not 7")
    if generation.boxes == "camera":
        if to_camera is None:
            raise ValueError("its boxes are in the frame of a camera, which it does not state")
        x, y, z, length, height, width, turn = box
        sizes = np.array([[height, width, length]])
        box = kitti_to_lidar(np.array([[x, y, z]]), sizes, np.array([turn]), to_camera)[0]
    elif generation.boxes == "bottom":
        box[2] += box[5] / 2
    elif generation.boxes == "centre_wide":
        box[3:5] = box[[4, 3]]
        box[6] = wrap_angle(-box[6:7] - np.pi / 2)[0]
    return tuple(map(float, box))


def _read_first_kitti(info: Mapping[str, Any], generation: Generation) -> InfoFrame:
    """Of 0.x, of KITTI, and of Waymo in its form."""
    calib, image = _dict(info, "calib"), _dict(info, "image")
    to_camera = _square(calib["R0_rect"]) @ _square(calib["Tr_velo_to_cam"])
    front = "P2" if generation.dataset == "kitti" else "P0"
    height, width = (int(side) for side in image.get("image_shape", (0, 0))[:2])
    camera = Camera(
        name=_KITTI_CAMERA if generation.dataset == "kitti" else "CAM_FRONT",
        width=width,
        height=height,
        lidar_to_camera=to_camera,
        projection=_square(calib[front])[:3],
    )
    annos = info.get("annos")
    plane = info.get("plane")
    return InfoFrame(
        key=_key(generation.dataset, image.get("image_idx", 0)),
        cloud=generation.cloud(info),
        sweeps=(),
        cameras=((_text(image.get("image_path")), camera),),
        objects=_columns(annos, generation, to_camera) if isinstance(annos, dict) else None,
        lidar_to_ego=None,
        ego_to_global=_optional(info.get("pose")),
        ground=None if plane is None else _plane(plane, to_camera),
        notes=_notes(info, "timestamp"),
    )


def _columns(
    annos: Mapping[str, Any], generation: Generation, to_camera: NDArray[np.float64]
) -> tuple[FoundBox, ...]:
    """The objects of a frame of 0.x: arrays of N rows, dimensions as length, height, width."""
    names = [str(name) for name in annos["name"]]
    columns = {
        name: np.asarray(annos[name], np.float64)
        for name in (
            "location",
            "dimensions",
            "rotation_y",
            "bbox",
            "alpha",
            "truncated",
            "occluded",
        )
    }
    points = np.asarray(annos.get("num_points_in_gt", [-1] * len(names)))
    if any(len(values) != len(names) for values in (*columns.values(), points)):
        raise ValueError("its columns of objects have different lengths")
    found = []
    for row, name in enumerate(names):
        values = (
            *columns["location"][row],
            *columns["dimensions"][row],
            columns["rotation_y"][row],
        )
        box = _box(values, name, generation, to_camera)
        found.append(
            FoundBox(
                name=name,
                box=box,
                where=f"object {row}",
                id=str(row),
                num_points=int(points[row]),
                truncation=float(columns["truncated"][row]),
                occlusion=int(columns["occluded"][row]),
                alpha=float(columns["alpha"][row]) if box is not None else float("nan"),
                box_2d=_rectangle(columns["bbox"][row]),
            )
        )
    return tuple(found)


def _read_first_nuscenes(info: Mapping[str, Any], generation: Generation) -> InfoFrame:
    """Of 0.x, of nuScenes and Lyft."""
    to_ego = pose(info["lidar2ego_rotation"], info["lidar2ego_translation"])
    to_global = pose(info["ego2global_rotation"], info["ego2global_translation"])
    cameras = []
    for name, each in _dict(info, "cams").items():
        intrinsic = np.array(each["cam_intrinsic"], np.float64)
        width, height = _NUSCENES_SIZE if generation.dataset == "nuscenes" else (0, 0)
        camera = Camera(
            name=str(name),
            width=width,
            height=height,
            lidar_to_camera=inverse(_to_lidar(each)),
            projection=np.column_stack([intrinsic, np.zeros(3)]),
        )
        cameras.append((_text(each.get("data_path")), camera))
    sweeps = tuple(
        Sweep(
            _text(each.get("data_path")),
            _to_lidar(each),
            (float(info["timestamp"]) - float(each["timestamp"])) * 1e-6,
        )
        for each in _dicts(info, "sweeps")
    )
    return InfoFrame(
        key=_text(info.get("token")),
        cloud=generation.cloud(info),
        sweeps=sweeps,
        cameras=tuple(cameras),
        objects=_arrays(info, generation) if info.get("gt_boxes") is not None else None,
        lidar_to_ego=to_ego,
        ego_to_global=to_global,
        ground=None,
        notes=_notes(info, "token", "timestamp"),
    )


def _to_lidar(sensor: Mapping[str, Any]) -> NDArray[np.float64]:
    """(4, 4) from a sensor to the lidar of the key frame."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(sensor["sensor2lidar_rotation"], np.float64)
    matrix[:3, 3] = np.array(sensor["sensor2lidar_translation"], np.float64)
    return matrix


def _arrays(info: Mapping[str, Any], generation: Generation) -> tuple[FoundBox, ...]:
    boxes = np.array(info["gt_boxes"], np.float64).reshape(-1, 7)
    names = [str(name) for name in info["gt_names"]]
    unknown = [-1] * len(names)
    lidar, radar = (list(info.get(key, unknown)) for key in ("num_lidar_pts", "num_radar_pts"))
    velocity = np.array(info.get("gt_velocity", np.full((len(names), 2), np.nan)), np.float64)
    if not len(boxes) == len(names) == len(velocity) == len(lidar) == len(radar):
        raise ValueError("its arrays of objects have different lengths")
    return tuple(
        FoundBox(
            name=name,
            box=_box(boxes[row], name, generation, None),
            where=f"object {row}",
            num_points=points_of(int(lidar[row]), int(radar[row])),
            velocity=_pair(velocity[row]),
        )
        for row, name in enumerate(names)
    )


# Values.


def _key(dataset: str, number: Any) -> str:
    """The name of a frame by its number, as the files of the dataset are called."""
    digits = {"kitti": 6, "waymo": 7}.get(dataset, 0)
    text = _text(number)
    return text.zfill(digits) if text.isdecimal() else text


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _dict(info: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = info.get(key)
    return value if isinstance(value, dict) else {}


def _dicts(info: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    value = info.get(key)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _matrix(values: Any) -> NDArray[np.float64]:
    matrix = np.array(values, np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ValueError("a matrix is not of 4 x 4 finite numbers")
    if abs(np.linalg.det(matrix)) < 1e-6:
        raise ValueError("a matrix of 4 x 4 numbers has no inverse")
    return matrix


def _optional(values: Any) -> NDArray[np.float64] | None:
    return None if values is None else _matrix(values)


def _square(values: Any) -> NDArray[np.float64]:
    """(4, 4) of a matrix with or without its last row and column."""
    given = np.array(values, np.float64)
    matrix = np.eye(4)
    matrix[: given.shape[0], : given.shape[1]] = given
    return _matrix(matrix)


def _plane(values: Any, to_camera: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4,) of a plane in the frame of a camera, in that of the lidar, with a normal of length 1."""
    plane = np.array(values, np.float64).ravel()
    if plane.shape != (4,) or not np.isfinite(plane).all() or not plane[:3].any():
        raise ValueError("its plane is not of four finite numbers")
    found = plane @ to_camera
    return np.asarray(found / np.linalg.norm(found[:3]), np.float64)


def _pair(values: Any) -> tuple[float, float]:
    if values is None or len(values) != 2:
        return float("nan"), float("nan")
    return float(values[0]), float(values[1])


def _rectangle(values: Any) -> tuple[float, float, float, float]:
    """Xyxy pixels; NaN where there is none."""
    if values is None or len(values) != 4:
        return (float("nan"),) * 4
    left, top, right, bottom = map(float, values)
    return (left, top, right, bottom) if left < right and top < bottom else (float("nan"),) * 4


def _notes(info: Mapping[str, Any], *keys: str) -> dict[str, str]:
    return {key: _text(info[key]) for key in keys if info.get(key) is not None}
