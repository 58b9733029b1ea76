"""What is written of anchors: JSON, an overlay for a config, a table for the terminal."""

import json
from typing import Any

import numpy as np

from mtl_ray import storage
from mtl_ray.tuning.anchor_figure import draw
from mtl_ray.tuning.anchor_search import Found
from mtl_ray.tuning.anchors import by_level


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
        {"anchor": anchor, "level": found.level_of(i), "boxes": int(count), "average_iou": float(total / count) if count else None}
        for i, (anchor, count, total) in enumerate(zip(anchors, counts, sums, strict=True))
    ]
    return {
        "anchors": anchors,
        "average_iou": found.fit.average_iou,
        "best_possible_recall": found.fit.best_possible_recall,
        "boxes": len(found.shapes),
        "per_anchor": each,
        "per_level": {name: _level([entry for entry in each if entry["level"] == name]) for name in found.levels},
        "method": request.method,
        "compat": request.compat,
        "seed": request.seed,
        "input": {"width": request.canvas.width, "height": request.canvas.height, "placement": request.canvas.kind},
        "data": list(request.data),
        "version": 1,
    }


def _level(entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {"anchors": [entry["anchor"] for entry in entries], "boxes": sum(entry["boxes"] for entry in entries)}


def overlay(found: Found) -> str:
    """A config to be named in ``_base_`` after one with a head of the name; levels and anchors stand in the same order."""
    request, canvas = found.request, found.request.canvas
    lines = [
        f"# {len(found.anchors)} anchors ({request.method}{', documented rules' if request.compat else ''}) for {len(found.shapes)} boxes,"
        f" average IoU {found.fit.average_iou:.4f}, best possible recall {found.fit.best_possible_recall:.4f}",
        f"# in pixels of a canvas of width {canvas.width} and height {canvas.height}"
        + ("" if request.compat else f" ({canvas.kind})")
        + "; to build upon: _base_: [your config, this file]",
        "model:",
        "  heads:",
        f"    {request.head}:",
        f"      levels: [{', '.join(found.levels)}]",
        "      anchors:",
    ]
    return "\n".join([*lines, *(f"        - {json.dumps(level)}" for level in by_level(found.anchors, found.levels))]) + "\n"


def to_text(found: Found) -> str:
    """The result for a terminal."""
    rows = content(found)["per_anchor"]
    table = [f"{'width':>9} {'height':>9}  {'level':5} {'boxes':>9}  {'IoU':>6}"]
    for row in rows:
        iou = "-" if row["average_iou"] is None else f"{row['average_iou']:.4f}"
        table.append(f"{row['anchor'][0]:9g} {row['anchor'][1]:9g}  {row['level']:5} {row['boxes']:9,}  {iou:>6}")
    said = f"average IoU {found.fit.average_iou:.4f}, best possible recall {found.fit.best_possible_recall:.4f}"
    table.append(f"{len(found.shapes):,} boxes: {said}")
    if not found.anchors.all():
        table.append("no anchors.yaml: by the documented rule an anchor without boxes has the size 0; try another --seed")
    return "\n".join(table)
