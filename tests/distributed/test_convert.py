"""Conversions: what lies there afterwards, run again, killed half-way, asked for something else,
and from the command line.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from jobs.convert import main
from jobs.run import run
from mtl_ray import storage
from mtl_ray.distributed import convert as module
from mtl_ray.distributed.convert import Conversion, convert, summary
from mtl_ray.distributed.shard_jobs import ShardJob, write_job
from mtl_ray.samples import Sample
from mtl_ray.shards.split import open_split
from mtl_ray.sources.config import ConvertConfig, Digits, ImageFolder, SemanticPng, Shards
from mtl_ray.sources.image_reading import open_source
from mtl_ray.sources.object_configs import Voc
from tests.s3_server import S3Server


def keys_of(uri: Path | str) -> list[str]:
    """The keys of a split in stored order."""
    split = open_split(str(uri))
    return [sample.key for sample in split.read(0, split.num_samples)]


def same(first: Sample, second: Sample) -> bool:
    """Whether two samples hold the same bytes and arrays."""
    assert first.instances is not None
    assert second.instances is not None
    one, other = first.instances, second.instances
    arrays = (
        "boxes_xyxy",
        "classes",
        "ids",
        "areas",
        "crowd",
        "difficult",
        "truncated",
        "keypoints",
    )
    return (
        (first.key, first.image, first.height, first.width, first.semantic)
        == (second.key, second.image, second.height, second.width, second.semantic)
        and np.array_equal(first.labels, second.labels)  # type: ignore[arg-type]
        and all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays)
        and one.masks == other.masks
    )


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("form", ["arrow", "tfrecord"])
def test_all_samples_arrive(tmp_path: Path, form: str) -> None:
    source = Digits(split="train", num=60, size=64)
    done = convert(
        ConvertConfig(source=source, to=str(tmp_path / "s"), format=form, shard_bytes=30_000)
    )  # type: ignore[arg-type]
    split = open_split(str(tmp_path / "s"))
    made = open_source(source)
    expected = {
        sample.key: sample for index in range(60) if (sample := made.read(index)[0]) is not None
    }
    found = list(split.read(0, 60))
    assert len(split.manifest.shard_names) > 2
    assert {sample.key for sample in found} == expected.keys()
    assert all(same(sample, expected[sample.key]) for sample in found)
    assert [sample.key for sample in found] != sorted(expected)
    assert (done.fresh, done.findings.rejected, split.manifest.name, split.manifest.shuffled) == (
        True,
        0,
        "train",
        True,
    )
    assert split.vocabulary == made.vocabulary
    names = {path.name for path in (tmp_path / "s").iterdir()}
    assert {"manifest.json", "class_counts.json", "rejects.json"} <= names
    assert not [name for name in names if name.endswith(".part.json")]
    counts = json.loads((tmp_path / "s" / "class_counts.json").read_text())
    assert counts["instances"]["instances"]["3"] == sum(
        int((sample.instances.classes == 3).sum())
        for sample in found
        if sample.instances is not None
    )


def test_order_and_seed(tmp_path: Path) -> None:
    def order(name: str, **options: Any) -> list[str]:
        convert(
            ConvertConfig(
                source=Digits(split="val", num=30, size=64), to=str(tmp_path / name), **options
            )
        )
        return keys_of(tmp_path / name)

    plain = order("plain", shuffle=False)
    assert plain == sorted(plain)
    assert order("a") == order("b") != plain
    assert order("c", seed=5) not in (order("d", seed=6), plain)


def test_run_again(tmp_path: Path) -> None:
    config = ConvertConfig(source=Digits(split="val", num=10, size=64), to=str(tmp_path / "s"))
    assert convert(config).fresh
    before = {
        path.name: (path.stat().st_mtime_ns, path.read_bytes())
        for path in (tmp_path / "s").iterdir()
    }
    again = convert(config)
    assert not again.fresh
    assert "nothing done" in summary(again)
    assert {
        path.name: (path.stat().st_mtime_ns, path.read_bytes())
        for path in (tmp_path / "s").iterdir()
    } == before
    for change in (
        {"seed": 3},
        {"format": "tfrecord"},
        {"source": Digits(split="val", num=11, size=64)},
    ):
        with pytest.raises(ValueError, match="already holds another split"):
            convert(ConvertConfig(**({"source": config.source, "to": config.to} | change)))
    assert {
        path.name: (path.stat().st_mtime_ns, path.read_bytes())
        for path in (tmp_path / "s").iterdir()
    } == before


def test_changed_inputs_are_noticed(tmp_path: Path) -> None:
    write_voc(tmp_path / "raw", ["a", "b"])
    config = ConvertConfig(
        source=Voc(root=str(tmp_path / "raw"), split="train"), to=str(tmp_path / "s")
    )
    convert(config)
    annotation = tmp_path / "raw" / "Annotations" / "a.xml"
    annotation.write_text(annotation.read_text().replace("<xmax>9</xmax>", "<xmax>8</xmax>"))
    with pytest.raises(ValueError, match="the dataset itself"):
        convert(config)


def write_scenes(root: Path, count: int) -> None:
    """The same images as an image folder and as images with index PNGs."""
    made = open_source(Digits(split="train", num=count, size=64))
    for index in range(count):
        sample = made.read(index)[0]
        assert sample is not None
        assert sample.semantic is not None
        for place, content in {
            "a/train/one": sample.image,
            "b/images/train": sample.image,
            "b/labels/train": sample.semantic,
        }.items():
            (root / place).mkdir(parents=True, exist_ok=True)
            (root / place / f"{index}.png").write_bytes(content)


@pytest.mark.parametrize(
    ("source", "file"),
    [
        (ImageFolder, "a/train/one/1.png"),
        (SemanticPng, "b/images/train/1.png"),
        (SemanticPng, "b/labels/train/1.png"),
    ],
)
def test_changed_files_of_the_same_name_are_noticed(tmp_path: Path, source: Any, file: str) -> None:
    write_scenes(tmp_path / "raw", 3)
    config = ConvertConfig(
        source=source(root=str(tmp_path / "raw" / file[0]), split="train"), to=str(tmp_path / "s")
    )
    assert convert(config).fresh
    assert not convert(config).fresh
    changed = tmp_path / "raw" / file
    changed.write_bytes(changed.with_name("2.png").read_bytes())
    with pytest.raises(ValueError, match="the dataset itself"):
        convert(config)


def test_pixels_of_semantic_classes_are_counted(tmp_path: Path) -> None:
    write_scenes(tmp_path / "raw", 3)
    done = convert(
        ConvertConfig(
            source=SemanticPng(root=str(tmp_path / "raw" / "b"), split="train", ignore=(0,)),
            to=str(tmp_path / "s"),
        )
    )
    maps = [
        cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        for path in sorted((tmp_path / "raw" / "b" / "labels" / "train").iterdir())
    ]
    counts = json.loads((tmp_path / "s" / "class_counts.json").read_text())["semantic"]
    for name in done.manifest.vocabulary.classes["semantic"]:
        expected = [
            int(np.count_nonzero(np.asarray(found) == int(name))) if name != "0" else 0
            for found in maps
        ]
        assert (counts["pixels"][name], counts["images"][name]) == (
            sum(expected),
            sum(map(bool, expected)),
        )
    assert sum(counts["pixels"].values()) > 0
    assert "pixels" in summary(done)


def write_voc(root: Path, names: Sequence[str]) -> None:
    """A VOC set whose images are digit scenes; each has a good box, and "b" one without area."""
    made = open_source(Digits(split="val", num=len(names), size=64))
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for index, name in enumerate(names):
        sample = made.read(index)[0]
        assert sample is not None
        (root / "JPEGImages" / f"{name}.jpg").write_bytes(sample.image)
        box = "<object><name>x</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"  # noqa: E501
        bad = box.replace("<xmax>9</xmax>", "<xmax>0</xmax>") if name == "b" else ""
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{box}{bad}</annotation>")
    (root / "ImageSets" / "Main" / "train.txt").write_text("\n".join(names))


def test_rejects_are_reported(tmp_path: Path) -> None:
    write_voc(tmp_path / "raw", ["a", "b", "c"])
    (tmp_path / "raw" / "JPEGImages" / "c.jpg").write_bytes(b"\xff\xd8\xff")
    done = convert(
        ConvertConfig(source=Voc(root=str(tmp_path / "raw"), split="train"), to=str(tmp_path / "s"))
    )
    assert sorted(keys_of(tmp_path / "s")) == ["a.jpg", "b.jpg"]
    skipped = json.loads((tmp_path / "s" / "rejects.json").read_text())
    assert sorted((item["file"], item["object"]) for item in skipped) == [
        ("Annotations/b.xml", "object 2 (x)"),
        ("JPEGImages/c.jpg", ""),
    ]
    assert done.findings.rejected == 2
    assert "2 images and annotations" in summary(done)


def test_nothing_readable_makes_no_split(tmp_path: Path) -> None:
    write_voc(tmp_path / "raw", ["a"])
    (tmp_path / "raw" / "JPEGImages" / "a.jpg").write_bytes(b"torn")
    with pytest.raises(ValueError, match="none of the 1 images can be read"):
        convert(
            ConvertConfig(
                source=Voc(root=str(tmp_path / "raw"), split="train"), to=str(tmp_path / "s")
            )
        )
    assert not (tmp_path / "s" / "manifest.json").exists()
    (tmp_path / "flat" / "train").mkdir(parents=True)
    (tmp_path / "flat" / "train" / "a.jpg").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"has no images; the first of 1 left out: a\.jpg: is not in the folder"
    ):
        convert(
            ConvertConfig(
                source=ImageFolder(root=str(tmp_path / "flat"), split="train"),
                to=str(tmp_path / "s"),
            )
        )


@pytest.mark.usefixtures("ray_session")
def test_it_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ConvertConfig(
        source=Digits(split="train", num=40, size=64), to=str(tmp_path / "s"), shard_bytes=20_000
    )
    whole = ConvertConfig(source=config.source, to=str(tmp_path / "whole"), shard_bytes=20_000)
    convert(whole)

    def stop(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "clear", stop)
        with pytest.raises(KeyboardInterrupt):
            convert(config)
    shards = sorted((tmp_path / "s").glob("*.arrow"))
    assert len(shards) > 2
    assert not (tmp_path / "s" / "manifest.json").exists()
    shards[0].unlink()
    (tmp_path / "s" / "train-00099.arrow").write_bytes(b"of an earlier request")
    untouched = {path.name: path.stat().st_mtime_ns for path in shards[1:]}
    assert convert(config).fresh
    assert {path.name: path.stat().st_mtime_ns for path in shards[1:]} == untouched
    assert keys_of(tmp_path / "s") == keys_of(tmp_path / "whole")
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == sorted(
        path.name for path in (tmp_path / "whole").iterdir()
    )


def test_killed_half_way_leaves_no_split(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "jobs.convert",
        "digits",
        "--split",
        "train",
        "--to",
        str(tmp_path / "s"),
        "--num",
        "900",
        "--size",
        "512",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (tmp_path / "s").exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "s" / "manifest.json").exists()
    with pytest.raises(ValueError, match="no split"):
        open_split(str(tmp_path / "s"))


@pytest.mark.usefixtures("ray_session")
def test_shards_are_written_again(tmp_path: Path) -> None:
    first = convert(
        ConvertConfig(
            source=Digits(split="train", num=40, size=64),
            to=str(tmp_path / "a"),
            shard_bytes=50_000,
        )
    )
    root = first.uri
    second = convert(
        ConvertConfig(
            source=Shards(root=root, split="train"), to=str(tmp_path / "b"), format="tfrecord"
        )
    )
    third = convert(
        ConvertConfig(
            source=Shards(root=second.uri, split="train"),
            to=str(tmp_path / "c"),
            shard_bytes=20_000,
        )
    )
    splits = [open_split(conversion.uri) for conversion in (first, second, third)]
    assert [split.manifest.encoding for split in splits] == ["arrow", "tfrecord", "arrow"]
    assert len({len(split.manifest.shard_names) for split in splits}) == 3
    for one, other in zip(splits[0].read(0, 40), splits[2].read(0, 40), strict=True):
        assert same(one, other)
    assert splits[0].vocabulary == splits[2].vocabulary


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_voc(tmp_path / "raw", ["a", "b"])
    arguments = [
        "voc",
        str(tmp_path / "raw"),
        "--split",
        "train",
        "--to",
        str(tmp_path / "s"),
        "--no-shuffle",
        "--style",
        "mtl",
    ]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "2 in 1 arrow shards" in shown
    assert "1 images and annotations" in shown
    assert main(arguments) == 0
    assert "nothing done" in capsys.readouterr().out
    assert (
        main(
            [
                "digits",
                "--split",
                "val",
                "--to",
                str(tmp_path / "d"),
                "--num",
                "3",
                "--size",
                "64",
                "--seed",
                "9",
            ]
        )
        == 0
    )
    assert keys_of(tmp_path / "d")
    with pytest.raises(FileNotFoundError, match=r"no list val\.txt.*train\.txt"):
        main([*arguments[:3], "val", *arguments[4:]])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["digits", "--split", "val", "--to", "x", "--num", "many"], "source.num"),
        (["digits", "--split", "val", "--to", "x", "--size", "7"], "source.size"),
        (["voc", "/nowhere", "--split", "val", "--to", "x"], "/nowhere"),
        (
            [
                "image_folder",
                "/nowhere",
                "--split",
                "val",
                "--to",
                "x",
                "--classes",
                "/nowhere/c.txt",
            ],
            "/nowhere",
        ),
        (["shards", "/nowhere", "--split", "val", "--to", "x"], "/nowhere"),
    ],
)
def test_wrong_requests_are_one_sentence(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(lambda: main(arguments))
    shown = capsys.readouterr().err
    assert ended.value.code == 2
    assert words in shown
    assert shown.count("\n") == 1


def test_a_submitted_job_needs_an_absolute_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(ValueError, match="--to shards is a relative path"):
        convert(ConvertConfig(source=Digits(split="val", num=3), to="shards"))


@pytest.mark.jobs
def test_a_private_ray_is_started_and_ended(tmp_path: Path) -> None:
    short = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("RAY_")
    } | {
        "RAY_TMPDIR": str(short),
        "HOME": str(tmp_path),
    }
    arguments = [
        "digits",
        "-",
        "--split",
        "train",
        "--to",
        str(tmp_path / "s"),
        "--num",
        "1200",
        "--size",
        "64",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "jobs.convert", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1,200 in 2 arrow shards" in done.stdout
    short.rmdir()  # fails if anything is left
    assert not (tmp_path / ".ray").exists()


def test_summary_names_every_class(tmp_path: Path) -> None:
    done: Conversion = convert(
        ConvertConfig(source=Digits(split="val", num=20, size=64), to=str(tmp_path / "s"))
    )
    assert [line.split()[0] for line in summary(done).splitlines() if line.startswith("  ")] == [
        *"0123456789"
    ] * 2 + [
        "background",
        *"0123456789",
    ]


@pytest.mark.parametrize("content", ["", "[" * 100_000, "null", "[3]", '{"a": 1}'], ids=len)
@pytest.mark.parametrize("name", ["rejects.json", "class_counts.json"])
def test_damaged_files_of_a_finished_split_are_named(
    tmp_path: Path, name: str, content: str
) -> None:
    source = Digits(split="train", num=4, size=64)
    config = ConvertConfig(source=source, to=str(tmp_path), workers=1)
    assert summary(convert(config))
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=rf"{name} is damaged: "):
        convert(config)


def test_a_damaged_note_of_a_shard_is_no_note(tmp_path: Path) -> None:
    source = open_source(Digits(split="train", num=4, size=64))
    job = ShardJob(
        uri=str(tmp_path),
        name="train-00000",
        encoding="arrow",
        source=source,
        remote=False,
        conversion="c",
    )
    written = write_job(job)
    assert write_job(job) == written
    for content in ("", "[" * 100_000, "{}", '{"job": "c", "written": 3}'):
        (tmp_path / "train-00000.part.json").write_text(content)
        assert write_job(job) == written


def test_image_folder_across_shards(tmp_path: Path) -> None:
    made = open_source(Digits(split="val", num=6, size=64))
    for index in range(6):
        path = tmp_path / "raw" / "train" / "ab"[index % 2] / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        sample = made.read(index)[0]
        assert sample is not None
        path.write_bytes(sample.image)
    convert(
        ConvertConfig(
            source=ImageFolder(root=str(tmp_path / "raw"), split="train"), to=str(tmp_path / "s")
        )
    )
    split = open_split(str(tmp_path / "s"))
    assert {
        sample.key: sample.labels.tolist()
        for sample in split.read(0, 6)
        if sample.labels is not None
    } == {f"{'ab'[index % 2]}/{index}.jpg": [index % 2] for index in range(6)}


def test_from_a_bucket_to_a_bucket(s3: S3Server, tmp_path: Path) -> None:
    write_voc(tmp_path / "raw", ["a", "b", "c"])
    root, target = s3.folder(), s3.folder()
    for path in (tmp_path / "raw").rglob("*.*"):
        storage.upload(path, storage.join(root, path.relative_to(tmp_path / "raw").as_posix()))
    config = ConvertConfig(source=Voc(root=root, split="train"), to=target)
    assert convert(config).fresh
    assert not convert(config).fresh
    assert sorted(keys_of(target)) == ["a.jpg", "b.jpg", "c.jpg"]
    convert(
        ConvertConfig(source=Voc(root=str(tmp_path / "raw"), split="train"), to=str(tmp_path / "s"))
    )
    assert keys_of(target) == keys_of(tmp_path / "s")
    with pytest.raises(FileNotFoundError, match=r"no list val\.txt"):
        convert(ConvertConfig(source=Voc(root=root, split="val"), to=s3.folder()))
