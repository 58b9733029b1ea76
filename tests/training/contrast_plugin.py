"""A plugin with a method of its own: momentum contrast (He et al. 2020) in a few lines, without any
head.

The student's features of an image are compared with those of a momentum encoder, against a queue of
earlier ones.
"""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.distributed as dist
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from mtl_ray.config.strict import STRICT
from mtl_ray.loading.batch import Batch
from mtl_ray.methods.method import MethodSetup, Watched
from mtl_ray.models.head import Term
from mtl_ray.models.model import Model
from mtl_ray.plugin import Plugin

FEATURE = "G5"
TEMPERATURE = 0.2


class Encoders(nn.Module):
    """The student, its projector, the momentum copies of both, and the queue of keys."""

    queue: Tensor

    def __init__(self, model: Model, dim: int, length: int) -> None:
        super().__init__()
        self.student = model
        self.projector = nn.Linear(model.trunk.channels[FEATURE], dim)
        self.momentum = copy.deepcopy(nn.ModuleList([model.trunk, self.projector])).requires_grad_(
            False
        )
        self.register_buffer("queue", normalize(torch.randn(length, dim), dim=1))

    def student_parts(self) -> nn.ModuleList:
        return nn.ModuleList([self.student.trunk, self.projector])


class Contrast:
    """The method. ``seen`` counts the keys that entered the queue: state that is in no module."""

    def __init__(self, model: Model, config: "ContrastConfig", exported: bool) -> None:
        self.module = Encoders(model, config.dim, config.queue)
        self.watches = Watched(name="contrast/loss_nce", lower_is_better=True)
        self._decay, self._exported = config.decay, exported
        self._keys: list[Tensor] = []
        self.seen = 0

    def losses(self, batch: Batch, step: int) -> dict[str, Term]:
        image = self.module.student.normalise(batch.inputs["image"])
        query = normalize(
            self.module.projector(self.module.student.trunk(image)[FEATURE]), dim=1
        )  # (B, D)
        with torch.no_grad():
            trunk, projector = self.module.momentum
            key = normalize(projector(trunk(image.flip(3))[FEATURE]), dim=1)  # (B, D)
        if torch.is_grad_enabled():
            self._keys.append(key)
        logits = (
            torch.cat([(query * key).sum(1, keepdim=True), query @ self.module.queue.clone().T], 1)
            / TEMPERATURE
        )  # (B, 1 + K)
        loss = cross_entropy(
            logits, logits.new_zeros(len(logits), dtype=torch.int64), reduction="sum"
        )
        return {"contrast/nce": (loss, loss.new_tensor(float(len(logits))))}

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        for slow, fast in zip(
            self.module.momentum.parameters(), self.module.student_parts().parameters(), strict=True
        ):
            slow.lerp_(fast, 1 - self._decay)
        keys = torch.cat(self._keys)
        if dist.is_initialized():
            shares: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(shares, keys)
            keys = torch.cat(shares)
            for buffer in self.module.momentum.buffers():  # running statistics
                if buffer.is_floating_point():
                    dist.all_reduce(buffer)
                    buffer.div_(dist.get_world_size())
        self._keys.clear()
        self.seen += len(keys)
        self.module.queue.copy_(torch.cat([keys, self.module.queue])[: len(self.module.queue)])

    def model(self) -> Model | None:
        return self.module.student if self._exported else None

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.seen = state["seen"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ContrastConfig:
    type: Literal["contrast"] = "contrast"
    dim: int = Field(default=8, ge=1)
    queue: int = Field(default=40, ge=1)
    decay: float = Field(default=0.9, ge=0, le=1)
    exported: bool = True
    """Whether the student is what ``model()`` gives; else there is none."""
    needs_heads: ClassVar[bool] = False

    def build(self, setup: MethodSetup) -> Contrast:
        return Contrast(setup.model, self, self.exported)


PLUGIN = Plugin(methods=(ContrastConfig,))
