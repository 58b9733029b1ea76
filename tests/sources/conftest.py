"""Images and datasets that the tests of sources make for themselves."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeImage = Callable[..., Path]


@pytest.fixture
def make_image() -> MakeImage:
    """Writes an image of noise: ``make_image(path, width, height, mode="RGB", orientation=1)``."""

    def make(
        path: Path, width: int = 64, height: int = 48, mode: str = "RGB", orientation: int = 1
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(width * 1000 + height).integers(
            0, 256, (height, width, 4), dtype=np.uint8
        )
        exif = Image.Exif()
        exif[0x0112] = orientation
        buffer = io.BytesIO()
        Image.fromarray(noise, "RGBA").convert(mode).save(
            buffer, "PNG" if path.suffix == ".png" else "JPEG", exif=exif
        )
        path.write_bytes(buffer.getvalue())
        return path

    return make
