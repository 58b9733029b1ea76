"""What a conversion says of its dataset: refusals, warnings and notes, the same before a
conversion and after it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from jobs.convert import main
from jobs.run import run
from mtl_ray.distributed.dataset_health import check_health
from mtl_ray.sources.findings import Findings, refusal, remarks
from mtl_ray.sources.source import SkippedItem, unknown_class


def write_voc(root: Path, images: dict[str, list[str]], box: str = "1,1,9,9") -> Path:
    """Images of 20 x 12 pixels with an object of each class named."""
    xmin, ymin, xmax, ymax = box.split(",")
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, classes in images.items():
        cv2.imwrite(str(root / "JPEGImages" / f"{name}.jpg"), np.full((12, 20, 3), 90, np.uint8))
        objects = "".join(
            f"<object><name>{each}</name><bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
            "</bndbox></object>"
            for each in classes
        )
        (root / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><size><width>20</width><height>12</height></size>{objects}</annotation>"
        )
    (root / "ImageSets" / "Main" / "train.txt").write_text("".join(f"{name}\n" for name in images))
    return root


def convert(
    capsys: pytest.CaptureFixture[str], root: Path, to: Path, *more: str
) -> tuple[int, str]:
    """Exit status and everything that ``jobs.convert voc`` prints."""
    with pytest.raises(SystemExit) as ended:
        run(
            lambda: main(
                ["voc", str(root), "--split", "train", "--to", str(to), "--workers", "1", *more]
            )
        )
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out + captured.err


FORMATS = [pytest.param((), id="shards"), pytest.param(("--format", "coco"), id="coco")]


@pytest.mark.parametrize("form", FORMATS)
def test_a_split_whose_annotations_are_all_rejected_is_not_published(
    tmp_path: Path, capsys: Any, form: tuple[str, ...]
) -> None:
    root = write_voc(tmp_path / "raw", {"a": ["ant"], "b": ["ant", "bee"]}, box="40,40,50,50")
    status, said = convert(capsys, root, tmp_path / "to", *form)
    assert status == 2
    assert (
        "all 3 annotations were rejected, most of them: 3 x its box lies outside the 20 x 12 "
        in said
    )
    assert not list((tmp_path / "to").rglob("manifest.json")) + list(
        (tmp_path / "to").rglob("instances_*.json")
    )
    details = next((tmp_path / "to").rglob("*rejects.json"))
    assert len(json.loads(details.read_text())) == 3
    assert str(details) in said
    report, _ = check_health([f"voc:root={root},split=train"])
    assert (
        "all 3 annotations were rejected, most of them: 3 x its box lies outside"
        in report.findings[0]
    )
    write_voc(tmp_path / "raw", {"a": ["ant"], "b": ["ant", "bee"]})
    assert convert(capsys, root, tmp_path / "to", *form)[0] == 0


@pytest.mark.parametrize("form", FORMATS)
def test_a_split_without_any_annotation_is_published_only_if_asked_for(
    tmp_path: Path, capsys: Any, form: tuple[str, ...]
) -> None:
    root = write_voc(tmp_path / "raw", {"a": [], "b": []})
    (root / "classes.txt").write_text("ant\n")
    given = ("--classes", str(root / "classes.txt"), *form)
    status, said = convert(capsys, root, tmp_path / "to", *given)
    assert status == 2
    assert "none of the 2 images has an annotation" in said
    report, _ = check_health([f"voc:root={root},split=train,classes={root}/classes.txt"])
    assert "none of the 2 images has an annotation" in report.findings[0]
    assert convert(capsys, root, tmp_path / "to", *given, "--allow-empty")[0] == 0


@pytest.mark.parametrize("form", FORMATS)
def test_a_listed_class_that_never_occurs_beside_unknown_ones_is_a_misspelling(
    tmp_path: Path, capsys: Any, form: Any
) -> None:
    root = write_voc(tmp_path / "raw", {"a": ["Ant", "bee"], "b": ["Ant", "bee"]})
    (root / "classes.txt").write_text("ant\nbee\n")
    given = ("--classes", str(root / "classes.txt"), *form)
    status, said = convert(capsys, root, tmp_path / "to", *given)
    assert status == 2
    assert "no annotation has the class 'ant', while 2 were rejected" in said
    assert "Ant" in said.split("not in the list", 1)[1]
    (root / "classes.txt").write_text("bee\n")
    status, said = convert(capsys, root, tmp_path / "to", *given)
    assert status == 0
    assert "warning: 2 of 4 annotations were rejected" in said


def counted(images: int, annotations: int, skipped: list[SkippedItem]) -> Findings:
    findings = Findings(images=images, annotated=images, annotations=annotations)
    findings.add(skipped)
    return findings


@pytest.mark.parametrize(("bad", "warned"), [(1, False), (2, True)])
def test_the_warning_begins_above_one_in_a_hundred(bad: int, warned: bool) -> None:
    items = [
        SkippedItem("a.xml", f"object {number}", "its box has no area: x 1 to 1")
        for number in range(bad)
    ]
    said = list(remarks(counted(100, 100 * bad - bad if not warned else 99, items)))
    assert bool(said) is warned
    if warned:
        assert said == [
            "warning: 2 of 101 annotations were rejected: 2 x its box has no area (such as a.xml, "
            "object 0, x 1 to 1)"
        ]


def test_the_three_most_frequent_reasons_are_named_and_images_are_counted_apart() -> None:
    reasons = {"a": 4, "b": 3, "c": 2, "d": 1}
    items = [
        SkippedItem("f", "o", f"{reason}: {number}")
        for reason, count in reasons.items()
        for number in range(count)
    ]
    said = next(
        iter(
            remarks(
                counted(
                    8,
                    90,
                    [
                        *items,
                        *(SkippedItem(f"{n}.jpg", "", "listed but not there") for n in range(2)),
                    ],
                )
            )
        )
    )
    assert said.startswith(
        "warning: 2 of 10 images and 10 of 100 annotations were rejected: 4 x a (such as f, o, 0); "
        "3 x b"
    )
    assert "2 x c" in said or "2 x listed" in said
    assert " x d" not in said


def test_notes_are_always_said_and_are_no_rejects() -> None:
    findings = counted(1000, 1000, [SkippedItem("a.jpg", "", "no annotation file", note=True)])
    assert list(remarks(findings)) == ["note: 1 x no annotation file, such as a.jpg"]
    assert findings.rejected == 0


def merged(parts: list[Findings]) -> Findings:
    whole = Findings()
    for part in parts:
        whole.merge(part)
    return whole


@pytest.mark.parametrize(
    "say",
    [lambda f: list(remarks(f)), lambda f: refusal(f, {"instances": {"x": 0}})],
    ids=["remarks", "refusal"],
)
def test_findings_of_parts_are_those_of_the_whole(say: Callable[[Findings], Any]) -> None:
    items = [
        SkippedItem("a", "object 1", unknown_class("X")),
        SkippedItem("b", "", "not there"),
        SkippedItem("c", "", "no annotation file", note=True),
        SkippedItem("d", "object 2", unknown_class("Y")),
    ]
    assert say(merged([counted(2, 3, items[:2]), counted(5, 7, items[2:])])) == say(
        counted(7, 10, items)
    )
