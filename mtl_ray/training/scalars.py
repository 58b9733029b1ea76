"""Files that a run appends lines to: ``scalars.jsonl`` (one strict JSON object a line, keys as in
an mmengine log), samples.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl_ray import storage

_log = logging.getLogger(__name__)
REMOTE_WRITE_S = 30.0
"""A bucket cannot append: the whole file is written again, at most this often."""


class Scalars:
    """Appends lines; on a disk at once, in a bucket at ``flush`` and every half minute.

    What cannot be written (a full disk, a bucket that does not answer) is logged and written later;
    it does not end the run.

    Args:
        uri: of the file.
        step: lines of later steps are from an attempt that was cut off, and are dropped.
    """

    def __init__(self, uri: str, step: int) -> None:
        self.uri = uri
        self.rows = [row for row in read_scalars(uri) if row["step"] <= step]
        self._behind = False
        self._written_at = 0.0
        self._write()

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds one line; a number that is not finite becomes null."""
        clean = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in row.items()
        }
        self.rows.append(clean)
        if storage.is_remote(self.uri):
            if time.monotonic() - self._written_at > REMOTE_WRITE_S:
                self._try(self._write)
        else:
            self._try(self._write if self._behind else lambda: self._append(clean))

    def flush(self) -> None:
        """The file then holds every line, if it can be written."""
        if self._behind or storage.is_remote(self.uri):
            self._try(self._write)

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            if not self._behind:
                _log.warning(
                    "%s cannot be written at the moment, training goes on: %s", self.uri, error
                )
            self._behind = True

    def _append(self, row: Mapping[str, Any]) -> None:
        with open(storage.absolute(self.uri), "a", encoding="ascii") as file:
            file.write(_line(row))

    def _write(self) -> None:
        storage.write(self.uri, "".join(map(_line, self.rows)).encode("ascii"))
        self._written_at = time.monotonic()
        self._behind = False


def read_scalars(uri: str) -> list[dict[str, Any]]:
    """The lines of a scalars file; none if there is no file.

    A last line that was cut off is left out.
    """
    try:
        lines = storage.read(uri).decode().splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for number, line in enumerate(lines):
        try:
            rows.append(json.loads(line))
        except ValueError:
            if number < len(lines) - 1:
                raise ValueError(f"{uri}: line {number + 1} is not JSON") from None
    return rows


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


class SampleLog:
    """Which samples a rank trained on, step by step (``runtime.ledger``), for whoever wants to
    count them.

    One file per attempt and rank, ``FOLDER/00000003-0001.jsonl``; a line is written before the step
    is saved.

    Args:
        folder: a local path.
        attempt: of the run.
        rank: of this process.
    """

    def __init__(self, folder: str, attempt: int, rank: int) -> None:
        self._attempt = attempt
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._path = Path(folder) / f"{attempt:08d}-{rank:04d}.jsonl"

    def add(self, step: int, keys: Sequence[str]) -> None:
        """Called after a step, counted from 1: writes ``{"attempt", "step", "keys"}``, the keys of
        this rank's share in order.
        """
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(
                json.dumps({"attempt": self._attempt, "step": step, "keys": list(keys)}) + "\n"
            )
