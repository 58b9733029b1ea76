"""A torch model as a predictor."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from mtl_ray.experiment import predicting_heads
from mtl_ray.inference.config import SlideConfig
from mtl_ray.inference.predictor import HeadArrays, Predictions
from mtl_ray.inference.slide import predict_all, window_canvas
from mtl_ray.inputs.input import AnyCanvas, Arrays
from mtl_ray.models.model import Model
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.task import AnyHead


class TorchPredictor:
    """Runs a model in evaluation mode, in float32 and without gradients.

    Args:
        model: is moved to ``device``; its training mode is restored after each call.
        heads: the config of each head; auxiliary ones are left out.
        vocabulary, canvas, plugins: see ``Predictor``.
        device: of torch.
        batch: most samples of one call of the network.
        slide: class maps are predicted in windows, whose size the canvas takes.

    Raises:
        ValueError: if the heads predict no class maps, but ``slide`` is set.
    """

    def __init__(
        self,
        model: Model,
        heads: Mapping[str, AnyHead],
        vocabulary: Vocabulary,
        canvas: AnyCanvas,
        device: str | torch.device = "cpu",
        batch: int = 16,
        plugins: tuple[str, ...] = (),
        slide: SlideConfig | None = None,
    ) -> None:
        self.model = model.to(device)
        self.heads: Mapping[str, AnyHead] = predicting_heads(heads)
        self.vocabulary = vocabulary
        self.slide = slide
        self.canvas = canvas if slide is None else window_canvas(slide, canvas, self.heads)
        self.device = torch.device(device)
        self.batch = batch
        self.plugins = plugins

    def predict(self, raws: Sequence[Any]) -> list[Predictions]:
        """See ``Predictor``."""
        training = self.model.training
        self.model.eval()
        try:
            return predict_all(self, raws)
        finally:
            self.model.train(training)

    def with_canvas(self, canvas: AnyCanvas) -> "TorchPredictor":
        """The same model on another canvas, to which whole images are scaled."""
        return TorchPredictor(
            self.model, self.heads, self.vocabulary, canvas, self.device, self.batch, self.plugins
        )

    @torch.no_grad()
    def run(self, arrays: Arrays) -> HeadArrays:
        """The output arrays of each head for the input arrays of a batch; of class maps ``logits``
        if they are predicted in windows.
        """
        with _without_tf32():
            outputs = self.model.predict(self.tensors(arrays), logits=self.slide is not None)
        return {
            name: {field: value.cpu().numpy() for field, value in outputs[name].items()}
            for name in self.heads
        }

    def tensors(self, arrays: Arrays) -> dict[str, torch.Tensor]:
        """The arrays of the input on the device."""
        return {name: torch.from_numpy(values).to(self.device) for name, values in arrays.items()}


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Convolutions in full float32. With TF32 on a GPU, scores differ from the bundle's by 4e-4."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
