"""The layer that necks and heads are made of."""

from torch import nn


def conv_norm_act(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, norm: bool = True, act: bool = True) -> nn.Sequential:
    """A convolution that keeps the size (divided by ``stride``), batch normalisation and ReLU, the last two if wanted.

    Batch normalisation is ``nn.BatchNorm2d``, which ``nn.SyncBatchNorm.convert_sync_batchnorm`` knows.
    """
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=not norm)]
    if norm:
        layers.append(nn.BatchNorm2d(outputs))
    if act:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
