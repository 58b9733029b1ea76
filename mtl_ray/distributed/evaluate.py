"""Evaluation with Ray tasks: each evaluates a range of rows, and their counts are merged."""

import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from itertools import pairwise

from mtl_ray.distributed.executor import fan_out
from mtl_ray.distributed.session import session
from mtl_ray.evaluation.data import open_data
from mtl_ray.evaluation.evaluate import (
    EvaluationPart,
    EvaluationRequest,
    evaluate,
    make_report,
    measure_rows,
)
from mtl_ray.evaluation.report import Report
from mtl_ray.samples import Sample
from mtl_ray.terminal import progress_bar


def evaluate_rows(request: EvaluationRequest, workers: int) -> tuple[Report, EvaluationPart]:
    """Evaluates all rows of the data.

    Args:
        request: the target and the data; with several workers its URIs must mean the same on every
            machine of the cluster.
        workers: number of tasks. With 1, or for a file of predictions, it evaluates in this process
            without Ray.

    Raises:
        ValueError, FileNotFoundError: if the target or the data cannot be read.
    """
    if workers < 1:
        raise ValueError(f"--workers is {workers}; at least 1 is needed")
    if workers == 1 or request.stored:
        return evaluate(request, _bar)
    started = time.monotonic()
    rows = len(open_data(request.data, request.images))
    ends = [rows * i // workers for i in range(workers + 1)]
    with session():
        first, *others = fan_out(
            partial(_measure, replace(request, threads=1)),
            [(start, stop) for start, stop in pairwise(ends) if stop > start],
            description="evaluate",
        )
    for part in others:
        first.merge(part)
    return make_report(request, first, time.monotonic() - started), first


def _measure(request: EvaluationRequest, rows: tuple[int, int]) -> EvaluationPart:
    return measure_rows(request, *rows)


def _bar(samples: Iterable[Sample], total: int) -> Iterable[Sample]:
    bar: Iterable[Sample] = progress_bar(samples, total=total, desc="evaluate", unit="sample")
    return bar
