"""Boxes of the lidar's frame as the KITTI metric reads them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.boxes_3d import Boxes3d
from mtl_ray.geometry.cameras import alpha_of, boxes_2d, lidar_to_kitti
from mtl_ray.inputs.point_cloud import Camera, SensorCalibration
from mtl_ray.tasks.lidar.decode import Detections3d
from mtl_ray.tasks.lidar.kitti.columns import KittiColumns, KittiFrame, camera_boxes, columns


def kitti_frame(
    gt: Boxes3d,
    found: Detections3d,
    classes: Sequence[str],
    calibration: SensorCalibration,
) -> KittiFrame:
    """The objects and detections of one cloud.

    Data of the KITTI benchmark is measured in its camera's image: objects without a stored 2-D box
    get the one around their projection, and detections that the camera does not see are dropped.
    All other data, that of several cameras too, is measured in the whole cloud: heights decide
    nothing, and every level has the same objects.

    Args:
        gt: of the cloud.
        found: the same.
        classes: of both.
        calibration: of the cloud.
    """
    camera = calibration.cameras[0] if measured_in_image(calibration) else None
    return KittiFrame(
        gt=object_columns(gt, classes, camera),
        found=_detections(found, classes, camera),
    )


def measured_in_image(calibration: SensorCalibration) -> bool:
    """Whether a cloud is measured in the image of a camera: that of KITTI in its only one. Several
    cameras are a vehicle with labels all around, of which one image has only a part.
    """
    return calibration.benchmark == "kitti" and len(calibration.cameras) == 1


def object_columns(gt: Boxes3d, classes: Sequence[str], camera: Camera | None) -> KittiColumns:
    """The objects of one cloud, in the frame of the camera if there is one."""
    count = len(gt.classes)
    names = [*(classes[each] for each in gt.classes), *gt.names[count:]]
    boxes = gt.boxes.astype(np.float64)
    found = columns(names, boxes, truncation=as_written(gt.truncation), occlusion=gt.occlusion)
    alpha = as_written(gt.alpha)
    unknown = ~np.isfinite(alpha)
    alpha[unknown] = alpha_of(boxes[unknown])
    found = replace(found, alpha=alpha)
    if camera is None:
        return found
    stored = _stored_2d(gt)
    missing = np.isnan(stored).any(axis=1) & np.isfinite(boxes).all(axis=1)
    stored[missing] = boxes_2d(boxes[missing], camera)
    # an object outside the image has no height, so it does not count
    return replace(found, boxes=_in_camera(boxes, camera), boxes_2d=np.nan_to_num(stored, nan=0.0))


def file_columns(
    gt: Boxes3d, classes: Sequence[str], calibration: SensorCalibration
) -> KittiColumns:
    """The objects of one cloud in the frame of its first camera, in which KITTI's files state
    boxes; see ``kitti_frame`` for the rules about images.
    """
    camera = calibration.cameras[0]
    if measured_in_image(calibration):
        return object_columns(gt, classes, camera)
    found = object_columns(gt, classes, None)
    return replace(found, boxes=_in_camera(found.boxes, camera))


def as_written(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """The shortest decimals of these numbers: 0.15, as the label says, is not above the limit 0.15
    as the nearest float32 is.
    """
    return values.astype(np.str_).astype(np.float64)


def _stored_2d(gt: Boxes3d) -> NDArray[np.float64]:
    """(N, 4); NaN for a box of no area, which sources write when they have none."""
    stored = as_written(gt.boxes_2d)
    stored[(stored[:, 2:] <= stored[:, :2]).all(axis=1)] = np.nan
    return stored


def _detections(found: Detections3d, classes: Sequence[str], camera: Camera | None) -> KittiColumns:
    boxes = found.boxes.astype(np.float64)
    kept: NDArray[np.bool_] = np.asarray(np.isfinite(boxes).all(axis=1))
    image = None
    if camera is not None:
        image = boxes_2d(boxes, camera)
        kept &= ~np.isnan(image).any(axis=1)
    made = columns(
        [classes[each] for each in found.classes],
        boxes if camera is None else _in_camera(boxes, camera),
        boxes_2d=image,
        alpha=alpha_of(boxes),
        scores=found.scores,
    )
    return made.take(kept)


def _in_camera(boxes: NDArray[np.float64], camera: Camera) -> NDArray[np.float64]:
    return camera_boxes(*lidar_to_kitti(boxes, camera.lidar_to_camera))
