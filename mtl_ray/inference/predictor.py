"""The one face of everything that predicts: a torch checkpoint, a bundle, an HTTP endpoint."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from mtl_ray.inputs.input import AnyCanvas, placed
from mtl_ray.inputs.input import Arrays as InputArrays
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.task import AnyHead, HeadKind

Predictions = Mapping[str, Any]
"""By head name, each the prediction of its task (``tasks/*/decode.py``), on the original data."""

HeadArrays = Mapping[str, Mapping[str, NDArray[Any]]]
"""By head name, then by the names that ``decode`` takes; batch first."""


class Predictor(Protocol):
    """Predicts on original data; placing it in the network's frame and the inverse are its own
    business.

    Attributes:
        heads: of each head that predicts its config, or what is known of it, by name.
        vocabulary: what the numbers mean.
        canvas: the frame rule; its ``input`` says what the data is.
        plugins: the names of the plugins that the heads or the input come from.
    """

    vocabulary: Vocabulary

    @property
    def canvas(self) -> AnyCanvas: ...  # noqa: D102

    @property
    def heads(self) -> Mapping[str, HeadKind]: ...  # noqa: D102

    @property
    def plugins(self) -> tuple[str, ...]: ...  # noqa: D102

    def predict(self, raws: Sequence[Any]) -> list[Predictions]:
        """Predictions for each of some data, all sizes allowed, in order; images are (H, W, 3)
        uint8 RGB as shown.
        """
        ...


Run = Callable[[InputArrays], HeadArrays]
"""Takes the arrays of an input for some samples, gives the arrays of the heads."""


def predict_in_batches(raws: Sequence[Any], canvas: AnyCanvas, heads: Mapping[str, AnyHead], run: Run, batch: int) -> list[Predictions]:
    """Places data of any size, runs the network on up to ``batch`` of it at a time, and decodes.

    Every predictor that has the network at hand goes through here, so that a checkpoint and its
    bundle differ in ``run`` only.
    """
    found: list[Predictions] = []
    for start in range(0, len(raws), batch):
        inputs, frames = placed(raws[start : start + batch], canvas)
        arrays = run(inputs)
        found += [decode_one(arrays, i, frame, heads) for i, frame in enumerate(frames)]
    return found


def decode_one(arrays: HeadArrays, index: int, frame: Any, heads: Mapping[str, AnyHead]) -> Predictions:
    """Decodes sample ``index`` of a batch, all heads."""
    return {name: decode_head(arrays[name], index, frame, head) for name, head in heads.items()}


def decode_head(arrays: Mapping[str, NDArray[Any]], index: int, frame: Any, head: AnyHead) -> Any:
    """Decodes sample ``index`` of a batch, one head."""
    return head.task.decode({field: values[index] for field, values in arrays.items()}, frame, head)
