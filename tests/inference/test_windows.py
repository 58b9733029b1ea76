"""Windows over a large image, against the rule of MMSegmentation written with torch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from mtl_ray.inference import windows
from mtl_ray.inference.config import SlideConfig
from mtl_ray.inference.windows import WindowGrid, WindowSum, starts

SIDES = st.tuples(st.integers(1, 60), st.integers(1, 60))


def slide_inference(
    size: tuple[int, int], crop: tuple[int, int], stride: tuple[int, int], rng: np.random.Generator
) -> tuple[dict[tuple[int, int], np.ndarray], Tensor]:
    """Random logits of each window by its top and left, and their mean (3, H, W)."""
    height, width = size
    logits, counts = torch.zeros(3, height, width), torch.zeros(height, width)
    found = {}
    rows = max(height - crop[0] + stride[0] - 1, 0) // stride[0] + 1
    columns = max(width - crop[1] + stride[1] - 1, 0) // stride[1] + 1
    for row in range(rows):
        for column in range(columns):
            bottom = min(row * stride[0] + crop[0], height)
            right = min(column * stride[1] + crop[1], width)
            top, left = max(bottom - crop[0], 0), max(right - crop[1], 0)
            window = rng.standard_normal((3, bottom - top, right - left)).astype(np.float32)
            found[top, left] = window
            logits += F.pad(torch.from_numpy(window), (left, width - right, top, height - bottom))
            counts[top:bottom, left:right] += 1
    assert counts.min() > 0
    return found, logits / counts


@given(SIDES, SIDES, st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)), SIDES, st.booleans())
@settings(max_examples=80, deadline=None)
def test_the_mean_of_all_windows_as_mmsegmentation_has_it(
    size: tuple[int, int],
    crop: tuple[int, int],
    shares: tuple[float, float],
    target: tuple[int, int],
    scaled: bool,
) -> None:
    stride = (max(1, int(crop[0] * shares[0])), max(1, int(crop[1] * shares[1])))
    target = target if scaled else size
    found, mean = slide_inference(size, crop, stride, np.random.default_rng(0))
    grid = WindowGrid(size=size, crop=crop, stride=stride)
    assert sorted(grid.windows()) == sorted(found)
    total = WindowSum(grid, 3, target)
    for window in grid.windows():
        total.add(window, found[window])
    if scaled:
        mean = F.interpolate(mean[None], target, mode="bilinear", align_corners=False)[0]
    first, second = mean.topk(2, dim=0).values
    sure = (first - second > 1e-4).numpy()
    classes = total.result()
    assert classes.shape == target
    assert (classes == mean.argmax(0).numpy())[sure].all()


def test_where_windows_begin() -> None:
    assert starts(10, 4, 3) == [0, 3, 6]
    assert starts(11, 4, 3) == [0, 3, 6, 7]
    assert starts(3, 4, 3) == [0]


def test_memory_is_that_of_the_lines_which_are_not_complete() -> None:
    tall = WindowGrid(size=(20_000, 1000), crop=(512, 512), stride=(341, 341))
    wide = WindowGrid(size=(1000, 20_000), crop=(512, 512), stride=(341, 341))
    assert tall.sum_bytes(19) == wide.sum_bytes(19) == 4 * 19 * 512 * 1000
    assert WindowSum(tall, 1, tall.size)._sums.nbytes == tall.sum_bytes(1)


def test_an_image_that_needs_too_much_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MOST_BYTES", 1000)
    grid = WindowGrid(size=(100, 100), crop=(32, 32), stride=(16, 16))
    with pytest.raises(ValueError, match=r"100 x 100 pixels with 3 classes.*Fix: a smaller"):
        WindowSum(grid, 3, (100, 100))


def test_windows_leave_no_gaps() -> None:
    build = TypeAdapter(SlideConfig).validate_python
    assert build({"crop": [64, 64], "stride": [64, 43]}).fit is None
    with pytest.raises(ValidationError, match="stride is larger than crop"):
        build({"crop": [64, 64], "stride": [64, 65]})
    with pytest.raises(ValidationError):
        build({"crop": [64, 0], "stride": [64, 64]})
