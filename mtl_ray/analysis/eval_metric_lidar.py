"""Metrics of result files of the lidar benchmarks: KITTI's text files, nuScenes' JSON."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mtl_ray import storage
from mtl_ray.analysis import eval_metric_kitti as kitti
from mtl_ray.analysis import eval_metric_nuscenes as nuscenes
from mtl_ray.evaluation.report import Report, report
from mtl_ray.shards.split import Split, open_split
from mtl_ray.tasks.lidar.kitti.levels import LEVELS, MODERATE, OVERLAPS
from mtl_ray.tasks.lidar.metric import Detection3dMetric

HEAD = "boxes_3d"


@dataclass(frozen=True, kw_only=True)
class LidarReport:
    """The metric of one file or folder of results.

    Attributes:
        metric: with all frames.
        report: figures under their own names, such as ``KITTI/Car_3D_AP40_moderate_strict``.
        notes: for the reader, among them which objects count.
    """

    metric: Detection3dMetric
    report: Report
    notes: Sequence[str]

    def to_json(self) -> bytes:
        """As ``report.json``, with the names of the figures alone."""
        return self.report.to_json()

    def to_text(self) -> str:
        """A table: for KITTI a line for each class, area, and number of recalls."""
        if self.metric.benchmark == "kitti":
            return "\n".join(_kitti_lines(self))
        return "\n".join(_nuscenes_lines(self))


def is_lidar_result(uri: str) -> bool:
    """Whether predictions are a folder of KITTI's result files, or results of nuScenes."""
    if uri.endswith(".json"):
        return storage.exists(uri) and nuscenes.is_results_file(uri)
    return not uri.endswith((".arrow", ".pkl", ".pickle")) and kitti.is_result_folder(uri)


def eval_lidar(
    predictions: str,
    data: str,
    classes: Sequence[str] | None = None,
    frames: str | None = None,
) -> LidarReport:
    """Measures results on their data. Frames without results have no detections.

    Args:
        predictions: a folder of KITTI's result files, or a results file of nuScenes.
        data: a folder of KITTI, its training/ or its labels, tables of nuScenes, or a converted
            split.
        classes: of KITTI; its three by default.
        frames: of KITTI, a file with the ids of those to measure; all by default.

    Raises:
        ValueError, FileNotFoundError: if one of them cannot be read, or they do not fit.
    """
    started = time.monotonic()
    if predictions.endswith(".json"):
        if classes is not None:
            raise ValueError("the classes of nuScenes are fixed; leave out --classes")
        if frames is not None:
            raise ValueError("--frames is for KITTI's result files; leave it out")
        scenes = (
            nuscenes.scenes_of_tables(data)
            if nuscenes.is_tables(data)
            else nuscenes.scenes_of_split(_split(data))
        )
        metric, notes = nuscenes.measure_results(predictions, scenes)
    else:
        wanted = kitti.CLASSES if classes is None else tuple(classes)
        if kitti.label_folder(data) is not None:
            metric, notes = kitti.measure_folders(predictions, data, wanted, frames)
        else:
            metric, notes = kitti.measure_on_split(predictions, _split(data), wanted, frames)
    facts = {
        "target": predictions,
        "data": data,
        "samples": len(metric.frames),
        "notes": notes,
        "seconds": round(time.monotonic() - started, 3),
    }
    whole = report({HEAD: metric}, facts)
    prefix = f"{HEAD}/"
    figures = {name.removeprefix(prefix): value for name, value in whole.figures.items()}
    named = Report(figures=figures, per_class=whole.per_class, facts=whole.facts)
    return LidarReport(metric=metric, report=named, notes=named.facts["notes"])


def _split(uri: str) -> Split:
    split = open_split(uri)
    if "boxes_3d" not in split.vocabulary.classes:
        raise ValueError(f"{uri} has no boxes in space, only {', '.join(split.vocabulary.classes)}")
    return split


def _kitti_lines(found: LidarReport) -> Iterator[str]:
    figures = found.report.figures
    several = len(found.metric.names) > 1
    rows = [*found.metric.names, *(["Overall"] if several else [])]
    width = max(map(len, rows))
    levels = [level.name for level in LEVELS]
    yield f"{'KITTI, percent':{width + 18}}" + "".join(f"{name:>10}" for name in levels)
    for points in (40, 11):
        for name in rows:
            for kind in OVERLAPS if name != "Overall" else [""]:
                for area in ("3D", "BEV", "2D", "AOS"):
                    end = f"_{kind}" if kind else ""
                    keys = [f"KITTI/{name}_{area}_AP{points}_{each}{end}" for each in levels]
                    values = "".join(f"{figures[key]:10.4f}" for key in keys)
                    yield f"{name:{width}} {area:3} AP{points} {kind or 'strict':8}{values}"
    yield from _exact_lines(found, width)
    yield f"mAP {figures['mAP']:.4f} (mean 3D AP40 moderate strict of classes with objects, / 100)"


def _exact_lines(found: LidarReport, width: int) -> Iterator[str]:
    """AP40exact, of moderate alone, where AP40 cannot tell: of classes of few objects."""
    figures = found.report.figures
    for name in found.metric.names:
        for kind in OVERLAPS:
            for area in ("3D", "BEV"):
                end = f"{LEVELS[MODERATE].name}_{kind}"
                exact = figures[f"KITTI/{name}_{area}_AP40exact_{end}"]
                if exact != figures[f"KITTI/{name}_{area}_AP40_{end}"]:
                    yield f"{name:{width}} {area:3} AP40exact {kind:13}{exact:10.4f}"


def _nuscenes_lines(found: LidarReport) -> Iterator[str]:
    figures, rows = found.report.figures, found.metric.per_class()
    columns = [name for name in next(iter(rows.values())) if name != "objects"]
    width = max(map(len, rows))
    yield f"{'nuScenes':{width}}" + "".join(f"{name:>12}" for name in (*columns, "objects"))
    for name, row in rows.items():
        values = "".join(f"{_shown(row[column]):>12}" for column in columns)
        yield f"{name:{width}}{values}{row['objects']:12}"
    yield "  ".join(f"{name} {_shown(value)}" for name, value in figures.items())


def _shown(value: float) -> str:
    """A class without a front has no error of its heading."""
    return "-" if math.isnan(value) else f"{value:.4f}"
