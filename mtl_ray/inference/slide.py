"""Slide inference: class maps of large images from windows of a fixed size, on the host around any
graph.

A checkpoint, every engine of a bundle and a server call ``predict_all``, so they differ in the
network alone. Memory: the sums of logits of ``windows.MOST_BYTES`` at most, the logits of
``BATCH_BYTES`` of windows, and the class map.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_ray.inference.config import SlideConfig
from mtl_ray.inference.predictor import HeadArrays, Predictions, predict_in_batches
from mtl_ray.inference.windows import WindowGrid, WindowSum, batches
from mtl_ray.inputs.frame import resized
from mtl_ray.inputs.image import Canvas
from mtl_ray.inputs.input import AnyCanvas, Arrays, TooLargeError, empty_arrays
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.head_classes import head_vocabulary
from mtl_ray.tasks.optional import WindowTask
from mtl_ray.tasks.task import AnyHead

BATCH_BYTES = 256 << 20
"""Most bytes of the logits of the windows that go through the network together, if there is more
than one.
"""


class LocalPredictor(Protocol):
    """A predictor that holds its network itself: of a checkpoint or a bundle."""

    heads: Mapping[str, AnyHead]
    vocabulary: Vocabulary
    canvas: AnyCanvas
    batch: int
    slide: SlideConfig | None

    def run(self, arrays: Arrays) -> HeadArrays:
        """The output arrays of each head for the input arrays of a batch."""
        ...


def window_canvas(slide: SlideConfig, canvas: AnyCanvas, heads: Mapping[str, AnyHead]) -> AnyCanvas:
    """The canvas of the windows.

    Raises:
        ValueError: if the input is no image, or the heads predict no class maps.
    """
    if not isinstance(canvas, Canvas):
        raise ValueError(
            f"evaluate.slide cuts windows out of images, but the input is {canvas.input.name}. "
            "Fix: evaluate.slide=null"
        )
    others = [name for name, head in heads.items() if not isinstance(head.task, WindowTask)]
    if len(others) == len(heads):
        raise ValueError(
            "evaluate.slide is for heads that predict class maps, and there is none. Fix: "
            "evaluate.slide=null"
        )
    if others and slide.crop != (canvas.height, canvas.width):
        raise ValueError(
            f"the head {others[0]} sees the whole image on the canvas, which has another size than "
            f"evaluate.slide.crop. Fix: evaluate.slide.crop=[{canvas.height}, {canvas.width}]"
        )
    return replace(canvas, height=slide.crop[0], width=slide.crop[1])


def predict_all(network: LocalPredictor, raws: Sequence[Any]) -> list[Predictions]:
    """The predictions for each datum, in order: as a whole, class maps in windows if ``slide`` is
    set.

    Raises:
        TooLargeError: if an image needs more memory than is allowed.
    """
    if network.slide is None:
        return predict_in_batches(raws, network.canvas, network.heads, network.run, network.batch)
    in_windows = {
        name: head.task for name, head in network.heads.items() if isinstance(head.task, WindowTask)
    }
    others = {name: head for name, head in network.heads.items() if name not in in_windows}
    whole: Sequence[Predictions] = (
        predict_in_batches(raws, network.canvas, others, network.run, network.batch)
        if others
        else [{} for _ in raws]
    )
    found: list[Predictions] = []
    for raw, of_others in zip(raws, whole, strict=True):
        maps = _class_maps(network, network.slide, raw, list(in_windows))
        mapped = {name: task.of_windows(maps[name]) for name, task in in_windows.items()}
        found.append({name: {**of_others, **mapped}[name] for name in network.heads})
    return found


def _class_maps(
    network: LocalPredictor, slide: SlideConfig, raw: NDArray[np.uint8], names: Sequence[str]
) -> dict[str, NDArray[np.uint8]]:
    """The class of each pixel of an image, by head."""
    image = _fit(raw, slide, network.canvas)
    height, width = image.shape[:2]
    grid = WindowGrid(size=(height, width), crop=slide.crop, stride=slide.stride)
    counts = {name: _num_classes(network, name) for name in names}
    try:
        sums = {name: WindowSum(grid, count, raw.shape[:2]) for name, count in counts.items()}
    except ValueError as error:
        raise TooLargeError(str(error)) from None
    of_window = 4 * slide.crop[0] * slide.crop[1] * sum(counts.values())
    size = max(1, min(network.batch, BATCH_BYTES // of_window))
    for group in batches(grid.windows(), size):
        arrays = network.run(window_arrays(image, group, network.canvas))
        for name, total in sums.items():
            for window, logits in zip(group, arrays[name]["logits"], strict=True):
                total.add(window, logits[:, :height, :width])
    return {name: total.result() for name, total in sums.items()}


def _num_classes(network: LocalPredictor, name: str) -> int:
    head = network.heads[name]
    return len(head_vocabulary(head, network.vocabulary).classes[head.annotation])


def window_arrays(
    image: NDArray[np.uint8], windows: Sequence[tuple[int, int]], canvas: AnyCanvas
) -> Arrays:
    """The input arrays of some windows; an image that is smaller than a window is padded at the
    right and bottom.
    """
    assert isinstance(canvas, Canvas)
    arrays = empty_arrays(canvas, len(windows))
    for i, (top, left) in enumerate(windows):
        part = image[top : top + canvas.height, left : left + canvas.width]
        height, width = part.shape[:2]
        if (height, width) != (canvas.height, canvas.width):
            padded = np.full((canvas.height, canvas.width, 3), canvas.pad, np.uint8)
            padded[:height, :width] = part
            part = padded
        cv2.split(part, list(arrays["image"][i]))
        arrays["valid_hw"][i] = height, width
    return arrays


def some_window(
    raw: NDArray[np.uint8], slide: SlideConfig, canvas: AnyCanvas, number: int
) -> Arrays:
    """The arrays of one window of an image, another for each number: what int8 is calibrated on."""
    image = _fit(raw, slide, canvas)
    height, width = image.shape[:2]
    grid = WindowGrid(size=(height, width), crop=slide.crop, stride=slide.stride)
    windows = grid.windows()
    return window_arrays(image, [windows[number % len(windows)]], canvas)


def _fit(raw: NDArray[np.uint8], slide: SlideConfig, canvas: AnyCanvas) -> NDArray[np.uint8]:
    """The image at the size in which windows are cut."""
    assert isinstance(canvas, Canvas)
    if slide.fit is None:
        return raw
    height, width = raw.shape[:2]
    factor = min(slide.fit[0] / height, slide.fit[1] / width)
    height, width = max(1, round(height * factor)), max(1, round(width * factor))
    if (height, width) == raw.shape[:2]:
        return raw
    if canvas.kernel == "area":
        return resized(raw, height, width)
    return np.asarray(cv2.resize(raw, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
