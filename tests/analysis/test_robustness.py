"""jobs.analyze robustness: P, mPC and rPC, cells that are kept, and what is missing."""

import json
import math
import pickle
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from jobs.analyze.robustness import main
from mtl_ray.analysis import robustness
from mtl_ray.analysis.corruptions import BENCHMARK
from mtl_ray.analysis.robustness import (
    CLEAN,
    Cell,
    CellResult,
    RobustnessRequest,
    benchmark_cells,
    cell_result,
    measure_cell,
)
from mtl_ray.analysis.robustness_file import read_robustness
from mtl_ray.analysis.robustness_report import robustness_json, robustness_text, summarise
from mtl_ray.distributed import robustness as distributed
from mtl_ray.distributed.robustness import measure_cells
from mtl_ray.evaluation.evaluate import EvaluationRequest as Plain
from mtl_ray.evaluation.evaluate import evaluate
from mtl_ray.inference.checkpoint import open_checkpoint
from tests.evaluation.conftest import broken, make_samples, write_split
from tests.inference.tiny import HEADS, write_checkpoint

ABOUT = {"target": "runs/a", "data": "d", "seed": 0}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_checkpoint(tmp_path_factory.mktemp("robust") / "checkpoint", HEADS))


@pytest.fixture(scope="module")
def split(target: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_split(
        tmp_path_factory.mktemp("robust") / "val", make_samples(open_checkpoint(target))
    )


def run(target: str, split: str, out: Path, *arguments: str) -> dict[str, Any]:
    assert main([target, "--data", split, "--out", str(out), *arguments]) == 0
    read: dict[str, Any] = json.loads((out / "robustness.json").read_text())
    return read


def outcome(value: float) -> CellResult:
    return CellResult(figures={"boxes/mAP": value}, main="boxes/mAP", samples=3, bad=())


def test_the_figures_are_means_over_cells_and_the_clean_ones_those_of_an_evaluation(
    target, split, tmp_path, capsys
):
    found = run(
        target, split, tmp_path, "--corruptions", "snow", "contrast", "--severities", "1", "4"
    )
    assert found["metric"] == "boxes/mAP"
    clean, _ = evaluate(Plain(target=target, data=split))
    for name, value in clean.figures.items():
        if math.isfinite(value):
            cells = [
                found["results"][word][severity][name]
                for word in ("snow", "contrast")
                for severity in ("1", "4")
            ]
            assert found["figures"][name] == {
                "P": pytest.approx(value, abs=1e-9),
                "mPC": pytest.approx(fmean(cells), abs=1e-12),
                "rPC": pytest.approx(fmean(cells) / value) if value else None,
            }
    assert {key: found[key] for key in ("P", "mPC", "rPC")} == found["figures"]["boxes/mAP"]
    assert found["cells"] == 4
    assert len(found["missing"]) == 71
    assert "snow-2" in found["missing"]
    assert "snow-1" not in found["missing"]
    said = capsys.readouterr().out
    assert "mPC is the mean of 4 of 75 cells" in said
    assert "snow 2 3 5" in said
    rows = (tmp_path / "robustness.csv").read_text().splitlines()
    assert rows[0].startswith("corruption,severity,boxes/mAP,")
    assert [row.split(",")[:2] for row in rows[1:]] == [
        ["clean", "0"],
        ["snow", "1"],
        ["snow", "4"],
        ["contrast", "1"],
        ["contrast", "4"],
    ]
    assert (tmp_path / "robustness.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_run_measures_only_what_is_not_there_and_gives_the_same(
    target, split, tmp_path, monkeypatch
):
    chosen = ("--corruptions", "blur", "gaussian_noise", "--severities", "3")
    first = run(target, split, tmp_path, *chosen)
    (tmp_path / "cells" / "glass_blur-3.json").unlink()
    measured = []

    def counted(
        request: RobustnessRequest, cell: Cell, start: int, stop: int
    ) -> robustness.CellMeasurement:
        measured.append(cell.name)
        return measure_cell(request, cell, start, stop)

    monkeypatch.setattr(distributed, "measure_cell", counted)
    assert run(target, split, tmp_path, *chosen) == first
    assert measured == ["glass_blur-3"]
    run(target, split, tmp_path, "--corruptions", "fog", "blur", "--severities", "3")
    assert measured == ["glass_blur-3", "fog-3"]


def test_cells_of_another_model_or_seed_or_data_are_not_taken(target, split, tmp_path):
    run(target, split, tmp_path, "--corruptions", "none")
    with pytest.raises(ValueError, match="measured with another seed: give another --out"):
        main(
            [
                target,
                "--data",
                split,
                "--out",
                str(tmp_path),
                "--corruptions",
                "none",
                "--seed",
                "1",
            ]
        )
    other = str(write_checkpoint(tmp_path / "other", HEADS, seed=1))
    with pytest.raises(ValueError, match="measured with another target, target_sha256"):
        main([other, "--data", split, "--out", str(tmp_path), "--corruptions", "none"])
    (tmp_path / "cells" / "clean-0.json").write_text('{"version": 1}')
    with pytest.raises(ValueError, match=r"is damaged .* remove it"):
        main([target, "--data", split, "--out", str(tmp_path), "--corruptions", "none"])


def test_parts_of_a_cell_make_the_whole(target, split):
    request, cell = RobustnessRequest(target=target, data=split, batch=2), Cell("impulse_noise", 2)
    whole = cell_result(measure_cell(request, cell, 0, 11))
    part = measure_cell(request, cell, 0, 4)
    part.merge(measure_cell(request, cell, 4, 11))
    assert cell_result(part).figures == pytest.approx(whole.figures, nan_ok=True)
    assert whole.figures != cell_result(measure_cell(replace(request, seed=1), cell, 0, 11)).figures


@pytest.mark.parametrize(
    ("rows", "batch", "parts"), [(11, 4, 3), (11, 4, 9), (1, 16, 8), (32, 16, 2), (0, 4, 2)]
)
def test_rows_are_shared_in_whole_batches(rows, batch, parts):
    shares = distributed._shares(rows, batch, parts)
    assert [row for start, stop in shares for row in range(start, stop)] == list(range(rows))
    assert all(start % batch == 0 for start, _ in shares)
    assert len(shares) <= parts


@pytest.mark.jobs
def test_ray_gives_what_one_process_gives(target, split, tmp_path, ray_session):
    request, cells = (
        RobustnessRequest(target=target, data=split, batch=4),
        benchmark_cells(["snow"], [2]),
    )
    alone = measure_cells(request, cells, str(tmp_path / "one"), 1)
    both = measure_cells(request, cells, str(tmp_path / "two"), 2)
    assert list(both) == [CLEAN, Cell("snow", 2)]
    for cell in cells:
        assert both[cell].figures == pytest.approx(alone[cell].figures, nan_ok=True)


def test_pictures_that_do_not_decode_are_named_and_counted(target, tmp_path, capsys):
    split = write_split(tmp_path / "val", broken(make_samples(open_checkpoint(target)), 4))
    arguments = [
        target,
        "--data",
        split,
        "--out",
        str(tmp_path / "out"),
        "--corruptions",
        "brightness",
        "--severities",
        "5",
    ]
    assert main(arguments) == 1
    assert "invalid sample 000004.png" in capsys.readouterr().out
    assert main([*arguments, "--max-bad", "1"]) == 0
    facts = json.loads((tmp_path / "out" / "robustness.json").read_text())["facts"]
    assert (facts["samples"], facts["bad_samples"]) == (10, 1)


def test_means_are_over_the_benchmark_by_name_and_nothing_missing_counts_as_zero():
    cells = {
        CLEAN: outcome(0.5),
        Cell("snow", 1): outcome(0.4),
        Cell("snow", 5): outcome(0.2),
        Cell("saturate", 1): outcome(0.0),
    }
    found = summarise(cells, ABOUT)
    assert found.values["boxes/mAP"].corrupted == pytest.approx(0.3)
    assert found.values["boxes/mAP"].relative == pytest.approx(0.6)
    assert len(found.missing) == 73
    everything = summarise(cells, ABOUT, "all")
    assert everything.values["boxes/mAP"].corrupted == pytest.approx(0.2)
    assert len(everything.missing) == 92
    held_out = summarise({CLEAN: outcome(0.5), Cell("saturate", 1): outcome(0.1)}, ABOUT)
    assert held_out.values["boxes/mAP"].corrupted == pytest.approx(0.1)
    assert [cell.name for cell in held_out.missing] == [
        "saturate-2",
        "saturate-3",
        "saturate-4",
        "saturate-5",
    ]
    alone = robustness_json(summarise({CLEAN: outcome(0.5)}, ABOUT))
    assert (alone["P"], alone["mPC"], alone["rPC"]) == (0.5, None, None)


def test_what_is_zero_or_unknown_has_no_share():
    zero = summarise({CLEAN: outcome(0.0), Cell("fog", 1): outcome(0.0)}, ABOUT)
    assert robustness_json(zero)["rPC"] is None
    unknown = robustness_json(
        summarise({CLEAN: outcome(math.nan), Cell("fog", 1): outcome(math.nan)}, ABOUT)
    )
    assert (unknown["P"], unknown["mPC"], unknown["rPC"]) == (None, None, None)
    assert "fog" in robustness_text(zero)


def test_requests_that_mean_nothing_are_refused_in_a_sentence(target, split, tmp_path):
    arguments = ["--data", split, "--out", str(tmp_path)]
    with pytest.raises(ValueError, match="no severity 6"):
        main([target, *arguments, "--severities", "6"])
    with pytest.raises(ValueError, match="no corruption 'hail'"):
        main([target, *arguments, "--corruptions", "hail"])
    with pytest.raises(ValueError, match="a model itself is needed"):
        main([str(tmp_path / "predictions.arrow"), *arguments])
    with pytest.raises(FileNotFoundError, match="there is nothing at"):
        main([str(tmp_path / "nothing"), *arguments])
    with pytest.raises(ValueError, match="--workers is 0"):
        main([target, *arguments, "--workers", "0"])


def results(value: float) -> dict[str, dict[int, dict[str, float]]]:
    """As MMDetection 3 writes them: severity 0 once, and the rest of the benchmark."""
    return {
        name: {
            severity: {"coco/bbox_mAP": value - 0.01 * severity, "coco/bbox_mAP_50": 0.6}
            for severity in range(6)
        }
        for name in BENCHMARK
    }


def test_results_of_mmdetection_give_what_its_own_evaluation_gives(tmp_path):
    (tmp_path / "r_results.pkl").write_bytes(pickle.dumps(results(0.4)))
    assert main([str(tmp_path / "r_results.pkl"), "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "robustness.json").read_text())
    assert found["metric"] == "coco/bbox_mAP"
    assert found["figures"]["coco/bbox_mAP"] == {
        "P": 0.4,
        "mPC": pytest.approx(0.37),
        "rPC": pytest.approx(0.925),
    }
    assert found["missing"] == []
    partial = results(0.4)
    del partial["fog"][3]
    (tmp_path / "partial.pkl").write_bytes(pickle.dumps(partial))
    assert main([str(tmp_path / "partial.pkl"), "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "robustness.json").read_text())
    assert found["missing"] == ["fog-3"]
    assert found["mPC"] == pytest.approx(0.37)


def test_results_of_mmdetection_2_are_mappings_by_type_or_lists_by_class(tmp_path):
    nested = {
        "snow": {0: {"bbox": {"AP": 0.5, "AP50": 0.7}}, 2: {"bbox": {"AP": 0.25, "AP50": 0.35}}}
    }
    (tmp_path / "a.json").write_text(json.dumps(nested))
    cells = read_robustness(str(tmp_path / "a.json"))
    assert cells[Cell("snow", 2)].figures == {"bbox/AP": 0.25, "bbox/AP50": 0.35}
    assert robustness_json(summarise(cells, ABOUT))["rPC"] == pytest.approx(0.5)
    listed = {"fog": {0: [{"ap": 0.5, "num_gts": 3}, {"ap": 0.3, "num_gts": 1}]}}
    (tmp_path / "b.pkl").write_bytes(pickle.dumps(listed))
    assert read_robustness(str(tmp_path / "b.pkl"))[CLEAN].figures == {"AP": pytest.approx(0.4)}


def test_results_of_clean_images_alone_and_of_sizes_that_no_object_has(tmp_path):
    """What ``--corruptions None`` leaves; -1 is no share of -1."""
    clean = {"coco/bbox_mAP": 0.5, "coco/bbox_mAP_s": -1.0}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"None": {0: clean}}))
    found = robustness_json(summarise(read_robustness(str(tmp_path / "a.pkl")), ABOUT))
    assert (found["P"], found["mPC"]) == (0.5, None)
    (tmp_path / "b.pkl").write_bytes(pickle.dumps({"fog": {0: clean, 1: clean}}))
    assert robustness_json(summarise(read_robustness(str(tmp_path / "b.pkl")), ABOUT))["figures"][
        "coco/bbox_mAP_s"
    ] == dict.fromkeys(("P", "mPC", "rPC"))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([1, 2], "no results of corruptions"),
        ({"hail": {0: {"mAP": 1.0}}}, "no corruption 'hail'"),
        ({"fog": {9: {"mAP": 1.0}}}, "severity 9"),
        ({"None": {1: {"mAP": 1.0}}}, "no corruption has"),
        ({"fog": {1: {"mAP": 1.0}}}, "no severity 0"),
        ({"fog": {0: {}}}, "no figures"),
        ({"fog": {0: {"mAP": 1.0}, 1: {"AP": 1.0}}}, "the same figures"),
    ],
)
def test_files_that_hold_no_such_results_are_refused(tmp_path, found, said):
    (tmp_path / "r.pkl").write_bytes(pickle.dumps(found))
    with pytest.raises(ValueError, match=said):
        main([str(tmp_path / "r.pkl"), "--out", str(tmp_path / "out")])


def test_a_model_without_data_is_a_wrong_request(target, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([target, "--out", str(tmp_path)])
    assert "--data is needed" in capsys.readouterr().err
