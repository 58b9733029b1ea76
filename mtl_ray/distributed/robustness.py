"""The cells of a robustness benchmark, measured by Ray tasks and kept one by one."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise

from mtl_ray.analysis.robustness import Cell, Outcome, Part, Request, keep, kept, measure_cell, outcome_of
from mtl_ray.distributed.wide import spread
from mtl_ray.evaluation.data import open_data

TASKS_A_WORKER = 4
"""At least so many tasks for each worker, so that they end at about the same time."""


def measure_cells(request: Request, cells: Sequence[Cell], out: str, workers: int) -> dict[Cell, Outcome]:
    """Measures those cells that are not kept in ``out`` yet.

    Args:
        request: what to measure on what; its URIs must mean the same on every machine of the cluster.
        cells: which.
        out: folder or URI.
        workers: tasks at a time, of one core each; 1 measures in this process and starts no Ray.

    Raises:
        ValueError, FileNotFoundError: if something cannot be read, or ``out`` holds cells of something else.
    """
    if min(workers, request.batch) < 1:
        raise ValueError(f"--workers is {workers} and --batch {request.batch}; both must be at least 1")
    about = request.about()
    found = kept(out, cells, about)
    left = [cell for cell in cells if cell not in found]
    if left:
        rows = len(open_data(request.data, request.images))
        shares = _shares(rows, request.batch, math.ceil(TASKS_A_WORKER * workers / len(left)) if workers > 1 else 1)
        if len(shares) == 1:  # what came of a cell travels in less time than what was measured
            outcomes: Iterator[Outcome] = spread(
                partial(_measure_whole, request, rows), left, description="robustness", workers=workers, unit="cell"
            )
        else:
            items = [(cell, start, stop) for cell in left for start, stop in shares]
            parts = spread(partial(_measure, request), items, description="robustness", workers=workers, unit="part")
            outcomes = _whole(len(shares), parts)
        for cell, outcome in zip(left, outcomes, strict=True):
            found[cell] = outcome
            keep(out, cell, outcome, about)
    return {cell: found[cell] for cell in cells}


def _shares(rows: int, batch: int, parts: int) -> list[tuple[int, int]]:
    """Runs of rows, each of whole batches, so that the same images go through the network together however many runs there are."""
    batches = max(1, math.ceil(rows / batch))
    ends = sorted({batch * (batches * i // parts) for i in range(parts)} | {rows})
    return list(pairwise(ends)) or [(0, 0)]


def _measure(request: Request, item: tuple[Cell, int, int]) -> Part:
    return measure_cell(request, *item)


def _measure_whole(request: Request, rows: int, cell: Cell) -> Outcome:
    return outcome_of(measure_cell(request, cell, 0, rows))


def _whole(parts: int, measured: Iterator[Part]) -> Iterator[Outcome]:
    """Of each cell as soon as all its parts are there."""
    for whole in measured:
        for _ in range(parts - 1):
            whole.merge(next(measured))
        yield outcome_of(whole)
