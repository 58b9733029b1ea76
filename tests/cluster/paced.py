"""``python -m tests.cluster.paced SECONDS CONFIG [section.key=value ...]``: ``jobs.train`` with a rest before each step.

A small machine so plays a run of many minutes, whose steps last what steps of larger networks do. Nothing else differs.
"""

import functools
import sys
import time
from collections.abc import Callable
from typing import Any

from jobs.run import run
from jobs.train import main


def rested(seconds: float, work: Callable[..., Any], config: Any, board: Any) -> Any:
    """What one rank does."""
    from mtl_ray.training.step import Step

    plain = Step.__call__

    def step(self: Step, *given: Any) -> Any:
        time.sleep(seconds)
        return plain(self, *given)

    Step.__call__ = step  # type: ignore[method-assign]
    try:
        return work(config, board)
    finally:
        Step.__call__ = plain  # type: ignore[method-assign]


def _main() -> int:
    from mtl_ray.distributed import train

    train._work = functools.partial(rested, float(sys.argv[1]), train._work)
    return main(sys.argv[2:])


if __name__ == "__main__":
    run(_main)
