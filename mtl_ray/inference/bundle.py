"""A bundle as a predictor: onnxruntime, without torch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mtl_ray.artifact import Artifact, open_artifact
from mtl_ray.inference.predictor import Arrays, Predictions, predict_in_batches
from mtl_ray.inference.signature import Signature, read_signature
from mtl_ray.inputs.frame import Frame
from mtl_ray.tasks.task import AnyHead


class BundlePredictor:
    """Runs ``model.onnx`` as ``signature.json`` says.

    Args:
        uri: where the bundle lies.
        threads: of onnxruntime within one call; 0 takes all cores.
        batch: the most images that go through the network together.

    Raises:
        FileNotFoundError, ValueError: if there is no bundle, or it is cut short.
    """

    def __init__(self, uri: str, threads: int = 0, batch: int = 16) -> None:
        bundle = open_artifact(uri, kind="bundle")
        self.signature = read_signature(bundle.read("signature.json"))
        self.session = open_session(bundle, threads)
        self.heads: Mapping[str, AnyHead] = self.signature.heads
        self.vocabulary = self.signature.vocabulary
        self.canvas = self.signature.canvas
        self.batch = batch

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Predictions]:
        """See ``Predictor``."""
        return predict_in_batches(images, self.canvas, self.heads, self.run, self.batch)

    def run(self, canvases: NDArray[np.uint8], frames: Sequence[Frame]) -> Arrays:
        """The arrays of each head for canvases uint8 (B, H, W, 3) and where their images lie."""
        feed: dict[str, NDArray[Any]] = {self.signature.input.name: to_input(canvases, self.signature)}
        if self.signature.valid_hw is not None:
            feed[self.signature.valid_hw] = np.array([[p.valid_height, p.valid_width] for p in frames], np.int32).reshape(-1, 2)
        values = self.session.run([output.name for output in self.signature.outputs], feed)
        arrays: dict[str, dict[str, NDArray[np.generic]]] = {name: {} for name in self.heads}
        for output, value in zip(self.signature.outputs, values, strict=True):
            arrays[output.head][output.field] = np.asarray(value)
        return arrays


def to_input(canvases: NDArray[np.uint8], signature: Signature) -> NDArray[np.uint8 | np.float32]:
    """Canvases uint8 (B, H, W, 3) as the graph takes them: (B, 3, H, W), normalised where it does not do that itself."""
    image = np.ascontiguousarray(canvases.transpose(0, 3, 1, 2))
    if signature.input.dtype == "uint8":
        return image
    mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (signature.mean, signature.std))
    return (image.astype(np.float32) - mean) / std


def open_session(bundle: Artifact, threads: int) -> onnxruntime.InferenceSession:
    """An onnxruntime session on the graph of a bundle; ``threads`` as in ``BundlePredictor``."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in onnxruntime.get_available_providers()]
    return onnxruntime.InferenceSession(bundle.read("model.onnx"), options, providers=providers)
