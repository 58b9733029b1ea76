"""A model that is opened once and then called, for programs: ``inference_model``."""

from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.inference.predictor import Predictions, Predictor, open_predictor
from mtl_ray.inputs.image import Canvas
from mtl_ray.inputs.image_header import MAX_PIXELS
from mtl_ray.tasks.response import MaskForm, responders

Datum = NDArray[Any] | bytes | str | PathLike[str]
"""An array as the input decodes it (an image: (H, W, 3) uint8 RGB), the bytes of a file, or its
path or URI.
"""


class InferenceModel:
    """An opened predictor. Calls predict on one datum or on many; the model stays open.

    Args:
        predictor: of a run, a checkpoint, a bundle or a server.
        max_pixels: files that state more are refused.
    """

    def __init__(self, predictor: Predictor, max_pixels: int = MAX_PIXELS) -> None:
        self.predictor = predictor
        self.max_pixels = max_pixels
        self._responders = responders(predictor.heads, predictor.vocabulary)

    @property
    def heads(self) -> tuple[str, ...]:
        """The names of the heads, which are the keys of predictions."""
        return tuple(self.predictor.heads)

    def __call__(self, data: Datum | Sequence[Datum]) -> Any:
        """The predictions of each head by name, in units of the original data.

        Args:
            data: one datum, or a list or tuple of them, which are predicted in batches.

        Returns:
            A mapping for one datum, a list of mappings for several.

        Raises:
            ValueError: if a datum is none of this input, or too large.
            FileNotFoundError: if there is no such file.
        """
        found = self.predictor.predict([self._read(each) for each in _listed(data)])
        return found if isinstance(data, list | tuple) else found[0]

    def json(
        self,
        data: Datum | Sequence[Datum],
        score_threshold: float = 0.3,
        masks: MaskForm = "rle",
    ) -> Any:
        """As a call, in the JSON that a server answers: by head, names of classes beside indices.

        Args:
            data: as of a call.
            score_threshold: objects and labels with a lower score are left out.
            masks: their form.
        """
        raws = [self._read(each) for each in _listed(data)]
        answers = [
            self._answer(raw, found, score_threshold, masks)
            for raw, found in zip(raws, self.predictor.predict(raws), strict=True)
        ]
        return answers if isinstance(data, list | tuple) else answers[0]

    def _answer(
        self, raw: Any, found: Predictions, score_threshold: float, masks: MaskForm
    ) -> Mapping[str, Any]:
        size = self.predictor.canvas.input.size(raw)
        return {
            name: responder.response(found[name], score_threshold, masks=masks, size=size)
            for name, responder in self._responders.items()
        }

    def _read(self, datum: Datum) -> Any:
        canvas = self.predictor.canvas
        if isinstance(datum, np.ndarray):
            return _checked(datum) if isinstance(canvas, Canvas) else datum
        if not isinstance(datum, bytes):
            datum = storage.read(fspath(datum))
        return canvas.input.file_reader(canvas, {})(datum, self.max_pixels)


def _listed(data: Datum | Sequence[Datum]) -> list[Any]:
    return list(data) if isinstance(data, list | tuple) else [data]


def _checked(image: NDArray[Any]) -> NDArray[np.uint8]:
    """An image that may come from anywhere."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            f"an image is (height, width, 3) uint8 RGB, and this is {image.shape} {image.dtype}"
        )
    return np.ascontiguousarray(image)


def inference_model(
    target: str | PathLike[str],
    engine: str | None = None,
    *,
    threads: int = 0,
    api_key: str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> InferenceModel:
    """Opens a model once; the result is called as often as one likes.

    Args:
        target: a run, a checkpoint, a bundle, or the URL of a served model.
        engine: one of the engines of a bundle, such as ``openvino:int8``; None for its first.
        threads: of the engine of a bundle; 0 takes all cores.
        api_key: for a server that requires one.
        max_pixels: files that state more are refused.

    Raises:
        ValueError, FileNotFoundError: if there is no such thing, or it is incomplete.
    """
    predictor = open_predictor(fspath(target), threads=threads, api_key=api_key, engine=engine)
    return InferenceModel(predictor, max_pixels)
