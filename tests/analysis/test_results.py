"""The best and the worst images: a table of all, images of the right ones, the same with Ray
and without.
"""

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from jobs.analyze.results import main
from mtl_ray.analysis.image_scores import image_scores
from mtl_ray.evaluation.predictions_file import to_table, write_arrow
from mtl_ray.inference.predictor import head_of
from mtl_ray.samples import Vocabulary
from tests.analysis.coco_json import NAMES, write_coco_json
from tests.evaluation.conftest import png, write_split
from tests.tasks.random_objects import HEIGHT, WIDTH, random_images, sample_of

IMAGES = random_images(11, count=14, classes=5)
WANTED = [int((~image.ground_truth.crowd).sum()) for image in IMAGES]


def table(out: Path) -> dict[str, dict[str, Any]]:
    return {row["image"]: row for row in json.loads((out / "images.json").read_text())}


def names(out: Path, folder: str) -> list[str]:
    return sorted(file.name for file in (out / folder).iterdir()) if (out / folder).exists() else []


def with_pictures(folder: Path) -> None:
    for number, image in enumerate(IMAGES):
        cv2.imwrite(str(folder / image.key), np.full((HEIGHT, WIDTH, 3), 10 * number, np.uint8))


def test_the_table_has_all_images_and_the_pictures_are_the_ends_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, predictions = write_coco_json(tmp_path, IMAGES)
    with_pictures(tmp_path)
    out = tmp_path / "out"
    assert main([predictions, "--data", data, "--out", str(out), "--topk", "3"]) == 0
    rows = table(out)
    scores = np.nan_to_num(image_scores(IMAGES))
    assert [rows[image.key]["score"] for image in IMAGES] == pytest.approx(
        scores.tolist(), abs=1e-6
    )
    assert [rows[image.key]["num_truth"] for image in IMAGES] == WANTED
    assert [rows[image.key]["num_predicted"] for image in IMAGES] == [
        len(image.predicted) for image in IMAGES
    ]
    assert list(rows) == [image.key for image in IMAGES]
    listed = [entry["file_name"] for entry in json.loads(Path(data).read_text())["images"]]
    ranked = [image.key for image, wanted in zip(IMAGES, WANTED, strict=True) if wanted]
    ranked.sort(key=lambda key: (rows[key]["score"], listed.index(key)))
    expected = {"bad": ranked[:3], "good": ranked[-3:]}
    for folder, keys in expected.items():
        assert names(out, folder) == sorted(
            f"{Path(key).stem}_{rows[key]['score']:.3f}.jpg" for key in keys
        )
    drawn = cv2.imread(str(out / "good" / names(out, "good")[0]))
    assert drawn is not None
    assert drawn.shape[1] > 2 * WIDTH
    assert [
        row["image"] for row in csv.DictReader((out / "images.csv").read_text().splitlines())
    ] == list(rows)
    assert "grey" not in capsys.readouterr().out


def test_pictures_of_an_earlier_analysis_do_not_stay_among_those_of_the_next(
    tmp_path: Path,
) -> None:
    data, predictions = write_coco_json(tmp_path, IMAGES)
    with_pictures(tmp_path)
    out = tmp_path / "out"
    main([predictions, "--data", data, "--out", str(out), "--topk", "3"])
    before = names(out, "good")
    (out / "good" / "an image of mine.jpg").touch()
    main([predictions, "--data", data, "--out", str(out), "--topk", "1"])
    assert len(before) == 3
    assert len(names(out, "good")) == 2
    assert "an image of mine.jpg" in names(out, "good")
    assert len(names(out, "bad")) == 1


def test_as_mmdetection_has_it_empty_images_take_part(tmp_path: Path) -> None:
    data, predictions = write_coco_json(tmp_path, IMAGES)
    out = tmp_path / "out"
    assert main([predictions, "--data", data, "--out", str(out), "--topk", "99", "--compat"]) == 0
    rows = table(out)
    assert [rows[image.key]["score"] for image in IMAGES] == pytest.approx(
        np.nan_to_num(image_scores(IMAGES, crowd_counts=True)).tolist(), abs=1e-6
    )
    # half of the images, none of them twice
    assert len(names(out, "bad")) == len(names(out, "good")) == 7
    empty = [image.key for image in IMAGES if not len(image.ground_truth)]
    assert empty
    assert all(
        any(name.startswith(Path(key).stem) for name in (*names(out, "bad"), *names(out, "good")))
        for key in empty
    )


def test_scores_below_the_threshold_do_not_count_and_may_be_counted_but_not_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, predictions = write_coco_json(tmp_path, IMAGES)
    for extra, shown in (["--score-thr", "0.65"], 0.65), (["--show-score-thr", "0.65"], 0.0):
        out = tmp_path / extra[0]
        assert main([predictions, "--data", data, "--out", str(out), "--topk", "0", *extra]) == 0
        assert [row["num_predicted"] for row in table(out).values()] == [
            int((image.predicted.scores >= shown).sum()) for image in IMAGES
        ]
    assert main([predictions, "--data", data, "--out", str(tmp_path / "grey"), "--topk", "1"]) == 0
    assert "2 images were not found" in capsys.readouterr().out


def test_scores_below_the_default_are_not_drawn_and_how_many_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, predictions = write_coco_json(tmp_path, IMAGES)
    with_pictures(tmp_path)
    said = {}
    for name, extra in (("default", []), ("all", ["--show-score-thr", "0"])):
        assert (
            main(
                [predictions, "--data", data, "--out", str(tmp_path / name), "--topk", "3", *extra]
            )
            == 0
        )
        said[name] = capsys.readouterr().out
    drawn = {
        file.rpartition("_")[0]
        for folder in ("bad", "good")
        for file in names(tmp_path / "default", folder)
    }
    hidden = sum(
        int((image.predicted.scores < 0.3).sum())
        for image in IMAGES
        if Path(image.key).stem in drawn
    )
    assert hidden > 0
    assert (
        f"{hidden} detections with a score below 0.3 are not drawn; --show-score-thr 0 draws all"
        in said["default"]
    )
    assert "not drawn" not in said["all"]


def test_a_split_has_its_pictures_in_it_and_names_that_are_alike_stay_apart(
    tmp_path: Path, ray_session: None
) -> None:
    keys = [f"{'ab'[number % 2]}/{number // 2}.png" for number in range(len(IMAGES))]
    images = [image._replace(key=key) for image, key in zip(IMAGES, keys, strict=True)]
    samples = [
        sample_of(image).with_image(data=png(np.zeros((HEIGHT, WIDTH, 3), np.uint8)))
        for image in images
    ]
    split = write_split(tmp_path / "split", samples, Vocabulary(classes={"instances": NAMES}))
    heads = {"boxes": head_of("yolov3")}
    uri = str(tmp_path / "p.arrow")
    write_arrow(
        uri,
        to_table(samples, [{"boxes": image.predicted} for image in images], heads),
        heads,
        Vocabulary(classes={"instances": NAMES}),
    )
    outs = [tmp_path / "one", tmp_path / "two"]
    for out, workers in zip(outs, ("1", "2"), strict=True):
        assert (
            main([uri, "--data", split, "--out", str(out), "--topk", "4", "--workers", workers])
            == 0
        )
    assert (outs[0] / "images.json").read_bytes() == (outs[1] / "images.json").read_bytes()
    assert len(names(outs[0], "good")) == 4
    for folder in ("good", "bad"):
        assert [(outs[0] / folder / name).read_bytes() for name in names(outs[0], folder)] == [
            (outs[1] / folder / name).read_bytes() for name in names(outs[1], folder)
        ]


def test_pictures_of_another_size_are_refused(tmp_path: Path) -> None:
    data, predictions = write_coco_json(tmp_path, IMAGES)
    for image in IMAGES:
        cv2.imwrite(str(tmp_path / image.key), np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(ValueError, match="9 x 9 pixels"):
        main([predictions, "--data", data, "--out", str(tmp_path / "out")])
    with pytest.raises(ValueError, match="--workers is 0"):
        main([predictions, "--data", data, "--out", str(tmp_path / "out"), "--workers", "0"])


def test_of_equal_images_those_listed_first_are_the_worst(tmp_path: Path) -> None:
    """As the original takes them; an annotation file need not list images by their numbers."""
    data, predictions = write_coco_json(tmp_path, random_images(3, count=12, classes=5))
    content = json.loads(Path(data).read_text())
    content["annotations"] = []
    Path(data).write_text(json.dumps(content))
    main([predictions, "--data", data, "--out", str(tmp_path / "out"), "--topk", "3", "--compat"])
    listed = [Path(image["file_name"]).stem for image in content["images"]]
    assert listed[:3] != sorted(listed)[:3]
    drawn = {path.name.rpartition("_")[0] for path in (tmp_path / "out" / "bad").iterdir()}
    assert drawn == set(listed[:3])
