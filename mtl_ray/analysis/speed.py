"""How fast a model, a loader or the preparation of samples is."""

import os
import resource
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mtl_ray.analysis.networks import config_at
from mtl_ray.analysis.speed_data import Step, loader_steps, sample_steps
from mtl_ray.analysis.speed_model import Subject, inference_steps, open_subject
from mtl_ray.analysis.stopwatch import Stopwatch, Timing
from mtl_ray.loading.config import DataConfig, SplitConfig

Task = Literal["inference", "loader", "dataset"]
WHOLE = "total"


@dataclass(frozen=True, kw_only=True)
class SpeedRequest:
    """The request of a speed measurement.

    Attributes:
        target: run folder, checkpoint, bundle, endpoint or config (.yaml, then with random
            weights).
        task: inference: a model, from the decoded image to the prediction. loader: batches as
            training gets them. dataset: one sample after another, in one thread and without a
            cache, by step of its preparation.
        repeat: number of repetitions.
        iterations: batches (or samples) that are timed in each repetition.
        warmup: batches before them that are not timed.
        batch: images that go through the network together.
        data: split or COCO annotation file whose images are taken; by default those of the config,
            or made up ones.
        images: where the images of an annotation file lie.
        device: of torch; by default a GPU where there is one.
        threads: of torch or onnxruntime; 0 leaves it to them.
        classes: number of classes, for a config whose split is not available.
        api_key: for an endpoint that requires one.
    """

    target: str
    task: Task = "inference"
    repeat: int = 1
    iterations: int = 200
    warmup: int = 10
    batch: int = 1
    data: str | None = None
    images: str | None = None
    device: str | None = None
    threads: int = 0
    classes: int | None = None
    api_key: str | None = None

    def __post_init__(self) -> None:
        for name in ("repeat", "iterations", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} is {getattr(self, name)}; at least 1 is needed")
        if self.warmup < 0:
            raise ValueError(f"--warmup is {self.warmup}; it cannot be less than 0")


@dataclass(frozen=True, kw_only=True)
class SpeedReport:
    """The result of a speed measurement.

    Attributes:
        target, task: what was timed.
        about: one line: on what, with which images.
        per_step: images of one step.
        fps: images a second of each repetition.
        timings: by part of a step, over all repetitions; the whole step comes last.
        memory_mb: resident memory of the process, now and at most; of a GPU what tensors took at
            most.
        noun: a word for one datum.
    """

    target: str
    task: Task
    about: str
    per_step: int
    fps: tuple[float, ...]
    timings: tuple[Timing, ...]
    memory_mb: dict[str, float]
    noun: str = "picture"

    def to_text(self) -> str:
        """A table for the terminal."""
        columns = ("mean", "p50", "p90", "p99", "min", "max")
        lines = [f"{self.task} of {self.target}: {self.about}"]
        lines.append(
            f"{'ms a step':<24}" + "".join(f"{column:>10}" for column in columns) + f"{'share':>8}"
        )
        for timing in self.timings:
            name = "  " * timing.name.count("/") + timing.name.rpartition("/")[2]
            values = "".join(f"{getattr(timing, f'{column}_ms'):>10.3f}" for column in columns)
            lines.append(f"{name:<24}{values}{timing.share:>8.1%}")
        each = (
            f" (each time: {', '.join(f'{value:.1f}' for value in self.fps)})"
            if len(self.fps) > 1
            else ""
        )
        lines.append(
            f"FPS: {np.mean(self.fps):.1f} {self.noun}s a second{each}, "
            f"{self.timings[-1].count} steps of {self.per_step}"
        )
        lines.append(
            "memory: "
            + ", ".join(f"{value:,.0f} MB {name}" for name, value in self.memory_mb.items())
        )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """All figures."""
        return {**asdict(self), "fps_mean": float(np.mean(self.fps))}


def measure_speed(request: SpeedRequest, watch: Stopwatch | None = None) -> SpeedReport:
    """Runs a measurement; the data is repeated if it is too short.

    Args:
        request: see there.
        watch: the stopwatch, with its clock.

    Raises:
        ValueError, FileNotFoundError: if there is nothing of the kind.
    """
    if request.task == "inference":
        with open_subject(
            request.target, request.device, request.threads, request.classes, request.api_key
        ) as subject:
            steps, about = inference_steps(subject, request.batch, request.data, request.images)
            return _timed(
                request, steps, about, request.batch, watch or Stopwatch(wait=subject.wait), subject
            )
    data = _data(request)
    make = loader_steps if request.task == "loader" else sample_steps
    per_step = data.batch if request.task == "loader" else 1
    threads = (
        f"{data.threads} threads, {data.cache_mb} MB of cache"
        if request.task == "loader"
        else "one thread, no cache"
    )
    return _timed(
        request,
        lambda: make(data),
        f"{data.train.uri}, {threads}",
        per_step,
        watch or Stopwatch(),
        None,
    )


Steps = Callable[[], Generator[Step, None, None]]
"""Starts the steps, and yields functions without end; each does one step and times its parts with
the watch."""


def _timed(
    request: SpeedRequest,
    steps: Steps,
    about: str,
    per_step: int,
    watch: Stopwatch,
    subject: Subject | None,
) -> SpeedReport:
    fps, runs = [], Stopwatch()
    for _ in range(request.repeat):
        own = watch.fresh()
        with closing(steps()) as endless:
            for number, step in enumerate(islice(endless, request.warmup + request.iterations)):
                if number == request.warmup:
                    own.forget()
                with own(WHOLE):
                    step(own)
        fps.append(per_step * request.iterations / max(sum(own.seconds(WHOLE)), 1e-12))
        runs.add(own)
    memory = _memory_mb() | (
        {"on the GPU at most": subject.device_mb()}
        if subject is not None and subject.on_gpu
        else {}
    )
    return SpeedReport(
        target=request.target,
        task=request.task,
        about=about,
        per_step=per_step,
        fps=tuple(fps),
        timings=runs.timings(WHOLE),
        memory_mb=memory,
        noun="picture" if subject is None else subject.noun,
    )


def _data(request: SpeedRequest) -> DataConfig:
    if request.data is not None and request.data.endswith(".json"):
        raise ValueError(
            f"--task {request.task} reads a split, as a training does; jobs.convert makes one of "
            f"{request.data}"
        )
    data = config_at(request.target).data
    return data if request.data is None else replace(data, train=SplitConfig(uri=request.data))


def _memory_mb() -> dict[str, float]:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except FileNotFoundError:  # not on Linux
        return {"at most": most}
    return {"now": pages * os.sysconf("SC_PAGE_SIZE") / 2**20, "at most": most}
