"""The numbers of a dataset check for ``dataset.json``."""

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray.analysis.health import SHAPE_OCTAVES, SIDE_OCTAVES, Health, bin_edges
from mtl_ray.analysis.health_cloud_report import cloud_json


def set_json(health: Health) -> dict[str, Any]:
    """The counts of one dataset."""
    classes = {}
    for kind, names in health.vocabulary.classes.items():
        columns = {"images": health.images[kind]} | {
            "instances": {"objects": health.objects},
            "semantic": {"pixels": health.pixels},
        }.get(kind, {})
        classes[kind] = {
            name: {column: int(counts[i]) for column, counts in columns.items()}
            for i, name in enumerate(names)
        }
    mean, std = colour_of(health) if health.colour[2, 0] else (None, None)
    return {
        "samples": health.samples,
        "annotated": dict(health.annotated),
        "empty": dict(health.empty),
        "classes": classes,
        "objects": int(health.objects.sum()),
        "crowd": health.crowd,
        "difficult": health.difficult,
        "coco_sizes": dict(
            zip(("small", "medium", "large"), health.coco_sizes.tolist(), strict=True)
        ),
        "box_side_px": _histogram(health.sides, SIDE_OCTAVES),
        "box_width_by_height": _histogram(health.shapes, SHAPE_OCTAVES),
        "objects_per_image": {
            str(number): count for number, count in sorted(health.per_image.items())
        },
        "pixels_without_class": health.no_class,
        "picture_sizes": [
            {"width": w, "height": h, "count": count}
            for (w, h), count in health.sizes.most_common()
        ],
        **(
            {"clouds": cloud_json(health.clouds, health.vocabulary)}
            if len(health.clouds.clouds)
            else {}
        ),
        "channel_mean": mean,
        "channel_std": std,
        "problem_counts": dict(health.counted.most_common()),
        "problems": [asdict(problem) for problem in health.problems],
    }


def _histogram(counts: NDArray[np.int64], octaves: tuple[int, int]) -> list[dict[str, float]]:
    edges = bin_edges(octaves)
    return [
        {"from": float(edges[i]), "to": float(edges[i + 1]), "boxes": int(counts[i])}
        for i in np.flatnonzero(counts).tolist()
    ]


def colour_of(health: Health) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over all pixels, 0 to 255."""
    mean = health.colour[0] / health.colour[2]
    return mean.tolist(), np.sqrt(
        np.maximum(health.colour[1] / health.colour[2] - mean**2, 0)
    ).tolist()
