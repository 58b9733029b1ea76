"""The figures of the KITTI metric under the names that people know from MMDetection3D."""

import numpy as np
from numpy.typing import NDArray

from mtl_ray.tasks.lidar.kitti.levels import LEVELS, MODERATE, OVERLAPS
from mtl_ray.tasks.lidar.kitti.overlaps import AREAS
from mtl_ray.tasks.lidar.kitti.table import KittiTable, sampled_precision

POINTS = (11, 40)
STRICT = OVERLAPS.index("strict")


def named_figures(table: KittiTable) -> dict[str, float]:
    """``KITTI/Car_3D_AP40_moderate_strict``: area 3D, BEV, 2D or AOS; 11 or 40 recalls; level;
    overlap. ``KITTI/Overall_3D_AP40_moderate`` is the strict mean over classes, if there are
    several. In percent. ``KITTI/Car_BEV_AP40exact_moderate_loose`` is the same at the true recalls,
    for sets of few objects (``kitti.EXACT_UP_TO``).
    """
    found: dict[str, float] = {}
    for points in POINTS:
        values = _values(table, points)
        for c, name in enumerate(table.classes):
            for k, kind in enumerate(OVERLAPS):
                for lv, level in enumerate(LEVELS):
                    for area, of_area in values.items():
                        key = f"KITTI/{name}_{area}_AP{points}_{level.name}_{kind}"
                        found[key] = float(of_area[c, lv, k])
        if len(table.classes) > 1:
            for lv, level in enumerate(LEVELS):
                for area, of_area in values.items():
                    key = f"KITTI/Overall_{area}_AP{points}_{level.name}"
                    found[key] = float(of_area[:, lv, STRICT].mean())
    for area in ("3D", "BEV"):
        exact = sampled_precision(table.exact[:, AREAS.index(area), MODERATE], 40)
        for c, name in enumerate(table.classes):
            for k, kind in enumerate(OVERLAPS):
                found[f"KITTI/{name}_{area}_AP40exact_{LEVELS[MODERATE].name}_{kind}"] = float(
                    exact[c, k]
                )
    return found


def is_brief(entry: str) -> bool:
    """Whether an entry is shown: of KITTI's, AP40 in space and from above, moderate, strict."""
    if not entry.startswith("KITTI/"):
        return True
    return entry.endswith(("_3D_AP40_moderate_strict", "_BEV_AP40_moderate_strict"))


def main_precision(table: KittiTable) -> NDArray[np.float64]:
    """(C,) 3-D AP40 at moderate, strict, in percent."""
    return _values(table, 40)["3D"][:, MODERATE, STRICT]


def by_class(table: KittiTable, c: int) -> dict[str, float]:
    """AP40 of one class at moderate, strict, in percent, by area."""
    return {
        f"{area}_AP40": float(of_area[c, MODERATE, STRICT])
        for area, of_area in _values(table, 40).items()
    }


def _values(table: KittiTable, points: int) -> dict[str, NDArray[np.float64]]:
    """(C, 3 levels, 2 overlaps) percent by area."""
    return {
        **{
            area: sampled_precision(table.precision[:, AREAS.index(area)], points)
            for area in ("3D", "BEV", "2D")
        },
        "AOS": sampled_precision(table.orientation, points),
    }
