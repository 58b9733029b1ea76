"""The doctor finds what is broken and says how to fix it; a healthy machine passes."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mtl_ray.distributed.doctor import (
    TESTED_RAY,
    _ray_folder,
    check_ray_token,
    check_ray_version,
    check_storage,
)
from mtl_ray.distributed.doctor_nodes import check_name_lookup

ROOT = Path(__file__).parents[2]


def doctor(*arguments: str, python_path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(python_path or "")}
    return subprocess.run(
        [sys.executable, "-m", "jobs.doctor", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_this_machine_is_well(tmp_path):
    done = doctor("--storage", str(tmp_path))
    assert done.returncode == 0, done.stdout
    assert all(line.startswith("ok") for line in done.stdout.splitlines())
    assert list(tmp_path.iterdir()) == []


def test_a_torchvision_for_another_torch_is_said_in_words(tmp_path):
    package = tmp_path / "modules" / "torchvision"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        'raise RuntimeError("operator torchvision::nms does not exist")'
    )
    done = doctor("--storage", str(tmp_path / "runs"), python_path=tmp_path / "modules")
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("BROKEN  torch ")]
    assert "do not fit each other" in line
    assert "pip install" in line


@pytest.mark.parametrize(
    ("environment", "token", "broken", "words"),
    [
        ({}, False, False, "none yet"),
        ({}, True, False, "set RAY_AUTH_MODE=token"),
        ({"RAY_AUTH_MODE": "token"}, False, True, "there is no token"),
        ({"RAY_AUTH_MODE": "token"}, True, False, "can be submitted"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "secret"}, False, False, "can be submitted"),
        ({"RAY_AUTH_MODE": "disabled"}, True, False, "anyone who reaches"),
        ({"RAY_AUTH_TOKEN_PATH": "/nowhere/token"}, True, True, "/nowhere/token"),
    ],
)
def test_the_token_of_ray(tmp_path, environment, token, broken, words):
    if token:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("secret")
    finding = check_ray_token(environment, tmp_path)
    assert (finding.broken, words in finding.text) == (broken, True), finding
    assert "secret" not in finding.text


def test_a_long_folder_for_ray_is_broken(tmp_path):
    assert _ray_folder("/tmp/" + "x" * 60).broken
    assert not _ray_folder("/tmp").broken
    assert not _ray_folder("/tmp/made-when-needed").broken


def test_a_storage_that_cannot_be_written_is_broken(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    finding = check_storage(str(tmp_path / "file" / "runs"))
    assert finding.broken
    assert "cannot be written" in finding.text


def test_names_that_are_looked_up_for_long_are_broken():
    assert not check_name_lookup("127.0.0.1:6379").broken
    late = check_name_lookup("127.0.0.1:6379", longest_s=-1)
    assert late.broken
    assert "/etc/resolv.conf" in late.text


@pytest.mark.parametrize(
    ("version", "broken"),
    [("2.60.0", False), ("2.60.3", False), ("2.59.1", True), ("2.61.0", True), ("3.0.0rc1", True)],
)
def test_a_ray_that_was_not_tested_is_said(version, broken):
    found = check_ray_version(version)
    assert found.broken is broken
    assert version in found.text
    assert ("private modules" in found.text) is broken


def test_the_tested_range_of_ray_is_that_of_the_project():
    wanted = map(
        Requirement, tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    )
    assert [need.specifier for need in wanted if need.name == "ray"] == [TESTED_RAY]
