"""The modules that learn."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mtl_ray.loading.batch import Batch
from mtl_ray.methods.method import Watched
from mtl_ray.models.head import Context, Features, HeadModule, Term
from mtl_ray.models.model import Model
from mtl_ray.models.trunk import Backbone
from pulse_counting.configs import CountHead, NoiseMethod


class Conv(Backbone):
    """One convolution; gives ``S2`` (B, width, L / 2)."""

    input = "signal"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Conv1d(1, width, 5, stride=2, padding=2)
        self.channels, self.strides = {"S2": width}, {"S2": 2}

    def forward(self, values: Tensor) -> dict[str, Tensor]:
        return {"S2": self.net(values).relu()}


class CountModule(HeadModule):
    """A linear function of the sum over the part of the features that holds signal."""

    def __init__(self, config: CountHead, width: int) -> None:
        super().__init__(config)
        self.output = nn.Linear(width, 1)

    def predict(self, features: Features, context: Context) -> dict[str, Tensor]:
        cells = features[self.levels[0]]  # (B, C, L / 2)
        valid = (torch.arange(cells.shape[2], device=cells.device) * 2 < context.inputs["valid"])[
            :, None
        ]  # (B, 1, L / 2)
        return {"count": self.output((cells * valid).sum(dim=2))}

    def losses(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Term]:
        error = (self.predict(features, context)["count"][:, 0] - targets["count"]).abs() * targets[
            "annotated"
        ]
        return {"error": (error.sum(), targets["annotated"].float().sum())}


class Noise:
    """See ``NoiseMethod``. The level of the noise is the method's own state."""

    watches: Watched | None = None

    def __init__(self, config: NoiseMethod, model: Model) -> None:
        self.config, self.module, self.level = config, model, config.level

    def losses(self, batch: Batch, step: int) -> dict[str, Term]:
        noise = torch.randn_like(batch.inputs["signal"]) * self.level  # the trainer seeds each step
        noisy = replace(batch, inputs={**batch.inputs, "signal": batch.inputs["signal"] + noise})
        again = {f"{name}_noisy": term for name, term in self.module.losses(noisy, step).items()}
        return {**self.module.losses(batch, step), **again}

    def after_step(self, step: int) -> None:
        self.level *= self.config.fade

    def model(self) -> Model:
        return self.module

    def state_dict(self) -> dict[str, Any]:
        return {"level": self.level}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.level = state["level"]
