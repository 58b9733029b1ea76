"""jobs.anchors: its files fit a config, its metrics are right, and its anchors are better than
those of other programs.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from jobs.anchors import main
from mtl_ray.config.load import load_tree
from mtl_ray.config.validate import validate
from mtl_ray.experiment import ExperimentConfig, build_model
from mtl_ray.inputs.image import Canvas
from mtl_ray.samples import Vocabulary
from mtl_ray.shards.split import open_split
from mtl_ray.tuning.anchor_boxes import documented_shapes, shapes_of
from mtl_ray.tuning.anchor_documented import documented_evolution, documented_kmeans
from mtl_ray.tuning.anchor_points import anchor_overlaps, reduced_points
from mtl_ray.tuning.anchors import evolve_anchors, fast_anchors, kmeans_anchors, measure_anchors
from tests.shards.splits import write_split

REPOSITORY = Path(__file__).parents[2]
PACKS = {
    "coco128_yolo train": "coco128_yolo/annotations/instances_train.json",
    "coco_mini train": "coco_mini/annotations/instances_train2017.json",
    "det_bccd_voc train": "det_bccd_voc/coco/instances_train.json",
}


def annotations(
    path: Path, boxes: list[tuple[float, ...]], size: tuple[int, int] = (640, 480), **further: Any
) -> str:
    """A COCO file of one image of (width, height) with boxes x, y, w, h."""
    entries = [
        {"id": i, "image_id": 7, "category_id": 1, "bbox": list(box), "area": box[2] * box[3]}
        for i, box in enumerate(boxes, 1)
    ]
    for number, values in further.items():
        entries[int(number[1:])] |= values
    images = [{"id": 7, "file_name": "a.jpg", "width": size[0], "height": size[1]}]
    path.write_text(
        json.dumps(
            {"images": images, "annotations": entries, "categories": [{"id": 1, "name": "a"}]}
        )
    )
    return str(path)


def some_boxes(count: int, seed: int = 0, scale: float = 3.5) -> list[tuple[float, ...]]:
    return [
        (0.0, 0.0, *side)
        for side in np.random.default_rng(seed)
        .lognormal(scale, 0.7, (count, 2))
        .clip(2, 470)
        .tolist()
    ]


def run(out: Path, data: str, *arguments: str) -> dict[str, Any]:
    assert main(["--data", data, "--input", "416", "416", "--out", str(out), *arguments]) == 0
    found: dict[str, Any] = json.loads((out / "anchors.json").read_text())
    return found


@pytest.mark.parametrize("pack", PACKS)
def test_the_default_is_better_than_every_published_kmeans(shared_data, pack):
    reference = json.loads((shared_data / "anchors_reference" / "anchors.json").read_text())[
        "measured"
    ][pack]
    for num, kind in ((9, "stretch"), (6, "stretch"), (9, "letterbox")):
        shapes = shapes_of(
            [str(shared_data / PACKS[pack])], Canvas(kind=kind, width=416, height=416)
        )
        assert len(shapes) == reference["n_boxes"]
        assert (
            measure_anchors(shapes, fast_anchors(shapes, num)).average_iou
            > reference[f"iou_kmeans_k{num}"]["avg_best_iou"] + 0.002
        )
        if kind == "stretch":  # it used 20 random starts
            assert (
                measure_anchors(shapes, kmeans_anchors(shapes, num)).average_iou
                > reference[f"iou_kmeans_k{num}"]["avg_best_iou"] - 0.0003
            )


def test_json_says_what_its_anchors_are_worth_to_all_boxes(tmp_path, capsys):
    found = run(tmp_path, annotations(tmp_path / "a.json", some_boxes(300)), "--num", "6")
    shapes = shapes_of([str(tmp_path / "a.json")], Canvas(width=416, height=416))
    anchors = np.array(found["anchors"])
    assert (np.diff(anchors.prod(axis=1)) >= 0).all()
    by_hand = anchor_overlaps(shapes, anchors)
    assert found["average_iou"] == pytest.approx(by_hand.max(axis=0).mean(), abs=1e-12)
    assert found["best_possible_recall"] == pytest.approx(
        measure_anchors(shapes, anchors).best_possible_recall
    )
    counts = np.bincount(by_hand.argmax(axis=0), minlength=6)
    assert [entry["boxes"] for entry in found["per_anchor"]] == counts.tolist()
    sizes = np.sqrt(anchors.prod(axis=1))
    expected = np.where(sizes < 42.4, "P3", np.where(sizes < 84.8, "P4", "P5"))
    assert [entry["level"] for entry in found["per_anchor"]] == expected.tolist()
    for name in ("P3", "P4", "P5"):
        assert found["per_level"][name] == {
            "anchors": anchors[expected == name].tolist(),
            "boxes": counts[expected == name].sum(),
        }
    assert (tmp_path / "anchors.png").read_bytes().startswith(b"\x89PNG")
    assert f"average IoU {found['average_iou']:.4f}" in capsys.readouterr().out
    assert run(tmp_path, str(tmp_path / "a.json"), "--num", "6") == found


@pytest.mark.parametrize("levels", [("P3", "P4", "P5"), ("P5", "P4", "P3"), ("P4", "P3")])
def test_the_overlay_drops_into_a_config_whatever_the_order_of_its_levels(tmp_path, levels):
    uri = annotations(tmp_path / "a.json", [*some_boxes(100), *some_boxes(100, scale=5.4)])
    found = run(tmp_path, uri, "--num", "6", "--levels", *levels)
    config = REPOSITORY / "configs" / "detection" / "yolov3_bccd.yaml"
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"_base_": [str(config), "anchors.yaml"]}))
    read = validate(load_tree(str(tmp_path / "mine.yaml")), ExperimentConfig)
    model = build_model(read.model, Vocabulary(classes={"instances": ("a", "b")}))
    head: Any = model.heads["boxes"]
    anchors = [level.numpy() for level in head.anchors_px]
    assert read.model.heads["boxes"].levels == levels
    for name, part in zip(levels, anchors, strict=True):
        assert part == pytest.approx(np.array(found["per_level"][name]["anchors"]))
    by_stride = [anchors[i] for i in np.argsort(head.strides)]
    assert np.concatenate(by_stride) == pytest.approx(np.array(found["anchors"]))


@pytest.mark.parametrize("method", ["fast", "kmeans", "de"])
def test_a_level_without_anchors_is_named_and_left_out_of_the_overlay_by_every_method(
    tmp_path, capsys, method
):
    small = [
        (0.0, 0.0, *side)
        for side in np.random.default_rng(0).lognormal(2.6, 0.3, (120, 2)).clip(6, 40).tolist()
    ]
    found = run(tmp_path, annotations(tmp_path / "a.json", small), "--num", "7", "--method", method)
    assert found["per_level"]["P4"] == found["per_level"]["P5"] == {"anchors": [], "boxes": 0}
    assert (
        "no anchor has a size for P4, P5: the overlay leaves them out of the head"
        in capsys.readouterr().out
    )
    config = REPOSITORY / "configs" / "detection" / "yolov3_bccd.yaml"
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"_base_": [str(config), "anchors.yaml"]}))
    head = validate(load_tree(str(tmp_path / "mine.yaml")), ExperimentConfig).model.heads["boxes"]
    assert head.levels == ("P3",)
    assert len(head.anchors[0]) == 7


def test_the_overlay_is_recommended_only_where_it_is_better_than_what_is_there(tmp_path, capsys):
    config = str(REPOSITORY / "configs" / "detection" / "yolov3_bccd.yaml")
    large = [
        (0.0, 0.0, *side)
        for side in np.random.default_rng(0).lognormal(5.9, 0.05, (200, 2)).clip(0, 470).tolist()
    ]
    tiny = [[[4.0, 4.0]], [[12.0, 12.0]], [[30.0, 30.0]]]
    (tmp_path / "tiny.yaml").write_text(
        yaml.safe_dump({"_base_": config, "model": {"heads": {"boxes": {"anchors": tiny}}}})
    )
    found = run(
        tmp_path,
        annotations(tmp_path / "a.json", large),
        "--config",
        str(tmp_path / "tiny.yaml"),
        "--num",
        "2",
    )
    assert found["helps"]
    assert (
        found["before"]["best_possible_recall"],
        found["on_levels"]["best_possible_recall"],
    ) == (0, 1)
    assert "the overlay is likely to help" in capsys.readouterr().out
    same = tmp_path / "same.yaml"
    same.write_text(yaml.safe_dump({"_base_": [config, str(tmp_path / "anchors.yaml")]}))
    again = run(tmp_path / "again", str(tmp_path / "a.json"), "--config", str(same), "--num", "2")
    assert not again["helps"]
    assert again["before"]["average_iou"] == pytest.approx(again["on_levels"]["average_iou"])
    assert "is not likely to help: keep the anchors that you have" in capsys.readouterr().out
    assert list(again["per_level"]) == ["P5"]  # the levels of the config
    with pytest.raises(
        ValueError, match="there is no head 'objects' with anchors in pixels; --head boxes has"
    ):
        run(tmp_path, str(tmp_path / "a.json"), "--config", config, "--head", "objects")


def test_anchors_that_crowd_one_box_are_said(tmp_path, capsys):
    small = [
        (0.0, 0.0, *side)
        for side in np.random.default_rng(0).lognormal(2.8, 0.2, (200, 2)).tolist()
    ]
    found = run(tmp_path, annotations(tmp_path / "a.json", small), "--num", "9")
    assert found["answers_per_box"] > 5
    assert found["enough"] in (1, 2)
    assert (
        f"anchors answer for one box, on average: --num {found['enough']} is enough"
        in capsys.readouterr().out
    )
    fewer = run(tmp_path, str(tmp_path / "a.json"), "--num", str(found["enough"]))
    assert fewer["answers_per_box"] <= found["enough"]
    assert "answer for one box" not in capsys.readouterr().out


def test_fewer_shapes_than_anchors_are_said(tmp_path, capsys):
    run(
        tmp_path,
        annotations(tmp_path / "a.json", [(0, 0, 64, 48), (0, 0, 32, 16), (0, 0, 320, 160)] * 5),
        "--num",
        "9",
    )
    assert (
        "only 3 of the 9 anchors differ: boxes have few shapes, --num 3 is enough"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize("encoding", ["arrow", "tfrecord"])
def test_a_scan_for_boxes_gives_what_a_scan_for_objects_gives(tmp_path, encoding):
    split = open_split(write_split(tmp_path / "s", [5, 3], encoding=encoding))
    objects = list(split.scan_objects())
    sizes, counts, boxes, crowd, classes = (
        np.concatenate(parts) for parts in zip(*split.scan_boxes(), strict=True)
    )
    assert sizes.tolist() == [[height, width] for height, width, _ in objects]
    assert counts.tolist() == [0 if found is None else len(found) for _, _, found in objects]
    assert counts.sum() > 0
    assert (
        boxes == np.concatenate([found.boxes_xyxy for _, _, found in objects if found is not None])
    ).all()
    assert (
        crowd == np.concatenate([found.crowd for _, _, found in objects if found is not None])
    ).all()
    assert (
        classes == np.concatenate([found.classes for _, _, found in objects if found is not None])
    ).all()


def test_crowds_and_what_lies_outside_are_left_out_but_not_by_the_documented_rule(tmp_path):
    boxes = [
        (0, 0, 64, 48),
        (600, 0, 80, 10),
        (0, 0, 100, 100),
        (0, 0, 0.5, 20),
        (10, 10, 20, 20),
        (700, 0, 10, 10),
    ]
    uri = annotations(tmp_path / "a.json", boxes, n2={"iscrowd": 1}, n4={"ignore": 1})
    plain = shapes_of([uri], Canvas(width=320, height=320))
    # half the size; the second is cut off
    assert plain.tolist() == [
        [32, 24],
        [20, 5],
        [0.25, 10],
        [10, 10],
    ]
    documented = documented_shapes([uri], 320, 160)
    # each side over the longer side of the image
    assert documented.tolist() == [
        [32, 12],
        [40, 2.5],
        [50, 25],
    ]


def test_a_wide_canvas_is_letterboxed_not_distorted(tmp_path):
    uri = annotations(tmp_path / "a.json", [(0, 0, 64, 48)])
    assert shapes_of([uri], Canvas(width=640, height=240)).tolist() == [[32, 24]]
    assert shapes_of([uri], Canvas(kind="stretch", width=640, height=240)).tolist() == [[64, 24]]


def test_the_gradient_is_that_of_the_average():
    points = reduced_points(np.random.default_rng(0).lognormal(3, 0.8, (500, 2)), 96)
    logs = np.random.default_rng(1).normal(3, 0.8, 8)
    value, gradient = points.descent(logs)
    assert value == pytest.approx(-points.average(np.exp(logs.reshape(-1, 2))))
    steps = np.eye(8) * 1e-6
    numeric = [
        (points.descent(logs + step)[0] - points.descent(logs - step)[0]) / 2e-6 for step in steps
    ]
    assert gradient == pytest.approx(np.array(numeric), abs=1e-6)


def test_a_histogram_stands_for_many_boxes():
    rng = np.random.default_rng(0)
    shapes = np.concatenate(
        [rng.lognormal(3, 0.9, (60_000, 2)), rng.normal(50, 2, (60_000, 2))]
    ).clip(1, 608)
    points = reduced_points(shapes, 96)
    assert len(points) < 96 * 96
    anchors = rng.lognormal(3.5, 0.7, (9, 2))
    assert points.average(anchors) == pytest.approx(
        measure_anchors(shapes, anchors).average_iou, abs=4e-4
    )


@pytest.mark.parametrize("num", [1, 3, 5])
def test_the_fast_way_is_not_worse_than_the_others_and_the_same_again(num):
    shapes = np.random.default_rng(num).lognormal(3, 0.7, (300, 2))
    found = fast_anchors(shapes, num, seed=3)
    assert (found == fast_anchors(shapes, num, seed=3)).all()
    value = measure_anchors(shapes, found).average_iou
    assert value > measure_anchors(shapes, kmeans_anchors(shapes, num)).average_iou
    assert (
        value >= measure_anchors(shapes, evolve_anchors(shapes, num, rounds=60)).average_iou - 1e-5
    )
    assert (
        value
        >= measure_anchors(
            shapes, documented_evolution(shapes, num, (80, 80), rounds=60)
        ).average_iou
        - 1e-5
    )


def test_more_anchors_than_kinds_of_boxes_fit_perfectly():
    shapes = np.repeat([[10.0, 20.0], [30.0, 5.0]], 20, axis=0)
    assert measure_anchors(shapes, fast_anchors(shapes, 5)).average_iou == pytest.approx(
        1, abs=1e-4
    )
    assert measure_anchors(shapes[:1], fast_anchors(shapes[:1], 1)).average_iou == pytest.approx(
        1, abs=1e-4
    )


def slow_kmeans(shapes: np.ndarray, centres: np.ndarray, rounds: int) -> np.ndarray:
    """The documented rule again, one box at a time."""
    assigned = [0] * len(shapes)
    for _ in range(rounds):
        now = []
        for width, height in shapes:
            inter = [min(width, w) * min(height, h) for w, h in centres]
            shares = [
                i / (width * height + w * h - i) for i, (w, h) in zip(inter, centres, strict=True)
            ]
            now.append(shares.index(max(shares)))
        if now == assigned:
            break
        assigned = now
        groups = [shapes[[k == i for k in assigned]] for i in range(len(centres))]
        centres = np.array([group.mean(axis=0) if len(group) else [0.0, 0.0] for group in groups])
    return centres[np.argsort(centres.prod(axis=1), kind="stable")]


@pytest.mark.parametrize("seed", range(4))
def test_documented_kmeans_is_the_documented_one(seed):
    shapes = np.random.default_rng(seed).lognormal(3, 0.7, (60, 2))
    start = shapes[np.random.default_rng(seed).integers(60, size=4)]
    assert documented_kmeans(shapes, 4, seed=seed) == pytest.approx(
        slow_kmeans(shapes, start, 1000)
    )
    assert documented_kmeans(shapes, 4, seed=seed, rounds=2) == pytest.approx(
        slow_kmeans(shapes, start, 2)
    )


def test_compat_gives_whole_numbers_the_mean_box_for_one_and_zero_for_an_anchor_without_boxes(
    tmp_path, capsys
):
    uri = annotations(tmp_path / "a.json", [(0, 0, 64, 48), (0, 0, 32, 16)])
    one = run(tmp_path / "one", uri, "--num", "1", "--compat")
    assert one["anchors"] == [[31, 21]]  # the mean of 48 x 32 pixels, times 416 / 640
    assert one["method"] == "kmeans"
    assert (tmp_path / "one" / "anchors.yaml").exists()
    three = run(tmp_path / "one", uri, "--num", "3", "--compat", "--seed", "1")
    assert three["anchors"][0] == [0, 0]
    assert not (tmp_path / "one" / "anchors.yaml").exists()
    assert "no anchors.yaml" in capsys.readouterr().out
    evolved = run(
        tmp_path / "de",
        annotations(tmp_path / "b.json", some_boxes(50)),
        "--num",
        "2",
        "--compat",
        "--method",
        "de",
    )
    assert all(isinstance(side, int) for anchor in evolved["anchors"] for side in anchor)


def test_requests_that_mean_nothing_are_refused_in_a_sentence(tmp_path):
    uri = annotations(tmp_path / "a.json", some_boxes(5))
    with pytest.raises(ValueError, match="--levels P3 P3: a level is named twice"):
        run(tmp_path, uri, "--num", "7", "--levels", "P3", "P3")
    with pytest.raises(ValueError, match="--compat goes with --method kmeans or de"):
        run(tmp_path, uri, "--compat", "--method", "fast")
    with pytest.raises(ValueError, match="at least 1 anchor"):
        run(tmp_path, uri, "--num", "0")
    with pytest.raises(ValueError, match="there are no boxes"):
        run(tmp_path, annotations(tmp_path / "none.json", []))
    with pytest.raises(ValueError, match="a level is called after its number"):
        run(tmp_path, uri, "--num", "2", "--levels", "fine", "coarse")
    (tmp_path / "odd.json").write_text('{"images": [{"id": 1}], "annotations": []}')
    with pytest.raises(ValueError, match="an image needs an id, width and height"):
        run(tmp_path, str(tmp_path / "odd.json"))
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="is not a COCO annotation file"):
        run(tmp_path, str(tmp_path / "list.json"))


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_optuna_begins_with_kmeans_and_climbs(ray_session, sampler):
    from mtl_ray.distributed.anchors import search_anchors

    shapes = np.random.default_rng(0).lognormal(3, 0.7, (200, 2))
    found = search_anchors(shapes, 3, sampler=sampler, trials=3, seed=1)
    assert (
        measure_anchors(shapes, found).average_iou
        > measure_anchors(shapes, kmeans_anchors(shapes, 3, seed=1)).average_iou
    )
    with pytest.raises(ValueError, match="--trials is 0"):
        search_anchors(shapes, 3, trials=0)
