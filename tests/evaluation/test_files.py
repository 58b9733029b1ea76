"""COCO annotation and results files, and the Arrow file of predictions."""

import contextlib
import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_ray.evaluation.coco_file import read_coco_file
from mtl_ray.evaluation.coco_results import (
    category_ids,
    category_ids_of,
    read_coco_results,
    write_coco_results,
)
from mtl_ray.evaluation.data import image_ids, image_number, open_data
from mtl_ray.evaluation.predictions_file import ROWS, Spool, read_arrow, to_table, write_arrow
from mtl_ray.geometry.masks import decode_rle
from mtl_ray.inference.predictor import head_of
from mtl_ray.samples import Vocabulary, image_sample
from mtl_ray.tasks.classification.decode import LabelScores
from mtl_ray.tasks.detection.task import DETECTION
from mtl_ray.tasks.segmentation.decode import SemanticMap
from tests.tasks.random_objects import detections, random_images, sample_of

ENTRY = {"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [0, 0, 1, 1]}
SQUARE = [[2, 2, 8, 2, 8, 8, 2, 8]]
OFFSETS = np.array([0, 2, 4], np.int32).tobytes()
"""Where Arrow's lists of two numbers each begin and end."""


def annotations(**further: Any) -> dict[str, Any]:
    content: dict[str, Any] = {
        "images": [
            {"id": 7, "file_name": "b.jpg", "height": 10, "width": 12},
            {"id": 0, "file_name": "a.jpg", "height": 10, "width": 12},
        ],
        "categories": [{"id": 90, "name": "late"}, {"id": 0, "name": "early"}],
        "annotations": [
            {
                "id": 0,
                "image_id": 0,
                "category_id": 90,
                "bbox": [1.1, 2.2, 3.3, 4.4],
                "area": 5.5,
                "iscrowd": 0,
                "segmentation": SQUARE,
            },
            {
                "id": 1,
                "image_id": 0,
                "category_id": 0,
                "bbox": [0, 0, 4, 4],
                "area": 16,
                "iscrowd": 1,
                "segmentation": {"size": [10, 12], "counts": [20, 100]},
            },
            {"id": 2, "image_id": 0, "category_id": 0, "bbox": [0, 0, 0, 4], "segmentation": []},
        ],
    }
    return content | further


def write(path: Path, content: Any) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def test_an_annotation_file_is_taken_as_it_stands(tmp_path: Path) -> None:
    file = read_coco_file(write(tmp_path / "ann.json", annotations()))
    assert file.vocabulary.classes["instances"] == ("early", "late")
    assert file.vocabulary.category_ids["instances"] == (0, 90)
    assert [sample.key for sample in file.samples] == ["0", "7"]
    assert file.file_names == {"0": "a.jpg", "7": "b.jpg"}
    found = file.samples[0].instances
    assert found is not None
    assert found.boxes_xyxy[0].tolist() == [1.1, 2.2, 1.1 + 3.3, 2.2 + 4.4]
    assert found.classes.tolist() == [1, 0, 0]
    assert found.areas.tolist() == [5.5, 16, 0]
    assert found.crowd.tolist() == [False, True, False]
    assert found.masks is not None
    assert [int(decode_rle(mask, 10, 12).sum()) for mask in found.masks] == [36, 100, 0]
    empty = file.samples[1].instances
    assert empty is not None
    assert len(empty) == 0


def test_real_annotations_find_their_pictures(shared_data: Path) -> None:
    data = open_data(
        str(shared_data / "coco_mini" / "annotations" / "person_keypoints_val2017.json")
    )
    assert all(len(sample.image) > 1000 for sample in data.samples(0, len(data), images=True))
    assert len(data.vocabulary.keypoints) == 17
    assert data.vocabulary.skeleton[0] == (15, 13)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([], "is no COCO annotation file"),
        ({"images": []}, "is no COCO annotation file"),
        (
            annotations(
                annotations=[{"id": 1, "image_id": 99, "category_id": 0, "bbox": [0, 0, 1, 1]}]
            ),
            "99",
        ),
        (
            annotations(
                annotations=[{"id": 1, "image_id": 0, "category_id": 5, "bbox": [0, 0, 1, 1]}]
            ),
            "5",
        ),
        (annotations(annotations=[{"id": 1, "image_id": 0, "category_id": 0}]), "bbox"),
        (
            annotations(
                annotations=[{"id": 9, "image_id": 0, "category_id": 0, "bbox": [0, 0, 1, 1, 1]}]
                * 4
            ),
            "bbox of annotation 9",
        ),
        (
            annotations(annotations=[{"id": 9, "image_id": 0, "category_id": 0, "bbox": None}]),
            "bbox of annotation 9",
        ),
        (
            annotations(
                annotations=[{"id": 9, "image_id": 0, "category_id": 0, "bbox": [0, 0, "x", 1]}]
            ),
            "cannot be read",
        ),
        (annotations(annotations=[7]), "cannot be read"),
        (
            annotations(images=[{"id": 1, "height": None, "width": 3}], annotations=[]),
            "cannot be read",
        ),
    ],
)
def test_what_is_no_annotation_file_is_refused(tmp_path: Path, content: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_coco_file(write(tmp_path / "ann.json", content))
    (tmp_path / "cut.json").write_text(json.dumps(content)[:-1])
    with pytest.raises(ValueError, match="not JSON"):
        read_coco_file(str(tmp_path / "cut.json"))


def test_pictures_of_an_annotation_file_are_found_beside_it(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "images" / name).write_bytes(name.encode())
    uri = write(tmp_path / "annotations" / "ann.json", annotations())
    assert [sample.image for sample in open_data(uri).samples(0, 2, images=True)] == [
        b"a.jpg",
        b"b.jpg",
    ]
    elsewhere = open_data(uri, str(tmp_path))
    assert [sample.image for sample in elsewhere.samples(0, 2, images=True)] == [b"", b""]
    assert "a.jpg is in none of" in elsewhere.where("0")
    assert "--images" in elsewhere.where("0")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("./a.jpg", True),
        ("x\\..\\..\\secret.jpg", False),
        ("../secret.jpg", False),
        ("/a.jpg", True),
    ],
)
def test_file_names_stay_inside_the_folder(tmp_path: Path, name: str, found: bool) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "images" / "a.jpg").write_bytes(b"image")
    uri = write(
        tmp_path / "ann.json", annotations(images=[{"id": 0, "file_name": name}], annotations=[])
    )
    data = open_data(uri, str(tmp_path / "images"))
    assert next(data.samples(0, 1, images=True)).image == (b"image" if found else b"")
    assert found or "leads out" in data.where("0")


def test_images_are_called_by_the_numbers_of_their_files_where_these_tell_them_apart() -> None:
    assert [image_number(key) for key in ("x/000000000139.jpg", "7", "a7.jpg", "")] == [
        139,
        7,
        None,
        None,
    ]
    assert image_ids(["0002.jpg", "x/1.png"]) == [2, 1]
    assert image_ids(["a/1.jpg", "b/1.jpg"]) == [1, 2]
    assert image_ids(["1.jpg", "one.jpg"]) == [1, 2]


VOCABULARY = Vocabulary(
    classes={"instances": ("a", "b", "c"), "labels": ("x", "y"), "semantic": ("sky",)},
    category_ids={"instances": (3, 7, 90)},
)


def test_predictions_of_several_heads_come_back(tmp_path: Path) -> None:
    images = random_images(1)
    heads = {"boxes": head_of("yolov3"), "map": head_of("fcn"), "tags": head_of("multilabel")}
    tags = LabelScores(scores=np.array([0.1, 0.9], np.float32), exclusive=False)
    found = [
        {
            "boxes": image.predicted,
            "map": SemanticMap(classes=np.zeros((4, 5), np.uint8)),
            "tags": tags,
        }
        for image in images
    ]
    uri = str(tmp_path / "predictions.arrow")
    write_arrow(
        uri, to_table([sample_of(image) for image in images], found, heads), heads, VOCABULARY
    )
    stored = read_arrow(uri)
    assert (dict(stored.heads), stored.vocabulary) == (heads, VOCABULARY)
    for image in images:
        back = stored.by_name[image.key]
        np.testing.assert_array_equal(back["boxes"].boxes_xyxy, image.predicted.boxes_xyxy)
        assert back["boxes"].masks == image.predicted.masks
        assert back["map"].classes.shape == (4, 5)
        assert back["tags"].scores.tolist() == tags.scores.tolist()
    (tmp_path / "cut.arrow").write_bytes((tmp_path / "predictions.arrow").read_bytes()[:-50])
    with pytest.raises(ValueError, match="no whole predictions file"):
        read_arrow(str(tmp_path / "cut.arrow"))


def stored_labels(tmp_path: Path) -> Path:
    heads = {"label": head_of("linear")}
    scores = [
        {"label": LabelScores(scores=np.array([share, 1 - share], np.float32), exclusive=True)}
        for share in (0.25, 0.5)
    ]
    samples = [image_sample(key=key, image=b"", height=10, width=12) for key in ("one", "two")]
    path = tmp_path / "predictions.arrow"
    write_arrow(
        str(path),
        to_table(samples, scores, heads),
        heads,
        Vocabulary(classes={"labels": ("a", "b")}),
    )
    return path


@given(
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=4),
    st.booleans(),
)
def test_a_damaged_file_is_refused_or_read(damage: list[tuple[int, int]], offsets: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = stored_labels(Path(folder))
        content = bytearray(path.read_bytes())
        for place, byte in damage:
            content[place % len(content)] = byte
        if offsets:  # of a list, as Arrow stores them
            content = content.replace(
                b"\0\0\0\0\2\0\0\0\4\0\0\0", b"\0\0\0\0\xff\xff\xff\x7f\4\0\0\0"
            )
        path.write_bytes(content)
        with contextlib.suppress(ValueError):  # any other exception, or a crash, fails the test
            stored = read_arrow(str(path))
            for each in stored.by_name.values():
                assert each["label"].scores.sum() is not None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"heads": ["linear"]}, "damaged: heads: "),
        ({"vocabulary": 3}, "damaged: vocabulary: "),
        ({"heads": {"other": "linear"}}, "no column 'head:other'"),
        ({"version": 9}, "of version 9"),
        (None, "no whole predictions file"),
    ],
)
def test_a_forged_description_is_refused(tmp_path: Path, change: Any, sentence: str) -> None:
    path = stored_labels(tmp_path)
    with pa.memory_map(str(path)) as mapped:
        table = pa.ipc.open_file(mapped).read_all()
    about = json.loads(table.schema.metadata[b"mtl_ray"])
    told = b"[" * 100_000 if change is None else json.dumps(about | change).encode()
    schema = table.schema.with_metadata({"mtl_ray": told})
    with pa.ipc.new_file(str(tmp_path / "forged.arrow"), schema) as writer:
        writer.write_table(table)
    with pytest.raises(ValueError, match=sentence):
        read_arrow(str(tmp_path / "forged.arrow"))


def test_a_results_file_comes_back(tmp_path: Path) -> None:
    images = random_images(2)
    heads = {"objects": head_of("retinanet")}
    table = to_table(
        [sample_of(image) for image in images],
        [{"objects": image.predicted} for image in images],
        heads,
    )
    uri = str(tmp_path / "objects.coco.json")
    write_coco_results(uri, table, "objects", DETECTION, category_ids(VOCABULARY))
    entries = json.loads((tmp_path / "objects.coco.json").read_text())
    assert {entry["category_id"] for entry in entries} <= {3, 7, 90}
    assert {entry["image_id"] for entry in entries} <= set(range(10))
    stored = read_coco_results(uri, VOCABULARY, dict)
    assert list(stored.heads) == ["boxes"]
    for image in images:
        if len(image.predicted):
            back = stored.by_name[image.key]["boxes"]
            np.testing.assert_allclose(back.boxes_xyxy, image.predicted.boxes_xyxy, rtol=1e-12)
            np.testing.assert_array_equal(back.classes, image.predicted.classes)
            assert back.masks == image.predicted.masks


def test_masks_alone_and_as_polygons_are_read(tmp_path: Path) -> None:
    entries = [{"image_id": 1, "category_id": 3, "score": 0.5, "segmentation": SQUARE}]
    stored = read_coco_results(
        write(tmp_path / "dt.json", entries), VOCABULARY, lambda: {"1": (10, 12)}
    )
    found = stored.by_name["1"]["boxes"]
    assert np.isnan(found.boxes_xyxy).all()
    assert decode_rle(found.masks[0], 10, 12).sum() == 36
    table = to_table(
        [image_sample(key="1", image=b"", height=10, width=12)], [{"boxes": found}], stored.heads
    )
    write_coco_results(
        str(tmp_path / "again.json"), table, "boxes", DETECTION, category_ids(VOCABULARY)
    )
    assert "bbox" not in json.loads((tmp_path / "again.json").read_text())[0]


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"images": []}, "no COCO results file"),
        ([{"image_id": 1, "category_id": 3}], "entry 0 has no score"),
        ([{"image_id": 1, "category_id": 4, "score": 1, "bbox": [0, 0, 1, 1]}], "category 4"),
        ([ENTRY | {"bbox": [0, 0, 1, 1, 0.5]}, ENTRY], "box of entry 0 has 5 numbers instead of 4"),
        ([ENTRY, ENTRY | {"bbox": [0, 0, 1, 1, 0.5]}], "box of entry 1 has 5 numbers"),
        ([ENTRY | {"bbox": [0, 0, 1, 1, 0.5]}] * 4, "box of entry 0 has 5 numbers"),
        ([ENTRY | {"bbox": []}], "box of entry 0 has 0 numbers"),
        ([ENTRY | {"bbox": "1234"}], "box of entry 0 has '1234'"),
        ([ENTRY | {"bbox": [0, 0, None, 1]}], "box of entry 0 is"),
        ([ENTRY | {"bbox": [0, 0, 10**400, 1]}], r"box of entry 0 is .*\.\.\..*, not 4 numbers"),
        ([ENTRY | {"bbox": "9" * 5000}], r"box of entry 0 has '9+\.\.\.9+' instead of 4"),
        ([ENTRY | {"score": 10**400}], r"score of entry 0 is no number: 1000+\.\.\."),
        ([ENTRY | {"keypoints": [1, 10**400, 3]}], "keypoints of entry 0"),
        ([ENTRY | {"score": None}], "score of entry 0"),
        ([ENTRY | {"score": float("nan")}], "score of entry 0 is not finite"),
        ([ENTRY | {"category_id": "one"}, ENTRY], "category_id of entry 0 is 'one'"),
        ([ENTRY | {"category_id": [1]}], "category_id of entry 0"),
        ([ENTRY | {"segmentation": 5}], "segmentation of entry 0 is no mask"),
        ([ENTRY, ENTRY | {"segmentation": SQUARE}], "entry 0 has no segmentation"),
        ([ENTRY | {"keypoints": [1, 2, 3]}, ENTRY], "entry 1 has no keypoints"),
        ([ENTRY | {"keypoints": [1, 2]}], "keypoints of entry 0"),
        (
            [ENTRY | {"keypoints": [1, 2, 3]}, ENTRY | {"keypoints": [1, 2, 3, 4, 5, 6]}],
            "keypoints of entry 1",
        ),
    ],
)
def test_what_is_no_results_file_is_refused(tmp_path: Path, entries: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_coco_results(
            write(tmp_path / "dt.json", entries),
            dataclasses.replace(VOCABULARY, category_ids={}),
            dict,
        )


def test_numbers_written_as_texts_are_numbers(tmp_path: Path) -> None:
    entry = {"image_id": "1", "category_id": "3", "score": "0.5", "bbox": ["1", "2", "3.5", 4]}
    found = read_coco_results(write(tmp_path / "dt.json", [entry]), VOCABULARY, dict).by_name["1"][
        "boxes"
    ]
    assert found.boxes_xyxy.tolist() == [[1, 2, 4.5, 6]]
    assert (found.scores.tolist(), found.classes.tolist()) == ([0.5], [0])


def test_a_skeleton_that_points_nowhere_is_left_out(tmp_path: Path) -> None:
    for skeleton, kept in (
        ([[1, 2]], ((0, 1),)),
        ([[0, 1]], ((0, 1),)),
        ([[1, 9]], ()),
        ([[1]], ()),
        (7, ()),
        (None, ()),
    ):
        categories = [{"id": 0, "name": "early", "keypoints": ["a", "b"], "skeleton": skeleton}]
        file = read_coco_file(
            write(tmp_path / "ann.json", annotations(categories=categories, annotations=[]))
        )
        assert file.vocabulary.skeleton == kept


def test_predictions_are_spooled_to_a_file_and_decoded_one_by_one(tmp_path: Path) -> None:
    heads = {"map": head_of("fcn"), "boxes": head_of("yolov3")}
    images = random_images(6, count=2 * ROWS + 3)
    maps = [np.full((4, 5), row % 3, np.uint8) for row in range(len(images))]
    with Spool(heads) as spool:
        for image, classes in zip(images, maps, strict=True):
            spool.add(
                sample_of(image), {"map": SemanticMap(classes=classes), "boxes": image.predicted}
            )
        table = spool.table()
    assert table["key"].num_chunks == 3, "what was added is written in parts, not held to the end"
    samples = [sample_of(image) for image in images]
    found = [
        {"map": SemanticMap(classes=classes), "boxes": image.predicted}
        for image, classes in zip(images, maps, strict=True)
    ]
    assert table.equals(to_table(samples, found, heads))
    write_arrow(str(tmp_path / "predictions.arrow"), table, heads, VOCABULARY)
    stored = read_arrow(str(tmp_path / "predictions.arrow"))
    assert list(stored.by_name) == [image.key for image in images]
    for image, classes in zip(images, maps, strict=True):
        np.testing.assert_array_equal(stored.by_name[image.key]["map"].classes, classes)
        np.testing.assert_array_equal(
            stored.by_name[image.key]["boxes"].boxes_xyxy, image.predicted.boxes_xyxy
        )
    with Spool(heads) as empty:
        assert empty.table().num_rows == 0


def test_categories_beside_those_of_the_source_are_left_out_and_noted(tmp_path: Path) -> None:
    box = {"image_id": 1, "score": 1, "bbox": [0, 0, 1, 1]}
    stored = read_coco_results(
        write(
            tmp_path / "dt.json",
            [box | {"category_id": 4}, box | {"category_id": 7, "image_id": 2}],
        ),
        VOCABULARY,
        dict,
    )
    assert (len(stored.by_name["1"]["boxes"]), len(stored.by_name["2"]["boxes"])) == (0, 1)
    assert "category 4" in stored.notes[0]


def test_categories_are_called_as_the_data_calls_them(tmp_path: Path) -> None:
    plain = dataclasses.replace(VOCABULARY, category_ids={})
    assert category_ids_of(("c", "a"), VOCABULARY) == [90, 3]
    assert category_ids_of(("c", "a"), plain) == [2, 0]
    assert category_ids_of(("x", "b", "y"), VOCABULARY) == [91, 7, 92]
    assert category_ids_of((), Vocabulary(classes={"labels": ("x",)})) == []
    heads = {"boxes": head_of("yolov3")}
    table = to_table(
        [image_sample(key="scene-1", image=b"", height=9, width=9)],
        [{"boxes": detections([[0, 0, 4, 4]], [0.5], [2])}],
        heads,
    )
    write_coco_results(str(tmp_path / "dt.json"), table, "boxes", DETECTION, category_ids(plain))
    entry = json.loads((tmp_path / "dt.json").read_text())[0]
    assert (entry["category_id"], entry["image_id"], entry["file_name"]) == (2, 1, "scene-1")
