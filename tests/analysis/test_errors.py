"""The error analysis gives what pycocotools gives when each step of the documented rule is done
by hand.
"""

import contextlib
import copy
import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from jobs.analyze.errors import main
from mtl_ray.analysis.errors import AREAS, KINDS, error_curves
from mtl_ray.analysis.executor import run_serial
from mtl_ray.analysis.paired import Likeness, Paired, read_paired
from mtl_ray.analysis.picture_source import PictureSource
from mtl_ray.analysis.tide import tide
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.detection.columns import ScoredImage
from tests.analysis.coco_json import NAMES, write_coco_json
from tests.tasks.random_objects import HEIGHT, WIDTH, detections, instances, random_images

BOUNDS = [[0, 1e10], [0, 1024], [1024, 9216], [9216, 1e10]]


def evaluated(
    gt: dict[str, Any], found: list[dict[str, Any]], kind: str, thresholds: list[float]
) -> NDArray[np.float64]:
    """Precision (T, 101, C, 4), classes by rising id; annotations are numbered from 1, because 0
    means "not matched".
    """
    gt = copy.deepcopy(gt)
    for number, annotation in enumerate(gt["annotations"], 1):
        annotation["id"] = number
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = gt
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(copy.deepcopy(found)), kind)
        evaluation.params.maxDets = [100]
        evaluation.params.iouThrs = np.array(thresholds)
        evaluation.params.areaRng = BOUNDS
        evaluation.evaluate()
        evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"][..., 0])


def reference(gt: dict[str, Any], found: list[dict[str, Any]], kind: str) -> NDArray[np.float64]:
    """(7, 101, C, 4), a class at a time, as the documentation describes it."""
    categories = sorted(gt["categories"], key=lambda each: each["id"])
    result = np.zeros((7, 101, len(categories), 4))
    result[:3] = evaluated(gt, found, kind, [0.75, 0.5, 0.1])
    for place, category in enumerate(categories):
        mine = [entry for entry in found if entry["category_id"] == category["id"]]
        similar = {
            each["id"] for each in categories if each["supercategory"] == category["supercategory"]
        }
        for row, forgiven in ((3, similar), (4, {each["id"] for each in categories})):
            relabelled = copy.deepcopy(gt)
            for annotation in relabelled["annotations"]:
                if (
                    annotation["category_id"] in forgiven
                    and annotation["category_id"] != category["id"]
                ):
                    annotation |= {"category_id": category["id"], "iscrowd": 1, "ignore": 1}
            result[row, :, place] = (
                evaluated(relabelled, mine, kind, [0.1])[0, :, place] if mine else -1
            )
            # loadRes refuses an empty list; without detections the precision is 0 where there are
            # objects
            if not mine:
                result[row, :, place] = 0
    result[result == -1] = 0
    result[5], result[6] = result[4] > 0, 1
    return result


def confused(images: list[ScoredImage], seed: int) -> list[ScoredImage]:
    """Half of the detections are of any class."""
    rng = np.random.default_rng(seed)
    kinds = [
        np.where(
            rng.random(len(image.predicted)) < 0.5,
            rng.integers(0, 5, len(image.predicted)),
            image.predicted.classes,
        )
        for image in images
    ]
    return [
        image._replace(predicted=replace(image.predicted, classes=kind))
        for image, kind in zip(images, kinds, strict=True)
    ]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_curves_are_those_of_the_documented_rule(kind: Likeness, seed: int, tmp_path: Path) -> None:
    data, predictions = write_coco_json(
        tmp_path, confused(random_images(seed, count=20, classes=5), seed), seed
    )
    expected = reference(
        json.loads(Path(data).read_text()), json.loads(Path(predictions).read_text()), kind
    )
    found = error_curves(read_paired(predictions, data, kind=kind), run_serial, kind=kind)
    assert found.names == NAMES
    steps = np.abs(np.diff(expected[2:5], axis=0)).max(axis=(1, 2, 3))
    assert (steps > 0.01).all()  # so that something was forgiven
    np.testing.assert_allclose(found.precision, expected, atol=1e-9)


def test_real_detections_give_the_reference(shared_data: Path) -> None:
    folder = shared_data / "eval_reference"
    data, predictions = (
        folder / "coco_mini_val_gt.json",
        folder / "coco_mini_val_yolox_nano_dt.json",
    )
    found = error_curves(read_paired(str(predictions), str(data)), run_serial)
    plain = evaluated(
        json.loads(data.read_text()), json.loads(predictions.read_text()), "bbox", [0.75, 0.5, 0.1]
    )
    np.testing.assert_allclose(found.precision[:3], np.maximum(plain, 0), atol=1e-9)
    assert found.of_present()["allarea"]["C50"] == pytest.approx(0.436573, abs=1e-6)
    assert found.averages()["allclass"]["allarea"]["C50"] == pytest.approx(
        0.436573 * (found.objects[:, 0] > 0).sum() / 80, abs=1e-6
    )


def test_the_files_hold_every_class_and_area(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, predictions = write_coco_json(tmp_path, random_images(4, classes=4))
    out = tmp_path / "out"
    assert (
        main(
            [
                predictions,
                "--data",
                data,
                "--out",
                str(out),
                "--type",
                "segm",
                "--areas",
                "500",
                "2000",
                "1e5",
            ]
        )
        == 0
    )
    numbers = json.loads((out / "errors.json").read_text())
    assert set(numbers) == {*NAMES, "allclass"}
    assert all(
        tuple(areas) == AREAS and tuple(row) == KINDS
        for areas in numbers.values()
        for row in areas.values()
    )
    assert numbers["allclass"]["small"]["C50"] == pytest.approx(
        np.mean([numbers[name]["small"]["C50"] for name in NAMES])
    )
    rows = list(csv.DictReader((out / "errors.csv").read_text().splitlines()))
    assert len(rows) == 4 * (len(NAMES) + 1)
    pictures = {file.name for file in (out / "segm").iterdir()}
    assert {"segm-allclass.png", "segm-dog.png"} <= pictures
    assert "segm-cat.png" not in pictures  # has no object
    assert "TIDE" in capsys.readouterr().out


def test_areas_that_do_not_rise_and_masks_that_are_not_there_are_refused(tmp_path: Path) -> None:
    data, predictions = write_coco_json(tmp_path, random_images(4, classes=4))
    with pytest.raises(ValueError, match="do not increase"):
        main([predictions, "--data", data, "--out", str(tmp_path), "--areas", "9", "4", "100"])
    content = json.loads(Path(data).read_text())
    (tmp_path / "bare.json").write_text(
        json.dumps({**content, "annotations": [], "categories": []})
    )
    (tmp_path / "none.json").write_text("[]")
    with pytest.raises(ValueError, match="no classes"):
        main(
            [
                str(tmp_path / "none.json"),
                "--data",
                str(tmp_path / "bare.json"),
                "--out",
                str(tmp_path),
            ]
        )
    bare = [
        {key: entry[key] for key in ("image_id", "category_id", "bbox", "score")}
        for entry in json.loads(Path(predictions).read_text())
    ]
    Path(predictions).write_text(json.dumps(bare))
    with pytest.raises(ValueError, match="no masks"):
        main([predictions, "--data", data, "--out", str(tmp_path), "--type", "segm"])


def one_image(image: ScoredImage) -> Paired:
    return Paired(
        vocabulary=Vocabulary(classes={"instances": ("a", "b")}),
        images=(image,),
        file_names={image.key: image.key},
        rows=(0,),
        pictures=PictureSource(split=None),
        groups=("a", "b"),
    )


def test_tide_tells_the_kinds_of_errors_apart() -> None:
    """One object found, and then one error of each kind."""
    squares = [[float(x), 0.0, float(x) + 100, 100.0] for x in (0, 200, 400, 600, 800)]
    gt = instances(squares, [0, 0, 0, 0, 1])
    boxes = [
        squares[0],
        squares[0],
        [240.0, 0, 340, 100],
        squares[2],
        [640.0, 0, 740, 100],
        [0.0, 900, 100, 1000],
    ]
    found = detections(boxes, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [0, 0, 0, 1, 1, 0])
    got = tide(one_image(ScoredImage("k", 1000, 1000, gt, found)))
    assert got["counts"] == {"Cls": 1, "Loc": 1, "Both": 1, "Dupe": 1, "Bkg": 1, "Miss": 2}
    assert sum(got["shares"].values()) == pytest.approx(1)
    # class a: 1 of 4 found, at the recalls 0 to 0.25; class b: nothing
    assert got["ap"] == pytest.approx((26 / 101 + 0) / 2)


THEIRS = {
    "bbox": {
        "ap": 4.950760179233121,
        "counts": {"Cls": 7, "Loc": 20, "Both": 15, "Dupe": 15, "Bkg": 107, "Miss": 53},
        "delta_ap": {
            "Cls": 3.2319234907575636,
            "Loc": 5.711671269605614,
            "Both": 0.16356071127474703,
            "Dupe": 0.19794550747247097,
        }
        | {
            "Bkg": 4.529202102709363,
            "Miss": 6.538513559750192,
            "FP": 15.445279424727275,
            "FN": 18.77821180350241,
        },
    },
    "segm": {
        "ap": 10.623886001161898,
        "counts": {"Cls": 13, "Loc": 8, "Both": 10, "Dupe": 31, "Bkg": 94, "Miss": 47},
        "delta_ap": {
            "Cls": 7.800110767589677,
            "Loc": 0.9022814502993697,
            "Both": 1.2811804985546615,
            "Dupe": 0.9901693144604504,
        }
        | {
            "Bkg": 5.61586330122727,
            "Miss": 13.582380564739063,
            "FP": 18.683044691907412,
            "FN": 24.56162073949986,
        },
    },
}
"""What tidecv 1.0.1 says of ``with_silent_classes``, in percent; of one AP one of its 101
recalls is rounded otherwise.
"""


def with_silent_classes() -> list[ScoredImage]:
    """Without crowds and equal scores; class 3 is never found, and class 4 is always taken for
    class 2.
    """
    images = []
    for number, image in enumerate(random_images(11, count=40, classes=5)):
        kept = image.predicted.classes != 3
        found = replace(
            image.predicted,
            boxes_xyxy=image.predicted.boxes_xyxy[kept],
            scores=(np.arange(kept.sum()) * 0.37 % 1 + number * 1e-4).astype(np.float32),
            classes=np.where(image.predicted.classes == 4, 2, image.predicted.classes)[kept],
            masks=tuple(
                mask for mask, keep in zip(image.predicted.masks or (), kept, strict=True) if keep
            ),
            keypoints=None,
        )
        images.append(
            image._replace(
                ground_truth=replace(
                    image.ground_truth, crowd=np.zeros(len(image.ground_truth), np.bool_)
                ),
                predicted=found,
            )
        )
    return images


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_tide_says_what_its_authors_program_says(tmp_path: Path, kind: Likeness) -> None:
    data, predictions = write_coco_json(tmp_path, with_silent_classes())
    got = tide(read_paired(predictions, data, kind=kind), kind)
    assert got["counts"] == THEIRS[kind]["counts"]
    assert 100 * got["ap"] == pytest.approx(THEIRS[kind]["ap"], abs=1e-6)
    assert {name: 100 * value for name, value in got["delta_ap"].items()} == pytest.approx(
        THEIRS[kind]["delta_ap"], abs=5e-3
    )


def test_tide_takes_no_object_that_nobody_outlined_for_one_to_find() -> None:
    """Class 1, never found, has one object, which has a box alone: compared by masks it is as if
    the class were not there.
    """
    images = with_silent_classes()
    mask = next(mask for image in images for mask in image.ground_truth.masks or ())
    here = replace(
        instances([[10.0, 10, 60, 60], [100.0, 100, 150, 150]], [0, 1]), masks=(mask, b"")
    )
    found = replace(detections([[10.0, 10, 60, 60]], [0.9], [0]), masks=(mask,))
    got = tide(one_image(ScoredImage("k", HEIGHT, WIDTH, here, found)), "segm")
    assert got["ap"] == pytest.approx(1)
    assert got["delta_ap"]["Miss"] == got["delta_ap"]["FN"] == pytest.approx(0)


def test_images_with_boxes_only_are_left_out_of_masks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [image for image in random_images(4, count=14, classes=5) if len(image.ground_truth)]
    data, predictions = write_coco_json(tmp_path, images)
    gt = json.loads(Path(data).read_text())
    undrawn = gt["images"][0]["id"]
    for each in gt["annotations"]:
        if each["image_id"] == undrawn:
            del each["segmentation"]
    Path(data).write_text(json.dumps(gt))
    assert main([predictions, "--data", data, "--type", "segm", "--out", str(tmp_path)]) == 0
    assert "1 images have boxes without masks and were left out" in capsys.readouterr().out
    for each in gt["annotations"]:
        each.pop("segmentation", None)
    Path(data).write_text(json.dumps(gt))
    with pytest.raises(ValueError, match="no masks; compare boxes instead"):
        main([predictions, "--data", data, "--type", "segm", "--out", str(tmp_path)])
