"""How a run on Ray tells the driver how far it is: ``ray.train.report`` would make the ranks wait for each other and for Ray."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from mtl_ray.training.context import Progress
from mtl_ray.training.progress_bar import ProgressBar

POLL_S = 0.5


class Board:
    """Where rank 0 writes how far it is, and any rank what the user has to mend."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._mistake: Exception | None = None

    def tell(self, progress: Progress) -> None:
        """By rank 0, often; the newest counts."""
        self._progress = progress

    def fail(self, mistake: Exception) -> None:
        """By any rank; the first counts."""
        self._mistake = self._mistake or mistake

    def progress(self) -> Progress | None:
        """The newest, None before the first."""
        return self._progress

    def mistake(self) -> Exception | None:
        """What the user has to mend, if anything."""
        return self._mistake


@contextmanager
def watched(board: Any, name: str) -> Iterator[None]:
    """Shows the progress on a board while the code inside runs."""
    bar, done = ProgressBar(name), threading.Event()

    def watch() -> None:
        while not done.wait(POLL_S):
            _show(board, bar)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        _show(board, bar)
        bar.close()


def _show(board: Any, bar: ProgressBar) -> None:
    progress = ray.get(board.progress.remote())
    if progress is not None:
        bar.show(progress)
