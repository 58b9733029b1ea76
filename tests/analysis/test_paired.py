"""Predictions of every kind of file find their images and their classes."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from mtl_ray.analysis.paired import Paired, read_paired
from mtl_ray.evaluation.predictions_file import to_table, write_arrow
from mtl_ray.inference.predictor import head_of
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.detection.columns import ScoredImage
from tests.analysis.coco_json import CATEGORIES, NAMES, write_coco_json
from tests.analysis.mmdet_pickles import entries_2x, entries_3x
from tests.tasks.random_objects import random_images, sample_of

IMAGES = random_images(7, count=12, classes=5)
LISTED = [name for _, name, _ in CATEGORIES]


def by_name(paired: Paired) -> dict[str, set[tuple[str, float, tuple[float, ...]]]]:
    """Of each file the detections as class name, score and box."""
    return {
        paired.file_names[image.key]: {
            (
                paired.names[label],
                round(float(score), 3),
                tuple(round(side, 2) for side in box.tolist()),
            )
            for label, score, box in zip(
                image.predicted.classes.tolist(),
                image.predicted.scores,
                image.predicted.boxes_xyxy,
                strict=True,
            )
        }
        for image in paired.images
    }


def truth_by_name(paired: Paired) -> dict[str, list[str]]:
    return {
        paired.file_names[image.key]: sorted(
            paired.names[label] for label in image.ground_truth.classes
        )
        for image in paired.images
    }


def listed_order(images: list[ScoredImage], data: str) -> list[ScoredImage]:
    """As the annotation file lists its images."""
    by_key = {image.key: image for image in images}
    return [by_key[entry["file_name"]] for entry in json.loads(Path(data).read_text())["images"]]


def relabelled(images: list[ScoredImage]) -> list[ScoredImage]:
    """Labels count the categories in the order of the annotation file, as MMDetection's data set
    does.
    """
    from dataclasses import replace

    number = np.array([LISTED.index(name) for name in NAMES])
    return [
        image._replace(predicted=replace(image.predicted, classes=number[image.predicted.classes]))
        for image in images
    ]


@pytest.mark.parametrize("generation", ["2.x", "2.x masks", "3.x", "3.x masks", "arrow"])
def test_every_file_says_what_the_results_file_says(generation: str, tmp_path: Path) -> None:
    data, results = write_coco_json(tmp_path, IMAGES)
    expected = read_paired(results, data, kind="segm")
    masks = generation.endswith("masks")
    uri = str(tmp_path / "result.pkl")
    if generation.startswith("2.x"):
        content: list[object] = entries_2x(listed_order(relabelled(IMAGES), data), 5, masks)
        Path(uri).write_bytes(pickle.dumps(content))
    elif generation.startswith("3.x"):
        Path(uri).write_bytes(pickle.dumps(entries_3x(relabelled(IMAGES), masks)))
    else:
        uri, heads = str(tmp_path / "p.arrow"), {"objects": head_of("yolov3")}
        table = to_table(
            [sample_of(image) for image in IMAGES],
            [{"objects": image.predicted} for image in IMAGES],
            heads,
        )
        write_arrow(uri, table, heads, Vocabulary(classes={"instances": NAMES}))
    found = read_paired(uri, data, kind="segm" if masks else "bbox")
    assert by_name(found) == by_name(expected)
    assert truth_by_name(found) == truth_by_name(expected)
    assert [image.key for image in found.images] == [str(number) for number in range(12)]
    assert dict(zip(found.names, found.groups, strict=True)) == {
        name: group for _, name, group in CATEGORIES
    }
    if masks:
        assert sorted(m for image in found.images for m in image.predicted.masks or ()) == sorted(
            m for image in expected.images for m in image.predicted.masks or ()
        )


def test_classes_of_a_pickle_may_be_named(tmp_path: Path) -> None:
    data, results = write_coco_json(tmp_path, IMAGES)
    (tmp_path / "r.pkl").write_bytes(pickle.dumps(entries_3x(IMAGES)))
    named = read_paired(str(tmp_path / "r.pkl"), data, classes=NAMES)
    assert by_name(named) == by_name(read_paired(results, data))
    with pytest.raises(ValueError, match="for a pickle only"):
        read_paired(results, data, classes=NAMES)
    with pytest.raises(ValueError, match="labels from 0 to"):
        read_paired(str(tmp_path / "r.pkl"), data, classes=NAMES[:2])


def test_an_image_without_an_entry_is_one_where_nothing_was_found(tmp_path: Path) -> None:
    data, _ = write_coco_json(tmp_path, IMAGES)
    (tmp_path / "r.pkl").write_bytes(pickle.dumps(entries_3x(IMAGES)[:5]))
    found = read_paired(str(tmp_path / "r.pkl"), data)
    assert len(found.images) == 12
    assert sum(len(image.predicted) for image in found.images[5:]) == 0


def test_what_fits_no_image_is_refused(tmp_path: Path) -> None:
    data, results = write_coco_json(tmp_path, IMAGES)
    cases = {
        "does not have": [entries_3x(IMAGES)[0] | {"img_path": "/x/y.jpg", "img_id": 99}],
        "there was one before": [entries_3x(IMAGES)[0]] * 2,
        "the data has 12 images": entries_2x(IMAGES[:3], 5),
        "no result that is known": [{"pred": 1}],
        "holds dict": {"a": 1},
        "2 scores": [
            entries_3x(IMAGES)[0]
            | {
                "pred_instances": {
                    "bboxes": np.zeros((1, 4)),
                    "scores": np.zeros(2),
                    "labels": np.zeros(1),
                }
            }
        ],
        "has no rank": [
            entries_3x(IMAGES)[0]
            | {
                "pred_instances": {
                    "bboxes": np.zeros((1, 4)),
                    "scores": np.full(1, np.nan),
                    "labels": np.zeros(1),
                }
            }
        ],
    }
    for sentence, content in cases.items():
        (tmp_path / "r.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match=sentence):
            read_paired(str(tmp_path / "r.pkl"), data)
    (tmp_path / "r.pkl").write_bytes(pickle.dumps(Path("/")))
    with pytest.raises(ValueError, match="pathlib"):
        read_paired(str(tmp_path / "r.pkl"), data)
    entries = json.loads(Path(results).read_text())
    Path(results).write_text(json.dumps([*entries, entries[0] | {"image_id": 77}]))
    with pytest.raises(ValueError, match="such as 77"):
        read_paired(results, data)
    for score, said in ((float("nan"), "not finite"), (None, "no number")):
        Path(results).write_text(json.dumps([*entries[:2], entries[2] | {"score": score}]))
        with pytest.raises(ValueError, match=f"score of entry 2 is {said}"):
            read_paired(results, data)


def test_what_is_left_out_of_a_pair(tmp_path: Path) -> None:
    data, results = write_coco_json(tmp_path, IMAGES)
    whole = read_paired(results, data)
    assert whole.above(0) is whole
    scores = np.concatenate([image.predicted.scores for image in whole.above(0.5).images])
    assert scores.min() >= 0.5
    assert len(scores) == sum(int((image.predicted.scores >= 0.5).sum()) for image in whole.images)
    content = json.loads(Path(data).read_text())
    first, second, third, fourth, fifth = content["annotations"][:5]
    first["ignore"], second["area"], third["bbox"][2], fourth["bbox"][3] = 1, 0, 0.5, 0.9
    fifth["bbox"][:2] = [1000, 1000]
    Path(data).write_text(json.dumps(content))
    left = sum(len(image.ground_truth) for image in read_paired(results, data).usable().images)
    assert left == len(content["annotations"]) - 5
    fourth["bbox"] = [255.9, 10, 1, 20]  # 256.9 - 255.9 is less than 1
    Path(data).write_text(json.dumps(content))
    left = sum(len(image.ground_truth) for image in read_paired(results, data).usable().images)
    assert left == len(content["annotations"]) - 4
