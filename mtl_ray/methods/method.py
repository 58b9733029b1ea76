"""What a method is: the protocol of what is optimised, and of the config class that builds it.

The trainer, the step, checkpoints and the moving average know a training by this protocol alone.
Importing this module imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import nn

    from mtl_ray.loading.batch import Batch
    from mtl_ray.models.head import Term
    from mtl_ray.models.model import Model
    from mtl_ray.samples import Vocabulary


@dataclass(frozen=True, kw_only=True, slots=True)
class Watched:
    """The figure by which the best checkpoint of a run is chosen.

    Attributes:
        name: for ``Method.watches`` a column of the training rows of ``scalars.jsonl``: ``loss``,
            or ``loss_TERM`` for the term TERM, or ``PART/loss_TERM`` for the term PART/TERM. Its
            mean over the steps since the last evaluation is recorded as ``training/NAME``.
        lower_is_better: whether less of it is better.
    """

    name: str
    lower_is_better: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodSetup:
    """What a method is built from.

    Attributes:
        model: the network of the config. Its weights are those that training starts from, except in
            a resumed run, where the weights of the checkpoint are loaded after ``build``.
        vocabulary: the classes of the training split.
        steps: of the whole run; a run with ``schedule.seconds`` may end earlier.
        batch: samples of one step over all ranks.
    """

    model: "Model"
    vocabulary: "Vocabulary"
    steps: int
    batch: int


class Method(Protocol):
    """What is optimised.

    Built on every rank, on the CPU; the trainer moves ``module`` to the rank's device.

    A method holds its modules; it must not be a ``torch.nn.Module`` itself, whose ``state_dict``
    means something else.
    """

    @property
    def module(self) -> "nn.Module":
        """Everything that has weights: what learns, and what follows it (momentum encoders, queues
        as buffers).

        Parameters with ``requires_grad`` learn. All parameters and buffers of its ``state_dict`` go
        into checkpoints and start equal on all ranks. The weights of ``model()``, if there is one,
        must be a part of it, or it may be the model itself. What never changes (a fixed teacher)
        may be kept outside; the method then moves it to the device itself.
        """
        ...

    def losses(self, batch: "Batch", step: int) -> "dict[str, Term]":
        """The terms to minimise as ``{"PART/TERM": (sum, count)}``, the same names in the same
        order at every step.

        Args:
            batch: this rank's share of a micro-batch, on the device.
            step: counted from 0.

        Called once per micro-batch; with ``schedule.accumulate`` above 1 a second time before that,
        without gradients, to learn the counts. So keep something for ``after_step`` only where
        ``torch.is_grad_enabled()``. Buffers that the first call changes are restored.
        """
        ...

    def after_step(self, step: int) -> None:
        """Called after the optimizer step ``step`` (from 0): moves momentum encoders, queues and
        centres.

        On several ranks ``module`` must be equal on all of them afterwards: gather with
        ``torch.distributed`` what the ranks saw.
        """
        ...

    def model(self) -> "Model | None":
        """What is evaluated, averaged (``schedule.ema``) and exported; always the same object, None
        if there is nothing.
        """
        ...

    @property
    def watches(self) -> Watched | None:
        """The figure that chooses the best checkpoint where no head can be measured; None if the
        method needs a head.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """The state that is not in ``module``, empty if there is none.

        Tensors, numbers, strings, and lists and dicts of them: ``torch.load(weights_only=True)``
        reads it back. Rank 0's is stored and given to every rank.
        """
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what ``state_dict`` gave; called in a resumed run only, after the weights are
        loaded.
        """
        ...


class MethodKind(Protocol):
    """What the config class of every method has."""

    needs_heads: ClassVar[bool]
    """Whether ``model.heads`` must name at least one head."""


class AnyMethod(MethodKind, Protocol):
    """A config of the section ``method``: a pydantic dataclass with a literal ``type`` and the
    method's options.
    """

    @property
    def type(self) -> str:
        """The name of the method."""
        ...

    def build(self, setup: MethodSetup) -> Method:
        """The method, ready for the first step. Imports torch inside.

        Raises:
            ValueError: if the model or the options do not fit the method.
        """
        ...
