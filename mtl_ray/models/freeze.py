"""Parts of a network that are not trained, and normalisation that keeps its statistics."""

from collections.abc import Iterable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def evaluate(root: nn.Module, frozen: Iterable[nn.Module], *, norms: bool) -> None:
    """Puts parts of a module that is in training mode back into evaluation mode.

    Args:
        root: the module.
        frozen: its parts that are not trained.
        norms: also all batch normalisation, whose scale and shift may still learn.
    """
    for part in frozen:
        part.eval()
    if norms:
        for module in root.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
