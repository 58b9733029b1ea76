"""A model: one trunk and one or more heads."""

from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from mtl_ray.inputs.input import AnyCanvas
from mtl_ray.loading.batch import Batch
from mtl_ray.models.head import Context, Features, Head, NarrowTargets, Term
from mtl_ray.models.trunk import Trunk, check_names

_ONEDNN_BLOCK = 16
"""Input channels below which oneDNN's weight gradient of a strided 1x1 convolution writes past
its buffer (channels last, AVX-512; https://github.com/uxlfoundation/oneDNN/issues/6035, oneDNN
3.14 in torch 2.15).
"""


class Model(nn.Module):
    """One trunk and one or more heads.

    Args:
        trunk: computes the features.
        heads: by name.
        mean, std: of each channel (for images RGB, 0 to 255), for the normalisation of uint8
            inputs.
        narrow: by head, for heads that do not learn all classes of the run in their order.
        canvas: see ``Context``.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        trunk: Trunk,
        heads: Mapping[str, Head],
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        narrow: Mapping[str, NarrowTargets] | None = None,
        canvas: AnyCanvas | None = None,
    ) -> None:
        super().__init__()
        self.canvas = canvas
        self.trunk = trunk
        check_names("head", heads)
        self.heads = nn.ModuleDict(cast(Mapping[str, nn.Module], heads))
        self.narrow = nn.ModuleDict(narrow or {})
        self.register_buffer(
            "mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1), persistent=False
        )
        self.register_buffer(
            "std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1), persistent=False
        )
        self._layout = _layout(self)

    def normalise(self, values: Tensor) -> Tensor:
        """The trunk's input, normalised if it is uint8.

        Args:
            values: (B, C, ...). uint8 becomes normalised float32 in the memory layout in which
                convolutions are fastest; other dtypes stay unchanged.

        Raises:
            ValueError: if ``mean`` and ``std`` have another number of channels.
        """
        if values.dtype != torch.uint8:
            return values
        if values.shape[1] != self.mean.numel():
            raise ValueError(
                f"model.mean and model.std have {self.mean.numel()} channels, the input has "
                f"{values.shape[1]}"
            )
        if values.dim() != 4:  # (B, C, L) or (B, C, D, H, W): only one layout
            shape = (1, -1) + (1,) * (values.dim() - 2)
            return (values.float() - self.mean.view(shape)) / self.std.view(shape)
        return ((values.float() - self.mean) / self.std).contiguous(memory_format=self._layout)

    def prepare(
        self,
        inputs: Mapping[str, Tensor],
        step: int = 0,
        exporting: bool = False,
        logits: bool = False,
    ) -> tuple[Features, Context]:
        """The features of a batch and its context, which every head gets.

        Args:
            inputs: the arrays of the input by name, batch first.
            step: see ``Context``.
            exporting: see ``Context``.
            logits: see ``Context``.
        """
        context = Context(
            inputs=inputs, step=step, exporting=exporting, canvas=self.canvas, logits=logits
        )
        return self.trunk(self.normalise(inputs[self.trunk.input]), context), context

    def losses(self, batch: Batch, step: int = 0) -> dict[str, Term]:
        """The terms of all heads as ``{"HEAD/TERM": (sum, count)}``, each sum multiplied by its
        head's weight.
        """
        features, context = self.prepare(batch.inputs, step)
        terms: dict[str, Term] = {}
        for name, module in self.heads.items():
            head = cast(Head, module)
            targets = batch.targets[head.annotation]
            targets = self.narrow[name](targets) if name in self.narrow else targets
            for term, (total, count) in head.losses(features, targets, context).items():
                terms[f"{name}/{term}"] = (total * head.weight, count)
        return terms

    def forward(self, batch: Batch, step: int = 0) -> dict[str, Term]:
        """``losses``: the training forward of a ``torch.nn.Module``."""
        return self.losses(batch, step)

    def predict(
        self, inputs: Mapping[str, Tensor], exporting: bool = False, logits: bool = False
    ) -> dict[str, dict[str, Tensor]]:
        """The predictions of each predicting head.

        Args:
            inputs: the arrays of the input by name, batch first: of images ``image`` uint8 (B, 3,
                H, W) RGB and ``valid_hw`` int32 (B, 2), height and width of the image on each
                canvas.
            exporting: True while the graph is traced for ONNX.
            logits: see ``Context``.

        Returns:
            By head, the arrays for ``decode``, batch first.
        """
        features, context = self.prepare(inputs, exporting=exporting, logits=logits)
        return {name: head.predict(features, context) for name, head in self.predicting()}

    def predicting(self) -> Iterator[tuple[str, Head]]:
        """The heads that are evaluated and exported, by name: all but the auxiliary ones."""
        for name, module in self.heads.items():
            head = cast(Head, module)
            if not head.train_only:
                yield name, head


def _layout(model: nn.Module) -> torch.memory_format:
    """Channels last, in which convolutions are fastest, except for narrow models in which oneDNN
    would write past its buffer.
    """
    convolutions = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    unsafe = any(
        c.kernel_size == (1, 1) and max(c.stride) > 1 and c.in_channels // c.groups < _ONEDNN_BLOCK
        for c in convolutions
    )
    return torch.contiguous_format if unsafe else torch.channels_last
