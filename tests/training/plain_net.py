"""A network without batch normalisation whose loss terms have counts that differ from sample to
sample.
"""

import torch
from torch import Tensor, nn

from mtl_ray.loading.batch import Batch

SIZE = 8


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 6), nn.Tanh())
        self.a, self.b = nn.Linear(6, 2), nn.Linear(6, 1)

    def forward(self, batch: Batch, step: int) -> dict[str, tuple[Tensor, Tensor]]:
        features = self.body(batch.inputs["image"].float() / 255)
        targets = batch.targets["labels"]
        weight = targets["weight"]
        error = (self.a(features) - targets["present"]).square().sum(1)
        return {
            "a/square": ((error * weight).sum(), weight.sum()),
            "b/square": (
                (self.b(features).squeeze(1).square() * (weight > 1)).sum(),
                (weight > 1).sum(),
            ),
        }


class PlainMethod:
    """Minimises the loss of the network."""

    def __init__(self, net: Net) -> None:
        self.module, self.after = net, []

    def losses(self, batch: Batch, step: int) -> dict[str, tuple[Tensor, Tensor]]:
        return self.module(batch, step)

    def after_step(self, step: int) -> None:
        self.after.append(step)


def batch(number: int) -> Batch:
    """SIZE samples; the second term counts only some of them, all among the last."""
    generator = torch.Generator().manual_seed(number)
    weight = torch.tensor([0.0, 1, 1, 0, 1, 2, 3, 2])
    return Batch(
        inputs={
            "image": torch.randint(0, 256, (SIZE, 3, 4, 4), dtype=torch.uint8, generator=generator),
            "valid_hw": torch.full((SIZE, 2), 4, dtype=torch.int32),
        },
        targets={"labels": {"present": torch.rand(SIZE, 2, generator=generator), "weight": weight}},
        keys=tuple(map(str, range(SIZE))),
    )
