"""A Batch: what the loader gives and the training step takes."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """B samples on the network's canvas.

    Attributes:
        inputs: the arrays of the input (``Input.arrays``). Of images ``image`` uint8
            (B, 3, H, W) RGB; ``valid_hw`` int32 (B, 2), the part of each canvas that holds image.
            Of clouds see ``PointsInput``.
        targets: by kind of annotation, each a dict of tensors that always has ``annotated`` bool
            (B,); a sample that is not annotated, or could not be read and keeps its slot, gives no
            loss. In canvas pixels:

            ``instances``: ``boxes`` float32 (B, M, 4) xyxy, ``classes`` int64 (B, M), ``crowd``
            bool (B, M) (a region to ignore), ``present`` bool (B, M) (False is padding). M is the
            most of any sample, at least 1.
            ``semantic``: ``classes`` uint8 (B, H, W), IGNORE_INDEX where there is nothing to learn.
            ``labels``: ``present`` float32 (B, C), 1 for each class the image has.
            ``boxes_3d``: see ``Boxes3dKind``.
        keys: the key of each sample.
    """

    inputs: Mapping[str, Tensor]
    targets: Mapping[str, Mapping[str, Tensor]]
    keys: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on ``device``."""
        return Batch(
            inputs={
                name: value.to(device, non_blocking=True) for name, value in self.inputs.items()
            },
            targets={
                kind: {name: value.to(device, non_blocking=True) for name, value in target.items()}
                for kind, target in self.targets.items()
            },
            keys=self.keys,
        )

    def __getitem__(self, part: slice) -> "Batch":
        """A run of samples as a batch of its own."""
        return Batch(
            inputs={name: value[part] for name, value in self.inputs.items()},
            targets={
                kind: {name: value[part] for name, value in target.items()}
                for kind, target in self.targets.items()
            },
            keys=self.keys[part],
        )
