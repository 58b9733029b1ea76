"""jobs.evaluate: whatever the target and the data, the same predictions give the same figures."""

import contextlib
import io
import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from jobs.evaluate import main
from mtl_ray.distributed.evaluate import evaluate_rows
from mtl_ray.evaluation.evaluate import EvaluationRequest, evaluate, make_report, measure_rows
from mtl_ray.export.bundle import export
from mtl_ray.export.config import ExportConfig
from mtl_ray.inputs.decode import decode_semantic
from mtl_ray.samples import Sample, Vocabulary
from tests.evaluation.conftest import COUNT, broken, png, write_split
from tests.inference.tiny import HEADS, write_checkpoint

STATS = (
    "mAP",
    "mAP50",
    "mAP75",
    "mAP_s",
    "mAP_m",
    "mAP_l",
    "AR@1",
    "AR@10",
    "AR@100",
    "AR_s",
    "AR_m",
    "AR_l",
)


def run(out: Path, *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--out", str(out)]) == 0
    return read(out)


def read(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "report.json").read_text())
    return content


def figures(report: dict[str, Any], head: str = "") -> dict[str, float]:
    return {
        name: np.nan if value is None else value
        for name, value in report.items()
        if "/" in name and name.startswith(head)
    }


def reference(
    annotations: str, results: str, kind: str = "bbox", from_one: bool = True
) -> list[float]:
    """What pycocotools prints, with annotation ids from 1, or as they are."""
    content = json.loads(Path(annotations).read_text())
    if from_one:
        for number, annotation in enumerate(content["annotations"], 1):
            annotation["id"] = number
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = content
        gt.createIndex()
        evaluation = COCOeval(gt, gt.loadRes(json.loads(Path(results).read_text())), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def stats(report: dict[str, Any]) -> list[float]:
    return [-1.0 if report[f"boxes/{name}"] is None else report[f"boxes/{name}"] for name in STATS]


def test_predictions_measured_again_give_the_same_figures(
    checkpoint: str, split: str, tmp_path: Path
) -> None:
    report = run(tmp_path / "a", checkpoint, "--data", split)
    assert {
        "boxes/mAP",
        "boxes/mAP50",
        "semantic/mIoU",
        "semantic/mDice",
        "labels/top1",
    } <= report.keys()
    assert not any(name.startswith("auxiliary") for name in report)
    assert report["facts"]["samples"] == COUNT
    # not equal for want of figures
    assert all(0.1 < report[name] < 0.98 for name in ("boxes/mAP", "semantic/mIoU", "labels/top1"))
    assert list(report["per_class"]["semantic"]) == ["sky", "road", "tree"]
    again = run(tmp_path / "b", str(tmp_path / "a" / "predictions.arrow"), "--data", split)
    assert figures(again) == pytest.approx(figures(report), abs=1e-12, nan_ok=True)
    assert again["per_class"] == report["per_class"]
    boxes = run(tmp_path / "c", str(tmp_path / "a" / "boxes.coco.json"), "--data", split)
    assert figures(boxes) == pytest.approx(figures(report, "boxes"), abs=1e-6, nan_ok=True)


def test_an_annotation_file_whose_ids_start_at_zero_is_measured_as_pycocotools_does(
    checkpoint: str, coco: str, tmp_path: Path
) -> None:
    report = run(tmp_path / "a", checkpoint, "--data", coco)
    results = str(tmp_path / "a" / "boxes.coco.json")
    assert stats(report) == pytest.approx(reference(coco, results), abs=1e-6)
    assert {entry["image_id"] for entry in json.loads(Path(results).read_text())} <= set(
        range(COUNT)
    )
    assert run(tmp_path / "b", results, "--data", coco)["boxes/mAP"] == pytest.approx(
        report["boxes/mAP"], abs=1e-12
    )


def test_perfect_results_are_perfect_although_ids_start_at_zero(coco: str, tmp_path: Path) -> None:
    content = json.loads(Path(coco).read_text())
    results = [
        {"score": 0.9, **annotation}
        for annotation in content["annotations"]
        if not annotation["iscrowd"]
    ]
    (tmp_path / "dt.json").write_text(json.dumps(results))
    report = run(tmp_path / "out", str(tmp_path / "dt.json"), "--data", coco)
    assert report["boxes/mAP"] == pytest.approx(1.0)
    # what the reference makes of an id 0
    assert reference(coco, str(tmp_path / "dt.json"), from_one=False)[0] < 0.99


def test_a_split_and_its_annotation_file_agree(
    checkpoint: str, split: str, coco: str, tmp_path: Path
) -> None:
    ours = run(tmp_path / "a", checkpoint, "--data", split)
    theirs = run(tmp_path / "b", checkpoint, "--data", coco)
    assert figures(theirs) == pytest.approx(figures(ours, "boxes"), abs=1e-6, nan_ok=True)
    crossed = run(tmp_path / "c", str(tmp_path / "a" / "predictions.arrow"), "--data", split)
    assert figures(crossed, "boxes") == pytest.approx(figures(theirs), abs=1e-6, nan_ok=True)


def test_a_bundle_has_the_figures_of_its_checkpoint(
    checkpoint: str, split: str, tmp_path: Path
) -> None:
    export(
        checkpoint, str(tmp_path / "bundle"), ExportConfig(size="fixed", samples=2, min_agree=0.95)
    )
    ours = run(tmp_path / "a", checkpoint, "--data", split)
    theirs = run(tmp_path / "b", str(tmp_path / "bundle"), "--data", split)
    assert figures(theirs) == pytest.approx(figures(ours), abs=1e-3, nan_ok=True)


@pytest.mark.parametrize("ends", [(0, 4, 5, COUNT), (0, 0, COUNT), (0, 9, COUNT)])
def test_parts_of_the_rows_merge_to_the_whole(
    checkpoint: str, split: str, ends: tuple[int, ...]
) -> None:
    request = EvaluationRequest(target=checkpoint, data=split)
    report, whole = evaluate(request)
    merged, *others = [measure_rows(request, start, stop) for start, stop in pairwise(ends)]
    for other in others:
        merged.merge(other)
    assert make_report(request, merged, 0.0).figures == pytest.approx(
        report.figures, abs=1e-9, nan_ok=True
    )
    assert merged.table["key"].to_pylist() == whole.table["key"].to_pylist()


@pytest.mark.jobs
def test_many_tasks_have_the_figures_of_one_process(
    checkpoint: str, split: str, ray_session: None
) -> None:
    request = EvaluationRequest(target=checkpoint, data=split)
    alone, part = evaluate(request)
    shared, parts = evaluate_rows(request, workers=3)
    assert shared.figures == pytest.approx(alone.figures, abs=1e-9, nan_ok=True)
    assert parts.table["key"].to_pylist() == part.table["key"].to_pylist()


def test_samples_that_do_not_decode_are_named_and_counted(
    checkpoint: str, samples: list[Sample], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_split(tmp_path / "split", broken(samples, 4))
    arguments = [checkpoint, "--data", data, "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert "invalid sample 000004.png" in capsys.readouterr().out
    assert main([*arguments, "--max-bad", "1"]) == 0
    facts = read(tmp_path / "out")["facts"]
    assert (facts["samples"], facts["bad_samples"]) == (COUNT - 1, 1)


def test_classes_are_matched_by_name(
    checkpoint: str, split: str, samples: list[Sample], tmp_path: Path
) -> None:
    ours = run(tmp_path / "a", checkpoint, "--data", split)
    turned = Vocabulary(
        classes={
            "instances": ("c", "b", "a"),
            "labels": ("y", "x"),
            "semantic": ("tree", "road", "sky"),
        },
        exclusive_labels=True,
    )
    recoded = write_split(tmp_path / "split", [turned_sample(sample) for sample in samples], turned)
    theirs = run(tmp_path / "b", checkpoint, "--data", recoded)
    assert figures(theirs) == pytest.approx(figures(ours), abs=1e-9, nan_ok=True)
    assert theirs["per_class"] == ours["per_class"]


def turned_sample(sample: Sample) -> Sample:
    assert sample.semantic is not None
    assert sample.labels is not None
    pixels = decode_semantic(sample.semantic)
    semantic = png(np.where(pixels == 255, 255, 2 - pixels.astype(int)).astype(np.uint8))
    objects = (
        None
        if sample.instances is None
        else replace(sample.instances, classes=2 - sample.instances.classes)
    )
    return sample.with_annotations(labels=1 - sample.labels, instances=objects, semantic=semantic)


def test_classes_that_the_target_does_not_know_are_left_out(
    checkpoint: str, split: str, samples: list[Sample], tmp_path: Path
) -> None:
    wider = Vocabulary(classes={"instances": ("a", "b", "c", "d")})
    report = run(
        tmp_path / "a", checkpoint, "--data", write_split(tmp_path / "split", samples, wider)
    )
    notes = " ".join(report["facts"]["notes"])
    assert "instances: d" in notes
    assert "labels was not measured" in notes
    assert report["boxes/mAP"] == pytest.approx(
        run(tmp_path / "b", checkpoint, "--data", split)["boxes/mAP"]
    )


def test_what_cannot_be_measured_is_said(
    checkpoint: str, split: str, coco: str, samples: list[Sample], tmp_path: Path
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match="nowhere"):
        evaluate(EvaluationRequest(target=checkpoint, data=str(tmp_path / "nowhere")))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        evaluate(EvaluationRequest(target=str(tmp_path / "nowhere"), data=split))
    labels = write_split(tmp_path / "labels", samples, Vocabulary(classes={"labels": ("x", "y")}))
    boxes = write_checkpoint(tmp_path / "boxes", {"boxes": HEADS["boxes"]})
    with pytest.raises(ValueError, match="nothing can be measured"):
        evaluate(EvaluationRequest(target=str(boxes), data=labels))
    (tmp_path / "dt.json").write_text(
        json.dumps([{"image_id": 99, "category_id": 0, "bbox": [0, 0, 1, 1], "score": 1}])
    )
    with pytest.raises(ValueError, match="images that are not in the data, such as 99"):
        evaluate(EvaluationRequest(target=str(tmp_path / "dt.json"), data=coco))
    with pytest.raises(ValueError, match="--workers"):
        evaluate_rows(EvaluationRequest(target=checkpoint, data=split), workers=0)


def test_results_on_nothing_are_zero(coco: str, tmp_path: Path) -> None:
    (tmp_path / "dt.json").write_text("[]")
    report = run(tmp_path / "out", str(tmp_path / "dt.json"), "--data", coco)
    assert report["boxes/mAP"] == report["boxes/voc_mAP"] == 0.0


@pytest.mark.parametrize("name", ["coco_mini_val", "coco128_val"])
def test_real_boxes_have_the_figures_of_the_reference(
    shared_data: Path, name: str, tmp_path: Path
) -> None:
    folder = shared_data / "eval_reference"
    expected = json.loads((folder / "expected.json").read_text())["expected"][name]["stats"]
    gt, results = str(folder / f"{name}_gt.json"), str(folder / f"{name}_yolox_nano_dt.json")
    report = run(tmp_path, results, "--data", gt)
    assert stats(report) == pytest.approx(expected, abs=1e-4)
    assert stats(report) == pytest.approx(reference(gt, results), abs=1e-9)


def test_real_keypoints_have_the_figures_of_the_reference(
    shared_data: Path, tmp_path: Path
) -> None:
    folder = shared_data / "eval_reference"
    expected = json.loads((folder / "expected.json").read_text())["expected"]["person_kp_a"][
        "stats"
    ]
    report = run(
        tmp_path, str(folder / "person_kp_a_dt.json"), "--data", str(folder / "person_kp_a_gt.json")
    )
    names = ("mAP", "mAP50", "mAP75", "mAP_m", "mAP_l", "AR@20", "AR50", "AR75", "AR_m", "AR_l")
    assert [
        -1.0 if report[f"boxes/keypoints_{name}"] is None else report[f"boxes/keypoints_{name}"]
        for name in names
    ] == pytest.approx(expected, abs=1e-4)


def test_real_masks_have_the_figures_of_pycocotools(shared_data: Path, tmp_path: Path) -> None:
    gt = shared_data / "eval_reference" / "coco_mini_val_gt.json"
    rng = np.random.default_rng(0)
    entries = []
    for annotation in json.loads(gt.read_text())["annotations"]:
        if not annotation["iscrowd"]:
            moved = [
                [float(value) for value in np.array(polygon) + rng.normal(0, 4)]
                for polygon in annotation["segmentation"]
            ]
            entries.append(
                {name: annotation[name] for name in ("image_id", "category_id")}
                | {"segmentation": moved, "score": round(rng.random(), 1)}
            )
    (tmp_path / "polygons.json").write_text(json.dumps(entries))
    report = run(tmp_path / "out", str(tmp_path / "polygons.json"), "--data", str(gt))
    # with run lengths, which pycocotools wants
    rewritten = str(tmp_path / "out" / "boxes.coco.json")
    names = [f"segm_{name}" for name in STATS]
    assert [report[f"boxes/{name}"] for name in names] == pytest.approx(
        reference(str(gt), rewritten, "segm"), abs=1e-9
    )
    assert report["boxes/segm_mAP"] > 0.2


def test_images_that_are_not_there_are_counted_as_bad(
    checkpoint: str,
    coco: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    ray_session: None,
) -> None:
    folder = tmp_path / "coco"
    shutil.copytree(Path(coco).parent, folder)
    (folder / "images" / "000001.png").unlink()
    (folder / "images" / "000005.png").write_bytes(b"no image")
    arguments = [checkpoint, "--data", str(folder / "val.json"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--max-bad", "1"]) == 1
    printed = capsys.readouterr().out
    assert "its image 000001.png is in none of" in printed
    assert main([*arguments, "--max-bad", "2"]) == 0
    report = read(tmp_path / "out")
    assert (report["facts"]["samples"], report["facts"]["bad_samples"]) == (COUNT - 3, 2)
    assert sum("000001.png" in line for line in report["facts"]["bad"]) == 1
    shared, _ = evaluate_rows(
        EvaluationRequest(target=checkpoint, data=str(folder / "val.json")), workers=2
    )
    assert shared.facts["bad_samples"] == 2
    assert shared.figures == pytest.approx(figures(report), abs=1e-9, nan_ok=True)


def test_a_folder_without_any_of_the_images_is_a_mistake_of_the_request(
    checkpoint: str, coco: str, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match=r"none of the .* images .* --images"):
        evaluate(EvaluationRequest(target=checkpoint, data=coco, images=str(tmp_path)))


@pytest.mark.parametrize("semantic", [b"no map", png(np.zeros((3, 5), np.uint8))])
def test_a_sample_whose_map_does_not_fit_is_counted_as_bad(
    checkpoint: str, samples: list[Sample], tmp_path: Path, semantic: bytes
) -> None:
    data = write_split(
        tmp_path / "split",
        [
            each.with_annotations(semantic=semantic) if i == 4 else each
            for i, each in enumerate(samples)
        ],
    )
    report, part = evaluate(EvaluationRequest(target=checkpoint, data=data))
    assert (report.facts["samples"], [key for key, _ in part.measured.invalid]) == (
        COUNT - 1,
        ["000004.png"],
    )


def test_masks_alone_are_reported_as_masks(coco: str, tmp_path: Path) -> None:
    content = json.loads(Path(coco).read_text())
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        annotation["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    (tmp_path / "gt.json").write_text(json.dumps(content))
    kept = [annotation for annotation in content["annotations"] if not annotation["iscrowd"]]
    entries = [
        {name: each[name] for name in ("image_id", "category_id", "segmentation")} | {"score": 0.9}
        for each in kept
    ]
    (tmp_path / "dt.json").write_text(json.dumps(entries))
    found = figures(
        run(tmp_path / "out", str(tmp_path / "dt.json"), "--data", str(tmp_path / "gt.json"))
    )
    assert found["boxes/segm_mAP"] > 0.9
    assert "boxes/mAP" not in found
