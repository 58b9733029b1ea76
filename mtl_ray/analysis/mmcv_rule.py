"""The counting rule of mmcv 1.x, with which the published complexity of OpenMMLab's models was
computed.

It counts layers, not operators. One multiply-add counts as one. Everything that is not a layer in
the list below (functions such as ``F.relu`` or ``F.interpolate``, attention, softmax, suppression)
does not count. ``nn.MultiheadAttention`` does not count either, so the result is too small for
models with attention. The rule ``dispatch`` has no such gaps.
"""

import math
from collections.abc import Callable

from torch import Tensor, nn

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose2d,)
_NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.GroupNorm,
    nn.LayerNorm,
)
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.PReLU, nn.ELU, nn.LeakyReLU)
_POOLS = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
)
LayerCounter = Callable[[nn.Module, Tensor, Tensor], int]
"""Takes a layer, its input and its output."""


def rule_of(layer: nn.Module) -> LayerCounter | None:
    """The rule for a layer; None if the layer does not count."""
    for kinds, rule in _RULES:
        if isinstance(layer, kinds):
            return rule
    return None


def _conv(layer: nn.Module, source: Tensor, out: Tensor) -> int:
    assert isinstance(layer, _CONVS)
    each = math.prod(layer.kernel_size) * layer.in_channels * (layer.out_channels // layer.groups)
    places = out.shape[0] * math.prod(out.shape[2:])
    return (each + (layer.out_channels if layer.bias is not None else 0)) * places


def _transposed(layer: nn.Module, source: Tensor, out: Tensor) -> int:
    """Counts over the positions of the input.

    For the bias, mmcv uses the height of the output twice; so does this rule.
    """
    assert isinstance(layer, nn.ConvTranspose2d)
    each = math.prod(layer.kernel_size) * layer.in_channels * (layer.out_channels // layer.groups)
    bias = layer.out_channels * out.shape[0] * out.shape[2] ** 2 if layer.bias is not None else 0
    return each * source.shape[0] * math.prod(source.shape[2:]) + bias


def _linear(layer: nn.Module, source: Tensor, out: Tensor) -> int:
    return source.numel() * out.shape[-1]


def _norm(layer: nn.Module, source: Tensor, out: Tensor) -> int:
    affine = getattr(layer, "affine", False) or getattr(layer, "elementwise_affine", False)
    return source.numel() * (2 if affine else 1)


def _per_input(layer: nn.Module, source: Tensor, out: Tensor) -> int:
    return source.numel()


def _per_output(layer: nn.Module, source: Tensor, out: Tensor) -> int:
    return out.numel()


_RULES: tuple[tuple[tuple[type[nn.Module], ...], LayerCounter], ...] = (
    (_CONVS, _conv),
    (_TRANSPOSED, _transposed),
    ((nn.Linear,), _linear),
    (_NORMS, _norm),
    (_POOLS, _per_input),
    ((*_ACTIVATIONS, nn.Upsample), _per_output),
)
