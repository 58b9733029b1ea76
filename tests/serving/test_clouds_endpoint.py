"""A real network of point clouds, from checkpoint to bundle to HTTP: compared, evaluated, drawn."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from jobs.predict import main as predict
from jobs.serve import main as serve
from mtl_ray.evaluation.evaluate import EvaluationRequest, evaluate
from mtl_ray.export.bundle import export
from mtl_ray.export.config import ExportConfig
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inference.endpoint import EndpointPredictor
from mtl_ray.inputs.cloud_files import write_npy
from mtl_ray.inputs.point_cloud import PointCloud
from mtl_ray.serving.app import App
from mtl_ray.serving.compare import compare_files
from mtl_ray.serving.config import ServeConfig
from mtl_ray.serving.service import Service
from tests.inference.tiny_lidar import lidar_config, write_lidar_checkpoint
from tests.loading.clouds import cloud_sample, write_clouds
from tests.serving.clouds import MiddlePredictor
from tests.serving.server import running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A split, a checkpoint and its bundle, and files of clouds."""
    made = tmp_path_factory.mktemp("clouds")
    write_clouds(made / "val", [cloud_sample(seed) for seed in range(5)])
    config = lidar_config(split=str(made / "val"))
    checkpoint = write_lidar_checkpoint(made / "checkpoint", config)
    export(checkpoint, str(made / "bundle"), ExportConfig(samples=3, min_agree=0.9))
    (made / "files").mkdir()
    points = np.random.default_rng(0).uniform((0, -20, -2, 0), (40, 20, 0, 1), (500, 4))
    (made / "files" / "a.bin").write_bytes(points.astype("<f4").tobytes())
    (made / "files" / "b.npy").write_bytes(write_npy(PointCloud(points=points.astype("f4")[:90])))
    (made / "files" / "notes.txt").write_text("no cloud")
    return made


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    config = ServeConfig(score_threshold=0.0)
    app = App(Service({"tiny": BundlePredictor(str(folder / "bundle"))}, config), config, 1)
    with running(app) as port:
        yield f"http://127.0.0.1:{port}"
    app.close()


def test_compare_on_files_folders_and_splits(
    folder: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [str(folder / "files"), str(folder / "val")]
    status = serve(["compare", url, str(folder / "checkpoint"), *places])
    told = capsys.readouterr().out
    assert status == 0, told
    assert "the endpoint agrees with the model" in told
    lines = [line for line in told.splitlines() if "compared" in line]
    assert len(lines) == 2 + 5, "text files are passed over"
    assert all("boxes within" in line and " m, scores within" in line for line in lines)
    assert any("0 compared" not in line for line in lines)


def test_compare_finds_what_differs(folder: Path) -> None:
    """Two centimetres are more than rounding."""
    config = ServeConfig(score_threshold=0.0)
    app = App(Service({"m": MiddlePredictor(moved=0.02)}, config), config, 1)
    with running(app) as port:
        endpoint = EndpointPredictor(f"http://127.0.0.1:{port}")
        (found,) = compare_files(endpoint, MiddlePredictor(), [str(folder / "files" / "a.bin")])
        (same,) = compare_files(
            endpoint, MiddlePredictor(moved=0.02), [str(folder / "files" / "a.bin")]
        )
    app.close()
    assert any("differ by 0.02 metres" in sentence for sentence in found.mismatches)
    assert same.mismatches == ()


def test_the_same_figures_from_checkpoint_bundle_and_http(folder: Path, url: str) -> None:
    figures = []
    for target in (str(folder / "checkpoint"), str(folder / "bundle"), url):
        request = EvaluationRequest(target=target, data=str(folder / "val"))
        report, *_ = evaluate(request)
        figures.append(report.figures)
    assert figures[0].keys() == figures[1].keys() == figures[2].keys()
    for other in figures[1:]:
        for name, value in figures[0].items():
            assert other[name] == pytest.approx(value, abs=1e-4, nan_ok=True), name


def test_predict_on_files_and_splits(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "drawn"
    places = [str(folder / "files"), str(folder / "val")]
    arguments = [str(folder / "bundle"), *places, "--out", str(out), "--score-thr", "0.1"]
    assert predict(arguments) == 0
    content = json.loads((out / "predictions.json").read_text())
    names = [Path(entry["file"]).name for entry in content["predictions"]]
    assert names[:2] == ["a.bin", "b.npy"]
    assert sorted(names[2:]) == [f"{seed:06d}" for seed in range(5)]
    assert content["predictions"][0]["points"] == 500
    assert all((out / entry["drawing"]).is_file() for entry in content["predictions"])


def test_result_files_of_kitti(folder: Path, tmp_path: Path) -> None:
    arguments = [str(folder / "bundle"), str(folder / "val"), "--out", str(tmp_path / "out")]
    assert predict([*arguments, "--score-thr", "0", "--format", "kitti"]) == 0
    files = sorted((tmp_path / "out" / "kitti").iterdir())
    assert [file.name for file in files] == [f"{seed:06d}.txt" for seed in range(5)]
    rows = [line.split() for file in files for line in file.read_text().splitlines()]
    assert rows
    assert {len(row) for row in rows} == {16}
    assert {row[0] for row in rows} <= {"Pedestrian", "Cyclist", "Car"}


@pytest.mark.parametrize(
    ("places", "form", "message"),
    [("files", "kitti", "samples of splits"), ("val", "nuscenes", "lidar_to_ego")],
)
def test_results_without_a_calibration(
    folder: Path, tmp_path: Path, places: str, form: str, message: str
) -> None:
    arguments = [str(folder / "bundle"), str(folder / places), "--out", str(tmp_path / "out")]
    with pytest.raises(ValueError, match=message):
        predict([*arguments, "--format", form])
