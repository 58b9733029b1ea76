"""The record of a search in its folder: two small files for each trial, each written once.

``trials/0007/trial.json`` is written before the trial starts, with its parameters.
``trials/0007/result.json`` is written when it has ended. Each is written only if it does not exist.
So the files are right whenever the search is killed, and two processes that search at the same time
get different trials. ``reports.json`` beside them holds the evaluations so far. A trial without a
result is an ordinary run that can be resumed.
"""

import re
from typing import Any, Literal

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from mtl_ray import storage
from mtl_ray.config.strict import STRICT
from mtl_ray.config.validate import read_record

State = Literal["complete", "stopped", "failed"]
_NUMBER = re.compile(r"\d{4,}")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Trial:
    """The content of ``trial.json``."""

    version: int = Field(default=1, ge=1, le=1)
    number: int
    """From 0, without gaps."""
    parameters: dict[str, str | int | float]
    """See ``space.TrialParameters``."""
    overrides: list[str]
    """``path=value``, which turn the config of the search into that of the trial; fitted anchors
    included."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Reported:
    """One evaluation of a trial, if trials are compared by one number."""

    epoch: float
    value: float


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrialResult:
    """The content of ``result.json``."""

    version: int = Field(default=1, ge=1, le=1)
    state: State
    """stopped: the scheduler ended the trial early."""
    values: list[float] | None
    """The value of each objective; None unless the trial is complete."""
    reason: str = ""
    """Why the trial failed, or where it was stopped."""
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
        """The URI of the run of a trial."""
        return storage.join(self.folder, trial_name(number))

    def read(self) -> tuple[dict[int, Trial], dict[int, TrialResult]]:
        """All trials, and the results of those that have ended, by number.

        Raises:
            ValueError: if a number is missing, so a trial was removed; or if a file is damaged.
        """
        numbers = sorted(
            int(name) for name in storage.names(self.folder) if _NUMBER.fullmatch(name)
        )
        trials = {number: self._read(number, "trial.json", Trial) for number in numbers}
        there = {number: trial for number, trial in trials.items() if trial is not None}
        if sorted(there) != list(range(len(there))):
            gap = next(number for number in range(len(there)) if number not in there)
            raise ValueError(
                f"{self.trial_uri(gap)} was removed: remove all of {self.uri} to search anew, or "
                "set another runtime.name"
            )
        results = {number: self._read(number, "result.json", TrialResult) for number in there}
        return there, {number: result for number, result in results.items() if result is not None}

    def propose(self, trial: Trial) -> bool:
        """Writes the parameters of a trial; False if another process has taken the number."""
        return self._write(trial.number, "trial.json", Trial, trial)

    def finish(self, number: int, result: TrialResult) -> bool:
        """Writes the result of a trial; False if there is one already."""
        return self._write(number, "result.json", TrialResult, result)

    def curve(self, number: int) -> list[Reported]:
        """The evaluations that a trial has written so far."""
        return list(self._read(number, "reports.json", list[Reported]) or [])

    def keep_curve(self, number: int, curve: list[Reported]) -> None:
        """Writes the evaluations of a trial so far, so that they are known after a restart."""
        storage.write(
            storage.join(self.trial_uri(number), "reports.json"),
            TypeAdapter(list[Reported]).dump_json(curve),
        )

    def _read(self, number: int, name: str, kind: Any) -> Any:
        uri = storage.join(self.trial_uri(number), name)
        try:
            return read_record(storage.read(uri), kind, uri)
        except FileNotFoundError:
            return None

    def _write(self, number: int, name: str, kind: Any, content: Any) -> bool:
        data = TypeAdapter(kind).dump_json(content, indent=1)
        return storage.write_new(storage.join(self.trial_uri(number), name), data)


def trial_name(number: int) -> str:
    """The folder of a trial."""
    return f"{number:04d}"
