"""What is kept of a search in its folder: two small files a trial, each written once.

``trials/0007/trial.json`` is written before the trial starts and says what it tries; ``trials/0007/result.json`` is written when it
has ended. Both are written only if they are not there yet, so whenever the search is killed, what lies there is what happened, and
two processes that search at once get different trials. ``reports.json`` beside them is the curve so far. A trial without a result
is an ordinary run that can go on.
"""

import re
from typing import Any, Literal

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from mtl_ray import storage
from mtl_ray.config.strict import STRICT

State = Literal["complete", "stopped", "failed"]
_NUMBER = re.compile(r"\d{4,}")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Trial:
    """The content of ``trial.json``."""

    version: int = Field(default=1, ge=1, le=1)
    number: int
    """From 0, without gaps."""
    parameters: dict[str, str | int | float]
    """See ``space.Parameters``."""
    overrides: list[str]
    """What makes the trial's config of the search's, ``path=value``; fitted anchors among them."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Reported:
    """One evaluation of a trial that goes on, where trials are compared by one number."""

    epoch: float
    value: float


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Result:
    """The content of ``result.json``."""

    version: int = Field(default=1, ge=1, le=1)
    state: State
    """stopped: early, by the scheduler."""
    values: list[float] | None
    """Of each objective; None unless the trial is complete."""
    reason: str = ""
    """Why it failed, or where it was stopped."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """Of the last evaluation."""
    reports: list[Reported] = Field(default_factory=list)
    seconds: float = 0.0
    """From its (last) start to its end."""


class Records:
    """The trials in the folder of a search.

    Args:
        uri: of the search.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.folder = storage.join(uri, "trials")

    def trial_uri(self, number: int) -> str:
        """Where the run of a trial lies."""
        return storage.join(self.folder, name_of(number))

    def read(self) -> tuple[dict[int, Trial], dict[int, Result]]:
        """All trials, and the results of those that have ended, by number.

        Raises:
            ValueError: if a number is missing: then something was removed.
        """
        numbers = sorted(int(name) for name in storage.names(self.folder) if _NUMBER.fullmatch(name))
        trials = {number: self._read(number, "trial.json", Trial) for number in numbers}
        there = {number: trial for number, trial in trials.items() if trial is not None}
        if sorted(there) != list(range(len(there))):
            gap = next(number for number in range(len(there)) if number not in there)
            raise ValueError(f"{self.trial_uri(gap)} was removed: remove all of {self.uri} to search anew, or give it another runtime.name")
        results = {number: self._read(number, "result.json", Result) for number in there}
        return there, {number: result for number, result in results.items() if result is not None}

    def propose(self, trial: Trial) -> bool:
        """Writes down what a trial tries; False if another process has taken the number."""
        return self._write(trial.number, "trial.json", Trial, trial)

    def finish(self, number: int, result: Result) -> bool:
        """Writes down how a trial ended; False if that was known already."""
        return self._write(number, "result.json", Result, result)

    def curve(self, number: int) -> list[Reported]:
        """What a trial has reported so far, as it wrote it down itself."""
        return list(self._read(number, "reports.json", list[Reported]) or [])

    def keep_curve(self, number: int, curve: list[Reported]) -> None:
        """Writes down what a trial has reported so far, so that it is known after a restart."""
        storage.write(storage.join(self.trial_uri(number), "reports.json"), TypeAdapter(list[Reported]).dump_json(curve))

    def _read(self, number: int, name: str, kind: Any) -> Any:
        try:
            return TypeAdapter(kind).validate_json(storage.read(storage.join(self.trial_uri(number), name)))
        except FileNotFoundError:
            return None

    def _write(self, number: int, name: str, kind: Any, content: Any) -> bool:
        data = TypeAdapter(kind).dump_json(content, indent=1)
        return storage.write_new(storage.join(self.trial_uri(number), name), data)


def name_of(number: int) -> str:
    """The folder of a trial."""
    return f"{number:04d}"
