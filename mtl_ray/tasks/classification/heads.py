"""The classification heads: one linear layer on pooled features."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_ray.models.head import IMPOSSIBLE, Context, Features, HeadModule, Term
from mtl_ray.tasks.classification.config import LinearHead, MultilabelHead


class _OnPooled(HeadModule):
    """Concatenated pooled features, dropout and a linear layer."""

    def __init__(
        self, config: LinearHead | MultilabelHead, channels: Mapping[str, int], classes: int
    ) -> None:
        super().__init__(config)
        self.dropout = nn.Dropout(config.dropout)
        self.linear = nn.Linear(sum(channels[level] for level in config.levels), classes)

    def logits(self, features: Features) -> Tensor:
        """(B, classes) float32."""
        pooled = torch.cat([features[level] for level in self.levels], dim=1)
        logits: Tensor = self.linear(self.dropout(pooled))
        return logits.float()


class Linear(_OnPooled):
    """One class per image: softmax and cross entropy."""

    def __init__(self, config: LinearHead, channels: Mapping[str, int], classes: int) -> None:
        super().__init__(config, channels, classes)
        self.smoothing = config.smoothing

    def losses(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Term]:
        """``class``: cross entropy, summed over images with exactly one label.

        An image without a label, or with several, has no loss. Softmax and label smoothing are over
        the classes that the dataset of the image knows; the others are ignored.
        """
        annotated = (targets["annotated"] & (targets["present"].sum(dim=1) == 1)).float()
        known = targets["known_classes"]  # (B, C)
        # (B, C); unknown classes have the probability 0
        log_p = self.logits(features).masked_fill(~known, IMPOSSIBLE).log_softmax(dim=1)
        # (B,); an image without a label has index 0 here, and no weight below
        loss = F.nll_loss(log_p, targets["present"].argmax(dim=1), reduction="none")
        # Szegedy et al. 2016, section 7: a share of the target goes to all classes evenly
        if self.smoothing:
            share = (self.smoothing / known.sum(dim=1).clamp(min=1).double()).float()
            loss = (1 - self.smoothing) * loss - log_p.masked_fill(~known, 0).sum(dim=1) * share
        return {"class": ((loss * annotated).sum(), annotated.sum())}

    def predict(self, features: Features, context: Context) -> dict[str, Tensor]:
        """``scores`` float32 (B, classes) whose sum is 1."""
        return {"scores": self.logits(features).softmax(dim=1)}


class Multilabel(_OnPooled):
    """Any number of classes per image: a sigmoid and a binary cross entropy for each class."""

    def losses(
        self, features: Features, targets: Mapping[str, Tensor], context: Context
    ) -> dict[str, Term]:
        """``class``: binary cross entropy, summed over classes and annotated images.

        Classes that the dataset of an image does not know are ignored: the image may have them.
        """
        annotated = targets["annotated"].float()
        # (B, C)
        loss = F.binary_cross_entropy_with_logits(
            self.logits(features), targets["present"], reduction="none"
        )
        loss = loss.masked_fill(~targets["known_classes"], 0)
        return {"class": ((loss.sum(dim=1) * annotated).sum(), annotated.sum())}

    def predict(self, features: Features, context: Context) -> dict[str, Tensor]:
        """``scores`` float32 (B, classes), each in [0, 1]."""
        return {"scores": self.logits(features).sigmoid()}
