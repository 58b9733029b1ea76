"""CPU seconds and memory of matching beside the dense form that it replaced, by turns in one
process.

    OMP_NUM_THREADS=1 python -m benchmarks.matching [--rounds R] [--device cpu|cuda]

One thread: on a machine with other work the threads of small operations wait for each other, and
their waiting counts as CPU seconds.

Sixteen canvases of 512 x 512 with RetinaNet's 48,384 anchors on P3 to P5 and up to 60 objects each,
one of which is a crowd on half of the images. Each form is checked to give the same, bit for bit.
The ratio is that of the medians of a form's own time (CPU seconds; on a GPU seconds until it is
done); memory is the most that one call holds beyond its inputs, as torch's allocator (GPU) or
profiler (CPU) counts it.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torchvision.ops import box_iou

from mtl_ray.tasks.detection.candidates import cell_corners, in_crowd
from mtl_ray.tasks.detection.dense.config import RetinaNetHead
from mtl_ray.tasks.detection.dense.matching import AnchorMatches, match_anchors
from mtl_ray.tasks.detection.dense.retinanet import anchor_shapes

SIDE, BATCH, OBJECTS = 512, 16, 60


def dense_match(
    anchors: Tensor, boxes: Tensor, wanted: Tensor, high: float = 0.5, low: float = 0.4
) -> AnchorMatches:
    """``match_anchors`` with all overlaps (B, N, M) at once."""
    overlap = box_iou(anchors.expand(boxes.shape[0], -1, -1), boxes)
    overlap = torch.where(wanted[:, None], overlap, -1.0)
    best, match = overlap.max(dim=2)
    top = overlap.amax(dim=1, keepdim=True)
    forced = (overlap == top) & (top > 0)
    match = torch.where(forced.any(dim=2), forced.int().argmax(dim=2), match)
    positive = (best >= high) | forced.any(dim=2)
    return AnchorMatches(match, positive, (best < low) & ~positive)


def dense_crowd(centres: Tensor, boxes: Tensor, crowd: Tensor) -> Tensor:
    """``in_crowd`` with all pairs (B, N, M, 2) at once."""
    points = centres[None, :, None]
    inside = (points > boxes[:, None, :, :2]) & (points < boxes[:, None, :, 2:])
    return (inside.all(dim=-1) & crowd[:, None]).any(dim=-1)


def random_boxes(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    corner = torch.rand(*shape, 2, generator=generator) * (SIDE - 40)
    return torch.cat(
        [corner, corner + 8 + torch.rand(*shape, 2, generator=generator) * 120], dim=-1
    )


def cases(device: torch.device) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Of each name the older form and the one that is used."""
    generator = torch.Generator().manual_seed(0)
    sizes, strides = [(SIDE // s, SIDE // s) for s in (8, 16, 32)], (8, 16, 32)
    shapes = anchor_shapes(RetinaNetHead())
    corners, cell = cell_corners(sizes, strides, len(shapes), torch.device("cpu"))
    half, centre = shapes.repeat(len(corners) // len(shapes), 1) * cell / 2, corners + cell / 2
    anchors = torch.cat([centre - half, centre + half], dim=1).to(device)
    boxes = random_boxes((BATCH, OBJECTS), generator).to(device)
    counts = torch.randint(1, OBJECTS + 1, (BATCH, 1), generator=generator)
    wanted = (torch.arange(OBJECTS)[None] < counts).to(device)
    crowd = torch.zeros_like(wanted)
    crowd[::2, 0] = True
    nothing, points = torch.zeros_like(wanted), centre.to(device)
    return {
        "match_by_overlap": (
            lambda: dense_match(anchors, boxes, wanted),
            lambda: match_anchors(anchors, boxes, wanted),
        ),
        "in_crowd": (
            lambda: dense_crowd(points, boxes, crowd),
            lambda: in_crowd(points, boxes, crowd),
        ),
        "in_crowd, no crowd": (
            lambda: dense_crowd(points, boxes, nothing),
            lambda: in_crowd(points, boxes, nothing),
        ),
    }


def seconds(call: Callable[[], Any], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
        since = time.perf_counter()
        call()
        torch.cuda.synchronize()
        return time.perf_counter() - since
    since = time.process_time()
    call()
    return time.process_time() - since


def peak_mb(call: Callable[[], Any], device: torch.device) -> float:
    """The most that a call holds, MB."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    held = most = 0
    for event in sorted(
        profiler.profiler.kineto_results.events(), key=lambda each: each.start_ns()
    ):  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="by turns; ratios are of medians")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    equal = True
    for name, forms in cases(device).items():
        before, now = (form() for form in forms)  # also warms up
        pairs = zip(before, now, strict=True) if isinstance(before, tuple) else [(before, now)]
        same = all(torch.equal(one, other) for one, other in pairs)
        equal = equal and same
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(args.rounds):
            for form, spent in zip(forms, times, strict=True):
                spent.append(seconds(form, device))
        medians, peaks = (
            [statistics.median(spent) for spent in times],
            [peak_mb(form, device) for form in forms],
        )
        shown = (
            f"{medians[0]:.4f} s -> {medians[1]:.4f} s ({medians[1] / medians[0]:.2f}), "
            f"{peaks[0]:.0f} MB -> {peaks[1]:.0f} MB"
        )
        print(f"{name}: {shown}, {'equal' if same else 'NOT EQUAL'}")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
