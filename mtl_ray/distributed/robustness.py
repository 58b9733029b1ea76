"""The cells of a robustness benchmark, measured by Ray tasks and saved one by one."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise

from mtl_ray.analysis.robustness import (
    Cell,
    CellMeasurement,
    CellResult,
    RobustnessRequest,
    cell_result,
    measure_cell,
    read_cells,
    write_cell,
)
from mtl_ray.distributed.executor import map_tasks
from mtl_ray.evaluation.data import open_data

TASKS_PER_WORKER = 4
"""At least this many tasks for each worker, so that all workers finish at about the same time."""


def measure_cells(
    request: RobustnessRequest, cells: Sequence[Cell], out: str, workers: int
) -> dict[Cell, CellResult]:
    """Measures the cells that are not saved in ``out`` yet.

    Args:
        request: the target and the data; its URIs must mean the same on every machine of the
            cluster.
        cells: the cells to measure.
        out: folder or URI.
        workers: tasks at a time, of one core each; with 1 it measures in this process without Ray.

    Raises:
        ValueError, FileNotFoundError: if something cannot be read, or ``out`` holds cells of
            another benchmark.
    """
    if min(workers, request.batch) < 1:
        raise ValueError(
            f"--workers is {workers} and --batch {request.batch}; both must be at least 1"
        )
    about = request.about()
    found = read_cells(out, cells, about)
    left = [cell for cell in cells if cell not in found]
    if left:
        rows = len(open_data(request.data, request.images))
        shares = _shares(
            rows,
            request.batch,
            math.ceil(TASKS_PER_WORKER * workers / len(left)) if workers > 1 else 1,
        )
        if len(shares) == 1:  # the result of a cell is smaller than its measurements
            outcomes: Iterator[CellResult] = map_tasks(
                partial(_measure_whole, request, rows),
                left,
                description="robustness",
                workers=workers,
                unit="cell",
            )
        else:
            items = [(cell, start, stop) for cell in left for start, stop in shares]
            parts = map_tasks(
                partial(_measure, request),
                items,
                description="robustness",
                workers=workers,
                unit="part",
            )
            outcomes = _whole(len(shares), parts)
        for cell, outcome in zip(left, outcomes, strict=True):
            found[cell] = outcome
            write_cell(out, cell, outcome, about)
    return {cell: found[cell] for cell in cells}


def _shares(rows: int, batch: int, parts: int) -> list[tuple[int, int]]:
    """Ranges of rows, each of whole batches, so that the batches do not depend on the number of
    ranges.
    """
    batches = max(1, math.ceil(rows / batch))
    ends = sorted({batch * (batches * i // parts) for i in range(parts)} | {rows})
    return list(pairwise(ends)) or [(0, 0)]


def _measure(request: RobustnessRequest, item: tuple[Cell, int, int]) -> CellMeasurement:
    return measure_cell(request, *item)


def _measure_whole(request: RobustnessRequest, rows: int, cell: Cell) -> CellResult:
    return cell_result(measure_cell(request, cell, 0, rows))


def _whole(parts: int, measured: Iterator[CellMeasurement]) -> Iterator[CellResult]:
    """Yields the result of each cell as soon as all its parts are measured."""
    for whole in measured:
        for _ in range(parts - 1):
            whole.merge(next(measured))
        yield cell_result(whole)
