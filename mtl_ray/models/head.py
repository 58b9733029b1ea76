"""The protocol of a head, which the modules of all tasks follow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mtl_ray.annotations.annotation import AnnotationKind, ClassMapper
from mtl_ray.geometry.voxels import VoxelGrid
from mtl_ray.inputs.input import AnyCanvas
from mtl_ray.inputs.points import PointCanvas
from mtl_ray.samples import Annotation

if TYPE_CHECKING:
    from mtl_ray.tasks.task import AnyHead

Features = Mapping[str, Tensor]
"""The features of the trunk by name: C2..C5 (B, C, H, W) of the backbone, P3.. of a pyramid, G5 (B,
C) pooled.
"""

Term = tuple[Tensor, Tensor]
"""A loss term as (sum, count), both float32 scalars: both are summed over micro-batches and ranks;
the loss is sum / max(count, 1).
"""


Candidates = dict[str, Tensor]
"""The candidates of a dense head: ``boxes`` (B, N, 4) xyxy in canvas pixels, ``objectness`` (B, N),
``scores`` (B, N, C); float32, scores in [0, 1].
"""

IMPOSSIBLE = -1e30
"""The logit of a class that is excluded from a softmax. Its probability is exactly 0, and there is
no NaN if all are excluded.
"""


class NotExportableError(ValueError):
    """A part that no graph can hold, whatever its sizes: a sentence that names it and the fix."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """The inputs of a head besides features.

    Attributes:
        inputs: the arrays of the input by name, batch first, as passed to the model.
        step: the optimiser step; 0 outside training.
        exporting: True while the graph is being traced for ONNX, with the operators of ONNX only.
        canvas: the config of the network's frame; None if the model was built without it.
        logits: heads of class maps predict ``logits`` instead of the best class of each pixel.
    """

    inputs: Mapping[str, Tensor]
    step: int = 0
    exporting: bool = False
    canvas: AnyCanvas | None = None
    logits: bool = False

    @property
    def grid(self) -> VoxelGrid:
        """Of point clouds: the voxels.

        Raises:
            ValueError: if the input is another one.
        """
        if not isinstance(self.canvas, PointCanvas):
            raise ValueError(
                "this network reads the voxels of a point cloud. Fix: data.canvas of type points"
            )
        return self.canvas.grid

    @property
    def canvas_hw(self) -> tuple[int, int]:
        """Of images: height and width of the canvas in pixels."""
        image = self.inputs["image"]
        return image.shape[2], image.shape[3]

    @property
    def valid_hw(self) -> Tensor:
        """Of images: int32 (B, 2), height and width of the image on each canvas, without
        padding.
        """
        return self.inputs["valid_hw"]


@runtime_checkable
class Head(Protocol):
    """A module on the trunk's features.

    ``annotation`` names the entry of ``Batch.targets`` for ``losses``; ``levels`` the features that
    it reads; ``weight`` is the factor of its losses, which the model applies. A head with
    ``train_only`` is only trained, not evaluated or exported.
    """

    annotation: Annotation
    levels: tuple[str, ...]
    train_only: bool
    weight: float

    def losses(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Term]:
        """Named terms, such as ``{"box": (sum, count)}``; samples whose ``annotated`` is False do
        not count.

        ``targets["known_classes"]`` bool (B, C) holds the classes that the dataset of each sample
        annotates: logits of the others get no gradient. If nothing in the batch is annotated, a
        term is (0 * outputs, 0), so that no rank waits for a gradient.
        """
        ...

    def predict(self, features: Features, context: Context) -> dict[str, Tensor]:
        """The arrays for ``decode``, batch first; it is part of the exported graph."""
        ...


class HeadModule(nn.Module):
    """The attributes of a ``Head`` from its config; a subclass adds its layers, ``losses`` and
    ``predict``.
    """

    def __init__(self, config: "AnyHead") -> None:
        super().__init__()
        self.annotation = config.annotation
        self.levels = config.levels
        self.train_only = config.train_only
        self.weight = config.weight


class NarrowTargets(nn.Module):
    """Converts targets to the class indices of a head that learns some of the classes.

    Args:
        kind: of annotation.
        mapper: run's class index -> head's.
        of_head: (K,) the run's index of each class of the head.
    """

    to_head: Tensor
    of_head: Tensor

    def __init__(
        self, kind: AnnotationKind[Any, Any], mapper: ClassMapper, of_head: NDArray[np.int64]
    ) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("to_head", torch.from_numpy(mapper.indices), persistent=False)
        self.register_buffer("of_head", torch.from_numpy(of_head), persistent=False)

    def forward(self, targets: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The targets of a batch; a sample whose dataset knows no class of the head is not
        annotated.
        """
        known = targets["known_classes"][:, self.of_head]  # (B, K)
        annotated = targets["annotated"] & known.any(dim=1)
        return {
            **self.kind.narrow_batch(targets, self.to_head, self.of_head),
            "known_classes": known,
            "annotated": annotated,
        }


@runtime_checkable
class DenseHead(Head, Protocol):
    """A head with many candidates, most of which are suppressed: ``predict`` is ``select`` of
    ``candidates``.
    """

    def candidates(self, features: Features, context: Context) -> Candidates:
        """All candidates before suppression."""
        ...

    def select(self, candidates: Candidates, exporting: bool) -> dict[str, Tensor]:
        """The result of ``predict`` for these candidates; ``exporting`` as in ``Context``."""
        ...


@runtime_checkable
class InspectedHead(Head, Protocol):
    """A head whose steps can be compared with another program's (``jobs.analyze forward``)."""

    def raw_outputs(self, features: Features, context: Context) -> dict[str, Tensor]:
        """The outputs before decoding, under the names that OpenMMLab's heads return them by,
        numbered by level or decoder layer: ``cls0`` (B, A * C, H, W), ``reg0``, ``ctr0``, ...
        """
        ...

    def target_arrays(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Tensor]:
        """What ``losses`` compares with: ``target_labels`` int64 (B, N), C where a candidate is
        background and -1 where it is ignored; ``target_boxes`` float32 (B, N, 4) xyxy in canvas
        pixels; more where the head has more.
        """
        ...


class GroupedOutput(nn.Conv2d):
    """A last convolution whose channels are groups, one of each anchor: what is of no class (a box,
    objectness), then the classes.
    """


def numbered(**maps: Sequence[Tensor]) -> dict[str, Tensor]:
    """Levels under numbered names, as ``raw_outputs`` gives them: ``cls=[a, b]`` -> ``cls0``,
    ``cls1``.
    """
    return {f"{name}{i}": level for name, levels in maps.items() for i, level in enumerate(levels)}


def unsuppressed(head: Head, features: Features, context: Context) -> dict[str, Tensor]:
    """The candidates of a dense head before suppression, or the result of ``predict`` of another
    head.
    """
    dense_head = dense(head)
    return (
        head.predict(features, context)
        if dense_head is None
        else dense_head.candidates(features, context)
    )


def dense(head: object) -> DenseHead | None:
    """The head itself if it is a dense head, else None."""
    return head if isinstance(head, DenseHead) else None


def inspected(head: object) -> InspectedHead | None:
    """The head itself if its steps can be looked at, else None."""
    return head if isinstance(head, InspectedHead) else None
