"""A torch model as a predictor."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from mtl_ray.experiment import predicting_heads
from mtl_ray.inference.predictor import Arrays, Predictions, predict_in_batches
from mtl_ray.inputs.frame import Frame
from mtl_ray.inputs.image import Canvas
from mtl_ray.models.model import Model
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.task import AnyHead


class TorchPredictor:
    """Runs a model in evaluation mode, in float32 and without gradients.

    Args:
        model: moved to ``device``; its training mode is afterwards as it was.
        heads: the config of each head; auxiliary ones are left out.
        vocabulary, canvas: see ``Predictor``.
        device: where to run.
        batch: the most images that go through the network together.
    """

    def __init__(
        self,
        model: Model,
        heads: Mapping[str, AnyHead],
        vocabulary: Vocabulary,
        canvas: Canvas,
        device: str | torch.device = "cpu",
        batch: int = 16,
    ) -> None:
        self.model = model.to(device)
        self.heads: Mapping[str, AnyHead] = predicting_heads(heads)
        self.vocabulary = vocabulary
        self.canvas = canvas
        self.device = torch.device(device)
        self.batch = batch

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Predictions]:
        """See ``Predictor``."""
        training = self.model.training
        self.model.eval()
        try:
            return predict_in_batches(images, self.canvas, self.heads, self.run, self.batch)
        finally:
            self.model.train(training)

    @torch.no_grad()
    def run(self, canvases: NDArray[np.uint8], frames: Sequence[Frame]) -> Arrays:
        """The arrays of each head for canvases uint8 (B, H, W, 3)."""
        image = torch.from_numpy(canvases).permute(0, 3, 1, 2).contiguous().to(self.device)
        valid = torch.tensor([[p.valid_height, p.valid_width] for p in frames], dtype=torch.int32, device=self.device)
        with _exact():
            outputs = self.model.predict(image, valid)
        return {name: {field: value.cpu().numpy() for field, value in outputs[name].items()} for name in self.heads}


@contextmanager
def _exact() -> Iterator[None]:
    """Convolutions in float32 proper: a GPU shortens their factors otherwise (TF32), and scores would differ from the bundle's by 4e-4."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
