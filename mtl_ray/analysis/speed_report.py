"""What a speed measurement found: tables for the terminal, of one model or of several side by side,
and JSON. This module imports no torch.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from mtl_ray.analysis.stopwatch import Timing
from mtl_ray.inputs.image import IMAGE

SpeedTask = Literal["inference", "loader", "dataset"]
WHOLE = "total"
PHASES = ("pre-processing", "execution", "post-processing", "request")
"""The phases of a prediction. ``request`` is all of them, of an endpoint."""
_COLUMNS = ("mean", "p50", "p90", "p99", "min", "max")
_LONGEST = 44
"""Most characters of a name in a table; of longer names the end is shown."""


@dataclass(frozen=True, kw_only=True)
class SpeedReport:
    """The result of a speed measurement.

    Attributes:
        target, task: what was timed.
        engine: of a bundle, such as openvino:int8; None of anything else.
        about: one line: on what, with which images.
        per_step: images of one step.
        concurrency: threads that did steps at the same time.
        fps: images a second of each repetition, of all threads together.
        timings: by part of a step, over all repetitions; the whole step comes last.
        memory_mb: resident memory of the process, now and at most; of a GPU what tensors took at
            most.
        noun: a word for one datum.
    """

    target: str
    task: SpeedTask
    engine: str | None = None
    about: str
    per_step: int
    concurrency: int = 1
    fps: tuple[float, ...]
    timings: tuple[Timing, ...]
    memory_mb: dict[str, float]
    noun: str = IMAGE.noun

    @property
    def name(self) -> str:
        """The target, with its engine if it has several."""
        return self.target if self.engine is None else f"{self.target} {self.engine}"

    @property
    def whole(self) -> Timing:
        """Of a step, end to end."""
        return self.timings[-1]

    def phase(self, name: str) -> Timing | None:
        """The time of a phase; None if it was not seen."""
        return next((each for each in self.timings if self._phase_of(each.name) == name), None)

    def _phase_of(self, name: str) -> str:
        """The phase that a part is; the parts of other tasks and the parts of parts are none."""
        if self.task != PREDICTING or "/" in name:
            return name
        return {"forward": "execution", WHOLE: "end-to-end"}.get(
            name, name if name in PHASES else "pre-processing"
        )

    def to_text(self) -> str:
        """A table for the terminal."""
        lines = [f"{self.task} of {self.target}: {self.about}"]
        lines.append(
            f"{'ms a step':<28}" + "".join(f"{column:>10}" for column in _COLUMNS) + f"{'share':>8}"
        )
        for timing in self.timings:
            name = "  " * timing.name.count("/") + self._title(timing.name)
            values = "".join(f"{getattr(timing, f'{column}_ms'):>10.3f}" for column in _COLUMNS)
            lines.append(f"{name:<28}{values}{timing.share:>8.1%}")
        lines.append(
            f"FPS: {self._fps()}, {self.whole.count} steps of {self.per_step}"
            + (f" by {self.concurrency} threads at once" if self.concurrency > 1 else "")
        )
        lines.append(
            "memory: "
            + ", ".join(f"{value:,.0f} MB {name}" for name, value in self.memory_mb.items())
        )
        return "\n".join(lines)

    def _title(self, name: str) -> str:
        """The phase, and in brackets the name of the part if it is another."""
        phase, last = self._phase_of(name), name.rpartition("/")[2]
        return last if phase in (name, "end-to-end") and name != WHOLE else f"{phase} ({last})"

    def _fps(self) -> str:
        each = (
            f" (each time: {', '.join(f'{value:.1f}' for value in self.fps)})"
            if len(self.fps) > 1
            else ""
        )
        return f"{self.fps_mean:.1f} {self.noun}s a second{each}"

    @property
    def fps_mean(self) -> float:
        """Images a second."""
        return float(np.mean(self.fps))

    def to_json(self) -> dict[str, Any]:
        """All figures."""
        content = asdict(self)
        for timing in content["timings"]:
            timing["phase"] = self._phase_of(timing["name"])
        return {**content, "fps_mean": self.fps_mean}


PREDICTING: SpeedTask = "inference"


def comparison_text(reports: Sequence[SpeedReport]) -> str:
    """Several measurements in one table: the phases by their median, then the whole step."""
    phases = [name for name in PHASES if any(report.phase(name) is not None for report in reports)]
    heads = [*phases, "mean", "p50", "p90", "p99", f"{reports[0].noun}s/s", "of first"]
    widths = [max(10, len(head) + 2) for head in heads]
    wide = max(len(shortened(report.name)) for report in reports) + 2
    lines = [
        f"ms a step (batch {reports[0].per_step}, {reports[0].concurrency} at once); phases by "
        "their median, then end to end",
        " " * wide + "".join(f"{head:>{n}}" for head, n in zip(heads, widths, strict=True)),
    ]
    for report in reports:
        found = [report.phase(name) for name in phases]
        cells = ["-" if each is None else f"{each.p50_ms:.3f}" for each in found]
        cells += [f"{getattr(report.whole, f'{name}_ms'):.3f}" for name in _COLUMNS[:4]]
        cells += [f"{report.fps_mean:.1f}", f"{report.fps_mean / reports[0].fps_mean:.2f}"]
        values = "".join(f"{cell:>{n}}" for cell, n in zip(cells, widths, strict=True))
        lines.append(f"{shortened(report.name):<{wide}}{values}")
    lines += [f"{shortened(report.name)}: {report.about}" for report in reports]
    return "\n".join(lines)


def comparison_json(reports: Sequence[SpeedReport]) -> dict[str, Any]:
    """The figures of the first measurement; of several, all of them under ``measurements``."""
    first = reports[0].to_json()
    if len(reports) == 1:
        return first
    return {**first, "measurements": [report.to_json() for report in reports]}


def shortened(name: str) -> str:
    """A name that fits into a table."""
    return name if len(name) <= _LONGEST else "..." + name[3 - _LONGEST :]
