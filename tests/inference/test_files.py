"""jobs.predict on pictures, folders and patterns."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.predict import main
from mtl_ray.inference.files import predict_files, unique_names
from mtl_ray.inference.places import find_files
from mtl_ray.inputs.decode import decode_image
from mtl_ray.tasks.response import MASK_FORMS, MaskForm
from tests.inference.tiny import images
from tests.inputs.image_files import HEIGHT, WIDTH, encoded
from tests.serving.bundles import make_bundle, two_halves
from tests.serving.masked import MaskedPredictor


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of three kinds in two folders, two of one name, and something else."""
    colour, small, grey = images(3)
    (tmp_path / "photos" / "below").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "photos" / "a.jpg"), colour)
    cv2.imwrite(str(tmp_path / "photos" / "A.png"), np.dstack([small, small[:, :, :1]]))
    cv2.imwrite(str(tmp_path / "photos" / "below" / "a.PNG"), grey[:, :, 0])
    (tmp_path / "photos" / "readme.txt").write_text("there is no image")
    return tmp_path / "photos"


def test_every_picture_is_drawn_and_written_down(
    folder: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main([checkpoint, str(folder), "--out", str(out), "--score-thr", "0"]) == 0
    assert "3 of 3 images" in capsys.readouterr().out
    written = json.loads((out / "predictions.json").read_text())
    assert [Path(entry["file"]).name for entry in written["predictions"]] == [
        "A.png",
        "a.jpg",
        "a.PNG",
    ]
    assert sorted(path.name for path in out.glob("*.jpg")) == sorted(
        entry["drawing"] for entry in written["predictions"]
    )
    for entry in written["predictions"]:
        assert set(entry["heads"]) == {"boxes", "semantic", "labels"}
        assert len(entry["heads"]["labels"]) == 2
        classes = cv2.imread(str(out / entry["heads"]["semantic"]["png"]), cv2.IMREAD_UNCHANGED)
        assert classes.shape == (entry["height"], entry["width"])
        drawn = cv2.imread(str(out / entry["drawing"]))
        assert min(drawn.shape[:2]) > 20


def test_drawings_are_called_as_their_pictures(
    folder: Path, checkpoint: str, tmp_path: Path
) -> None:
    """a.jpg, A.png and below/a.PNG: none replaces another."""
    out = tmp_path / "out"
    assert (
        main(
            [
                checkpoint,
                str(folder / "a.jpg"),
                str(folder / "A.png"),
                str(folder / "below"),
                "--out",
                str(out),
            ]
        )
        == 0
    )
    written = json.loads((out / "predictions.json").read_text())["predictions"]
    assert [entry["drawing"] for entry in written] == ["a.jpg", "A-2.jpg", "a-3.jpg"]
    assert [entry["heads"]["semantic"]["png"] for entry in written] == [
        "a.semantic.png",
        "A-2.semantic.png",
        "a-3.semantic.png",
    ]
    assert len(list(out.iterdir())) == 3 + 3 + 1


@pytest.mark.parametrize("way", ["{}", "{}/", "{}/below/..", "{}/../link"])
def test_drawings_never_replace_the_pictures_themselves(
    folder: Path, checkpoint: str, way: str
) -> None:
    (folder.parent / "link").symlink_to(folder)
    before = (folder / "a.jpg").read_bytes()
    with pytest.raises(ValueError, match="name another folder"):
        main([checkpoint, str(folder / "a.jpg"), "--out", way.format(folder)])
    assert (folder / "a.jpg").read_bytes() == before


def test_larger_pictures_are_read_where_they_are_allowed(
    folder: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = str(np.prod(cv2.imread(str(folder / "A.png")).shape[:2]))
    arguments = [checkpoint, str(folder / "A.png"), "--out", str(tmp_path / "out"), "--max-pixels"]
    assert main([*arguments, pixels]) == 0
    assert main([*arguments, str(int(pixels) - 1)]) == 1
    assert "--max-pixels allows more" in capsys.readouterr().err
    with pytest.raises(ValueError, match="--max-pixels"):
        main([*arguments, "0"])


@pytest.mark.parametrize(
    "suffix",
    ["jpe", "jfif", "mpo", "dib", "webp", "avif", "tif", "gif", "pgm", "pbm", "pnm", "jp2", "JPEG"],
)
def test_files_of_every_suffix_are_found_and_read(tmp_path: Path, suffix: str) -> None:
    kind, mode = {
        "pgm": ("PPM", "L"),
        "pbm": ("PPM", "1"),
        "pnm": ("PPM", "RGB"),
        "jp2": ("JPEG2000", "RGB"),
        "tif": ("TIFF", "RGB"),
    }.get(suffix, ("JPEG" if suffix.lower() in ("jpe", "jfif", "jpeg") else suffix.upper(), "RGB"))
    (tmp_path / f"a.{suffix}").write_bytes(encoded(kind, mode))
    (uri,) = find_files([str(tmp_path)])
    assert decode_image(Path(uri).read_bytes()).shape == (HEIGHT, WIDTH, 3)


def test_a_picture_that_does_not_decode_is_named(
    folder: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "cut.jpg").write_bytes((folder / "a.jpg").read_bytes()[:60])
    assert (
        main(
            [
                checkpoint,
                str(folder / "cut.jpg"),
                str(folder / "a.jpg"),
                "--out",
                str(tmp_path / "out"),
            ]
        )
        == 1
    )
    said = capsys.readouterr()
    assert "1 of 2 images" in said.out
    assert "cut.jpg" in said.err
    written = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len(written["predictions"]) == len(written["unreadable"]) == 1


def test_places_are_pictures_folders_and_patterns(folder: Path) -> None:
    assert [
        Path(uri).name
        for uri in find_files([str(folder / "*.png"), str(folder), str(folder / "a.jpg")])
    ] == [
        "A.png",
        "a.jpg",
        "a.PNG",
    ]
    assert len(find_files([str(folder / "**" / "a.*")])) == 2
    for nothing in (str(folder / "x.jpg"), str(folder / "*.bmp"), str(folder.parent / "empty")):
        (folder.parent / "empty").mkdir(exist_ok=True)
        with pytest.raises(FileNotFoundError, match="there is no image"):
            find_files([nothing])


@given(
    st.lists(
        st.sampled_from(["a/x.jpg", "b/x.png", "X.jpg", "x-2.jpg", "c/x-2.jpg", "d/.png", "y"]),
        min_size=1,
        max_size=9,
    )
)
def test_no_drawing_overwrites_another(uris: list[str]) -> None:
    names = [name.lower() for name in unique_names(uris)]
    assert len(set(names)) == len(names) == len(uris)


@pytest.mark.parametrize("form", MASK_FORMS)
def test_masks_are_drawn_and_written_in_the_form_that_is_asked_for(
    tmp_path: Path, form: MaskForm
) -> None:
    (tmp_path / "a.png").write_bytes(two_halves())
    model = MaskedPredictor(make_bundle(tmp_path / "bundle", "boxes"))
    out = str(tmp_path / "out")
    assert predict_files(model, [str(tmp_path / "a.png")], out, 0.3, masks=form) == []
    (entry,) = json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]
    (item,) = entry["heads"]["boxes"]
    assert type(item.get("mask")) is {"rle": dict, "polygon": list, "none": type(None)}[form]
    drawn = cv2.imread(str(tmp_path / "out" / "a.jpg"))
    scale = drawn.shape[0] // 64
    hole, ring_px = drawn[24 * scale, 32 * scale], drawn[24 * scale, 42 * scale]
    assert np.abs(hole.astype(int) - [20, 20, 250]).max() < 30
    assert np.abs(ring_px.astype(int) - [20, 20, 250]).max() > 60
