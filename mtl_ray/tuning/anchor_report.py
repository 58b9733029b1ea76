"""What is written of anchors: JSON, an overlay for a config, a table for the terminal."""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.tasks.detection.levels import FITTING_STRIDES, stride_of
from mtl_ray.tuning.anchor_figure import draw
from mtl_ray.tuning.anchor_search import MOST_ANSWERS, Found
from mtl_ray.tuning.anchors import Fit


def write(found: Found, out: str) -> list[str]:
    """Writes anchors.json, anchors.yaml (unless an anchor has the size 0) and anchors.png; gives their URIs."""
    files = {"anchors.json": (json.dumps(content(found), indent=1) + "\n").encode(), "anchors.png": draw(found)}
    if found.anchors.all():
        files["anchors.yaml"] = overlay(found).encode()
    else:
        storage.remove(storage.join(out, "anchors.yaml"))  # of an earlier search
    for name, data in files.items():
        storage.write(storage.join(out, name), data)
    return [storage.join(out, name) for name in sorted(files)]


def content(found: Found) -> dict[str, Any]:
    """What anchors.json says; anchors are whole numbers where the documented rules were followed."""
    request = found.request
    counts = np.bincount(found.index, minlength=len(found.anchors))
    sums = np.bincount(found.index, found.overlap, minlength=len(found.anchors))
    anchors = [[int(side) if request.compat else float(side) for side in anchor] for anchor in found.anchors]
    each = [
        {"anchor": anchor, "level": found.level_name(i), "boxes": int(count), "average_iou": float(total / count) if count else None}
        for i, (anchor, count, total) in enumerate(zip(anchors, counts, sums, strict=True))
    ]
    return {
        "anchors": anchors,
        "average_iou": found.fit.average_iou,
        "best_possible_recall": found.fit.best_possible_recall,
        "boxes": len(found.shapes),
        "per_anchor": each,
        "per_level": {name: _level([entry for entry in each if entry["level"] == name]) for name in request.levels},
        "on_levels": _fit(found.after),
        "before": {"anchors": found.compared.name, **_fit(found.before)},
        "helps": found.helps,
        "answers_per_box": found.answers,
        "enough": found.enough,
        "method": request.method,
        "compat": request.compat,
        "seed": request.seed,
        "input": {"width": request.canvas.width, "height": request.canvas.height, "placement": request.canvas.kind},
        "data": list(request.data),
        "version": 1,
    }


def _fit(fit: Fit) -> dict[str, float]:
    return {"average_iou": fit.average_iou, "best_possible_recall": fit.best_possible_recall}


def _level(entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {"anchors": [entry["anchor"] for entry in entries], "boxes": sum(entry["boxes"] for entry in entries)}


def overlay(found: Found) -> str:
    """A config to be named in ``_base_`` after one with a head of the name; levels without anchors are left out of the head."""
    request, canvas = found.request, found.request.canvas
    lines = [
        f"# {len(found.anchors)} anchors ({request.method}{', documented rules' if request.compat else ''}) for {len(found.shapes)} boxes,"
        f" average IoU {found.fit.average_iou:.4f}, best possible recall {found.fit.best_possible_recall:.4f}",
        f"# in pixels of a canvas of width {canvas.width} and height {canvas.height}"
        + ("" if request.compat else f" ({canvas.kind})")
        + "; to build upon: _base_: [your config, this file]",
        *(f"# {line}" for line in verdict(found)),
        "model:",
        "  heads:",
        f"    {request.head}:",
        f"      levels: [{', '.join(found.of_level)}]",
        "      anchors:",
    ]
    return "\n".join([*lines, *(f"        - {json.dumps(level)}" for level in found.of_level.values())]) + "\n"


def to_text(found: Found) -> str:
    """The result for a terminal."""
    rows = content(found)["per_anchor"]
    table = [f"{'width':>9} {'height':>9}  {'level':5} {'boxes':>9}  {'IoU':>6}"]
    for row in rows:
        iou = "-" if row["average_iou"] is None else f"{row['average_iou']:.4f}"
        table.append(f"{row['anchor'][0]:9g} {row['anchor'][1]:9g}  {row['level']:5} {row['boxes']:9,}  {iou:>6}")
    said = f"average IoU {found.fit.average_iou:.4f}, best possible recall {found.fit.best_possible_recall:.4f}"
    table.append(f"{len(found.shapes):,} boxes: {said}")
    table += notes(found) + verdict(found)
    if not found.anchors.all():
        table.append("no anchors.yaml: by the documented rule an anchor without boxes has the size 0; try another --seed")
    return "\n".join(table)


def verdict(found: Found) -> list[str]:
    """Whether the anchors are worth taking, with the figures that say so."""
    figures = [f"{fit.average_iou:.4f} and {fit.best_possible_recall:.4f}" for fit in (found.after, found.before)]
    told = f"on levels that fit them, average IoU and best possible recall are {figures[0]}; {found.compared.name} have {figures[1]}"
    if found.helps:
        return [told, "the overlay is likely to help: it reaches boxes that those do not"]
    return [told, "the overlay is not likely to help: keep the anchors that you have"]


def notes(found: Found) -> list[str]:
    """What is odd about the anchors: levels without any, repeated ones, sizes that no level is made for."""
    lines = []
    if found.dropped:
        lines.append(f"no anchor has a size for {', '.join(found.dropped)}: the overlay leaves {_it(found.dropped)} out of the head")
    if found.distinct < len(found.anchors):
        lines.append(
            f"only {found.distinct} of the {len(found.anchors)} anchors differ: boxes have few shapes, --num {found.distinct} is enough"
        )
    elif found.answers > MOST_ANSWERS:
        lines.append(
            f"{found.answers:.1f} anchors answer for one box, on average: --num {found.enough} is enough, and learns small objects sooner"
        )
    sizes, strides = np.sqrt(found.anchors.prod(axis=1)), found.strides
    small, large = (found.anchors.all(axis=1) & (sizes < FITTING_STRIDES[0] * strides)), sizes > FITTING_STRIDES[1] * strides
    if small.any():
        finest = min(found.request.levels, key=stride_of)
        lines.append(
            f"{_many(small)} below {FITTING_STRIDES[0]:g} cells of {finest}, the finest level: take a larger canvas, or a finer level"
        )
    if large.any():
        lines.append(f"{_many(large)} above {FITTING_STRIDES[1]:g} cells of the coarsest level: take a smaller canvas, or a coarser level")
    return lines


def _many(which: NDArray[np.bool_]) -> str:
    count = int(which.sum())
    return "1 anchor is" if count == 1 else f"{count} anchors are"


def _it(names: list[str]) -> str:
    return "it" if len(names) == 1 else "them"
