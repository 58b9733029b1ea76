"""Sharing out of splits and COCO files: what lies there afterwards, groups, duplicates, and the
command line.
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from jobs.run import run
from jobs.split import main
from mtl_ray.distributed import split as module
from mtl_ray.distributed.convert import convert
from mtl_ray.distributed.split import SplitOptions, split_data
from mtl_ray.shards.split import open_split
from mtl_ray.sources.config import ConvertConfig, Digits, ImageFolder
from mtl_ray.sources.image_reading import open_source
from mtl_ray.sources.object_configs import Coco

SHARES = {"train": 0.6, "val": 0.4}


def coco_file(path: Path, count: int = 30) -> dict[str, Any]:
    """A COCO file whose images come from three cities and ten films, with ids that begin at 100."""
    content = {
        "info": {"year": 2026},
        "licenses": [{"id": 1}],
        "images": [
            {
                "id": 100 + n,
                "file_name": f"city{n % 3}/{n}.jpg",
                "height": 9,
                "width": 9,
                "film": n // 3,
            }
            for n in range(count)
        ],
        "annotations": [
            {
                "id": 7 * n + 5,
                "image_id": 100 + n // 2,
                "category_id": 3 + n % 2,
                "bbox": [0, 0, 2, 2],
                "area": 4,
                "iscrowd": 0,
            }
            for n in range(2 * count)
        ],
        "categories": [{"id": 3, "name": "a"}, {"id": 4, "name": "b"}],
    }
    path.write_text(json.dumps(content))
    return content


def keys_of(uri: str) -> list[str]:
    split = open_split(uri)
    return [sample.key for sample in split.read(0, split.num_samples)]


def test_a_coco_file(tmp_path: Path) -> None:
    whole = coco_file(tmp_path / "instances_all.json")
    parts = split_data(
        str(tmp_path / "instances_all.json"), str(tmp_path / "parts"), SplitOptions(shares=SHARES)
    )
    contents = [
        json.loads((tmp_path / "parts" / f"instances_{name}.json").read_text()) for name in SHARES
    ]
    assert [part.uri for part in parts] == [
        str(tmp_path / "parts" / f"instances_{name}.json") for name in SHARES
    ]
    assert [(part.images, part.groups, part.classes) for part in parts] == [
        (18, 18, {"a": 18, "b": 18}),
        (12, 12, {"a": 12, "b": 12}),
    ]
    for name in ("images", "annotations"):
        assert (
            sorted(
                (each for content in contents for each in content[name]),
                key=lambda each: each["id"],
            )
            == whole[name]
        )
    assert all(
        content[name] == whole[name]
        for content in contents
        for name in ("info", "licenses", "categories")
    )
    owners = [{image["id"] for image in content["images"]} for content in contents]
    assert all(
        {each["image_id"] for each in content["annotations"]} <= owned
        for content, owned in zip(contents, owners, strict=True)
    )
    listed = [(tmp_path / "parts" / f"{name}.txt").read_text().split() for name in SHARES]
    assert listed == [[image["file_name"] for image in content["images"]] for content in contents]
    assert json.loads((tmp_path / "parts" / "split.json").read_text())["seed"] == 0


@pytest.mark.parametrize(
    ("wish", "group"),
    [
        ({"group": "^(city.)/"}, lambda image: image["file_name"][:5]),
        ({"group": r"city\d"}, lambda image: image["file_name"][:5]),
        ({"group_field": "film"}, lambda image: image["film"]),
        ({"groups": "FILE"}, lambda image: image["id"] % 7),
    ],
)
def test_groups(tmp_path: Path, wish: dict[str, str], group: Any) -> None:
    content = coco_file(tmp_path / "x.json")
    (tmp_path / "groups.csv").write_text(
        "".join(f"{image['file_name']},{group(image)}\n" for image in content["images"])
    )
    wish = {
        key: str(tmp_path / "groups.csv") if value == "FILE" else value
        for key, value in wish.items()
    }
    split_data(
        str(tmp_path / "x.json"), str(tmp_path / "parts"), SplitOptions(shares=SHARES, **wish)
    )  # type: ignore[arg-type]
    found = [
        {
            group(image)
            for image in json.loads((tmp_path / "parts" / f"x_{name}.json").read_text())["images"]
        }
        for name in SHARES
    ]
    assert all(found)
    assert not found[0] & found[1]


def test_a_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = convert(
        ConvertConfig(source=Digits(split="train", num=30, size=64), to=str(tmp_path / "all"))
    ).uri
    parts = split_data(
        whole, str(tmp_path / "parts"), SplitOptions(shares={"a": 2, "b": 1}, seed=3)
    )
    keys = [keys_of(part.uri) for part in parts]
    assert [len(each) for each in keys] == [20, 10]
    assert sorted(keys[0] + keys[1]) == sorted(keys_of(whole))
    assert [(tmp_path / "parts" / f"{name}.txt").read_text().split() for name in "ab"] == keys
    first = open_split(parts[0].uri)
    assert (first.vocabulary, first.manifest.shuffled) == (
        open_split(whole).vocabulary,
        open_split(whole).manifest.shuffled,
    )
    assert (
        split_data(whole, str(tmp_path / "parts"), SplitOptions(shares={"a": 2, "b": 1}, seed=3))
        == parts
    )
    with pytest.raises(ValueError, match=r"parts of another call \(different: seed\)"):
        split_data(whole, str(tmp_path / "parts"), SplitOptions(shares={"a": 2, "b": 1}, seed=4))
    assert [keys_of(part.uri) for part in parts] == keys


@pytest.mark.usefixtures("ray_session")
def test_by_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = convert(
        ConvertConfig(source=Digits(split="train", num=30, size=64), to=str(tmp_path / "all"))
    ).uri
    here = split_data(whole, str(tmp_path / "here"), SplitOptions(shares=SHARES), workers=1)
    monkeypatch.setattr(module, "_WORTH_TASKS", 7)
    there = split_data(whole, str(tmp_path / "there"), SplitOptions(shares=SHARES))
    assert [keys_of(part.uri) for part in here] == [keys_of(part.uri) for part in there]


def test_equal_images_stay_together(tmp_path: Path) -> None:
    for number in range(24):
        path = tmp_path / "raw" / "all" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            cv2.imencode(".png", np.full((8, 8, 3), number // 4, np.uint8))[1].tobytes()
        )
    whole = convert(
        ConvertConfig(
            source=ImageFolder(root=str(tmp_path / "raw"), split="all"), to=str(tmp_path / "all")
        )
    ).uri
    parts = split_data(whole, str(tmp_path / "parts"), SplitOptions(shares=SHARES))
    shown = [
        {int(key.rpartition("/")[2].removesuffix(".png")) // 4 for key in keys_of(part.uri)}
        for part in parts
    ]
    assert not shown[0] & shown[1]
    assert [part.classes for part in parts] == [
        {"a": 2 * len(each), "b": 2 * len(each)} for each in shown
    ]
    apart = split_data(
        whole, str(tmp_path / "apart"), SplitOptions(shares=SHARES, join_duplicates=False)
    )
    assert sum(part.groups for part in apart) == 24


def test_parts_are_read_as_splits_of_coco(tmp_path: Path) -> None:
    source = Digits(split="train", num=12, size=64)
    from mtl_ray.distributed.convert_files import convert_files

    convert_files(ConvertConfig(source=source, to=str(tmp_path / "set"), format="coco"))
    split_data(
        str(tmp_path / "set" / "annotations" / "instances_train.json"),
        str(tmp_path / "set" / "parts"),
        SplitOptions(shares=SHARES),
    )
    assert (
        len(
            open_source(
                Coco(
                    root=str(tmp_path / "set"),
                    split="train",
                    annotations="parts/instances_val.json",
                )
            )
        )
        == 5
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.json"], "nowhere.json"),
        (["nowhere"], "no split at"),
        (["x.json", "--parts", "train"], "NAME=SHARE"),
        (["x.json", "--parts", "train=1"], "at least two parts"),
        (["x.json", "--parts", "train=1", "val=0"], "above 0"),
        (["x.json", "--parts", "train=1", "train=2"], "repeated"),
        (["x.json", "--parts", "train=1", "../val=2"], "cannot be the name"),
        (["x.json", "--group", "("], "not a regular expression"),
        (["x.json", "--group", "town"], "does not match 30 names"),
        (["x.json", "--group", "c(i)ty"], "1 groups of images are too few for 3"),
        (["x.json", "--group-field", "patient"], "image 100 has no patient"),
        (["x.json", "--groups", "groups.csv"], "no group for 29 images"),
        (["bad.json"], "not a COCO annotation file"),
        (["stray.json"], "annotation 5 is of an image"),
        (["instances_train.json", "--to", "."], "would overwrite"),
    ],
)
def test_wrong_requests_are_one_sentence(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    content = coco_file(tmp_path / "x.json")
    coco_file(tmp_path / "instances_train.json")
    Path("groups.csv").write_text("city0/0.jpg, 1\n")
    Path("bad.json").write_text("[]")
    content["annotations"][0]["image_id"] = 1
    Path("stray.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit) as ended:
        run(lambda: main([*arguments, *([] if "--to" in arguments else ["--to", "out"])]))
    shown = capsys.readouterr().err
    assert ended.value.code == 2
    assert words in shown
    assert shown.count("\n") == 1


def test_a_damaged_report_of_parts_is_named(tmp_path: Path) -> None:
    coco_file(tmp_path / "instances_all.json")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "split.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"split\.json is damaged: "):
        split_data(
            str(tmp_path / "instances_all.json"),
            str(tmp_path / "parts"),
            SplitOptions(shares=SHARES),
        )


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco_file(tmp_path / "x.json")
    assert (
        main(
            [
                str(tmp_path / "x.json"),
                "--to",
                str(tmp_path / "o"),
                "--parts",
                "train=8",
                "val=1",
                "test=1",
                "--seed",
                "5",
            ]
        )
        == 0
    )
    shown = capsys.readouterr().out
    assert "images" in shown
    assert "80.0%" in shown
    assert str(tmp_path / "o" / "x_test.json") in shown
