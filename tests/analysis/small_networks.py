"""Networks that are built by the name of their function."""

import torch
from torch import Tensor, nn


class _PerPoint(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 16)
        self.out = nn.Linear(16, 3)

    def forward(self, points: Tensor) -> Tensor:
        """(B, N, 4) -> (B, 3), of the largest value of any point."""
        return self.out(torch.relu(self.linear(points)).amax(dim=1))


class _Asks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Twice the work if the image is dark."""
        found = self.conv(image)
        return self.conv(image) + found if image.mean().item() < 0.5 else found


def layers() -> nn.Module:
    """One layer of each kind that counts differently."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False),
        nn.GroupNorm(2, 8, affine=False),
        nn.MaxPool2d(2),
        nn.Upsample(scale_factor=2),
        nn.ConvTranspose2d(8, 4, 2, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    )


def points() -> nn.Module:
    return _PerPoint()


def asks() -> nn.Module:
    return _Asks()


def no_module() -> int:
    return 1
