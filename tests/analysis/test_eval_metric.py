"""Stored predictions have the figures of the references, alone and together."""

import json
import pickle
from pathlib import Path

import pytest

from jobs.analyze.eval_metric import main
from jobs.evaluate import main as evaluate
from tests.analysis.coco_json import NAMES, write_coco_json
from tests.analysis.mmdet_pickles import entries_3x
from tests.tasks.random_objects import random_images

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
CONFIG = """
model:
  backbone: {{type: timm, name: resnet18}}
  heads: {{boxes: {{type: retinanet}}}}
data: {{train: {{uri: nowhere}}, val: {{uri: {data}}}, canvas: {{height: 64, width: 64}}, batch: 2}}
schedule: {{epochs: 1}}
runtime: {{name: run}}
evaluate: {{occlusion: {{occluded: {lists}, separated: {lists}}}}}
"""


def test_real_sets_at_once(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shared_data / "eval_reference"
    expected = json.loads((folder / "expected.json").read_text())["expected"]
    names = ("coco_mini_val", "coco128_val")
    data = [str(folder / f"{name}_gt.json") for name in names]
    out = tmp_path / "metrics.json"
    assert (
        main(
            [
                *(str(folder / f"{name}_yolox_nano_dt.json") for name in names),
                "--data",
                *data,
                "--out",
                str(out),
                "--classwise",
            ]
        )
        == 0
    )
    reports = json.loads(out.read_text())
    assert list(reports) == [*data, "together"]
    for name, uri in zip(names, data, strict=True):
        assert [reports[uri][f"boxes/{metric}"] for metric in STATS] == pytest.approx(
            expected[name]["stats"], abs=1e-6
        )
    pooled = reports["together"]
    assert pooled["facts"]["samples"] == sum(reports[uri]["facts"]["samples"] for uri in data)
    assert reports[data[0]]["boxes/mAP"] < pooled["boxes/mAP"] < reports[data[1]]["boxes/mAP"]
    text = capsys.readouterr().out
    assert "boxes/mAP50" in text
    assert "person" in text


def test_a_pickle_has_the_figures_of_the_results_file(tmp_path: Path) -> None:
    images = random_images(5, count=10, classes=5)
    data, results = write_coco_json(tmp_path, images)
    (tmp_path / "r.pkl").write_bytes(pickle.dumps(entries_3x(images)))
    assert evaluate([results, "--data", data, "--out", str(tmp_path)]) == 0
    assert (
        main(
            [
                str(tmp_path / "r.pkl"),
                "--data",
                data,
                "--classes",
                *NAMES,
                "--out",
                str(tmp_path / "m.json"),
            ]
        )
        == 0
    )
    found, expected = (
        json.loads((tmp_path / "m.json").read_text())[data],
        json.loads((tmp_path / "report.json").read_text()),
    )
    for metric in STATS:
        assert found[f"boxes/{metric}"] == pytest.approx(expected[f"boxes/{metric}"], abs=1e-6)


def test_the_config_says_what_is_measured_on_what(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = random_images(5, count=10, classes=5)
    data, results = write_coco_json(tmp_path, images)
    image = next(image for image in images if len(image.ground_truth))
    size = {
        "size": [image.height, image.width],
        "counts": (image.ground_truth.masks or ())[0].decode(),
    }
    (tmp_path / "list.json").write_text(
        json.dumps([[image.key, NAMES[int(image.ground_truth.classes[0])], 0, [0, 0, 5, 5], size]])
    )
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(data=data, lists=tmp_path / "list.json"))
    assert main([results, "--config", str(config)]) == 0
    assert "boxes/occluded_recall" in capsys.readouterr().out


def test_as_many_files_as_sets(tmp_path: Path) -> None:
    data, results = write_coco_json(tmp_path, random_images(5, count=4, classes=5))
    with pytest.raises(ValueError, match="1 files of predictions and 2 datasets"):
        main([results, "--data", data, data])
    with pytest.raises(SystemExit):
        main([results])
