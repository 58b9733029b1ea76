"""What a pipeline prints: the outcome of each stage, a table of all stages, a shortened answer
of the server.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl_ray import storage

LIST_ENTRIES = 3
"""How many entries of each list in an answer are printed."""


@dataclass(frozen=True, kw_only=True)
class StageOutcome:
    """The outcome of a stage.

    Attributes:
        result: a few words.
        where: the URI of what it wrote.
        held: False if a check failed.
    """

    result: str
    where: str
    held: bool = True


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage that has run, and how many seconds it took."""

    name: str
    seconds: float
    outcome: StageOutcome


def stage_table(stages: Sequence[Stage]) -> str:
    """A table with a line for each stage, and the total time."""
    rows = [("stage", "time", "result", "where")]
    rows += [
        (stage.name, f"{stage.seconds:.1f} s", stage.outcome.result, short_uri(stage.outcome.where))
        for stage in stages
    ]
    failed = [stage.name for stage in stages if not stage.outcome.held]
    verdict = f"did not hold: {', '.join(failed)}" if failed else "every check held"
    rows.append(("all", f"{sum(stage.seconds for stage in stages):.1f} s", verdict, ""))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"{name:<{widths[0]}}  {took:>{widths[1]}}  {result:<{widths[2]}}  {where}".rstrip()
        for name, took, result, where in rows
    ]
    rule = "-" * max(map(len, lines))
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def short_uri(uri: str) -> str:
    """The URI, relative to the working directory if it lies below it."""
    return (
        os.path.relpath(uri)
        if not storage.is_remote(uri) and Path(uri).is_relative_to(Path.cwd())
        else uri
    )


def answer_text(answer: Any, indent: str = "") -> str:
    """An answer as JSON, one object per line.

    Only the first entries of lists and the beginning of long texts are kept.
    """
    if (
        isinstance(answer, dict)
        and any(isinstance(value, dict | list) and value for value in answer.values())
        and "bbox" not in answer
    ):
        lines = [
            f'{indent}  "{key}": {answer_text(value, indent + "  ")}'
            for key, value in answer.items()
        ]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(answer, list) and any(isinstance(item, dict) for item in answer):
        lines = [f"{indent}  {answer_text(item, indent + '  ')}" for item in answer[:LIST_ENTRIES]]
        lines += [f"{indent}  ... {len(answer) - LIST_ENTRIES} more"] * (len(answer) > LIST_ENTRIES)
        return "[\n" + ",\n".join(lines) + f"\n{indent}]"
    return json.dumps(_rounded(answer))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return round(value, 3)
    return f"{value[:40]}..." if isinstance(value, str) and len(value) > 40 else value
