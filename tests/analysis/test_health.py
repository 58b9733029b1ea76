"""The health of data sets: every fault that was planted is named, and nothing else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.analyze import dataset as job
from mtl_ray.analysis.health import SIDE_OCTAVES, Health, bin_edges, in_octaves
from mtl_ray.analysis.health_data import open_health_dataset
from mtl_ray.analysis.health_figures import classes_figure, set_name
from mtl_ray.analysis.health_json import colour_of
from mtl_ray.analysis.health_report import HealthReport, median_of
from mtl_ray.distributed.dataset_health import check_health
from tests.loading.splits import png, sample, write_split

HEIGHT, WIDTH = 40, 60


def picture(seed: int) -> np.ndarray:
    """Large areas of random grey, which look like themselves at any size and quality."""
    coarse = np.random.default_rng(seed).integers(0, 255, (5, 6, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def write_coco(folder: Path, names: list[str], boxes: list[tuple[int, int, list[float]]]) -> str:
    """An annotation file on images that lie beside it; boxes as (image, category, xywh)."""
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "images": [
            {"id": i, "file_name": name, "height": HEIGHT, "width": WIDTH}
            for i, name in enumerate(names, 1)
        ],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "bbox": xywh,
                "area": xywh[2] * xywh[3],
                "iscrowd": 0,
            }
            for number, (image, category, xywh) in enumerate(boxes, 1)
        ],
        "categories": [
            {"id": 1, "name": "ant"},
            {"id": 2, "name": "bee"},
            {"id": 3, "name": "cow"},
        ],
    }
    (folder / "boxes.json").write_text(json.dumps(content))
    return str(folder / "boxes.json")


def planted(folder: Path) -> str:
    """Eight images: one is missing, one is damaged, one is smaller than stated; seven odd
    boxes of nine.
    """
    names = [f"{number}.png" for number in range(8)]
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names[1:], 1):
        Image.fromarray(picture(number)).save(folder / name)
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:60])
    Image.fromarray(picture(3)[:30]).save(folder / "3.png")
    boxes = [
        (5, 1, [5, 5, 10, 10]),
        (5, 1, [5, 5, 10, 10]),
        (5, 2, [5, 5, 10, 10]),
        (6, 1, [5, 5, 0, 10]),
        (6, 1, [70, 5, 10, 10]),
        (6, 1, [50, 5, 30, 10]),
        (7, 1, [5, 5, 0.5, 0.6]),
        (7, 1, [0, 5, 60, 1.5]),
        (8, 2, [5, 5, float("nan"), 10]),
    ]
    return write_coco(folder, names, boxes)


def counted(report: HealthReport, place: int = 0) -> dict[str, int]:
    return dict(report.sets[place].counted)


def test_every_planted_fault_is_found(tmp_path: Path) -> None:
    """Once each, with the image and the annotation."""
    report, _ = check_health([planted(tmp_path)])
    assert counted(report) == {
        "missing image": 1,
        "damaged image": 1,
        "other size than stated": 1,
        "same box twice": 1,
        "empty box": 1,
        "box outside the image": 1,
        "box beyond the edge": 1,
        "box of less than a pixel": 1,
        "box of an odd shape": 1,
        "box without a finite number": 1,
    }
    named = {problem.kind: problem for problem in report.sets[0].problems}
    assert named["missing image"].key == "0.png"
    assert named["empty box"].key == "5.png"
    assert named["empty box"].text == "annotation 4, x1 y1 x2 y2 = 5 5 5 15 in 60 x 40"
    assert any(
        "no example of 1 of 3 classes of instances: cow" in finding for finding in report.findings
    )
    assert report.sets[0].objects.tolist() == [7, 2, 0]
    assert report.sets[0].images["instances"].tolist() == [3, 2, 0]
    assert report.sets[0].empty["instances"] == 4


def test_sizes_are_those_that_coco_counts(tmp_path: Path) -> None:
    """By the stated area, which is that of a mask: half of the box here."""
    uri = Path(write_coco(tmp_path, ["a.png"], [(1, 1, [0, 0, 40, 40]), (1, 1, [0, 0, 60, 40])]))
    content = json.loads(uri.read_text())
    for annotation in content["annotations"]:
        annotation["area"] /= 2
    uri.write_text(json.dumps(content))
    report, _ = check_health([str(uri)])
    assert report.sets[0].coco_sizes.tolist() == [1, 1, 0]


def test_names_in_figures_stay_apart_and_counts_are_whole(tmp_path: Path) -> None:
    """Where long names differ only at their ends, and where there is one object, or none."""
    health = check_health([write_coco(tmp_path, ["a.png"], [(1, 1, [0, 0, 40, 40])])])[0].sets[0]
    bare = Health(vocabulary=health.vocabulary)
    for each, most in ((health, 1.0), (bare, 0.0)):
        axes = classes_figure(["a"], [each], "instances").axes[0]
        ticks = [
            tick for tick in axes.get_xticks() if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]
        ]
        assert axes.get_xlim()[0] == 0
        assert axes.get_xlim()[1] >= max(most, 0.5)
        assert all(tick == round(tick) for tick in ticks)
    folders = ["a_long_beginning_" * 5 + end for end in ("train", "val")]
    shown = {
        set_name(name)
        for name in [*folders, *(end + "_a_long_end" * 9 for end in ("train", "val"))]
    }
    assert len(shown) == 4
    assert max(map(len, shown)) <= 60


def test_same_pictures_in_two_splits(tmp_path: Path) -> None:
    """The same file under another name, and the same image in another encoding, within a set
    and across.
    """
    one, two = tmp_path / "train", tmp_path / "val"
    for folder in (one, two):
        folder.mkdir()
    for number in range(12):
        Image.fromarray(picture(number)).save(one / f"{number}.png")
    (one / "again.png").write_bytes((one / "3.png").read_bytes())
    (two / "renamed.png").write_bytes((one / "3.png").read_bytes())
    Image.fromarray(picture(7)).save(two / "seven.jpg", quality=70)
    Image.fromarray(picture(99)).save(two / "new.png")
    uris = [
        write_coco(folder, sorted(path.name for path in folder.iterdir()), [(1, 1, [5, 5, 10, 10])])
        for folder in (one, two)
    ]
    report, sets = check_health(uris)
    assert report.same_counts == {
        (0, 0, "same file"): 1,
        (0, 1, "looks alike"): 1,
        (0, 1, "same file"): 1,
    }
    assert {(pair.key_a, pair.key_b, pair.how) for pair in report.same} == {
        ("3.png", "again.png", "same file"),
        ("3.png", "renamed.png", "same file"),
        ("7.png", "seven.jpg", "looks alike"),
    }
    assert report.findings[0].startswith("1 images of val/boxes.json")
    found = {place: sets[place].sample(row) for place, row in ((0, 3), (1, 1))}
    assert all(each is not None and each.image for each in found.values())


def test_a_clean_split_is_clean(tmp_path: Path) -> None:
    """All kinds of annotation are counted, as NumPy counts them."""
    samples = [sample(index) for index in range(12)]
    uri = write_split(
        tmp_path / "split",
        [*samples, sample(12).with_annotations(instances=None, labels=np.zeros(0, np.int64))],
    )
    report, _ = check_health([uri])
    (health,) = report.sets
    assert not counted(report)
    assert health.samples == 13
    assert health.annotated == {"labels": 13, "instances": 12, "semantic": 13}
    assert health.empty["labels"] == 1
    classes = np.concatenate(
        [each.instances.classes for each in samples if each.instances is not None]
    )
    assert health.objects.tolist() == np.bincount(classes, minlength=6).tolist()
    assert sum(count * number for number, count in health.per_image.items()) == len(classes)
    assert health.pixels.sum() + health.no_class == sum(
        each.height * each.width for each in [*samples, sample(12)]
    )
    pixels = np.concatenate(
        [
            np.asarray(Image.open(__import__("io").BytesIO(each.image))).reshape(-1, 3)
            for each in [*samples, sample(12)]
        ]
    )
    mean, std = colour_of(health)
    assert mean == pytest.approx(pixels.mean(0).tolist())
    assert std == pytest.approx(pixels.std(0).tolist())


def test_parts_merge_into_the_whole(tmp_path: Path) -> None:
    """However the rows are cut."""
    uri = planted(tmp_path)
    whole, _ = check_health([uri])
    data = open_health_dataset(uri)
    from mtl_ray.analysis.health_data import look_at_piece

    merged = Health(vocabulary=data.vocabulary)
    for piece in data.pieces(5):
        merged.merge(look_at_piece(piece))
    assert merged.identities == whole.sets[0].identities
    assert merged.counted == whole.sets[0].counted
    np.testing.assert_array_equal(merged.sides, whole.sets[0].sides)
    np.testing.assert_allclose(merged.colour, whole.sets[0].colour)


def test_octaves() -> None:
    """Each value lies between the edges of its bin; the median is found to an eighth of an
    octave.
    """
    values = np.array([0.01, 0.25, 1, 10, 32, 33, 1e6])
    histogram = in_octaves(values, SIDE_OCTAVES)
    edges = bin_edges(SIDE_OCTAVES)
    assert histogram.sum() == len(values)
    assert histogram[np.searchsorted(edges, 10, side="right") - 1] == 1
    assert 10 / 2**0.25 < median_of(histogram, SIDE_OCTAVES) < 10 * 2**0.25
    assert np.isnan(median_of(np.zeros_like(histogram), SIDE_OCTAVES))


def test_raw_data_and_its_rejects(shared_data: Path) -> None:
    """A raw set is read as jobs.convert reads it, with what its reader leaves out."""
    report, _ = check_health([f"voc:root={shared_data / 'det_bccd_voc'},split=val"])
    assert report.sets[0].samples == 87
    assert counted(report) == {}
    assert report.sets[0].findings.notes.total() == 1  # an object of a single pixel, which is kept
    assert any("single pixel" in finding for finding in report.findings)
    for wrong in ("voc:root", "voc:root=nowhere,split=val", f"voc:rot={shared_data},split=val"):
        with pytest.raises((ValueError, FileNotFoundError)):
            check_health([wrong])


def test_job_writes_figures_and_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And says with --strict whether there is something to look at."""
    split = write_split(tmp_path / "split", [sample(index) for index in range(4)])
    assert (
        job.main([split, planted(tmp_path / "coco"), "--out", str(tmp_path / "out"), "--strict"])
        == 1
    )
    assert "what to look at" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {
        "dataset.json",
        "classes.csv",
        "problems.csv",
        "boxes.png",
        "sizes.png",
        "samples-1.jpg",
        "samples-2.jpg",
    }
    assert names >= {"classes-labels.png", "classes-instances.png", "classes-semantic.png"}
    found = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert found["data"][1]["problem_counts"]["empty box"] == 1
    assert found["data"][1]["classes"]["instances"]["ant"] == {"images": 3, "objects": 7}
    with Image.open(tmp_path / "out" / "boxes.png") as drawn:
        assert drawn.width > 1000


@pytest.mark.usefixtures("ray_session")
def test_two_workers_find_the_same(tmp_path: Path) -> None:
    """As Ray tasks."""
    uri = planted(tmp_path)
    split = write_split(
        tmp_path / "split",
        [sample(index).with_image(data=png(picture(index % 4))) for index in range(6)],
    )
    look: Callable[[HealthReport], Any] = HealthReport.to_json
    assert look(check_health([uri, split], workers=2)[0]) == look(check_health([uri, split])[0])
