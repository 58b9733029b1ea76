"""What a head is: the protocol that every task's modules follow."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mtl_ray.annotations.annotation import AnnotationKind, ClassMapper
from mtl_ray.samples import Annotation

if TYPE_CHECKING:
    from mtl_ray.tasks.task import AnyHead

Features = Mapping[str, Tensor]
"""What the trunk gives, by name: C2..C5 (B, C, H, W) from the backbone, P3.. from a pyramid, G5 (B, C) pooled."""

Term = tuple[Tensor, Tensor]
"""A loss term as (sum, count), both float32 scalars: each is summed over micro-batches and ranks, then sum / max(count, 1) is the loss."""


Candidates = dict[str, Tensor]
"""Of a dense head: ``boxes`` (B, N, 4) xyxy in canvas pixels, ``objectness`` (B, N), ``scores`` (B, N, C); float32, scores in [0, 1]."""

IMPOSSIBLE = -1e30
"""The logit of a class that does not enter a softmax: its probability is exactly 0 beside any other, and no NaN if all are so."""


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

        ``targets["known_classes"]`` bool (B, C) says which classes the dataset of each sample annotates: logits of the others
        get no gradient.
        Where nothing in the batch is annotated, a term is (0 * outputs, 0), so that no rank waits for a gradient.
        """
        ...

    def predict(self, features: Features, context: Context) -> dict[str, Tensor]:
        """The tensors that go into ``decode``, batch first; runs inside the exported graph."""
        ...


class HeadModule(nn.Module):
    """A ``Head`` as far as its config says it: a subclass adds its layers, ``losses`` and ``predict``."""

    def __init__(self, config: "AnyHead") -> None:
        super().__init__()
        self.annotation = config.annotation
        self.levels = config.levels
        self.train_only = config.train_only
        self.weight = config.weight


class NarrowTargets(nn.Module):
    """Gives a head that learns some of the classes its targets in its own class indices.

    Args:
        kind: what the head learns from.
        mapper: run's class index -> head's.
        of_head: (K,) the run's index of each class of the head.
    """

    to_head: Tensor
    of_head: Tensor

    def __init__(self, kind: AnnotationKind[Any, Any], mapper: ClassMapper, of_head: NDArray[np.int64]) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("to_head", torch.from_numpy(mapper.indices), persistent=False)
        self.register_buffer("of_head", torch.from_numpy(of_head), persistent=False)

    def forward(self, targets: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The targets of a batch; a sample of which the dataset knows no class of the head is not annotated."""
        known = targets["known_classes"][:, self.of_head]  # (B, K)
        annotated = targets["annotated"] & known.any(dim=1)
        return {**self.kind.narrow_batch(targets, self.to_head, self.of_head), "known_classes": known, "annotated": annotated}


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
