"""Samples are drawn into files: as they are, and as a network sees them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs import browse as job
from mtl_ray.analysis.browse import browse
from mtl_ray.annotations.instance_values import Instances
from mtl_ray.experiment import load_experiment
from mtl_ray.geometry.masks import encode_rle
from mtl_ray.inputs.decode import decode_image
from mtl_ray.loading.config import Flip
from mtl_ray.samples import Vocabulary, image_sample
from mtl_ray.tasks.classification.decode import LabelScores
from mtl_ray.tasks.classification.draw import draw_label_scores, draw_labels
from mtl_ray.tasks.detection.decode import Detections
from mtl_ray.tasks.detection.draw import draw_detections, draw_objects
from mtl_ray.tasks.segmentation.decode import SemanticMap
from mtl_ray.tasks.segmentation.draw import draw_class_map, draw_semantic
from tests.loading.splits import NAMES, png, sample, write_split

CONFIG = """
model:
  backbone: {name: resnet18, levels: [C5]}
  necks: {pool: {type: pool, input: C5}}
  heads: {labels: {type: multilabel}}
data:
  train: {uri: nowhere}
  val: {uri: nowhere}
  canvas: {height: 48, width: 64}
  augment: [{type: mosaic, p: 1}, {type: flip}]
  batch: 4
schedule: {steps: 1}
runtime: {name: look}
"""


@pytest.fixture
def split(tmp_path: Path) -> str:
    """Keys that share a stem, differ in case only, or could leave the folder."""
    samples = [sample(index) for index in range(9)]
    keys = [
        "a/one.png",
        "a/one.jpg",
        "A/ONE.png",
        "../../etc/passwd",
        ".hidden",
        "",
        "contact-sheet-01.png",
        "b c:d*e?.jpg",
        "x" * 400,
    ]
    return write_split(
        tmp_path / "split",
        [replace(each, key=key) for each, key in zip(samples, keys, strict=True)],
    )


def pictures(folder: Path) -> Iterator[np.ndarray]:
    for path in sorted(folder.iterdir()):
        yield decode_image(path.read_bytes())


def test_names_are_unique_and_stay_in_the_folder(
    split: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert job.main([split, "--out", str(out), "--num", "50"]) == 0
    found = {path.name for path in out.iterdir()}
    assert len({name.lower() for name in found}) == 10
    assert {
        "a_one.jpg",
        "a_one-2.jpg",
        "etc_passwd.jpg",
        "hidden.jpg",
        "contact-sheet-01.jpg",
    } <= found
    assert all(len(name) < 140 for name in found)
    assert "9 images" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"split", "out"}
    assert len(list(pictures(out))) == 10


@pytest.mark.parametrize("num", [1, 4, 9])
def test_any_number(split: str, tmp_path: Path, num: int) -> None:
    names, sheets = browse(split, str(tmp_path / "out"), num)
    assert (len(names), len(sheets)) == (num, 1)


def test_augmented_shows_what_the_network_sees(split: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    out = tmp_path / "out"
    assert job.main([split, "--out", str(out), "--num", "14", "--augmented", str(config)]) == 0
    assert len(list(out.iterdir())) == 14 + 2, (
        "more than the split has: samples come again, under other names"
    )


def test_masks_are_drawn_as_the_network_sees_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only if a head of the config reads them."""
    whole = []
    for each in map(sample, range(6)):
        assert each.instances is not None
        mask = encode_rle(np.ones((each.height, each.width), np.bool_))
        masked = replace(each.instances, masks=(mask,) * len(each.instances))
        whole.append(each.with_annotations(instances=masked, labels=None, semantic=None))
    uri = write_split(tmp_path / "split", whole, kinds=["instances"])
    (tmp_path / "config.yaml").write_text(CONFIG.replace("{type: mosaic, p: 1}, ", ""))
    config = load_experiment(str(tmp_path / "config.yaml"))
    plain, masked = tmp_path / "plain", tmp_path / "masked"
    browse(uri, str(plain), 6, config)
    fields = {"instances": frozenset({"masks"})}
    monkeypatch.setattr("mtl_ray.analysis.browse.batch_fields", lambda heads: fields)
    names, _ = browse(uri, str(masked), 6, config)
    for name in names:
        before, after = (
            decode_image((folder / name).read_bytes()).astype(int) for folder in (plain, masked)
        )
        assert (np.abs(after - before).max(axis=2) > 20).mean() > 0.3


def test_more_than_a_sheet_holds_makes_more_sheets(tmp_path: Path) -> None:
    uri = write_split(
        tmp_path / "split",
        [sample(index).with_annotations(instances=None, semantic=None) for index in range(33)],
        kinds=["labels"],
    )
    names, sheets = browse(uri, str(tmp_path / "out"), 33)
    assert sheets == ["contact-sheet-01.jpg", "contact-sheet-02.jpg"]
    assert len(names) == 33


def test_a_missing_split_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing"):
        browse(str(tmp_path / "nothing"), str(tmp_path / "out"), 3)
    assert not (tmp_path / "out").exists()


VOCABULARY = Vocabulary(
    classes={"labels": NAMES, "instances": NAMES, "semantic": NAMES},
    keypoints=("top", "low"),
    skeleton=((0, 1),),
    colours={"instances": tuple((40 * index + 40, 0, 200) for index in range(6))},
)
GREY = np.full((32, 48, 3), 90, np.uint8)


def differs(drawn: np.ndarray) -> np.ndarray:
    """Where something was drawn, in pixels of the small image."""
    factor = drawn.shape[0] // GREY.shape[0]
    return (drawn != 90).any(axis=2).reshape(32, factor, 48, factor).any(axis=(1, 3))


def two_objects(**more: object) -> Instances:
    return Instances(
        boxes_xyxy=np.array([[4, 16, 20, 28], [30, 18, 44, 30]], np.float32),
        classes=np.array([0, 1]),
        ids=np.array([1, 2]),
        areas=np.ones(2, np.float32),
        crowd=np.array([False, True]),
        difficult=np.zeros(2, np.bool_),
        truncated=np.zeros(2, np.bool_),
        **more,  # type: ignore[arg-type]
    )


def test_truth_and_prediction_have_the_same_size_and_leave_the_image_alone() -> None:
    before = GREY.copy()
    one = image_sample(
        key="",
        image=b"",
        height=32,
        width=48,
        labels=np.array([2]),
        instances=two_objects(),
        semantic=png(np.zeros((32, 48), np.uint8)),
    )
    found = Detections(
        boxes_xyxy=two_objects().boxes_xyxy,
        scores=np.array([0.9, 0.1], np.float32),
        classes=np.array([0, 1]),
    )
    scores = LabelScores(scores=np.linspace(0, 1, 6, dtype=np.float32), exclusive=True)
    drawn = [
        draw_labels(GREY, one, VOCABULARY),
        draw_label_scores(GREY, scores, VOCABULARY, 0.5),
        draw_objects(GREY, one, VOCABULARY),
        draw_detections(GREY, found, VOCABULARY, 0.5),
        draw_semantic(GREY, one, VOCABULARY),
        draw_class_map(GREY, SemanticMap(classes=np.ones((32, 48), np.uint8)), VOCABULARY, 0.5),
    ]
    assert len({each.shape for each in drawn}) == 1
    assert all((each != 90).any() for each in drawn)
    assert (before == GREY).all()


def test_what_is_not_annotated_is_not_drawn() -> None:
    bare = image_sample(key="", image=b"", height=32, width=48)
    for draw in (draw_labels, draw_objects, draw_semantic):
        assert not differs(draw(GREY, bare, VOCABULARY)).any()


def test_low_scores_are_not_drawn() -> None:
    boxes = two_objects().boxes_xyxy
    found = Detections(
        boxes_xyxy=boxes, scores=np.array([0.9, 0.1], np.float32), classes=np.array([0, 1])
    )
    assert differs(draw_detections(GREY, found, VOCABULARY, 0.5))[:, :22].any()
    assert not differs(draw_detections(GREY, found, VOCABULARY, 0.5))[:, 28:].any()
    assert differs(draw_detections(GREY, found, VOCABULARY, 0.05))[:, 28:].any()
    nothing = LabelScores(scores=np.full(6, 0.01, np.float32), exclusive=False)
    assert not differs(draw_label_scores(GREY, nothing, VOCABULARY, 0.5)).any()
    assert differs(
        draw_label_scores(GREY, replace(nothing, exclusive=True), VOCABULARY, 0.5)
    ).any(), "the best of classes that exclude each other"


def test_masks_and_keypoints_are_drawn_for_truth_and_prediction() -> None:
    mask = np.zeros((32, 48), np.uint8)
    mask[20:24, 8:12] = 1
    points = np.array([[[12, 18, 2], [12, 26, 2]], [[0, 0, 0], [0, 0, 0]]], np.float32)
    plain = image_sample(key="", image=b"", height=32, width=48, instances=two_objects())
    rich = plain.with_annotations(
        instances=two_objects(masks=(encode_rle(mask), b""), keypoints=points)
    )
    more = differs(draw_objects(GREY, rich, VOCABULARY)) & ~differs(
        draw_objects(GREY, plain, VOCABULARY)
    )
    assert more[20:24, 8:12].all()
    assert more[19:26, 11:14].any(axis=1).all()
    found = Detections(
        boxes_xyxy=two_objects().boxes_xyxy,
        scores=np.array([0.9, 0.8], np.float32),
        classes=np.array([0, 1]),
        masks=(encode_rle(mask), b""),
        keypoints=np.where(points == 2, 0.9, points),
    )
    assert differs(draw_detections(GREY, found, VOCABULARY, 0.5))[20:24, 8:12].all()


def test_augmented_boxes_lie_on_their_objects(tmp_path: Path) -> None:
    """The drawing of a flipped white square has the colour of the box around white pixels."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[8:20, 4:24] = 255
    objects = replace(
        two_objects(), boxes_xyxy=np.array([[4, 8, 24, 20], [40, 30, 50, 40]], np.float32)
    )
    made = image_sample(key="square.png", image=png(image), height=48, width=64, instances=objects)
    uri = write_split(tmp_path / "split", [made, made], kinds=["instances"])
    from mtl_ray.config.load import load_tree
    from mtl_ray.config.validate import validate
    from mtl_ray.experiment import ExperimentConfig

    (tmp_path / "config.yaml").write_text(CONFIG)
    config = validate(load_tree(tmp_path / "config.yaml"), ExperimentConfig)
    config = replace(config, data=replace(config.data, augment=(Flip(p=1),), batch=2))
    browse(uri, str(tmp_path / "out"), 1, config)
    drawn = np.asarray(Image.open(tmp_path / "out" / "square.jpg").convert("RGB")).astype(int)
    factor = drawn.shape[1] // 64
    white = drawn[8 * factor + factor * 6, :].min(axis=1) > 200
    columns = np.flatnonzero(white) / factor
    assert 40 <= columns.min() <= 42
    assert 58 <= columns.max() <= 60
