"""Which algorithms torch may choose while a run lasts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def numerics(deterministic: bool) -> Iterator[None]:
    """Deterministic algorithms only, or the fastest that cuDNN finds; afterwards everything is as it was."""
    flags = (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = deterministic, not deterministic
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(flags[0])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = flags[1:]
