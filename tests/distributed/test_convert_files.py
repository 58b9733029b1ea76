"""Conversions to files: by many tasks as by one, run again, in a bucket, and from the command
line.
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from jobs.convert import main
from jobs.run import run
from mtl_ray import storage
from mtl_ray.distributed import convert_files as module
from mtl_ray.distributed.convert import convert
from mtl_ray.distributed.convert_files import convert_files, files_summary
from mtl_ray.sources.config import ConvertConfig, Digits, ImageFolder, Shards
from mtl_ray.sources.image_reading import open_source
from mtl_ray.sources.object_configs import Cityscapes, Coco, Yolo
from tests.s3_server import S3Server

SOURCE = Digits(split="train", num=20, size=64)


def config(to: Path | str, **options: Any) -> ConvertConfig:
    return ConvertConfig(**({"source": SOURCE, "to": str(to), "format": "coco"} | options))


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("form", ["coco", "yolo", "semantic_png"])
def test_many_tasks_write_what_one_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    one = convert_files(config(tmp_path / "one", format=form))
    monkeypatch.setattr(module, "_ROWS_OF_A_TASK", 3)
    many = convert_files(config(tmp_path / "many", format=form))
    here = convert_files(config(tmp_path / "here", format=form, workers=1))
    contents = [files_in(tmp_path / name) for name in ("one", "many", "here")]
    for content in contents:
        del content["conversion_train.json"]  # which says where the files are
    assert contents[0] == contents[1] == contents[2]
    assert (
        (one.images, one.objects, one.skipped)
        == (many.images, many.objects, many.skipped)
        == (20, here.objects, here.skipped)
    )


def test_shards_and_back(tmp_path: Path) -> None:
    shards = convert(ConvertConfig(source=SOURCE, to=str(tmp_path / "shards"), shuffle=False)).uri
    back = convert_files(config(tmp_path / "back", source=Shards(root=shards, split="train")))
    assert (
        json.loads((tmp_path / "back" / "annotations" / "instances_train.json").read_text())[
            "images"
        ][-1]["id"]
        == 20
    )
    assert back.uri.endswith("annotations/instances_train.json")
    again, first = (
        open_source(Coco(root=str(tmp_path / "back"), split="train")),
        open_source(SOURCE),
    )
    for index in range(20):
        one, other = first.read(index)[0], again.read(index)[0]
        assert one is not None
        assert other is not None
        assert one.instances is not None
        assert other.instances is not None
        assert np.array_equal(one.instances.boxes_xyxy, other.instances.boxes_xyxy)
        assert one.instances.masks == other.instances.masks
        assert one.image == other.image


def test_masks_that_never_were_polygons_stay_run_lengths(tmp_path: Path) -> None:
    for folder, end, values in (
        ("leftImg8bit", "leftImg8bit", np.uint8(9)),
        ("gtFine", "gtFine_instanceIds", np.uint16(26001)),
    ):
        (tmp_path / folder / "val" / "ulm").mkdir(parents=True)
        cv2.imwrite(
            str(tmp_path / folder / "val" / "ulm" / f"ulm_0_0_{end}.png"), np.full((8, 16), values)
        )
    city = Cityscapes(root=str(tmp_path), split="val")
    for name, masks, kind in (("usual", None, dict), ("asked", "polygons", list)):
        convert_files(config(tmp_path / f"{name}.json", source=city, masks=masks))
        (found,) = json.loads((tmp_path / f"{name}.json").read_text())["annotations"]
        assert isinstance(found["segmentation"], kind)
    convert_files(config(tmp_path / "yolo", source=city, format="yolo"))
    assert (
        tmp_path / "yolo" / "labels" / "val" / "ulm" / "ulm_0_0_leftImg8bit.txt"
    ).read_text() == "2 0 0 1 0 1 1 0 1\n"


def test_images_of_a_test_become_a_list(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    cv2.imwrite(str(tmp_path / "test" / "a.png"), np.zeros((8, 16), np.uint8))
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    arguments = [
        "--split",
        "test",
        "--to",
        str(tmp_path / "test.json"),
        "--format",
        "coco",
        "--classes",
        str(tmp_path / "names.txt"),
    ]
    assert main(["pictures", str(tmp_path), *arguments, "--workers", "1"]) == 0
    content = json.loads((tmp_path / "test.json").read_text())
    assert content["images"] == [{"id": 1, "file_name": "a.png", "height": 8, "width": 16}]
    assert [category["name"] for category in content["categories"]] == ["cat", "dog"]
    assert (
        content["annotations"]
        == json.loads((tmp_path / "test.conversion.json").read_text())["rejects"]
        == []
    )


def test_run_again_and_beside(tmp_path: Path) -> None:
    assert convert_files(config(tmp_path / "s")).fresh
    before = files_in(tmp_path / "s")
    again = convert_files(config(tmp_path / "s", workers=2))
    assert (again.fresh, again.images) == (False, 20)
    assert "nothing done" in files_summary(again)
    assert files_in(tmp_path / "s") == before
    for change in (
        {"format": "yolo"},
        {"pictures": False},
        {"masks": "polygons"},
        {"source": Digits(split="train", num=21, size=64)},
    ):
        with pytest.raises(ValueError, match="another conversion to the same folder"):
            convert_files(config(tmp_path / "s", **change))
    assert convert_files(config(tmp_path / "s", source=Digits(split="val", num=4, size=64))).fresh
    assert files_in(tmp_path / "s").items() >= before.items()


def test_an_annotation_file_alone(tmp_path: Path) -> None:
    done = convert_files(config(tmp_path / "x.json"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.conversion.json", "x.json"]
    assert (done.uri, done.note) == (str(tmp_path / "x.json"), str(tmp_path / "x.conversion.json"))
    assert not convert_files(config(tmp_path / "x.json")).fresh
    with pytest.raises(ValueError, match="only coco is a single file"):
        convert_files(config(tmp_path / "y.json", format="yolo"))


def test_a_note_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "ConvertedFiles", stop)
        with pytest.raises(KeyboardInterrupt):
            convert_files(config(tmp_path / "s"))
    assert not [name for name in files_in(tmp_path / "s") if name.startswith("conversion")]
    assert convert_files(config(tmp_path / "s")).fresh
    assert len(open_source(Coco(root=str(tmp_path / "s"), split="train"))) == 20


def test_rejects_are_reported(tmp_path: Path) -> None:
    convert_files(config(tmp_path / "raw", format="yolo", masks="none"))
    (tmp_path / "raw" / "images" / "train" / "broken.jpg").write_bytes(b"no image")
    (tmp_path / "raw" / "labels" / "train" / "broken.txt").write_text("")
    labels = next((tmp_path / "raw" / "labels" / "train").iterdir())
    labels.write_text(labels.read_text() + "99 0.5 0.5 0.1 0.1\n")
    done = convert_files(
        config(tmp_path / "out", source=Yolo(root=str(tmp_path / "raw"), split="train"))
    )
    assert done.images == 20
    broken, unknown = sorted(item.reason for item in done.skipped)
    assert "known format" in broken
    assert unknown == "unknown class: 99"
    assert json.loads(Path(done.note).read_text())["rejects"][0].keys() == {
        "file",
        "object",
        "reason",
    }
    assert "2 images and annotations" in files_summary(done)


def test_nothing_that_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "raw" / "train" / "a").mkdir(parents=True)
    (tmp_path / "raw" / "train" / "a" / "a.jpg").write_bytes(b"torn")
    source = ImageFolder(root=str(tmp_path / "raw"), split="train")
    with pytest.raises(ValueError, match="needs instances; the dataset has labels"):
        convert_files(config(tmp_path / "s", source=source))
    for folder in ("images", "labels"):
        (tmp_path / "yolo" / folder / "train").mkdir(parents=True)
    (tmp_path / "yolo" / "labels" / "train" / "a.txt").write_text("")
    (tmp_path / "yolo" / "images" / "train" / "a.jpg").write_bytes(b"torn")
    (tmp_path / "yolo" / "classes.txt").write_text("x\n")
    with pytest.raises(ValueError, match="none of the 1 images can be written"):
        convert_files(
            config(tmp_path / "s", source=Yolo(root=str(tmp_path / "yolo"), split="train"))
        )
    assert not (tmp_path / "s").exists() or files_in(tmp_path / "s") == {}


def test_into_a_bucket(s3: S3Server) -> None:
    wanted = config(s3.folder(), source=Digits(split="val", num=3, size=64))
    done = convert_files(wanted)
    assert json.loads(storage.read(done.uri))["images"][0]["id"] == 1
    assert len(open_source(Coco(root=wanted.to, split="val"))) == 3
    assert not convert_files(wanted).fresh


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "digits",
        "--split",
        "val",
        "--num",
        "3",
        "--size",
        "64",
        "--to",
        str(tmp_path / "d"),
        "--format",
        "yolo",
        "--no-pictures",
    ]
    assert main(arguments) == 0
    assert "samples    3" in capsys.readouterr().out
    assert not (tmp_path / "d" / "images").exists()
    with pytest.raises(SystemExit) as ended:
        run(lambda: main([*arguments, "--masks", "rle"]))
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_bccd_as_coco_is_what_its_authors_made(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "det_bccd_voc"
    for split in ("train", "val", "test"):
        assert (
            main(
                [
                    "voc",
                    str(root),
                    "--split",
                    split,
                    "--to",
                    str(tmp_path / f"{split}.json"),
                    "--format",
                    "coco",
                    "--workers",
                    "1",
                ]
            )
            == 0
        )
        ours, theirs = (
            json.loads(path.read_text())
            for path in (tmp_path / f"{split}.json", root / "coco" / f"instances_{split}.json")
        )
        # its authors left out objects of a single pixel
        larger = [entry for entry in entries(ours) if entry[2][2:] != [1, 1]]
        assert larger == entries(theirs)


def test_years_on_the_command_line(shared_data: Path, tmp_path: Path) -> None:
    root = str(shared_data / "fmt_openmmlab" / "mmyolo" / "VOCdevkit")
    for years, count in (
        ((), 2),
        (("--years", "2007"), 1),
        (("--years", "2007", "--years", "VOC2012"), 2),
    ):
        out = tmp_path / f"{len(years)}.json"
        assert (
            main(["voc", root, "--split", "trainval", "--to", str(out), "--format", "coco", *years])
            == 0
        )
        assert len(json.loads(out.read_text())["images"]) == count


def entries(content: dict[str, Any]) -> list[tuple[Any, ...]]:
    """File name, class, box, area, crowd of each annotation of a COCO file, sorted."""
    images = {image["id"]: image["file_name"] for image in content["images"]}
    names = {category["id"]: category["name"] for category in content["categories"]}
    return sorted(
        (
            images[each["image_id"]],
            names[each["category_id"]],
            each["bbox"],
            each["area"],
            each["iscrowd"],
        )
        for each in content["annotations"]
    )
