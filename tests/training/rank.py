"""One rank of a training, run by ``runpy`` in a process of its own with CONFIG, RANK,
WORLD_SIZE, STORE, KILL_AT and VICTIM given.
"""

import itertools
import os
import signal

import psutil
import torch
import torch.distributed as dist

from mtl_ray.training.context import RunContext
from mtl_ray.training.trainer import run

asked = itertools.count(1)


def die_in_time() -> bool:
    """Asked after every step."""
    if next(asked) == KILL_AT:  # noqa: F821
        if VICTIM is None:  # noqa: F821
            os.kill(os.getpid(), signal.SIGKILL)
        for child in psutil.Process().children(recursive=True):
            if child.name().startswith(VICTIM):  # noqa: F821
                child.kill()
                child.wait()
    return False


torch.set_num_threads(1)
if WORLD_SIZE > 1:  # noqa: F821
    store = dist.FileStore(STORE, WORLD_SIZE)  # noqa: F821
    dist.init_process_group("gloo", store=store, rank=RANK, world_size=WORLD_SIZE)  # noqa: F821
run(CONFIG, RunContext(rank=RANK, world_size=WORLD_SIZE, should_stop=die_in_time))  # noqa: F821
