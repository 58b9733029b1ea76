"""Hidden objects are found by the rule of the original, told from masks, and measured while a
config is evaluated.
"""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as reference

from jobs.analyze.occlusion import main
from mtl_ray.analysis.occlusion import hidden_in
from mtl_ray.evaluation.config import EvaluateConfig, OcclusionConfig
from mtl_ray.evaluation.metrics import head_metrics, read_list
from mtl_ray.geometry.masks import decode_rle, encode_rle
from mtl_ray.inference.predictor import head_of
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.detection.columns import ScoredImage
from tests.analysis.coco_json import NAMES, write_coco_json
from tests.tasks.random_objects import HEIGHT, WIDTH, instances, random_images, sample_of


def items(images: list[ScoredImage], rng: np.random.Generator) -> list[tuple[Any, ...]]:
    """Entries as those of the original's pickles; a third of them of a class by another name."""
    found: list[tuple[Any, ...]] = []
    for image in images:
        for i in range(len(image.ground_truth)):
            name = (
                NAMES[int(image.ground_truth.classes[i])]
                if rng.random() < 0.7
                else NAMES[int(rng.integers(5))]
            )
            counts = (image.ground_truth.masks or ())[i]
            x1, y1, x2, y2 = image.ground_truth.boxes_xyxy[i].tolist()
            found.append(
                (
                    image.key,
                    name,
                    i,
                    [x1, y1, x2 - x1, y2 - y1],
                    {"size": [HEIGHT, WIDTH], "counts": counts},
                )
            )
    return found


def plain_recall(
    entries: list[tuple[Any, ...]], images: list[ScoredImage], score: float, iou: float
) -> float:
    """The original's loop: best first, until the score is too low."""
    correct = 0
    for file_name, name, _, _, mask in entries:
        found = next(image.predicted for image in images if image.key == file_name)
        for i in sorted(
            range(len(found)), key=lambda i: (-found.scores[i], *found.boxes_xyxy[i, :2].tolist())
        ):
            if found.scores[i] < score:
                break
            one, other = (
                decode_rle((found.masks or ())[i], HEIGHT, WIDTH) > 0,
                decode_rle(mask["counts"], HEIGHT, WIDTH) > 0,
            )
            if (
                NAMES[int(found.classes[i])] == name
                and (one & other).sum() >= iou * (one | other).sum()
            ):
                correct += 1
                break
    return 100 * correct / len(entries)


def test_lists_of_the_original_give_its_recall(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = random_images(3, count=20, classes=5)
    rng = np.random.default_rng(0)
    data, predictions = write_coco_json(tmp_path, images)
    occluded, separated = items(images[:12], rng), items(images[8:], rng)
    (tmp_path / "o.pkl").write_bytes(pickle.dumps(occluded))
    (tmp_path / "s.json").write_text(
        json.dumps(
            [[*row[:4], {**row[4], "counts": row[4]["counts"].decode()}] for row in separated]
        )
    )
    lists = ["--occluded", str(tmp_path / "o.pkl"), "--separated", str(tmp_path / "s.json")]
    out = tmp_path / "recall.json"
    assert (
        main(
            [
                predictions,
                "--data",
                data,
                *lists,
                "--score-thr",
                "0.4",
                "--iou-thr",
                "0.6",
                "--out",
                str(out),
            ]
        )
        == 0
    )
    found = json.loads(out.read_text())
    expected = {
        "occluded_recall": plain_recall(occluded, images, 0.4, 0.6),
        "separated_recall": plain_recall(separated, images, 0.4, 0.6),
    }
    assert found == pytest.approx(expected)
    assert 0 < found["occluded_recall"] < 100
    assert f"of {len(occluded)}" in capsys.readouterr().out


def test_overlap_is_that_of_pixels(tmp_path: Path) -> None:
    one, other = np.zeros((20, 30), np.uint8), np.zeros((20, 30), np.uint8)
    one[2:12, 5:15], other[4:14, 5:15] = 1, 1
    coded = [reference.encode(np.asfortranarray(mask)) for mask in (one, other)]
    assert reference.iou(coded[:1], coded[1:], [0])[0, 0] == pytest.approx(
        (one & other).sum() / (one | other).sum()
    )


def test_objects_of_other_images_do_not_count_and_an_empty_list_has_no_recall(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = random_images(3, count=6, classes=5)
    data, predictions = write_coco_json(tmp_path, images)
    strange = [
        [
            "nowhere.jpg",
            "dog",
            0,
            [0, 0, 9, 9],
            {
                "size": [HEIGHT, WIDTH],
                "counts": encode_rle(np.ones((HEIGHT, WIDTH), np.uint8)).decode(),
            },
        ]
    ]
    (tmp_path / "o.json").write_text(json.dumps(strange))
    (tmp_path / "s.json").write_text("[]")
    lists = [
        "--occluded",
        str(tmp_path / "o.json"),
        "--separated",
        str(tmp_path / "s.json"),
        "--out",
        str(tmp_path / "r.json"),
    ]
    assert main([predictions, "--data", data, *lists]) == 0
    assert json.loads((tmp_path / "r.json").read_text()) == {
        "occluded_recall": None,
        "separated_recall": None,
    }
    assert "1 listed objects" in capsys.readouterr().out
    (tmp_path / "s.json").write_text(json.dumps([["a.jpg", "dog", 0, [1, 2, 3, 4]]]))
    with pytest.raises(ValueError, match="entry 0"):
        main([predictions, "--data", data, *lists])
    with pytest.raises(ValueError, match="go together"):
        main(
            [
                predictions,
                "--data",
                data,
                "--occluded",
                str(tmp_path / "o.json"),
                "--out",
                str(tmp_path / "r.json"),
            ]
        )


def painted(*parts: tuple[slice, slice]) -> NDArray[np.uint8]:
    mask = np.zeros((100, 120), np.uint8)
    for part in parts:
        mask[part] = 1
    return mask


def test_what_lies_behind_is_told_from_masks() -> None:
    """A bar across a long box cuts it; a post covers a corner of a square; a far object hides
    nothing.
    """
    masks = [
        painted((slice(10, 30), slice(5, 45)), (slice(10, 30), slice(55, 95))),
        painted((slice(0, 45), slice(46, 54))),
        painted((slice(60, 90), slice(5, 35))),
        painted((slice(70, 95), slice(100, 110))),
    ]
    masks[2][60:75, 20:35] = 0
    masks.append(painted((slice(50, 75), slice(20, 50))))
    gt = instances([[0, 0, 1, 1]] * len(masks))
    coded = type(gt)(
        **{name: getattr(gt, name) for name in gt.__slots__ if name != "masks"},
        masks=tuple(encode_rle(m) for m in masks),
    )
    assert hidden_in(coded, 100, 120) == {0: "separated", 2: "occluded"}
    assert hidden_in(gt, 100, 120) == {}


def test_lists_are_derived_written_and_measured_in_a_config(
    tmp_path: Path, shared_data: Path
) -> None:
    folder = shared_data / "eval_reference"
    files = [
        str(folder / "coco_mini_val_yolox_nano_dt.json"),
        "--data",
        str(folder / "coco_mini_val_gt.json"),
    ]
    assert main([*files, "--out", str(tmp_path / "one.json"), "--lists", str(tmp_path)]) == 0
    lists = {name: str(tmp_path / f"{name}.json") for name in ("occluded", "separated")}
    assert (
        main(
            [
                *files,
                "--out",
                str(tmp_path / "two.json"),
                "--occluded",
                lists["occluded"],
                "--separated",
                lists["separated"],
            ]
        )
        == 0
    )
    assert (tmp_path / "one.json").read_text() == (tmp_path / "two.json").read_text()
    assert len(json.loads((tmp_path / "occluded.json").read_text())) > 10


def test_the_metric_of_a_config_merges(tmp_path: Path) -> None:
    images = random_images(3, count=12, classes=5)
    entries = [
        [*row[:4], {**row[4], "counts": row[4]["counts"].decode()}]
        for row in items(images, np.random.default_rng(1))
    ]
    for name in ("occluded", "separated"):
        (tmp_path / f"{name}.json").write_text(
            json.dumps(entries if name == "occluded" else entries[:5])
        )
    asked = OcclusionConfig(
        occluded=str(tmp_path / "occluded.json"),
        separated=str(tmp_path / "separated.json"),
        iou_threshold=0.6,
    )
    vocabulary = Vocabulary(classes={"instances": NAMES})
    heads = {"boxes": head_of("yolov3")}
    whole, first, second = (
        head_metrics(heads, vocabulary, EvaluateConfig(occlusion=asked))["boxes"] for _ in range(3)
    )
    for metric, part in ((whole, images), (first, images[:7]), (second, images[7:])):
        for image in part:
            metric.update(sample_of(image), image.predicted)
    first.merge(second)
    plain = head_metrics(heads, vocabulary)["boxes"]
    for image in images:
        plain.update(sample_of(image), image.predicted)
    result = whole.result()
    assert result == pytest.approx(dict(first.result()), nan_ok=True)
    assert set(result) - set(plain.result()) == {"occluded_recall", "separated_recall"}
    assert result["occluded_recall"] == pytest.approx(
        plain_recall(
            [(*e[:4], {**e[4], "counts": e[4]["counts"].encode()}) for e in entries],
            images,
            0.3,
            0.6,
        )
        / 100
    )
    assert whole.main == plain.main


@pytest.mark.parametrize("counts", [99_999_999_999, None, [1, 2, "a"], "\u00e9"])
@pytest.mark.parametrize("side", [10, float("inf"), -1])
def test_an_entry_without_a_mask_is_named(tmp_path: Path, counts: object, side: float) -> None:
    entry = ["a.jpg", "cat", 0, [0, 0, 1, 1], {"size": [10, side], "counts": counts}]
    (tmp_path / "list.json").write_text(json.dumps([entry]))
    with pytest.raises(ValueError, match=r"list\.json: entry 0 is not "):
        read_list(str(tmp_path / "list.json"))
