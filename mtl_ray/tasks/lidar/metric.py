"""The metric of detection in point clouds: KITTI's average precision and nuScenes' scores."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.boxes_3d import Boxes3d
from mtl_ray.inputs.point_cloud import SensorCalibration
from mtl_ray.samples import Sample
from mtl_ray.tasks.charts import RECALLS, Charts, Confusion, PrecisionRecall
from mtl_ray.tasks.lidar.confusion import MIN_SCORE, ConfusionRule, object_confusion
from mtl_ray.tasks.lidar.decode import Detections3d
from mtl_ray.tasks.lidar.kitti.columns import KittiFrame, join_kitti
from mtl_ray.tasks.lidar.kitti.frames import kitti_frame
from mtl_ray.tasks.lidar.kitti.keys import by_class, is_brief, main_precision, named_figures
from mtl_ray.tasks.lidar.kitti.levels import LEVELS, MODERATE, count_line
from mtl_ray.tasks.lidar.kitti.overlaps import AREAS
from mtl_ray.tasks.lidar.kitti.table import SAMPLES, KittiTable, kitti_table
from mtl_ray.tasks.lidar.nuscenes.columns import NuscenesFrame, join_nuscenes, nuscenes_count_line
from mtl_ray.tasks.lidar.nuscenes.frames import nuscenes_frame
from mtl_ray.tasks.lidar.nuscenes.table import ERROR_DISTANCE, ERRORS, NuscenesTable, nuscenes_table

Benchmark = Literal["kitti", "nuscenes"]


class MeasuredFrame(NamedTuple):
    """One cloud: its key, the benchmark of its data, and what each metric reads; None for a metric
    whose rules the data cannot follow.
    """

    key: str
    benchmark: str
    kitti: KittiFrame | None
    nuscenes: NuscenesFrame | None


class BenchmarkTables(NamedTuple):
    """The results of both metrics; None without a frame."""

    kitti: KittiTable | None
    nuscenes: NuscenesTable | None


class Detection3dMetric:
    """Keeps the objects and detections of each cloud; the metrics run when a result is asked for.

    Data of nuScenes is measured by nuScenes' rules, all other data by both. Detections of a class
    that the dataset of a cloud does not know (``Sample.known_classes``) are left out.
    """

    main = "mAP"
    lower_is_better: frozenset[str] = frozenset(f"m{name}" for name in ERRORS)

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.frames: list[MeasuredFrame] = []
        self._tables: BenchmarkTables | None = None

    def update(self, sample: Sample, prediction: Detections3d) -> None:
        """Keeps one cloud; one whose objects are not annotated is left out."""
        gt: Boxes3d | None = sample.annotations.get("boxes_3d")
        if gt is None:
            return
        points = sample.inputs.get("points")
        calibration = SensorCalibration() if points is None else points.calibration
        found = _of_known_classes(prediction, sample)
        of_nuscenes = calibration.benchmark == "nuscenes"
        self.add(
            MeasuredFrame(
                key=sample.key,
                benchmark=calibration.benchmark,
                kitti=None if of_nuscenes else kitti_frame(gt, found, self.names, calibration),
                nuscenes=nuscenes_frame(gt, found, self.names, calibration),
            )
        )

    def add(self, frame: MeasuredFrame) -> None:
        """Keeps a cloud that was read in another way."""
        self._tables = None
        self.frames.append(frame)

    def merge(self, other: Self) -> None:
        """Adds the clouds of ``other``."""
        self._tables = None
        self.frames += other.frames

    @property
    def benchmark(self) -> Benchmark:
        """Whose metric is the main one: that of nuScenes if a cloud is of it."""
        of_nuscenes = any(frame.benchmark == "nuscenes" for frame in self.frames)
        only = bool(self.frames) and all(frame.kitti is None for frame in self.frames)
        return "nuscenes" if of_nuscenes or only else "kitti"

    def result(self) -> Mapping[str, float]:
        """``mAP``: of nuScenes, or the mean 3-D AP40 (moderate, strict) / 100 over the classes with
        an object that counts; then those of KITTI (``KITTI/Car_3D_AP40_moderate_strict``, percent,
        0 for a class without objects as in the original) and of nuScenes (``mAP_nuscenes``,
        ``mATE``, ...), of other data over the classes with an object, and without NDS and the
        errors that the data cannot tell. NaN without a cloud.
        """
        tables = self._measured()
        result = {"mAP": float("nan")}
        if not self.frames:
            result |= {f"m{name}": float("nan") for name in ERRORS}
        if tables.kitti is not None:
            result |= named_figures(tables.kitti)
        if tables.nuscenes is not None:
            measured = tables.nuscenes
            if self.benchmark == "nuscenes":
                result |= {"mAP_nuscenes": measured.mean_ap, "NDS": measured.score}
            else:
                measured = measured.with_objects()
                result["mAP_nuscenes"] = measured.mean_ap
            errors = measured.mean_errors
            result |= {f"m{name}": errors[name] for name in self._error_names()}
        if self.benchmark == "nuscenes":
            result["mAP"] = result.get("mAP_nuscenes", float("nan"))
        elif tables.kitti is not None and tables.kitti.objects[:, MODERATE].any():
            found = tables.kitti.objects[:, MODERATE] > 0
            result["mAP"] = float(main_precision(tables.kitti)[found].mean() / 100)
        return result

    def is_brief(self, entry: str) -> bool:
        """See ``Brief``; AP40exact is shown for classes of so few objects that AP40 cannot tell."""
        return is_brief(entry) or entry in self._telling()

    def per_class(self) -> Mapping[str, Mapping[str, float]]:
        """By class: AP40 of KITTI (moderate, strict, percent), AP and errors of nuScenes, and the
        number of objects that count in the main metric.
        """
        tables = self._measured()
        rows: dict[str, dict[str, float]] = {name: {} for name in self.names}
        errors = self._error_names()
        for c, name in enumerate(self.names):
            if tables.kitti is not None:
                rows[name] |= by_class(tables.kitti, c)
            if tables.nuscenes is not None:
                measured = tables.nuscenes
                rows[name]["AP_nuscenes"] = float(measured.average_precision[c].mean())
                rows[name] |= {
                    each: float(measured.errors[c, ERRORS.index(each)]) for each in errors
                }
            rows[name]["objects"] = self._objects(tables, c)
        return rows

    def charts(self) -> Charts:
        """Precision-recall curves of the main metric: in space, moderate and strict, of KITTI, at
        the true recalls; within 2 m of nuScenes. The confusion matches by overlap from above, or
        within 2 m.
        """
        tables = self._measured()
        if self.benchmark == "nuscenes" and tables.nuscenes is not None:
            curves, note = tables.nuscenes.precision[:, ERROR_DISTANCE], "centres within 2 m"
        elif tables.kitti is not None:
            samples = np.ceil(RECALLS * 40 - 1e-9).astype(np.int64)
            curves = tables.kitti.exact[:, AREAS.index("3D"), MODERATE, 0][:, samples]
            note = "KITTI 3D, moderate, strict, true recalls"
        else:
            curves, note = np.full((len(self.names), len(RECALLS)), np.nan), ""
        counted = [self._objects(tables, c) > 0 for c in range(len(self.names))]
        curves = np.where(np.array(counted, np.bool_)[:, None], curves, np.nan)
        confused = any(frame.nuscenes is not None for frame in self.frames)
        return Charts(
            confusion=self.confusion(MIN_SCORE, self._rule()) if confused else None,
            precision_recall=PrecisionRecall(names=self.names, precision=curves, note=note),
        )

    def confusion(self, min_score: float, rule: ConfusionRule) -> Confusion:
        """Which classes are taken for which; see ``confusion.object_confusion``."""
        frames = [each.nuscenes for each in self._ordered() if each.nuscenes is not None]
        return object_confusion(frames, self.names, min_score=min_score, rule=rule)

    def notes(self) -> Sequence[str]:
        """How many objects of each class count, and why the others do not, by the main metric."""
        frames = self._ordered()
        if self.benchmark == "nuscenes":
            samples = [each.nuscenes.gt for each in frames if each.nuscenes is not None]
            objects = join_nuscenes(samples)
            return [nuscenes_count_line(objects, c, name) for c, name in enumerate(self.names)]
        gt = join_kitti([each.kitti.gt for each in frames if each.kitti is not None])
        lines = [count_line(gt, name) for name in self.names]
        if len(gt) and np.isinf(gt.heights).all():
            lines.append(
                "the data has no camera or several, so it is measured in the whole cloud: all "
                "objects that are not marked as occluded or cut off count at every level, and 2D "
                "figures are 0"
            )
        return lines

    def _error_names(self) -> tuple[str, ...]:
        """The errors that the data can tell: of the attributes only nuScenes' own are guessed, and
        few other datasets state velocities.
        """
        if self.benchmark == "nuscenes":
            return ERRORS
        gt = [each.nuscenes.gt for each in self.frames if each.nuscenes is not None]
        moving = any(np.isfinite(each.velocity).any() for each in gt)
        return tuple(name for name in ERRORS if name != "AAE" and (moving or name != "AVE"))

    def _telling(self) -> frozenset[str]:
        table = self._measured().kitti
        if table is None:
            return frozenset()
        few = [
            name
            for name, count in zip(table.classes, table.objects[:, MODERATE], strict=True)
            if 0 < count < SAMPLES
        ]
        return frozenset(
            f"KITTI/{name}_{area}_AP40exact_{LEVELS[MODERATE].name}_strict"
            for name in few
            for area in ("3D", "BEV")
        )

    def _rule(self) -> ConfusionRule:
        return (
            ConfusionRule(metres=2.0)
            if self.benchmark == "nuscenes"
            else ConfusionRule(overlap=0.5)
        )

    def _objects(self, tables: BenchmarkTables, c: int) -> int:
        if self.benchmark == "nuscenes":
            return 0 if tables.nuscenes is None else int(tables.nuscenes.objects[c])
        return 0 if tables.kitti is None else int(tables.kitti.objects[c, MODERATE])

    def _ordered(self) -> list[MeasuredFrame]:
        """By key, with numbers in it by value: the order of equal scores does not depend on how
        the frames were merged.
        """
        return sorted(self.frames, key=lambda frame: _by_value(frame.key))

    def _measured(self) -> BenchmarkTables:
        if self._tables is None:
            frames = self._ordered()
            kitti = [frame.kitti for frame in frames if frame.kitti is not None]
            nuscenes = [frame.nuscenes for frame in frames if frame.nuscenes is not None]
            self._tables = BenchmarkTables(
                kitti=kitti_table(kitti, self.names) if kitti else None,
                nuscenes=nuscenes_table(nuscenes, self.names) if nuscenes else None,
            )
        return self._tables


def _of_known_classes(prediction: Detections3d, sample: Sample) -> Detections3d:
    known: NDArray[np.bool_] | None = sample.known_classes.get("boxes_3d")
    if known is None or known[prediction.classes].all():
        return prediction
    kept = known[prediction.classes]
    return replace(
        prediction,
        boxes=prediction.boxes[kept],
        scores=prediction.scores[kept],
        classes=prediction.classes[kept],
        velocity=None if prediction.velocity is None else prediction.velocity[kept],
    )


def _by_value(key: str) -> list[str | int]:
    return [
        int(part) if number % 2 else part for number, part in enumerate(re.split(r"(\d+)", key))
    ]
