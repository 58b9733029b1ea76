"""Masks of a network on the original image: equal to torchvision and torch, wherever a box lies."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torchvision.models.detection.roi_heads import paste_masks_in_image

from mtl_ray.geometry.masks import decode_rle, mask_box
from mtl_ray.inputs.frame import Frame, frame_of
from mtl_ray.inputs.image import Canvas
from mtl_ray.tasks.detection.decode import decode_detections
from mtl_ray.tasks.detection.mask_decode import MaskFrame, paste_box_mask, paste_canvas_masks
from mtl_ray.tasks.detection.options import Selection

SEEDS = st.integers(0, 10_000)


@dataclass(frozen=True)
class MaskedHead:
    """What decoding reads of a head with masks."""

    mask_frame: MaskFrame = "box"
    select: Selection = field(default_factory=Selection)


def arrays(boxes: Any, masks: Any) -> Mapping[str, NDArray[Any]]:
    """What a network predicts: all of class 1, scores 0.9, 0.8, ..."""
    count = len(boxes)
    return {
        "boxes": np.array(boxes, np.float32),
        "scores": 0.9 - 0.1 * np.arange(count, dtype=np.float32),
        "classes": np.ones(count, np.int64),
        "masks": np.array(masks, np.float32),
    }


def smooth(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    """Probabilities in blobs of a few cells, as networks predict."""
    coarse = torch.from_numpy(rng.normal(size=(shape[0], 1, 6, 6)) * 3).float()
    return F.interpolate(coarse, size=shape[1:], mode="bicubic").sigmoid()[:, 0].numpy()


def sampled(mask: NDArray[np.float32], box: NDArray[np.float64], hw: tuple[int, int]) -> Any:
    """Mask R-CNN's paste by torch: a grid of all pixel centres, relative to the box."""
    (x1, y1, x2, y2), (height, width) = box, hw
    y = (torch.arange(height, dtype=torch.float64) + 0.5 - y1) / (y2 - y1) * 2 - 1
    x = (torch.arange(width, dtype=torch.float64) + 0.5 - x1) / (x2 - x1) * 2 - 1
    grid = torch.stack([x[None].expand(height, -1), y[:, None].expand(-1, width)], dim=-1)
    of_mask = torch.from_numpy(mask)[None, None].double()
    return F.grid_sample(of_mask, grid[None], align_corners=False)[0, 0].numpy()


@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_a_box_mask_is_sampled_at_pixel_centres(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(3, 70, 2))
    corners = rng.uniform(-20, 80, (2, 2))
    box = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
    mask = smooth(rng, 1, 28, 28)[0]
    values = sampled(mask, box, (height, width))
    found = decode_rle(paste_box_mask(mask, box, height, width), height, width)
    clear = np.abs(values - 0.5) > 1e-5
    assert np.array_equal(found[clear], (values >= 0.5)[clear])


@given(seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_it_equals_torchvision(seed: int) -> None:
    """torchvision rounds boxes down, and takes the last pixel as part of them."""
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(20, 80, 2))
    masks = smooth(rng, 5, 28, 28)
    start = rng.integers(2, [width - 4, height - 4], (5, 2))
    # with 28 cells on 28 n pixels, the margin of one cell that torchvision adds is of n pixels
    stop = start + 28 * rng.integers(1, 3, (5, 1))
    ours = np.concatenate([start, stop], axis=1).astype(np.float32)
    theirs = torch.from_numpy(ours) - torch.tensor([-1e-2, -1e-2, 1e-2, 1e-2])
    expected = paste_masks_in_image(torch.from_numpy(masks)[:, None], theirs, (height, width))
    found = decode_detections(
        arrays(ours, masks),
        frame_of(height, width, Canvas(height=height, width=width)),
        MaskedHead(),
    )
    assert found.masks is not None
    for rle, values in zip(found.masks, expected[:, 0].numpy(), strict=True):
        clear = np.abs(values - 0.5) > 5e-3
        mine = decode_rle(rle, height, width)
        assert np.array_equal(mine[clear], (values >= 0.5)[clear])


@pytest.mark.parametrize(
    "box",
    [
        [5, 5, 5, 20],
        [9, 9, 3, 3],
        [100, 100, 140, 140],
        [-40, -40, -5, -5],
        [np.nan, 0, 10, 10],
        [4.6, 4.6, 5.4, 5.4],
    ],
)
def test_without_a_pixel_there_is_an_empty_mask(box: list[float]) -> None:
    rle = paste_box_mask(np.ones((28, 28), np.float32), np.array(box, np.float64), 30, 40)
    assert rle, "an empty mask, not a missing one"
    assert not decode_rle(rle, 30, 40).any()


def test_a_box_without_end_covers_the_image() -> None:
    box = np.array([-np.inf, -1e30, np.inf, 1e30])
    with np.errstate(invalid="ignore"):
        paste_box_mask(np.ones((28, 28), np.float32), box, 30, 40)  # anything but an error
    whole = np.array([-1e6, -1e6, 1e6, 1e6])
    assert decode_rle(paste_box_mask(np.ones((4, 4), np.float32), whole, 30, 40), 30, 40).all()


def test_masks_follow_their_boxes_into_the_image() -> None:
    """Padding and order: the best detection first, its mask on the original image."""
    found = arrays([[0, 0, 9, 9], [10, 20, 30, 40], [40, 0, 60, 10]], np.ones((3, 28, 28)))
    found = {**found, "scores": np.array([0, 0.5, 0.7], np.float32)}
    frame = frame_of(100, 200, Canvas(height=50, width=64, kind="letterbox"))
    decoded = decode_detections(found, frame, MaskedHead())
    assert decoded.masks is not None
    assert len(decoded.masks) == len(decoded) == 2
    for rle, box in zip(decoded.masks, decoded.boxes_xyxy, strict=True):
        assert np.abs(np.array(mask_box(rle, 100, 200)) - box).max() <= 0.5


def canvas_reference(mask: NDArray[np.float32], frame: Frame) -> NDArray[np.float64]:
    """Logits on the image by torch: upsampled to the canvas, then sampled at the image's pixels."""
    logits = torch.from_numpy(mask)[None, None].double().logit()
    size = (frame.canvas_height, frame.canvas_width)
    large = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    y = (torch.arange(frame.height).double() + 0.5) * frame.scale_y + frame.offset_y
    x = (torch.arange(frame.width).double() + 0.5) * frame.scale_x + frame.offset_x
    shape = (frame.height, frame.width)
    grid = torch.stack([(x / size[1]).expand(shape), (y / size[0])[:, None].expand(shape)], dim=-1)
    values = F.grid_sample(large, 2 * grid[None] - 1, align_corners=False, padding_mode="border")
    shown = ((x > 0) & (x < frame.valid_width))[None] & ((y > 0) & (y < frame.valid_height))[
        :, None
    ]
    return np.where(shown.numpy(), values[0, 0].numpy(), -1.0)


@given(seed=SEEDS, kind=st.sampled_from(["letterbox", "stretch", "crop"]))
@settings(max_examples=40, deadline=None)
def test_a_map_of_the_canvas_is_upsampled_twice(seed: int, kind: Any) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(10, 90, 2))
    frame = frame_of(height, width, Canvas(height=32, width=64, kind=kind))
    masks = smooth(rng, 2, 8, 16)
    for rle, mask in zip(paste_canvas_masks(masks, frame), masks, strict=True):
        values = canvas_reference(mask, frame)
        clear = np.abs(values) > 1e-4
        assert np.array_equal(decode_rle(rle, height, width)[clear], (values > 0)[clear])


def test_maps_of_nothing_and_of_everything() -> None:
    frame = frame_of(30, 40, Canvas(height=32, width=64, kind="letterbox"))
    nothing, everything = paste_canvas_masks(
        np.stack([np.zeros((8, 16)), np.ones((8, 16))]).astype(np.float32), frame
    )
    assert not decode_rle(nothing, 30, 40).any()
    assert decode_rle(everything, 30, 40).all()
    assert paste_canvas_masks(np.zeros((0, 8, 16), np.float32), frame) == ()


def test_a_head_with_maps_of_the_canvas() -> None:
    mask = np.zeros((1, 8, 16), np.float32)
    mask[0, 2:4, 4:8] = 1
    frame = frame_of(64, 128, Canvas(height=32, width=64))
    found = decode_detections(arrays([[16, 8, 32, 16]], mask), frame, MaskedHead("canvas"))
    assert found.masks is not None
    assert np.abs(np.array(mask_box(found.masks[0], 64, 128)) - found.boxes_xyxy[0]).max() <= 1
