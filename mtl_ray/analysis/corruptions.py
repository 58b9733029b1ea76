"""The 19 corruptions of robustness benchmarks, each with five severities.

They follow Hendrycks and Dietterich (Benchmarking Neural Network Robustness to Common Corruptions
and Perturbations, ICLR 2019) and, for images of any size, Michaelis et al. (Benchmarking Robustness
in Object Detection, 2019), with their parameters; this implementation uses OpenCV and NumPy. Frost
is synthetic, not a photograph. The caller passes the random generator, so an image is always
corrupted in the same way.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mtl_ray.analysis import corruption_blur as blur
from mtl_ray.analysis import corruption_digital as digital
from mtl_ray.analysis import corruption_noise as noise
from mtl_ray.analysis import corruption_weather as weather
from mtl_ray.analysis.corruption_noise import Image

SEVERITIES = (1, 2, 3, 4, 5)
_FUNCTIONS: Mapping[str, Callable[[Image, int, np.random.Generator], Image]] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "brightness": weather.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
    "speckle_noise": noise.speckle_noise,
    "gaussian_blur": blur.gaussian_blur,
    "spatter": weather.spatter,
    "saturate": digital.saturate,
}
ALL = tuple(_FUNCTIONS)
BENCHMARK = ALL[:15]
"""The corruptions of the published means; the other four are held out for validation."""
GROUPS: Mapping[str, tuple[str, ...]] = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    "holdout": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
}


def chosen(words: Sequence[str]) -> tuple[str, ...]:
    """The corruptions for some names, each once, in the order of ``ALL``.

    Args:
        words: names of corruptions or of ``GROUPS``, ``benchmark`` (15), ``all`` (19) or ``none``.

    Raises:
        ValueError: for another word.
    """
    meant: Mapping[str, tuple[str, ...]] = {
        **GROUPS,
        "benchmark": BENCHMARK,
        "all": ALL,
        "none": (),
        "None": (),
    }
    wanted: set[str] = set()
    for word in words:
        if word not in _FUNCTIONS and word not in meant:
            raise ValueError(
                f"there is no corruption {word!r}; there are all, benchmark, none, "
                f"{', '.join([*GROUPS, *ALL])}"
            )
        wanted |= set(meant.get(word, (word,)))
    return tuple(name for name in ALL if name in wanted)


def corrupt(
    image: NDArray[np.uint8], name: str, severity: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """A corrupted copy of an image.

    Args:
        image: (H, W, 3) uint8 RGB.
        name: one of ``ALL``.
        severity: 1 to 5.
        rng: the random generator.

    Returns:
        (H, W, 3) uint8; fractions are truncated, as in the published benchmark.
    """
    changed = _FUNCTIONS[name](image.astype(np.float32) / np.float32(255), severity, rng)
    return (np.clip(changed, 0, 1) * np.float32(255) + np.float32(1e-3)).astype(np.uint8)


def corruption_generator(seed: int, key: str, name: str, severity: int) -> np.random.Generator:
    """The random generator of one image, corruption and severity.

    It does not depend on the machine or the order.
    """
    digest = hashlib.sha256(f"{seed}\0{key}\0{name}\0{severity}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))
