"""The rank fork server, ``python -m mtl_ray.training.rank_process``: has imported what a rank
needs, and forks a rank per line of stdin.

Importing torch and the models takes seconds; a forked rank starts at once. The process computes
nothing: no thread of torch or of a loader runs in it and no GPU was touched, so it may be forked.

A line is a word and a path: ``rank`` forks a rank that connects to the socket there (see
``rank.py``), ``ready`` makes a file there.
"""

import importlib
import os
import signal
import sys
from pathlib import Path

IMPORTS = (
    "mtl_ray.training.trainer",
    "timm",
    "mtl_ray.tasks.classification.heads",
    "mtl_ray.tasks.detection.dense.retinanet",
    "mtl_ray.tasks.detection.dense.yolov3",
    "mtl_ray.tasks.segmentation.fcn",
    "s3fs",
)


def main() -> None:
    """Forks until its stdin is closed."""
    for name in IMPORTS:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a rank: its socket closes
    for line in sys.stdin:
        word, path = line.strip().split(" ", 1)
        if word == "ready":
            Path(path).touch()
        elif os.fork() == 0:
            _rank(path)


def _rank(path: str) -> None:
    """The child: nothing but the rank's own exit ends it."""
    from mtl_ray.training import rank

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    status = 1
    try:
        rank.main(path)
        status = 0
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
