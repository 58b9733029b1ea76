"""Every command of docs/lidar.md runs, one after the other, on real frames of KITTI."""

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_readme import NOT_COPIED, ROOT, environment, port, run, serve

__all__ = ["environment", "port"]
PAGE = (ROOT / "docs" / "lidar.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
QUICK = re.findall(r"add `(schedule\.\S+)`", PAGE)
pytestmark = pytest.mark.jobs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """A copy of the tree with ``kitti`` in it."""
    copy = tmp_path_factory.mktemp("lidar") / "mtl_ray"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
    (copy / "kitti").symlink_to(shared_data / "lidar_kitti_raw0001")
    return copy


@pytest.fixture(scope="module")
def server() -> Iterator[list["subprocess.Popen[bytes]"]]:
    """What the page leaves running."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) in (0, 130)


def test_there_is_something_to_run() -> None:
    assert len(COMMANDS) >= 14
    assert len(QUICK) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_run_one_after_the_other(
    command: str,
    folder: Path,
    environment: dict[str, str],
    server: list["subprocess.Popen[bytes]"],
    port: int,
) -> None:
    command = command.replace("http://127.0.0.1:8000", f"http://127.0.0.1:{port}")
    if command.startswith("python -m jobs.serve") and "compare" not in command:
        server.append(serve(command, port, folder, environment))
    elif command.startswith("curl "):
        if shutil.which("curl") is None:
            pytest.skip("needs curl")
        assert '"frame": "' in run(command, folder, environment)
    elif "jobs.train" in command:
        run(f"{command} {QUICK[0]} runtime.device=cpu", folder, environment)
        assert (folder / "runs" / "kitti" / "best.json").is_file()
    else:
        assert run(command, folder, environment)


def test_the_places_that_are_named_are_there() -> None:
    named = re.findall(r"(?:configs|tests)/[\w/.]+\.(?:yaml|py)", PAGE)
    assert len(named) >= 2
    assert [name for name in named if not (ROOT / name).exists()] == []
