"""Virtual environments of their own, for packages whose versions this project's cannot have beside
it.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

BUILD_S = 240
"""For one call of uv, and for waiting for another process that makes the same environment."""


def environment(name: str, requirements: Sequence[str], python: str = "") -> Path:
    """The python of a virtual environment that holds ``requirements`` and nothing of this project.

    It is made once, and kept in the user's cache folder under ``name`` and a hash of what it holds.
    A test that asks for one is skipped if it cannot be made, for example without a network.

    Args:
        name: a word for the folder.
        requirements: as for pip, such as ``mmdeploy-runtime==1.3.1``; may be empty.
        python: a version such as ``3.10``; by default that of this process.
    """
    version = python or ".".join(map(str, sys.version_info[:3]))
    content = "\n".join([version, *sorted(requirements)])
    folder = _cache() / f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    found = folder / "bin" / "python"
    complete = folder / "complete"
    if not complete.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _Alone(folder.with_suffix(".lock")):
            if not complete.exists():
                _make(folder, version, requirements)
                complete.touch()
    return found


def outside(python: Path) -> dict[str, str]:
    """The environment variables of a program that must find nothing of this project: to be passed
    with ``env`` to ``subprocess.run([python, ...])``.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    path = f"{python.parent}{os.pathsep}{kept.get('PATH', '')}"
    return {**kept, "PATH": path, "VIRTUAL_ENV": str(python.parent.parent)}


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "mtl_ray" / "test_environments"


def _make(folder: Path, version: str, requirements: Sequence[str]) -> None:
    """Makes it anew, or skips the test."""
    path = f"{os.environ.get('PATH', '')}{os.pathsep}{Path(sys.executable).parent}"
    if (uv := shutil.which("uv", path=path)) is None:
        pytest.skip("needs uv, which makes virtual environments")
    shutil.rmtree(folder, ignore_errors=True)
    commands = [[uv, "venv", "--quiet", "--python", version, str(folder)]]
    if requirements:
        python = str(folder / "bin" / "python")
        commands += [[uv, "pip", "install", "--quiet", "--python", python, *requirements]]
    for command in commands:
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=BUILD_S)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            said = str(getattr(error, "stderr", "") or error).strip()
            pytest.skip(f"the environment {folder.name} could not be made: {said[-300:]}")


class _Alone:
    """One process at a time holds the file; who waits too long skips its test."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        import fcntl

        self.file = self.path.open("w")
        end = time.monotonic() + BUILD_S
        while True:
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > end:
                    pytest.skip(f"another process has held {self.path.name} for {BUILD_S} s")
                time.sleep(0.5)

    def __exit__(self, *_: object) -> None:
        self.file.close()
