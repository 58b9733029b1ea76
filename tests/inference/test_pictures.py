"""jobs.predict on pictures, folders and patterns."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.predict import main
from mtl_ray.inference.pictures import find_pictures, unique_names
from tests.inference.tiny import images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of three kinds in two folders, two of one name, and something else."""
    colour, small, grey = images(3)
    (tmp_path / "photos" / "below").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "photos" / "a.jpg"), colour)
    cv2.imwrite(str(tmp_path / "photos" / "A.png"), np.dstack([small, small[:, :, :1]]))
    cv2.imwrite(str(tmp_path / "photos" / "below" / "a.PNG"), grey[:, :, 0])
    (tmp_path / "photos" / "readme.txt").write_text("no picture")
    return tmp_path / "photos"


def test_every_picture_is_drawn_and_written_down(folder: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main([checkpoint, str(folder), "--out", str(out), "--score-thr", "0"]) == 0
    assert "3 of 3 pictures" in capsys.readouterr().out
    written = json.loads((out / "predictions.json").read_text())
    assert [Path(entry["file"]).name for entry in written["predictions"]] == ["A.png", "a.jpg", "a.PNG"]
    assert sorted(path.name for path in out.glob("*.jpg")) == sorted(entry["drawing"] for entry in written["predictions"])
    for entry in written["predictions"]:
        assert set(entry["heads"]) == {"boxes", "semantic", "labels"}
        assert len(entry["heads"]["labels"]) == 2
        classes = cv2.imread(str(out / entry["heads"]["semantic"]["png"]), cv2.IMREAD_UNCHANGED)
        assert classes.shape == (entry["height"], entry["width"])
        drawn = cv2.imread(str(out / entry["drawing"]))
        assert min(drawn.shape[:2]) > 20


def test_a_picture_that_does_not_decode_is_named(folder: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "cut.jpg").write_bytes((folder / "a.jpg").read_bytes()[:60])
    assert main([checkpoint, str(folder / "cut.jpg"), str(folder / "a.jpg"), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "1 of 2 pictures" in said.out
    assert "cut.jpg" in said.err
    written = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len(written["predictions"]) == len(written["unreadable"]) == 1


def test_places_are_pictures_folders_and_patterns(folder: Path) -> None:
    assert [Path(uri).name for uri in find_pictures([str(folder / "*.png"), str(folder), str(folder / "a.jpg")])] == [
        "A.png",
        "a.jpg",
        "a.PNG",
    ]
    assert len(find_pictures([str(folder / "**" / "a.*")])) == 2
    for nothing in (str(folder / "x.jpg"), str(folder / "*.bmp"), str(folder.parent / "empty")):
        (folder.parent / "empty").mkdir(exist_ok=True)
        with pytest.raises(FileNotFoundError, match="no picture"):
            find_pictures([nothing])


@given(st.lists(st.sampled_from(["a/x.jpg", "b/x.png", "X.jpg", "x-2.jpg", "c/x-2.jpg", "d/.png", "y"]), min_size=1, max_size=9))
def test_no_drawing_overwrites_another(uris: list[str]) -> None:
    names = [name.lower() for name in unique_names(uris)]
    assert len(set(names)) == len(names) == len(uris)
