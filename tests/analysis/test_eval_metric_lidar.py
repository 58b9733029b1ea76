"""``analyze eval-metric`` on result files of KITTI and nuScenes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jobs.analyze.eval_metric import main
from mtl_ray.analysis.eval_metric_kitti import read_file
from mtl_ray.analysis.eval_metric_lidar import eval_lidar, is_lidar_result
from mtl_ray.analysis.eval_metric_nuscenes import (
    CLASSES,
    SampleTruth,
    measure_results,
    scenes_of_split,
    scenes_of_tables,
)
from mtl_ray.annotations.boxes_3d import Boxes3d
from mtl_ray.distributed.convert import convert
from mtl_ray.geometry.boxes_3d import wrap_angle
from mtl_ray.inputs.point_cloud import PointCloud, SensorCalibration, encoded_points
from mtl_ray.layout import CLOUDS
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.shards.split import open_split
from mtl_ray.shards.write import publish_manifest, write_shard
from mtl_ray.sources.config import ConvertConfig
from mtl_ray.sources.lidar.dataset_configs import NuScenes
from mtl_ray.sources.lidar.nuscenes import open_nuscenes
from mtl_ray.sources.writers.kitti import NOMINAL
from mtl_ray.tasks.lidar.decode import Detections3d
from mtl_ray.tasks.lidar.metric import Detection3dMetric
from mtl_ray.tasks.lidar.nuscenes.columns import NuscenesColumns, Racks
from mtl_ray.tasks.lidar.results import KittiResults, NuScenesResults
from tests.loading.clouds import cloud_sample, write_clouds
from tests.sources.nuscenes_cases import World

LINE = "Car 0.00 0 1.55 100.0 150.0 200.0 210.0 1.50 1.60 3.90 2.0 1.7 {z} 1.50"


def folders(tmp_path: Path, frames: int = 3, moved: float = 0.0) -> tuple[Path, Path]:
    """A label folder and a result folder; each frame has 15 cars, all found."""
    labels, results = tmp_path / "training" / "label_2", tmp_path / "results"
    labels.mkdir(parents=True)
    results.mkdir()
    for frame in range(frames):
        places = [10 + 6 * number for number in range(15)]
        lines = [LINE.format(z=z) for z in places]
        (labels / f"{frame:06}.txt").write_text("\n".join(lines))
        found = [LINE.format(z=z + moved) + f" 0.{z}" for z in places]
        (results / f"{frame:06}.txt").write_text("\n".join(found) + "\n")
    return labels, results


def test_perfect_results_and_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, results = folders(tmp_path)
    out = tmp_path / "out.json"
    command = [str(results), "--data", str(labels.parent), "--json", str(out)]
    assert main([*command, "--classes", "Car"]) == 0
    printed = capsys.readouterr().out
    assert "KITTI Car: 45 easy, 45 moderate, 45 hard of 45 objects count" in printed
    assert "Car 3D  AP40 strict    100.0000" in printed
    content = json.loads(out.read_text())
    assert content["KITTI/Car_3D_AP40_moderate_strict"] == pytest.approx(100)
    assert content["KITTI/Car_AOS_AP11_easy_loose"] == pytest.approx(100)
    assert content["mAP"] == pytest.approx(1)
    assert content["facts"]["samples"] == 3


def test_few_objects_show_the_figure_that_the_line_on_them_names(tmp_path: Path) -> None:
    for frames, shown in ((1, True), (3, False)):
        labels, results = folders(tmp_path / str(frames), frames=frames)
        text = eval_lidar(str(results), str(labels), classes=["Car"]).to_text()
        exact = [line.split() for line in text.splitlines() if "AP40exact" in line]
        assert (exact[:1] == [["Car", "3D", "AP40exact", "strict", "100.0000"]]) == shown
        assert bool(exact) == shown


def test_labels_of_several_cameras_are_measured_in_the_whole_cloud(tmp_path: Path) -> None:
    """As Waymo in KITTI's form: most objects are not in the image of the first camera."""
    labels, results = folders(tmp_path)
    for file in (*labels.iterdir(), *results.iterdir()):
        file.write_text(file.read_text().replace("100.0 150.0 200.0 210.0", "0 0 0 0"))
    figures = eval_lidar(str(results), str(tmp_path), classes=["Car"]).report.figures
    assert figures["KITTI/Car_3D_AP40_moderate_strict"] == 0
    labels.rename(labels.with_name("label_all"))
    (labels.parent / "label_2").mkdir()
    (labels.parent / "label_2" / "000000.txt").write_text("")  # of the third camera
    for data in (tmp_path, tmp_path / "training", tmp_path / "training" / "label_all"):
        found = eval_lidar(str(results), f"{data}/", classes=["Car"])
        assert found.report.figures["KITTI/Car_3D_AP40_easy_strict"] == pytest.approx(100)
        assert "45 easy, 45 moderate, 45 hard of 45 objects count" in found.notes[0]


def test_a_folder_above_the_results_is_one_sentence(tmp_path: Path) -> None:
    """``out`` in place of ``out/kitti``, the folder that ``jobs.predict --format kitti`` writes."""
    labels, _ = folders(tmp_path)
    split = write_clouds(tmp_path / "val", [cloud_sample(0)])
    (tmp_path / "out" / "kitti").mkdir(parents=True)
    for data in (split, str(labels)):
        with pytest.raises(ValueError, match=r"out is a folder without result files\. .* is kitti"):
            main([str(tmp_path / "out"), "--data", data])
        with pytest.raises(FileNotFoundError, match="there are no predictions at"):
            main([str(tmp_path / "elsewhere"), "--data", data])


def test_thresholds_divide_strict_from_loose(tmp_path: Path) -> None:
    labels, results = folders(tmp_path, moved=1.0)  # IoU 2.9 / 4.9 along the heading
    figures = eval_lidar(str(results), str(labels)).report.figures
    assert figures["KITTI/Car_3D_AP40_moderate_strict"] == 0
    assert figures["KITTI/Car_3D_AP40_moderate_loose"] == pytest.approx(100)
    assert figures["KITTI/Car_2D_AP40_moderate_strict"] == pytest.approx(100)
    assert figures["KITTI/Overall_2D_AP40_moderate"] == pytest.approx(100 / 3)
    assert figures["mAP"] == 0


def test_frames_without_results_have_no_detections(tmp_path: Path) -> None:
    labels, results = folders(tmp_path)
    for missing in ("000001.txt", "000002.txt"):
        (results / missing).unlink()
    found = eval_lidar(str(results), str(labels))
    assert found.report.facts["samples"] == 3
    assert found.report.figures["KITTI/Car_3D_AP40_moderate_strict"] == pytest.approx(32.5)
    (note,) = [note for note in found.notes if "no result file" in note]
    assert note.startswith("2 of 3 frames have no result file and count as without detections")
    for name in ("000001.txt", "000002.txt"):
        (results / name).write_text("")
    same = eval_lidar(str(results), str(labels)).report.figures
    assert same == pytest.approx(dict(found.report.figures), nan_ok=True)
    (results / "000009.txt").write_text("")
    with pytest.raises(ValueError, match="1 frames without a label file"):
        eval_lidar(str(results), str(labels))


def test_a_list_chooses_the_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels, results = folders(tmp_path)
    (results / "000002.txt").unlink()
    frames = tmp_path / "val.txt"
    frames.write_text("000000\n1\n")
    (results / "000000.txt").write_text("")
    for data in (tmp_path, labels.parent, labels):
        assert main([str(results), "--data", str(data), "--frames", str(frames)]) == 0
        printed = capsys.readouterr().out
        assert "30 moderate" in printed
        assert "no result file" not in printed
    frames.write_text("000001\n")
    assert main([str(results), "--data", str(labels), "--frames", str(frames)]) == 0
    printed = capsys.readouterr().out
    assert "1 result files are not in the list of frames and were left out" in printed
    assert "mAP 0.3500" in printed  # 15 objects give 14 of 40 recalls
    frames.write_text("000001\n000002\n")
    notes = eval_lidar(str(results), str(labels), None, str(frames)).notes
    assert "1 of 2 frames have no result file and count as without detections" in notes
    frames.write_text("7\n")
    with pytest.raises(ValueError, match=r"lists 1 frames without a label file .* such as 000007"):
        eval_lidar(str(results), str(labels), None, str(frames))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (LINE.format(z=20), "15 columns; it must have 16 columns, the last is the score"),
        (LINE.format(z=20) + " high", "a column is no number"),
        (LINE.format(z="nan") + " 0.5", "a number is not finite"),
        ("Car", "1 columns"),
        (LINE.format(z=20).replace("3.90", "-3.90") + " 0.5", "a size is negative"),
    ],
)
def test_damaged_lines_are_one_sentence(tmp_path: Path, line: str, problem: str) -> None:
    file = tmp_path / "000001.txt"
    file.write_text(f"{LINE.format(z=9)} 0.5\n\n{line}\n")
    with pytest.raises(ValueError, match=problem) as raised:
        read_file(str(file), scored=True)
    assert f"{file}, line 3" in str(raised.value)


def test_results_in_the_image_alone(tmp_path: Path) -> None:
    """Lines without a box in space have -1 as their sizes."""
    labels, results = folders(tmp_path)
    for file in results.iterdir():
        words = [line.split() for line in file.read_text().splitlines()]
        unknown = ["-1", "-1", "-1", "-1000", "-1000", "-1000", "-10"]
        lines = [" ".join([*line[:8], *unknown, line[15]]) for line in words]
        file.write_text("\n".join(lines))
    figures = eval_lidar(str(results), str(labels)).report.figures
    assert figures["KITTI/Car_2D_AP40_moderate_strict"] > 90
    assert figures["KITTI/Car_3D_AP40_moderate_loose"] == 0


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "000001.txt"
    file.write_bytes("Fußgänger 0 0".encode("latin1"))
    with pytest.raises(ValueError, match=f"{file} is not UTF-8 text"):
        read_file(str(file), scored=False)


def test_results_of_a_vehicle_with_several_cameras(tmp_path: Path) -> None:
    """Written and measured in the whole cloud: half of the cars are behind the first camera."""
    front = np.array([(10.0 + 6 * number, 1, -1, 4, 2, 1.5, 0.3) for number in range(10)])
    boxes = np.vstack([front, front * [-1, 1, 1, 1, 1, 1, 1]])
    cameras = tuple(replace(NOMINAL, name=f"image_{number}") for number in range(2))
    cloud = PointCloud(
        points=np.zeros((0, 4), np.float32),
        calibration=SensorCalibration(benchmark="kitti", cameras=cameras),
    )
    sample = Sample(
        key="000000",
        inputs={"points": encoded_points(cloud)},
        annotations={"boxes_3d": Boxes3d.of(boxes, ["Car"] * 20, ("Car",))},
    )
    split = str(tmp_path / "split")
    publish_manifest(
        split,
        [write_shard(split, "one.arrow", [sample], layout=CLOUDS)],
        name="one",
        vocabulary=Vocabulary(classes={"boxes_3d": ("Car",)}),
        shuffled=True,
        provenance={},
    )
    for count, expected in ((20, 100), (10, 50)):
        results = KittiResults(str(tmp_path / f"{count}"), ("Car",), 0.1)
        found = Detections3d(
            boxes=boxes[:count].astype(np.float32),
            scores=np.linspace(0.9, 0.5, count, dtype=np.float32),
            classes=np.zeros(count, np.int64),
        )
        results.write(sample, found)
        figures = eval_lidar(str(tmp_path / f"{count}"), split, ["Car"])
        name = "KITTI/Car_3D_AP40exact_moderate_strict"
        assert figures.report.figures[name] == pytest.approx(expected)


def test_official_labels_as_results(shared_data: Path, tmp_path: Path) -> None:
    """Every object is found, so AP40 is as high as the few objects let it be."""
    labels = shared_data / "lidar_kitti_samples" / "training" / "label_2"
    for file in labels.iterdir():
        lines = [line for line in file.read_text().splitlines() if "DontCare" not in line]
        scored = [f"{line} 0.{90 - number}" for number, line in enumerate(lines)]
        (tmp_path / file.name).write_text("\n".join(scored))
    figures = eval_lidar(str(tmp_path), str(labels)).report.figures
    assert figures["KITTI/Pedestrian_3D_AP40_moderate_strict"] == pytest.approx(12.5)  # 6 of them
    assert figures["KITTI/Pedestrian_3D_AP40exact_moderate_strict"] == pytest.approx(100)
    assert figures["KITTI/Car_BEV_AP40exact_moderate_loose"] == pytest.approx(100)


def scene(rng: np.random.Generator, count: int = 12) -> tuple[SampleTruth, list[dict[str, object]]]:
    """A sample far from the origin, and its objects as entries of a results file."""
    vehicle = np.array([600.0, 1600.0, 0.0])
    labels = rng.integers(0, len(CLASSES), count)
    centres = vehicle + rng.uniform(-20, 20, (count, 3))
    sizes, yaw = rng.uniform(0.5, 4, (count, 3)), rng.uniform(-3, 3, count)
    velocity = rng.normal(0, 2, (count, 2))
    none = np.zeros((0, 3))
    racks = Racks(centres=none, rotations=np.zeros((0, 3, 3)), sizes=none)
    gt = NuscenesColumns(
        classes=labels,
        centres=centres,
        sizes=sizes,
        yaw=yaw,
        velocity=velocity,
        attributes=np.full(count, "vehicle.parked"),
        scores=np.zeros(count),
        state=np.zeros(count, np.int64),
        frames=np.zeros(count, np.int64),
    )
    boxes: list[dict[str, object]] = [
        {
            "sample_token": "t",
            "translation": centres[row].tolist(),
            "size": sizes[row, [1, 0, 2]].tolist(),
            "rotation": [float(np.cos(yaw[row] / 2)), 0, 0, float(np.sin(yaw[row] / 2))],
            "velocity": velocity[row].tolist(),
            "detection_name": CLASSES[labels[row]],
            "detection_score": 0.9 - 0.01 * row,
            "attribute_name": "vehicle.parked",
        }
        for row in range(count)
    ]
    judged = gt.judged(CLASSES, vehicle, racks)
    return SampleTruth(gt=judged, vehicle=vehicle, racks=racks), boxes


def test_nuscenes_results_without_error(tmp_path: Path) -> None:
    known, boxes = scene(np.random.default_rng(0), 200)
    file = tmp_path / "results.json"
    file.write_text(json.dumps({"meta": {}, "results": {"t": boxes}}))
    assert is_lidar_result(str(file))
    metric, notes = measure_results(str(file), {"t": known})
    figures = metric.result()
    assert figures["NDS"] == pytest.approx(1)
    assert figures["mAP"] == pytest.approx(1)
    assert notes == []
    with pytest.raises(ValueError, match="1 samples that the data does not have, such as t"):
        measure_results(str(file), {})


def test_objects_written_as_results_are_left_out_where_they_have_no_point(tmp_path: Path) -> None:
    """As in the devkit, which writes and reads "num_pts"."""
    known, boxes = scene(np.random.default_rng(0), 200)
    points = np.arange(len(boxes)) % 3
    racks = known.racks
    known = replace(known, gt=known.gt.judged(CLASSES, known.vehicle, racks, points))
    written = [{**box, "num_pts": int(count)} for box, count in zip(boxes, points, strict=True)]
    file = tmp_path / "results.json"
    file.write_text(json.dumps({"results": {"t": written}}))
    assert measure_results(str(file), {"t": known})[0].result()["NDS"] == pytest.approx(1)
    file.write_text(json.dumps({"results": {"t": boxes}}))
    assert measure_results(str(file), {"t": known})[0].result()["NDS"] < 0.95


def test_a_split_that_is_named_as_a_version_is_no_folder_of_tables(tmp_path: Path) -> None:
    """Its shard is v1.0-mini-00000.arrow."""
    World(tmp_path / "nuscenes").write()
    split = str(tmp_path / "shards")
    source = NuScenes(root=str(tmp_path / "nuscenes"), split="v1.0-mini")
    convert(ConvertConfig(source=source, to=split, workers=1))
    keys = [sample.key for sample in open_split(split).read(0, 6)]
    file = tmp_path / "results.json"
    file.write_text(json.dumps({"results": {key: [] for key in keys}}))
    reports = [eval_lidar(str(file), data) for data in (split, str(source.root))]
    assert reports[0].notes == reports[1].notes
    shown = reports[0].to_text()
    assert "nan" not in shown
    assert shown == reports[1].to_text()


def upright_world(root: Path) -> None:
    """A vehicle that rolls and pitches among objects that do not, as in nuScenes."""
    world = World(root, tilt=0.05)
    for number, row in enumerate(world.rows["sample_annotation"]):
        row["rotation"] = [float(np.cos(number / 2)), 0.0, 0.0, float(np.sin(number / 2))]
        row["num_lidar_pts"] = 5
    world.write()


@pytest.mark.parametrize("known", [True, False])
def test_predictions_have_the_figures_of_the_results_that_are_written_of_them(
    tmp_path: Path, known: bool
) -> None:
    upright_world(tmp_path)
    source = open_nuscenes(NuScenes(root=str(tmp_path), split="mini"), files=False)
    metric = Detection3dMetric(source.vocabulary.classes["boxes_3d"])
    writer = NuScenesResults(str(tmp_path), metric.names, 0.0)
    rng = np.random.default_rng(0)
    for index in range(len(source)):
        sample, _ = source.read(index)
        assert sample is not None
        gt: Boxes3d = sample.annotations["boxes_3d"]
        count = len(gt.classes)
        found = Detections3d(
            boxes=(gt.boxes[:count] + rng.normal(0, 0.1, (count, 7))).astype(np.float32),
            scores=rng.uniform(0.1, 1, count).astype(np.float32),
            classes=gt.classes,
            velocity=gt.velocity[:count] * np.float32(1.1) if known else None,
        )
        metric.update(sample, found)
        writer.write(sample, found)
    written, _ = measure_results(writer.finish(), scenes_of_tables(str(tmp_path)))
    figures = written.result()
    assert 0 < figures["mAVE"] < 5
    for name, value in metric.result().items():
        assert value == pytest.approx(figures[name], abs=1e-6, nan_ok=True), name


def test_a_split_has_the_objects_of_the_tables_whatever_the_tilt(tmp_path: Path) -> None:
    """Objects of nuScenes stand upright in the global frame, to which the lidar is tilted."""
    upright_world(tmp_path / "nuscenes")
    split = str(tmp_path / "shards")
    source = NuScenes(root=str(tmp_path / "nuscenes"), split="mini")
    convert(ConvertConfig(source=source, to=split, workers=1))
    tables, shards = scenes_of_tables(str(source.root)), scenes_of_split(open_split(split))
    assert tables.keys() == shards.keys()
    for token, scene_ in tables.items():
        expected, found = scene_.gt, shards[token].gt
        order = np.lexsort((found.centres[:, 0],))
        expected = expected.take(np.lexsort((expected.centres[:, 0],)))
        found = found.take(order)
        np.testing.assert_allclose(found.centres, expected.centres, atol=1e-5)
        np.testing.assert_allclose(wrap_angle(found.yaw - expected.yaw), 0, atol=1e-6)
        np.testing.assert_allclose(found.velocity, expected.velocity, atol=1e-6)
        racks = shards[token].racks.rotations
        np.testing.assert_allclose(racks, scene_.racks.rotations, atol=1e-6)


@pytest.mark.parametrize(
    ("lidar", "radar", "counts"), [(0, 0, False), (0, 1, True), (2, 0, True), (None, 1, True)]
)
def test_objects_without_a_point_of_any_sensor_do_not_count(
    tmp_path: Path, lidar: int | None, radar: int, counts: bool
) -> None:
    world = World(tmp_path, scenes=("scene-0103",), frames=1, categories=("vehicle.car", "animal"))
    world.rows["sample_annotation"][0] |= {"num_lidar_pts": lidar, "num_radar_pts": radar}
    pose = world.find("ego_pose", world.rows["sample_data"][0]["ego_pose_token"])
    world.rows["sample_annotation"][0]["translation"] = pose["translation"]
    world.write()
    (scene_,) = scenes_of_tables(str(tmp_path)).values()
    assert (scene_.gt.state == 0).tolist() == [counts]


def test_of_equal_scores_the_last_of_the_file_comes_first_whatever_its_token(
    tmp_path: Path,
) -> None:
    """As in the devkit, which sorts (score, place in the file) and turns the list around."""
    known, (right, *_) = scene(np.random.default_rng(0), 1)
    empty = replace(known, gt=known.gt.take(np.zeros(1, np.bool_)))
    scenes = {"a": empty, "b": known}
    file, found = tmp_path / "results.json", {}
    for order in ("ab", "ba"):
        results = {token: [{**right, "sample_token": token}] for token in order}
        file.write_text(json.dumps({"results": results}))
        row = measure_results(str(file), scenes)[0].per_class()[str(right["detection_name"])]
        found[order] = row["AP_nuscenes"]
    recalls = np.arange(11, 101) / 100
    risen = np.maximum(0.5 * recalls - 0.1, 0)  # from precision 0 at recall 0 to 0.5 at 1
    assert found["ba"] == pytest.approx(risen.mean() / 0.9)
    assert found["ab"] == pytest.approx((89 * 0.9 + 0.4) / 90 / 0.9)


def test_samples_without_results_have_no_detections(tmp_path: Path) -> None:
    known, boxes = scene(np.random.default_rng(0), 200)
    file = tmp_path / "results.json"
    file.write_text(json.dumps({"results": {"t": boxes}}))
    metric, notes = measure_results(str(file), {"t": known, "other": known})
    assert metric.result()["mAP"] < 0.6
    assert notes == ["1 of 2 samples have no results and count as without detections"]
    scenes = {
        "t": replace(known, scene="scene-0003"),
        "other": replace(known, scene="scene-0012"),
        "training": replace(known, scene="scene-0001"),
    }
    metric, notes = measure_results(str(file), scenes)
    assert notes == ["1 of 2 samples of val have no results and count as without detections"]
    assert len(metric.frames) == 2


def test_a_name_that_cannot_be_is_named(tmp_path: Path) -> None:
    known, boxes = scene(np.random.default_rng(0))
    file = tmp_path / "results.json"
    file.write_text(json.dumps({"results": {"t": [boxes[0] | {"detection_name": "tree"}]}}))
    with pytest.raises(ValueError, match="detection_name 'tree'; it must be one of barrier, bicyc"):
        measure_results(str(file), {"t": known})


@pytest.mark.parametrize(
    "change",
    [
        {"detection_name": "tree"},
        {"size": [1, 0, 1]},
        {"translation": [1, 2]},
        {"rotation": [0, 0, 0, 0]},
        {"detection_score": None},
        {"attribute_name": "vehicle.flying"},
        {"attribute_name": None},
        {"sample_token": "u"},
        {"num_pts": "many"},
    ],
)
def test_damaged_results_are_one_sentence(tmp_path: Path, change: dict[str, object]) -> None:
    known, boxes = scene(np.random.default_rng(0))
    file = tmp_path / "results.json"
    file.write_text(json.dumps({"results": {"t": [boxes[0] | change, *boxes[1:]]}}))
    with pytest.raises(ValueError, match="sample t: a box has"):
        measure_results(str(file), {"t": known})
    file.write_text(json.dumps({"results": {"t": boxes * 50}}))
    with pytest.raises(ValueError, match="more than 500"):
        measure_results(str(file), {"t": known})
    file.write_text(json.dumps({"boxes": []}))
    with pytest.raises(ValueError, match="no results file of nuScenes"):
        measure_results(str(file), {"t": known})
