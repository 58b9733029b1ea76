"""What an info file of MMDetection3D says of all its frames, and its values.

What files of MMDetection3D state:

* KITTI: camera frame, centre of the bottom, length, height, width, rotation around the camera's y
  axis.
* nuScenes, Lyft: lidar frame, centre of the box, length, width, height, yaw; before version
  1.0.0rc0 of MMDetection3D width, length, height, -yaw - pi / 2. No file says which, so the
  vehicles decide: they are longer than wide.
* Waymo in KITTI's form: as KITTI; of version 1.4 of MMDetection3D the lidar frame, with the centre
  of the bottom.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mtl_ray.geometry.boxes_3d import wrap_angle
from mtl_ray.geometry.cameras import kitti_to_lidar

DONT_CARE = "DontCare"
UNKNOWN = "unknown"
"""The name of an object of which only is known that its class is none of those listed."""
KITTI_CAMERA = "image_2"
_LONG = frozenset({"car", "truck", "bus", "trailer", "motorcycle", "bicycle"})
"""Objects that are longer than wide."""
_LOOKED_AT = 1000
"""Frames of which the vehicles decide."""
BoxForm = Literal["camera", "centre", "centre_wide", "bottom"]


@dataclass(frozen=True, kw_only=True, slots=True)
class InfoGeneration:
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
    ) -> "InfoGeneration":
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
        return InfoGeneration(
            dataset=dataset, second=second, boxes=boxes, labels=names, other=other
        )

    def as_stated(self, infos: Sequence[Any]) -> "InfoGeneration":
        """The same with the order of length and width that the vehicles of the frames have."""
        if self.boxes != "centre":
            return self
        longer = sum(_votes(info, self) for info in infos[:_LOOKED_AT] if isinstance(info, dict))
        return replace(self, boxes="centre_wide") if longer < 0 else self

    def cloud(self, info: Mapping[str, Any]) -> str:
        """The path of the cloud as stated; empty if it is not."""
        if self.second:
            return text(mapping(info, "lidar_points").get("lidar_path"))
        return text(info.get("lidar_path") or mapping(info, "point_cloud").get("velodyne_path"))

    def sweep_files(self, info: Mapping[str, Any]) -> list[str]:
        """The paths of earlier sweeps as stated."""
        if self.second:
            sweeps = [mapping(each, "lidar_points") for each in mappings(info, "lidar_sweeps")]
            return [text(each.get("lidar_path")) for each in sweeps]
        return [text(each.get("data_path")) for each in mappings(info, "sweeps")]

    def image_files(self, info: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The name of each camera and the path of its image as stated."""
        if self.second:
            images = mapping(info, "images")
            return [
                (_camera_folder(self.dataset, name), text(each["img_path"]))
                for name, each in images.items()
                if isinstance(each, dict) and each.get("img_path")
            ]
        if self.dataset in ("kitti", "waymo"):
            path = text(mapping(info, "image").get("image_path"))
            return [(_camera_folder(self.dataset, "CAM2"), path)] if path else []
        return [
            (str(name), text(each.get("data_path"))) for name, each in mapping(info, "cams").items()
        ]


def _votes(info: Mapping[str, Any], generation: InfoGeneration) -> int:
    """How many more vehicles of a frame state a first size that is the longer one."""
    if generation.second:
        rows = [
            (generation.labels.get(int(row.get("bbox_label_3d", -1)), ""), row.get("bbox_3d"))
            for row in mappings(info, "instances")
        ]
    else:
        names, boxes = info.get("gt_names"), info.get("gt_boxes")
        rows = [] if names is None or boxes is None else list(zip(names, boxes, strict=False))
    sizes = [box[3:5] for name, box in rows if str(name) in _LONG and box is not None]
    return sum(1 if float(size[0]) > float(size[1]) else -1 for size in sizes if len(size) == 2)


def _camera_folder(dataset: str, name: str) -> str:
    """The folder of the images of a camera."""
    if dataset == "kitti":
        return KITTI_CAMERA
    if dataset == "waymo":
        order = ("FRONT", "FRONT_LEFT", "FRONT_RIGHT", "SIDE_LEFT", "SIDE_RIGHT")
        place = name.removeprefix("CAM_")
        return f"image_{order.index(place) if place in order else 0}"
    return name


def lidar_box(
    values: Any, name: str, generation: InfoGeneration, to_camera: NDArray[np.float64] | None
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


# Values as info files have them.


def frame_name(dataset: str, number: Any) -> str:
    """The name of a frame by its number, as the files of the dataset are called."""
    digits = {"kitti": 6, "waymo": 7}.get(dataset, 0)
    name = text(number)
    return name.zfill(digits) if name.isdecimal() else name


def text(value: Any) -> str:
    """A value as text; empty for None."""
    return "" if value is None else str(value)


def mapping(info: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The dict under a key; an empty one if there is none."""
    value = info.get(key)
    return value if isinstance(value, dict) else {}


def mappings(info: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """The dicts of the list under a key; none if there is no list."""
    value = info.get(key)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def matrix_of(values: Any) -> NDArray[np.float64]:
    """(4, 4), finite and invertible.

    Raises:
        ValueError: in one sentence, if it is not.
    """
    matrix = np.array(values, np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ValueError("a matrix is not of 4 x 4 finite numbers")
    if abs(np.linalg.det(matrix)) < 1e-6:
        raise ValueError("a matrix of 4 x 4 numbers has no inverse")
    return matrix


def optional_matrix(values: Any) -> NDArray[np.float64] | None:
    """As ``matrix_of``; None for None."""
    return None if values is None else matrix_of(values)


def square(values: Any) -> NDArray[np.float64]:
    """(4, 4) of a matrix with or without its last row and column."""
    given = np.array(values, np.float64)
    matrix = np.eye(4)
    matrix[: given.shape[0], : given.shape[1]] = given
    return matrix_of(matrix)


def plane_of(values: Any, to_camera: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4,) of a plane in the frame of a camera, in that of the lidar, with a normal of length 1."""
    plane = np.array(values, np.float64).ravel()
    if plane.shape != (4,) or not np.isfinite(plane).all() or not plane[:3].any():
        raise ValueError("its plane is not of four finite numbers")
    found = plane @ to_camera
    return np.asarray(found / np.linalg.norm(found[:3]), np.float64)


def two_numbers(values: Any) -> tuple[float, float]:
    """Two numbers; NaN where there are none."""
    if values is None or len(values) != 2:
        return float("nan"), float("nan")
    return float(values[0]), float(values[1])


def box_2d(values: Any) -> tuple[float, float, float, float]:
    """Xyxy pixels; NaN where there is none."""
    if values is None or len(values) != 4:
        return (float("nan"),) * 4
    left, top, right, bottom = map(float, values)
    return (left, top, right, bottom) if left < right and top < bottom else (float("nan"),) * 4


def notes_of(info: Mapping[str, Any], *keys: str) -> dict[str, str]:
    """The values of some keys as texts, where they are there."""
    return {key: text(info[key]) for key in keys if info.get(key) is not None}
