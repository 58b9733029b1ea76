"""A torch model as a predictor."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mtl_ray.experiment import predicting_heads, task_part
from mtl_ray.geometry.placement import Placement, PlacementRule, place
from mtl_ray.inference.predictor import Predictions
from mtl_ray.models.model import Model
from mtl_ray.samples import Vocabulary


class TorchPredictor:
    """Puts images on the canvas, runs the model in float32 without gradients, and decodes.

    Attributes:
        heads: the heads that predict; auxiliary ones are left out.
        vocabulary, canvas: see ``Predictor``.
    """

    def __init__(
        self,
        model: Model,
        heads: Mapping[str, Any],
        vocabulary: Vocabulary,
        canvas: PlacementRule,
        device: str | torch.device = "cpu",
        batch: int = 16,
    ) -> None:
        self.model = model.to(device)
        self.heads = predicting_heads(heads)
        self.vocabulary = vocabulary
        self.canvas = canvas
        self.device = torch.device(device)
        self.batch = batch

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Predictions]:
        """See ``Predictor``; the model's training mode is as before afterwards."""
        training = self.model.training
        self.model.eval()
        try:
            return [found for start in range(0, len(images), self.batch) for found in self._predict(images[start : start + self.batch])]
        finally:
            self.model.train(training)

    def _predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Predictions]:
        placed = [place(image, self.canvas) for image in images]
        outputs = self.run([canvas for canvas, _ in placed], [placement for _, placement in placed])
        return [
            {
                name: task_part(head, "decode").decode({key: values[i] for key, values in outputs[name].items()}, placement, head)
                for name, head in self.heads.items()
            }
            for i, (_, placement) in enumerate(placed)
        ]

    @torch.no_grad()
    def run(self, canvases: Sequence[NDArray[np.uint8]], placements: Sequence[Placement]) -> dict[str, dict[str, NDArray[Any]]]:
        """The arrays of each head for canvases (H, W, 3) uint8, batch first."""
        image = torch.from_numpy(np.stack(canvases)).permute(0, 3, 1, 2).contiguous().to(self.device)
        valid = torch.tensor([[p.valid_height, p.valid_width] for p in placements], dtype=torch.int32, device=self.device)
        outputs = self.model.predict(image, valid)
        return {name: {key: value.cpu().numpy() for key, value in outputs[name].items()} for name in self.heads}
