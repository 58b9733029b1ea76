"""Every job that writes: a disk that is full or read-only, and a name that is too long, are one
sentence and status 2.
"""

import importlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from jobs.run import run
from mtl_ray.distributed.convert import convert
from mtl_ray.sources.config import ConvertConfig, Digits
from tests.inference.tiny import HEADS, write_checkpoint


@dataclass(frozen=True)
class Inputs:
    """What the jobs read."""

    split: str
    checkpoint: str
    image: str


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("inputs")
    convert(
        ConvertConfig(
            source=Digits(split="train", num=12, size=64), to=str(folder / "split"), workers=1
        )
    )
    cv2.imwrite(str(folder / "a.jpg"), np.full((40, 60, 3), 90, np.uint8))
    write_checkpoint(folder / "checkpoint", HEADS)
    return Inputs(str(folder / "split"), str(folder / "checkpoint"), str(folder / "a.jpg"))


JOBS = {
    "convert": "convert digits --split train --num 12 --size 64 --workers 1 --to {out}",
    "convert to files": "convert shards {split} --split train --workers 1 --format coco --to {out}",
    "split": "split {split} --workers 1 --to {out}",
    "browse": "browse {split} --num 4 --out {out}",
    "predict": "predict {checkpoint} {image} --out {out}",
    "export": "export {checkpoint} --to {out} export.min_agree=0.9 export.samples=2",
    "anchors": "anchors --data {split} --input 64 64 --out {out}",
    "dataset": "analyze.dataset {split} --out {out}",
    "schema": "config schema --out {out}/schema.json",
    "wash": "weights.wash {checkpoint}/model.safetensors {out}/w.safetensors",
    "wash to torch": "weights.wash {checkpoint}/model.safetensors {out}/w.pth",
    "publish": "weights.publish {checkpoint}/model.safetensors {out}/w.pth",
    "average": "weights.average {checkpoint}/model.safetensors {checkpoint}/model.safetensors "
    "{out}/w.safetensors",
}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    if (
        os.getuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", place],
            check=False,
            capture_output=True,
        ).returncode
    ):
        pytest.skip("needs root and mount, for a disk that is full")
    yield place
    subprocess.run(["umount", place], check=True)


def refused(job: str, inputs: Inputs, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The error of a job that must end with 2."""
    name, *arguments = JOBS[job].format(out=out, **vars(inputs)).split()
    with pytest.raises(SystemExit) as ended:
        run(lambda: importlib.import_module(f"jobs.{name}").main(arguments))
    errors = [
        line
        for line in capsys.readouterr().err.replace("\r", "\n").splitlines()
        if line.startswith("error: ")
    ]
    assert (ended.value.code, len(errors)) == (2, 1), errors
    return errors[0]


@pytest.mark.parametrize("job", JOBS)
def test_a_full_disk(
    job: str, inputs: Inputs, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (small_disk / "rest").write_bytes(bytes(12 << 10))
    assert "no space is left on the disk" in refused(job, inputs, small_disk / "out", capsys)


@pytest.mark.parametrize("job", JOBS)
def test_a_disk_that_may_only_be_read(
    job: str, inputs: Inputs, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert "the file system is read-only" in refused(job, inputs, small_disk / "out", capsys)


@pytest.mark.parametrize("job", JOBS)
def test_a_name_that_is_too_long(
    job: str, inputs: Inputs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "the name is too long" in refused(job, inputs, tmp_path / ("x" * 300), capsys)


@pytest.mark.parametrize("job", JOBS)
def test_a_file_where_a_folder_is_needed(
    job: str, inputs: Inputs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert str(tmp_path / "file") in refused(job, inputs, tmp_path / "file" / "out", capsys)
