"""Progress and logs. Progress is a bar that is redrawn in a terminal, and a line from time to time
in a log file or a pipe. Logs leave out the remarks of other libraries.
"""

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from tqdm import tqdm

LOG_EVERY_S = 15.0
"""Where nobody watches, a line this often; what is done sooner writes none."""
_LOG_COLUMNS = 120


def progress_bar(
    items: Iterable[Any] | None = None,
    *,
    leave: bool = False,
    log_from_s: float = LOG_EVERY_S,
    **options: Any,
) -> Any:
    """A bar of tqdm on stderr.

    Args:
        items: to go through, if the bar is not moved by hand.
        leave: whether the last state stays.
        log_from_s: where nobody watches, the first line comes after so many seconds.
        options: further ones of tqdm: total, initial, desc, unit.
    """
    if sys.stderr.isatty():
        return tqdm(items, leave=leave, dynamic_ncols=True, **({"mininterval": 0.5} | options))
    every = {"mininterval": LOG_EVERY_S, "maxinterval": 4 * LOG_EVERY_S, "delay": log_from_s}
    return tqdm(
        items, file=_Lines(sys.stderr), leave=leave, ncols=_LOG_COLUMNS, **(options | every)
    )


@contextmanager
def errors_only(logger: logging.Logger) -> Iterator[None]:
    """Hides what a logger writes below the level of errors, and takes back how a library that is
    called meanwhile sets the logger up.
    """
    level, filters, handlers = logger.level, list(logger.filters), list(logger.handlers)
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.filters, logger.handlers = filters, handlers


class _Lines:
    """A file to which tqdm writes a bar, and which makes whole lines of it: no carriage returns,
    no blanks over an older state.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Of a file."""
        line = text.strip()
        if line:
            self._stream.write(line + "\n")

    def flush(self) -> None:
        """Of a file."""
        self._stream.flush()
