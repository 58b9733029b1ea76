"""What a head is: the protocol that every task's modules follow."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from mtl_ray.samples import Annotation

Features = Mapping[str, Tensor]
"""What the trunk gives, by name: C2..C5 (B, C, H, W) from the backbone, P3.. from a pyramid, G5 (B, C) pooled."""

Term = tuple[Tensor, Tensor]
"""A loss term as (sum, count), both float32 scalars: each is summed over micro-batches and ranks, then sum / max(count, 1) is the loss."""


Candidates = dict[str, Tensor]
"""Of a dense head: ``boxes`` (B, N, 4) xyxy in canvas pixels, ``objectness`` (B, N), ``scores`` (B, N, C); float32, scores in [0, 1]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What a head may want to know besides features.

    Attributes:
        inputs: the arrays of the input by name, batch first, as the model got them.
        step: the optimiser step; 0 outside training.
        exporting: True while the graph is being traced for ONNX, where only operators that ONNX has may be used.
    """

    inputs: Mapping[str, Tensor]
    step: int = 0
    exporting: bool = False

    @property
    def canvas_hw(self) -> tuple[int, int]:
        """Of images: height and width of the network's input, pixels."""
        image = self.inputs["image"]
        return image.shape[2], image.shape[3]

    @property
    def valid_hw(self) -> Tensor:
        """Of images: int32 (B, 2), the part of each canvas that holds image."""
        return self.inputs["valid_hw"]


@runtime_checkable
class Head(Protocol):
    """A module upon the trunk's features.

    ``annotation`` names the entry of ``Batch.targets`` that ``losses`` gets; ``levels`` the features it reads; ``weight``
    is the factor of its losses, which the model applies. A head with ``train_only`` is trained, never evaluated or exported.
    """

    annotation: Annotation
    levels: tuple[str, ...]
    train_only: bool
    weight: float

    def losses(self, features: Features, targets: Mapping[str, Tensor], context: Context) -> dict[str, Term]:
        """Named terms, such as ``{"box": (sum, count)}``; samples whose ``annotated`` is False add to neither.

        Where nothing in the batch is annotated, a term is (0 * outputs, 0), so that no rank waits for a gradient.
        """
        ...

    def predict(self, features: Features, context: Context) -> dict[str, Tensor]:
        """The tensors that go into ``decode``, batch first; runs inside the exported graph."""
        ...


@runtime_checkable
class DenseHead(Head, Protocol):
    """A head that proposes many boxes and then suppresses most: ``predict`` is ``select`` of ``candidates``."""

    def candidates(self, features: Features, context: Context) -> Candidates:
        """All that it proposes, before suppression."""
        ...

    def select(self, candidates: Candidates, exporting: bool) -> dict[str, Tensor]:
        """What ``predict`` gives of these; ``exporting`` as in ``Context``."""
        ...


def unsuppressed(head: Head, features: Features, context: Context) -> dict[str, Tensor]:
    """What a head gives before suppression, where it has one: its candidates; else what it predicts."""
    proposing = dense(head)
    return head.predict(features, context) if proposing is None else proposing.candidates(features, context)


def dense(head: object) -> DenseHead | None:
    """A head with its candidates, or None for one that has none."""
    return head if isinstance(head, DenseHead) else None
