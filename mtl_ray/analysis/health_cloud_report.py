"""What the counts of clouds say: sentences, facts and numbers."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray.analysis.health_clouds import (
    COLUMNS,
    PER_CLOUD,
    CloudHealth,
    CloudNetwork,
)
from mtl_ray.annotations.boxes_3d import BOXES_3D
from mtl_ray.samples import Vocabulary

MANY = 0.1
"""Share from which something is said."""
POINTS_IN_BOX = (0, 1, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Where the bins of points in a box begin."""


def cloud_findings(
    found: CloudHealth, vocabulary: Vocabulary, network: CloudNetwork | None
) -> Iterator[str]:
    """What a network could fail on."""
    names = vocabulary.classes.get(BOXES_3D.name, ())
    for label, name in enumerate(names):
        points = found.column("points", label)
        if len(points) and (share := float((points == 0).mean())) >= MANY:
            yield f"{share:.0%} of the {name} have no point"
    low, high = found.low.get("intensity", 0.0), found.high.get("intensity", 0.0)
    if low < 0 or high > 1:
        yield (
            f"intensities are between {low:g} and {high:g}; networks learn badly from numbers far "
            "beyond 0 to 1"
        )
    if found.kitti and len(found.objects) and not found.in_image:
        yield (
            "no object has a 2-D box of 25 pixels in height: KITTI's metric ignores every one of "
            "them"
        )
    if network is not None:
        yield from _network_findings(found, names, network)


def _network_findings(
    found: CloudHealth, names: tuple[str, ...], network: CloudNetwork
) -> Iterator[str]:
    for label, name in enumerate(names):
        inside = found.column("inside", label)
        if len(inside) and (share := 1 - float(inside.mean())) >= MANY:
            yield f"{share:.0%} of the {name} are outside the grid of the network"
        for head_name, head in network.heads.items():
            best = found.overlaps.get(head_name, np.zeros(0))[found.objects[:, 0] == label]
            least = float(head.least_overlaps([name])[0])
            if len(best) and np.isnan(least):
                yield f"{head_name} has no anchor for {name}"
            elif len(best) and (share := float((best < least).mean())) >= MANY:
                yield (
                    f"{share:.0%} of the {name} have less than IoU {least:g} to every anchor of "
                    f"{head_name}, even in their centre; adapt its sizes"
                )
    if not len(found.clouds):
        return
    points, inside, voxels, dropped = found.clouds.T
    most = network.canvas.max_train_voxels or network.canvas.max_voxels
    if share := float((voxels > most).mean()):
        yield (
            f"{share:.0%} of the clouds have more than {most:,} voxels (up to "
            f"{int(voxels.max()):,}), the most that training takes"
        )
    if points.sum() and (share := 1 - float(inside.sum() / points.sum())) > 0.5:
        yield f"{share:.0%} of the points are outside the grid of the network"
    if inside.sum() and (share := float(dropped.sum() / inside.sum())) >= MANY:
        yield (
            f"{share:.0%} of the points in the grid are dropped by voxels that hold "
            f"{network.canvas.max_points}"
        )


def cloud_facts(found: CloudHealth, vocabulary: Vocabulary) -> Iterator[str]:
    """Lines for the terminal."""
    if len(found.clouds):
        points = found.clouds[:, 0]
        ranges = ", ".join(
            f"{name} {found.low[name]:.4g} to {found.high[name]:.4g}" for name in found.low
        )
        yield (
            f"clouds of {np.median(points):,.0f} points ({points.min():,.0f} to "
            f"{points.max():,.0f}); {ranges}"
        )
        if not np.isnan(found.clouds[:, 2]).any():
            _, inside, voxels, dropped = found.clouds.T
            yield (
                f"in the grid: {np.median(inside):,.0f} points in {np.median(voxels):,.0f} voxels "
                f"(95 % have at most {np.percentile(voxels, 95):,.0f}), "
                f"{dropped.sum() / max(inside.sum(), 1):.1%} of the points dropped"
            )
    for label, name in enumerate(vocabulary.classes.get(BOXES_3D.name, ())):
        points = found.column("points", label)
        if len(points):
            sizes = "  ".join(
                f"{np.median(found.column(side, label)):.2f}"
                for side in ("length", "width", "height")
            )
            distances = np.percentile(found.column("distance", label), (5, 95))
            yield (
                f"{name}: {len(points):,} objects, {np.median(points):,.0f} points "
                f"({(points < 5).mean():.0%} fewer than 5), {distances[0]:.0f} to "
                f"{distances[1]:.0f} m away, size {sizes} m, bottom at "
                f"{np.median(found.column('bottom', label)):.2f} m"
            )
    if found.others:
        listed = ", ".join(f"{count:,} {name}" for name, count in found.others.most_common(6))
        yield f"without a class: {listed}"


def cloud_json(found: CloudHealth, vocabulary: Vocabulary) -> dict[str, Any]:
    """The numbers of ``dataset.json``."""
    classes = {}
    for label, name in enumerate(vocabulary.classes.get(BOXES_3D.name, ())):
        of_class = found.objects[found.objects[:, 0] == label]
        classes[name] = {
            "objects": len(of_class),
            "points_in_box": {
                f"{start}+": int(count)
                for start, count in zip(
                    POINTS_IN_BOX, points_histogram(of_class[:, 1]), strict=True
                )
            },
            "quantiles": {
                column: _quantiles(of_class[:, place])
                for place, column in enumerate(COLUMNS[:-1])
                if place
            },
            "inside_grid": _sum(of_class[:, -1]),
            "best_anchor_iou": {
                head: _quantiles(best[found.objects[:, 0] == label])
                for head, best in found.overlaps.items()
            },
        }
    return {
        "clouds": {
            column: _quantiles(found.clouds[:, place]) for place, column in enumerate(PER_CLOUD)
        },
        "features": {name: [found.low[name], found.high[name]] for name in found.low},
        "classes": classes,
        "names_without_class": dict(found.others.most_common()),
        "objects_with_box_2d": found.on_image,
        "objects_of_25_px": found.in_image,
    }


def points_histogram(points: NDArray[np.float64]) -> list[int]:
    """How many boxes have so many points, in the bins of ``POINTS_IN_BOX``."""
    bins = np.digitize(points, POINTS_IN_BOX) - 1
    counts: list[int] = np.bincount(bins.clip(0), minlength=len(POINTS_IN_BOX)).tolist()
    return counts


def _quantiles(values: NDArray[np.float64]) -> dict[str, float] | None:
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    found = np.percentile(known, (0, 5, 50, 95, 100))
    names = ("least", "5 %", "median", "95 %", "greatest")
    return {name: float(value) for name, value in zip(names, found, strict=True)}


def _sum(values: NDArray[np.float64]) -> int | None:
    return None if np.isnan(values).any() else int(values.sum())
