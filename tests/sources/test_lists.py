"""Lists of ids whose names have blanks, beside the lists that say something else after an id."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from mtl_ray.sources.config import RawConfig, SemanticPng
from mtl_ray.sources.image_reading import open_source
from mtl_ray.sources.object_configs import Labelme, Text, Voc, Yolo
from tests.sources.conftest import MakeImage

XML = "<annotation><object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"  # noqa: E501
SHAPES = (
    '{{"imagePath": "{}.jpg", "shapes": [{{"label": "cat", "points": [[1, 1], [9, 9]], '
    '"shape_type": "rectangle"}}]}}'
)
FORMATS: dict[str, tuple[str, str, str, type[RawConfig]]] = {
    "voc": ("JPEGImages", "Annotations/{}.xml", XML, Voc),
    "yolo": ("images", "labels/{}.txt", "0 0.5 0.5 0.5 0.5", Yolo),
    "text": ("images", "labels/{}.txt", "cat 1 1 9 9", Text),
    "labelme": (".", "{}.json", SHAPES, Labelme),
    "semantic_png": ("images", "labels/{}.png", "", SemanticPng),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("lines", [("a b", "c d"), ("a b", "c", "d.x -1")])
def test_names_with_blanks(
    tmp_path: Path, make_image: MakeImage, form: str, lines: tuple[str, ...]
) -> None:
    images, labels, text, kind = FORMATS[form]
    names = [line.removesuffix(" -1") for line in lines]
    for name in names:
        make_image(tmp_path / images / f"{name}.jpg")
        (tmp_path / labels.format(name)).parent.mkdir(exist_ok=True)
        if text:
            (tmp_path / labels.format(name)).write_text(text.format(name))
        else:
            size = cv2.imread(str(tmp_path / images / f"{name}.jpg")).shape[:2]
            cv2.imwrite(str(tmp_path / labels.format(name)), np.zeros(size, np.uint8))
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "train.txt").write_text("\n".join(lines) + "\n")
    source = open_source(kind(root=str(tmp_path), split="train"))
    readings = [source.read(index) for index in range(len(source))]
    assert [*source.skipped, *(item for _, found in readings for item in found)] == []
    assert sorted(sample.key for sample, _ in readings if sample is not None) == sorted(
        f"{name}.jpg" for name in names
    )


def test_lists_of_images_with_blanks(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "images" / "a b.jpg")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a b.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "list.txt").write_text("./images/a b.jpg\n")
    source = open_source(Yolo(root=str(tmp_path), split="list"))
    assert source.read(0)[0] is not None
