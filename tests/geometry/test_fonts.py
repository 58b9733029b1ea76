"""Chinese, Japanese and Korean words are written with letters, not with the empty box of a font
that lacks them.
"""

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mtl_ray.geometry.appearance import east_asian, font, is_east_asian
from mtl_ray.geometry.drawing import Drawing
from mtl_ray.geometry.figures import png
from mtl_ray.geometry.panels import pixels

WORDS = ("红", "胞", "カ", "한")
needs_font = pytest.mark.skipif(
    east_asian() is None,
    reason="needs a font with Chinese letters, such as Debian's fonts-wqy-microhei",
)


@pytest.mark.parametrize("word", WORDS)
def test_words_are_told_from_those_of_other_languages(word: str) -> None:
    assert is_east_asian(f"class {word} 0.9")
    assert not any(map(is_east_asian, ("platelet", "Größe", "размер", "μ ≥ 0.5", "мышь", "عربي")))


@needs_font
def test_each_word_on_a_image_has_a_shape_of_its_own() -> None:
    assert len({_written(word).tobytes() for word in WORDS}) == len(WORDS)
    plain = font("latin letters", 20)
    assert len({bytes(plain.getmask(word)) for word in WORDS[:2]}) == 1, (
        "the plain font has these letters: this test shows nothing"
    )


@needs_font
def test_each_word_in_a_figure_has_a_shape_of_its_own() -> None:
    assert len({_titled(word).tobytes() for word in WORDS}) == len(WORDS)


def _written(word: str) -> NDArray[np.uint8]:
    drawing = Drawing(np.full((320, 320, 3), 90, np.uint8))
    drawing.box(np.array([100, 100, 200, 200], np.float32), word, (0, 114, 178))
    return drawing.pixels


def _titled(word: str) -> NDArray[np.uint8]:
    figure = Figure(figsize=(1, 1))
    figure.suptitle(word)
    return pixels(png(figure))
