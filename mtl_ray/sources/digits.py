"""The built-in dataset: scenes of handwritten digits from scikit-learn's files, with every kind of
annotation.

The digits are the 1,797 of 8 x 8 pixels of the UCI set (Alpaydin and Kaynak 1998), enlarged,
rotated and pasted on crops of scikit-learn's two photographs. A scene depends only on (seed, split,
number). The split ``train`` shares no handwriting and no background with other splits.
"""

import colorsys
import gzip
import zlib
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtl_ray.geometry import masks
from mtl_ray.samples import Vocabulary, image_sample
from mtl_ray.sources.config import Digits
from mtl_ray.sources.index_png import encode_index_png
from mtl_ray.sources.objects import FoundObject, to_instances
from mtl_ray.sources.source import Reading, Source, fingerprint_of

NAMES = tuple("0123456789")
KEYPOINTS = ("top", "centre", "bottom")
"""In the upright frame of a digit: middle of the upper edge, centre, middle of the lower edge.
Hidden (1) below another digit.
"""
_HUES = [colorsys.hsv_to_rgb(digit / 10, 0.8, 1) for digit in range(10)]
COLOURS = tuple(
    (round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in _HUES
)

_GLYPH = 64
"""Side of an enlarged digit in pixels."""
_MARGIN = 8
"""Margin of an enlarged digit in pixels."""
_SHARE_OF_TRAINING = 0.8
"""Share of the handwriting of each digit that is used for training."""
_LEAST_VISIBLE = 0.7
"""A digit is pasted only if at least this share of it and of every digit below stays visible."""
_VERSION = "1"
"""Part of the fingerprint: changes when scenes change."""


def open_digits(config: Digits) -> Source:
    """Opens a split; scenes are generated when they are read."""
    return Source(
        vocabulary=Vocabulary(
            classes={"labels": NAMES, "instances": NAMES, "semantic": ("background", *NAMES)},
            keypoints=KEYPOINTS,
            skeleton=((0, 1), (1, 2)),
            mirror=(0, 1, 2),
            colours={"labels": COLOURS, "instances": COLOURS, "semantic": ((0, 0, 0), *COLOURS)},
        ),
        records=range(config.num),
        reader=partial(_read, config),
        fingerprint=fingerprint_of(
            [_VERSION, config.split, str(config.num), str(config.size), str(config.seed)]
        ),
    )


@dataclass(slots=True)
class _Scene:
    """A scene under construction: float32 RGB, the digit of each pixel (-1 for none), and the
    pasted digits.
    """

    pixels: NDArray[np.float32]
    owner: NDArray[np.int16]
    digits: list[int]
    areas: list[int]
    points: list[NDArray[np.float64]]


def _read(config: Digits, number: int) -> Reading:
    rng = np.random.default_rng([config.seed, zlib.crc32(config.split.encode()), number])
    train = config.split == "train"
    scene = _Scene(
        _background(rng, config.size, train),
        np.full((config.size, config.size), -1, np.int16),
        [],
        [],
        [],
    )
    for _ in range(int(rng.integers(2, 6))):
        _paste_digit(scene, rng, train)
    return _sample(scene, f"{config.split}-{number:06d}.jpg")


def _background(rng: np.random.Generator, size: int, train: bool) -> NDArray[np.float32]:
    photo = _photographs()[int(rng.integers(2))]
    edge = round(photo.shape[1] * 0.7)
    photo = photo[:, :edge] if train else photo[:, edge:]
    side = int(rng.integers(96, min(photo.shape[:2]) + 1))
    top, left = (
        int(rng.integers(photo.shape[0] - side + 1)),
        int(rng.integers(photo.shape[1] - side + 1)),
    )
    part = cv2.resize(
        photo[top : top + side, left : left + side],
        (size, size),
        interpolation=cv2.INTER_AREA if side > size else cv2.INTER_LINEAR,
    )
    return np.asarray(part[:, ::-1] if rng.random() < 0.5 else part, np.float32)


def _paste_digit(scene: _Scene, rng: np.random.Generator, train: bool) -> None:
    """Pastes one more digit, unless eight random positions in a row hide too much."""
    size = scene.owner.shape[0]
    digit = int(rng.integers(10))
    glyphs = _handwriting(train)[digit]
    alpha, frame = glyphs[int(rng.integers(len(glyphs)))]
    for _ in range(8):
        height = rng.uniform(0.22, 0.46) * size
        turn = _turn(frame, height, rng.uniform(-25, 25), rng.uniform(0.05, 0.95, 2) * size)
        cover = cv2.warpAffine(alpha, turn, (size, size), flags=cv2.INTER_LINEAR)
        mask = cover > 0.5
        if _fits(scene, mask, alpha, turn):
            break
    else:
        return
    darkness = scene.pixels[mask].mean()
    colour = rng.uniform(180, 255, 3) if darkness < 128 else rng.uniform(0, 75, 3)
    scene.pixels += (colour.astype(np.float32) - scene.pixels) * cover[..., None]
    scene.owner[mask] = len(scene.digits)
    scene.digits.append(digit)
    scene.areas.append(int(mask.sum()))
    left, top, right, bottom = frame
    middle = (left + right) / 2
    upright = np.array([[middle, top, 1], [middle, (top + bottom) / 2, 1], [middle, bottom, 1]])
    scene.points.append(upright @ turn.T)


def _turn(
    frame: tuple[int, int, int, int], height: float, degrees: float, centre: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The (2, 3) affine map of a glyph's frame to a centre, with a height in pixels and an
    angle.
    """
    left, top, right, bottom = frame
    turn = cv2.getRotationMatrix2D(
        ((left + right) / 2, (top + bottom) / 2), degrees, height / (bottom - top)
    )
    turn[:, 2] += centre - np.array([(left + right) / 2, (top + bottom) / 2])
    return np.asarray(turn, np.float64)


def _fits(
    scene: _Scene, mask: NDArray[np.bool_], alpha: NDArray[np.float32], turn: NDArray[np.float64]
) -> bool:
    """Whether enough of the new digit lies in the image and enough of each digit below stays
    visible.
    """
    whole = float((alpha > 0.5).sum()) * abs(turn[0, 0] * turn[1, 1] - turn[0, 1] * turn[1, 0])
    if mask.sum() < _LEAST_VISIBLE * whole:
        return False
    covered = np.bincount(scene.owner[~mask] + 1, minlength=len(scene.areas) + 1)[1:]
    return bool((covered >= _LEAST_VISIBLE * np.array(scene.areas)).all())


def _sample(scene: _Scene, key: str) -> Reading:
    size = scene.owner.shape[0]
    classes = np.array([0, *(digit + 1 for digit in scene.digits)], np.uint8)[scene.owner + 1]
    found = []
    for number, digit in enumerate(scene.digits):
        mask = scene.owner == number
        counts = masks.encode_rle(mask)
        found.append(
            FoundObject(
                name=f"digit {number}",
                box_xyxy=masks.mask_box(counts, size, size),
                class_index=digit,
                id=number,
                area=float(mask.sum()),
                mask=counts,
                keypoints=[_keypoint(scene.owner, number, x, y) for x, y in scene.points[number]],
            )
        )
    instances, skipped = to_instances(found, key, size, size, masks=True, keypoints=len(KEYPOINTS))
    encoded, data = cv2.imencode(
        ".jpg",
        np.rint(scene.pixels[..., ::-1]).clip(0, 255).astype(np.uint8),
        [cv2.IMWRITE_JPEG_QUALITY, 90],
    )
    assert encoded
    labels = np.unique(np.array(scene.digits, np.int64))
    semantic = encode_index_png(classes)
    return image_sample(
        key=key,
        image=data.tobytes(),
        height=size,
        width=size,
        labels=labels,
        instances=instances,
        semantic=semantic,
    ), skipped


def _keypoint(
    owner: NDArray[np.int16], number: int, x: float, y: float
) -> tuple[float, float, float]:
    size = owner.shape[0]
    if not (0 <= x < size and 0 <= y < size):
        return (0.0, 0.0, 0.0)
    return (x, y, 1.0 if owner[int(y), int(x)] > number else 2.0)


@lru_cache(maxsize=1)
def _photographs() -> tuple[NDArray[np.uint8], ...]:
    """Two photographs, (427, 640, 3) uint8 RGB."""
    folder = _scikit_learn_data() / "images"
    return tuple(
        np.array(Image.open(folder / name).convert("RGB")) for name in ("china.jpg", "flower.jpg")
    )


@lru_cache(maxsize=2)
def _handwriting(
    train: bool,
) -> tuple[tuple[tuple[NDArray[np.float32], tuple[int, int, int, int]], ...], ...]:
    """Enlarged glyphs by digit, (64, 64) float32 in [0, 1], and the frame (left, top, right,
    bottom) of each.
    """
    with gzip.open(_scikit_learn_data() / "data" / "digits.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    by_digit = []
    for digit in range(10):
        drawn = table[table[:, -1] == digit, :-1].reshape(-1, 8, 8)
        first_of_others = round(len(drawn) * _SHARE_OF_TRAINING)
        by_digit.append(
            tuple(
                _enlarge(image)
                for image in (drawn[:first_of_others] if train else drawn[first_of_others:])
            )
        )
    return tuple(by_digit)


def _scikit_learn_data() -> Path:
    """The folder of ``sklearn.datasets``, without importing it, which takes seconds in every
    worker.
    """
    spec = find_spec("sklearn")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "datasets"


def _enlarge(image: NDArray[np.float32]) -> tuple[NDArray[np.float32], tuple[int, int, int, int]]:
    side = _GLYPH - 2 * _MARGIN
    smooth = cv2.resize(np.pad(image / 16, 1), (side, side), interpolation=cv2.INTER_CUBIC)
    alpha = np.pad(np.clip((smooth - 0.3) / 0.3, 0, 1), _MARGIN).astype(np.float32)
    rows, columns = (
        np.nonzero((alpha > 0.5).any(axis=1))[0],
        np.nonzero((alpha > 0.5).any(axis=0))[0],
    )
    return alpha, (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
