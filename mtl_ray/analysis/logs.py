"""Reads training logs of all formats as records with values, step and epoch.

This module imports no torch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from mtl_ray import storage
from mtl_ray.analysis.log_lines import Line, LineKind, parse_line

MAX_LOG_BYTES = 1 << 30
_SUFFIXES = (".log.json", "scalars.json", "scalars.jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRecord:
    """The record of one line.

    Attributes:
        kind: train or eval.
        epoch: from 1; None in a training that counts only iterations.
        step: optimiser steps from the start of the training; for an evaluation, the steps before
            it.
        values: finite numbers by key.
    """

    kind: LineKind
    epoch: int | None
    step: int
    values: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Log:
    """The records of a log in the order in which they were written.

    Attributes:
        uri: of the file, or the folder whose logs were read.
        records: all records, including those of steps that were repeated later.
        unread: number of lines that are not JSON, such as a truncated one.
    """

    uri: str
    records: tuple[LogRecord, ...]
    unread: int

    def keys(self, kind: LineKind | None = None) -> list[str]:
        """The keys of its values in the order of their first appearance."""
        return list(
            dict.fromkeys(
                key
                for record in self.records
                if kind in (None, record.kind)
                for key in record.values
            )
        )

    def joined(self) -> "Log":
        """The log without records of steps that were repeated: if the steps go back, the later
        attempt counts.

        An attempt starts one of its log intervals before its first line. If that is the start of
        the training, all earlier records are dropped.
        """
        kept: list[LogRecord] = []
        for attempt in _forward(self.records):
            train = [record.step for record in attempt if record.kind == "train"]
            first = train[0] if train else attempt[0].step
            begin = first - (train[1] - first if len(train) > 1 else 1)
            before = {"train": begin, "eval": first - 1}
            kept = (
                [record for record in kept if record.step <= before[record.kind]]
                if begin > 0
                else []
            )
            kept += attempt
        return replace(self, records=tuple(kept))


def read_log(uri: str) -> Log:
    """Reads a log, or all logs in a folder (of a run, or an OpenMMLab ``work_dir``) as one, by
    their names.

    Raises:
        FileNotFoundError: if there is no log.
        ValueError: if it has no record.
    """
    lines: list[Line] = []
    unread = 0
    for file in _files(uri):
        more, bad = _read_lines(file)
        lines += more
        unread += bad
    if not lines:
        raise ValueError(
            f"{uri} has no line of JSON with values: give a *.log.json, vis_data/scalars.json or "
            "scalars.jsonl"
        )
    records = tuple(record for part in _attempts(lines) for record in _placed(part, lines))
    return Log(uri=uri, records=records, unread=unread)


def join_logs(logs: Sequence[Log]) -> Log:
    """Logs of one training, one after another, as one."""
    records = tuple(record for log in logs for record in log.records)
    return Log(uri=logs[0].uri, records=records, unread=sum(log.unread for log in logs))


def _files(uri: str) -> list[str]:
    """The file itself, or the logs in a folder.

    Of a folder of mmengine only ``scalars.json``, since TIME.json says the same.
    """
    if storage.names(uri) in ([], [uri.rstrip("/").rpartition("/")[2]]):
        return [uri]
    found = [file for file in storage.files(uri) if file.endswith(_SUFFIXES)]
    if not found:
        raise FileNotFoundError(
            f"there is no log in {uri}: no *.log.json, scalars.json or scalars.jsonl"
        )
    return found


def _read_lines(uri: str) -> tuple[list[Line], int]:
    if storage.size(uri) > MAX_LOG_BYTES:
        raise ValueError(f"{uri} has more than {MAX_LOG_BYTES} bytes, which no training log needs")
    lines: list[Line] = []
    unread = 0
    for text in storage.read(uri).decode(errors="replace").splitlines():
        if not text.strip():
            continue
        try:
            line = parse_line(text)
        except (ValueError, RecursionError):
            unread += 1
        else:
            lines += [line] if line is not None else []
    return lines, unread


def _attempts(lines: Sequence[Line]) -> Iterable[list[Line]]:
    """Splits the lines where the training goes back."""
    part: list[Line] = []
    before = (0, 0)
    for line in lines:
        if line.kind == "train":
            now = (line.step, 0) if line.step is not None else (line.epoch or 1, line.iter or 0)
            if now < before:
                yield part
                part = []
            before = now
        part.append(line)
    yield part


def _forward(records: Sequence[LogRecord]) -> Iterable[list[LogRecord]]:
    """Splits the records where the steps go back."""
    part: list[LogRecord] = []
    for record in records:
        if part and record.step < part[-1].step:
            yield part
            part = []
        part.append(record)
    yield part


def _placed(part: Sequence[Line], everything: Sequence[Line]) -> Iterable[LogRecord]:
    """The records of an attempt; evaluations lie after the training before them."""
    length = _epoch_length(part)
    if length is None:
        length = _epoch_length(everything) or 0
    trained = [line for line in everything if line.kind == "train"]
    by_epoch = any(line.epoch is not None for line in trained)
    step, epoch = 0, None
    for number, line in enumerate(part, 1):
        if not trained:
            step = number
        if line.kind == "train":
            step, epoch = _train_step(line, length, step), line.epoch
            yield LogRecord(kind="train", epoch=epoch, step=step, values=dict(line.values))
        else:
            yield _evaluation(line, step, epoch, by_epoch)


def _train_step(line: Line, length: int, before: int) -> int:
    if line.step is not None:
        return line.step
    return (
        (max(line.epoch or 1, 1) - 1) * length + line.iter if line.iter is not None else before + 1
    )


def _epoch_length(lines: Sequence[Line]) -> int | None:
    """Steps of an epoch if ``iter`` counts within an epoch: the last logged one, as in OpenMMLab's
    tools.

    0 if ``iter`` counts over all epochs; None if there is no second epoch, so it is unknown.
    """
    train = [
        line
        for line in lines
        if line.kind == "train" and line.step is None and line.iter is not None
    ]
    borders = [
        (a.iter or 0, b.iter or 0) for a, b in pairwise(train) if (b.epoch or 1) > (a.epoch or 1)
    ]
    if not borders:
        return (
            max((line.iter or 0 for line in train), default=0)
            if any((line.epoch or 1) > 1 for line in train)
            else None
        )
    return (
        0
        if all(after > before for before, after in borders)
        else max(line.iter or 0 for line in train)
    )


def _evaluation(line: Line, step: int, epoch: int | None, by_epoch: bool) -> LogRecord:
    """In ``step`` mmengine writes the epoch, the step, or 0 (mmseg), without saying which."""
    values = dict(line.values)
    if line.labelled:
        own = line.step if line.step is not None else step
        return LogRecord(kind="eval", epoch=line.epoch, step=own, values=values)
    if not line.step:
        return LogRecord(kind="eval", epoch=line.epoch or epoch, step=step, values=values)
    if not by_epoch:
        return LogRecord(kind="eval", epoch=None, step=line.step, values=values)
    if abs(line.step - (epoch or 0)) <= abs(line.step - step):
        return LogRecord(kind="eval", epoch=line.step, step=step, values=values)
    return LogRecord(kind="eval", epoch=epoch, step=line.step, values=values)
