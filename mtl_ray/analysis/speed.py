"""How fast a model, a loader or the preparation of samples is."""

import os
import resource
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from mtl_ray.analysis.networks import config_at
from mtl_ray.analysis.speed_data import TimedStep, loader_steps, sample_steps
from mtl_ray.analysis.speed_model import Subject, inference_steps, is_bundle, open_subject
from mtl_ray.analysis.speed_report import PREDICTING, WHOLE, SpeedReport, SpeedTask
from mtl_ray.analysis.stopwatch import Stopwatch
from mtl_ray.inputs.image import IMAGE
from mtl_ray.loading.config import DataConfig


@dataclass(frozen=True, kw_only=True)
class SpeedRequest:
    """The request of a speed measurement.

    Attributes:
        target: run folder, checkpoint, bundle, endpoint or config (.yaml, then with random
            weights).
        task: inference: a model, from the decoded image to the prediction. loader: batches as
            training gets them. dataset: one sample after another, in one thread and without a
            cache, by step of its preparation.
        engine: one of those of a bundle; None for its default.
        repeat: number of repetitions.
        iterations: batches (or samples) that are timed in each repetition, by each thread.
        warmup: batches before them that are not timed.
        batch: images that go through the network together.
        concurrency: threads that call the model at the same time.
        data: split or COCO annotation file whose images are taken; by default those of the config,
            or made up ones.
        images: where the images of an annotation file lie.
        device: of torch; by default a GPU where there is one.
        threads: of torch or the engine within one call; 0 leaves it to them.
        classes: number of classes, for a config whose split is not available.
        api_key: for an endpoint that requires one.
    """

    target: str
    task: SpeedTask = "inference"
    engine: str | None = None
    repeat: int = 1
    iterations: int = 200
    warmup: int = 10
    batch: int = 1
    concurrency: int = 1
    data: str | None = None
    images: str | None = None
    device: str | None = None
    threads: int = 0
    classes: int | None = None
    api_key: str | None = None

    def __post_init__(self) -> None:
        for name in ("repeat", "iterations", "batch", "concurrency"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} is {getattr(self, name)}; at least 1 is needed")
        for name in ("warmup", "threads"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} is {getattr(self, name)}; it cannot be less than 0")
        if self.concurrency > MOST_THREADS:
            raise ValueError(f"--concurrency is {self.concurrency}; at most {MOST_THREADS}")
        if self.concurrency > 1 and self.task != PREDICTING:
            raise ValueError(f"--concurrency is for --task {PREDICTING}, not {self.task}")


MOST_THREADS = 256


def speed_requests(
    targets: Sequence[str], engines: Sequence[str], options: SpeedRequest
) -> list[SpeedRequest]:
    """A request for each target, and for each engine of those that are bundles.

    Args:
        targets: at least one.
        engines: none for the default of each bundle.
        options: everything else.

    Raises:
        ValueError: if there are engines and no bundle.
    """
    bundles = {each for each in targets if is_bundle(each)} if engines else set()
    if engines and not bundles:
        raise ValueError(f"--engine is for bundles, and {targets[0]} is none")
    return [
        replace(options, target=target, engine=engine)
        for target in dict.fromkeys(targets)
        for engine in (dict.fromkeys(engines) if target in bundles else (None,))
    ]


def measure_speed(request: SpeedRequest, watch: Stopwatch | None = None) -> SpeedReport:
    """Runs a measurement; the data is repeated if it is too short.

    Args:
        request: see there.
        watch: the stopwatch, with its clock.

    Raises:
        ValueError, FileNotFoundError: if there is nothing of the kind.
    """
    (report,) = compare_speed([request], watch)
    return report


def compare_speed(
    requests: Sequence[SpeedRequest], watch: Stopwatch | None = None
) -> list[SpeedReport]:
    """Runs several measurements; their repetitions take turns, so that what else the machine does
    slows all of them.

    Args:
        requests: at least one, with the same number of repetitions.
        watch: the stopwatch, with its clock.

    Raises:
        ValueError, FileNotFoundError: if there is nothing of the kind.
    """
    with ExitStack() as stack:
        opened = [stack.enter_context(_opened(request, watch)) for request in requests]
        for _ in range(requests[0].repeat):
            for measurement in opened:
                measurement.turn()
        return [measurement.report() for measurement in opened]


Steps = Callable[[], Generator[TimedStep, None, None]]
"""Starts the steps, and yields functions without end; each does one step and times its parts with
the watch."""


@contextmanager
def _opened(request: SpeedRequest, watch: Stopwatch | None) -> Iterator["_Measurement"]:
    if request.task == PREDICTING:
        with open_subject(
            request.target,
            request.device,
            request.threads,
            request.classes,
            request.api_key,
            request.engine,
        ) as subject:
            steps, about = inference_steps(subject, request.batch, request.data, request.images)
            yield _Measurement(
                request, steps, about, request.batch, watch or Stopwatch(wait=subject.wait), subject
            )
        return
    data = _data(request)
    loads = request.task == "loader"
    make = loader_steps if loads else sample_steps
    per_step = data.batch if loads else 1
    threads = (
        f"{data.threads} threads, {data.cache_mb} MB of cache" if loads else "one thread, no cache"
    )
    yield _Measurement(
        request,
        lambda: make(data),
        f"{data.train.uri}, {threads}",
        per_step,
        watch or Stopwatch(),
        None,
    )


class _Measurement:
    """What is timed, repetition by repetition."""

    def __init__(
        self,
        request: SpeedRequest,
        steps: Steps,
        about: str,
        per_step: int,
        watch: Stopwatch,
        subject: Subject | None,
    ) -> None:
        self._request, self._steps, self._about = request, steps, about
        self._per_step, self._watch, self._subject = per_step, watch, subject
        self._fps: list[float] = []
        self._runs = Stopwatch()

    def turn(self) -> None:
        """One repetition."""
        images = self._per_step * self._request.iterations
        count = self._request.concurrency
        if count == 1:
            own = self._one_thread(lambda: None)
            self._fps.append(images / max(sum(own.seconds(WHOLE)), 1e-12))
            self._runs.add(own)
            return
        moments: list[float] = []
        together = threading.Barrier(count, action=lambda: moments.append(time.perf_counter()))
        with ThreadPoolExecutor(count) as pool:
            futures = [pool.submit(self._in_step, together) for _ in range(count)]
            errors = [error for each in futures if (error := each.exception()) is not None]
        if errors:  # that of a thread which others wait for comes last
            raise min(errors, key=lambda each: isinstance(each, threading.BrokenBarrierError))
        self._fps.append(count * images / max(time.perf_counter() - moments[0], 1e-12))
        for future in futures:
            self._runs.add(future.result())

    def _in_step(self, together: threading.Barrier) -> Stopwatch:
        """The steps of one of several threads; one that fails lets the others go."""
        try:
            return self._one_thread(together.wait)
        except BaseException:
            together.abort()
            raise

    def _one_thread(self, when_warm: Callable[[], object]) -> Stopwatch:
        """Steps, of which those of the warm-up are forgotten."""
        request, own = self._request, self._watch.fresh()
        with closing(self._steps()) as endless:
            for number, step in enumerate(islice(endless, request.warmup + request.iterations)):
                if number == request.warmup:
                    own.forget()
                    when_warm()
                with own(WHOLE):
                    step(own)
        return own

    def report(self) -> SpeedReport:
        """The times of all repetitions."""
        subject = self._subject
        on_gpu = subject is not None and subject.on_gpu
        return SpeedReport(
            target=self._request.target,
            task=self._request.task,
            engine=None if subject is None else subject.engine,
            about=self._about,
            per_step=self._per_step,
            concurrency=self._request.concurrency,
            fps=tuple(self._fps),
            timings=self._runs.timings(WHOLE),
            memory_mb=_memory_mb()
            | ({"on the GPU at most": subject.device_mb()} if subject and on_gpu else {}),
            noun=IMAGE.noun if subject is None else subject.noun,
        )


def _data(request: SpeedRequest) -> DataConfig:
    if request.data is not None and request.data.endswith(".json"):
        raise ValueError(
            f"--task {request.task} reads a split, as a training does; jobs.convert makes one of "
            f"{request.data}"
        )
    data = config_at(request.target).data
    return data if request.data is None else data.training_on(request.data)


def _memory_mb() -> dict[str, float]:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except FileNotFoundError:  # not on Linux
        return {"at most": most}
    return {"now": pages * os.sysconf("SC_PAGE_SIZE") / 2**20, "at most": most}
