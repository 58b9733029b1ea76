"""Writes the error analysis: tables, and figures of the classes that have objects."""

import csv
import io
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.analysis.errors import ALL_CLASSES, AREAS, KINDS, Errors
from mtl_ray.analysis.executor import Executor


class _Picture(NamedTuple):
    uri: str
    title: str
    precision: NDArray[np.float64]


def write_errors(
    out: str,
    errors: Errors,
    tide: Mapping[str, Any],
    executor: Executor,
    *,
    kind: str,
    class_figures: bool = True,
) -> list[str]:
    """Writes errors.json, errors.csv, tide.json, two figures of bars, and below bbox/ or segm/ the
    curves.

    Args:
        out: folder or URI.
        errors: the curves.
        tide: see ``errors.tide``.
        executor: runs the work.
        kind: bbox or segm.
        class_figures: also the curves of each class that has objects.

    Returns:
        The URIs of the files about all classes.
    """
    from mtl_ray.analysis.errors_figures import areas_figure, shares_figure

    averages = errors.averages()
    files = {
        "errors.json": (json.dumps(averages, indent=1, allow_nan=False) + "\n").encode(),
        "errors.csv": _table(errors, averages),
        "tide.json": (json.dumps(tide, indent=1, allow_nan=False) + "\n").encode(),
        f"{kind}-areas.png": areas_figure(
            f"{kind}: what keeps from full average precision, by area", errors
        ),
        f"{kind}-classes.png": shares_figure(
            f"{kind}: what keeps from full average precision", errors
        ),
    }
    for name, content in files.items():
        storage.write(storage.join(out, name), content)
    pictures = _pictures(storage.join(out, kind), errors, kind, class_figures)
    executor(_draw, pictures, "draw")
    return [*(storage.join(out, name) for name in files), pictures[0].uri]


def _pictures(folder: str, errors: Errors, kind: str, class_figures: bool) -> list[_Picture]:
    from mtl_ray.analysis.errors_figures import file_stem

    mean = errors.precision.mean(axis=2)
    pictures = [
        _Picture(
            storage.join(folder, f"{kind}-{ALL_CLASSES}.png"),
            f"{kind}: mean of all {len(errors.names)} classes",
            mean,
        )
    ]
    taken = {ALL_CLASSES}
    for place in np.flatnonzero(errors.objects[:, 0]) if class_figures else ():
        name = stem = file_stem(errors.names[place])
        while stem.lower() in taken:
            stem = f"{name}-{len(taken)}"
        taken.add(stem.lower())
        title = f"{kind}: {errors.names[place]}, {errors.objects[place, 0]:,} objects"
        pictures.append(
            _Picture(
                storage.join(folder, f"{kind}-{stem}.png"), title, errors.precision[:, :, place]
            )
        )
    return pictures


def _draw(picture: _Picture) -> None:
    from mtl_ray.analysis.errors_figures import error_curves_figure

    storage.write(picture.uri, error_curves_figure(picture.title, picture.precision))


def _table(errors: Errors, averages: Mapping[str, Mapping[str, Mapping[str, float]]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", "area", "objects", *KINDS])
    counts = {
        ALL_CLASSES: errors.objects.sum(axis=0),
        **dict(zip(errors.names, errors.objects, strict=True)),
    }
    for name, areas in averages.items():
        for place, area in enumerate(AREAS):
            writer.writerow(
                [
                    name,
                    area,
                    int(counts[name][place]),
                    *(f"{areas[area][kind]:.6f}" for kind in KINDS),
                ]
            )
    return text.getvalue().encode()
