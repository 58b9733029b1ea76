"""Every command of the README runs, in a copy of the folder, on a small data set made for it."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
LEFT = ("data", "runs", "out", "wandb", "my_set", "bundles")
"""By the README's own commands, where somebody has typed them here."""
NOT_COPIED = (*LEFT, ".git", ".venv", "__pycache__", "*.egg-info", ".*_cache", ".hypothesis")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
QUICK = re.findall(r"add `(schedule\.\S+)`", README)
pytestmark = pytest.mark.jobs


def write_voc(root: Path, number: int) -> None:
    """A picture with one or two coloured rectangles, and its annotation."""
    random = np.random.default_rng(number)
    image = random.integers(0, 60, (120, 160, 3), np.uint8)
    annotation = ElementTree.Element("annotation")
    size = ElementTree.SubElement(annotation, "size")
    for name, value in (("width", 160), ("height", 120), ("depth", 3)):
        ElementTree.SubElement(size, name).text = str(value)
    for kind in random.choice(["red", "green"], random.integers(1, 3)):
        x, y, side = random.integers(0, 90), random.integers(0, 50), random.integers(20, 60)
        image[y : y + side, x : x + side] = (0, 0, 255) if kind == "red" else (0, 255, 0)
        found = ElementTree.SubElement(annotation, "object")
        ElementTree.SubElement(found, "name").text = str(kind)
        box = ElementTree.SubElement(found, "bndbox")
        for name, value in (
            ("xmin", x + 1),
            ("ymin", y + 1),
            ("xmax", x + side),
            ("ymax", y + side),
        ):
            ElementTree.SubElement(box, name).text = str(value)
    cv2.imwrite(str(root / "JPEGImages" / f"{number:04d}.jpg"), image)
    ElementTree.ElementTree(annotation).write(root / "Annotations" / f"{number:04d}.xml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree with ``my_set`` in it, as the README supposes."""
    copy = tmp_path_factory.mktemp("readme") / "mtl_ray"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (copy / "my_set" / name).mkdir(parents=True)
    for number in range(16):
        write_voc(copy / "my_set", number)
    for split, numbers in (("train", range(12)), ("val", range(12, 16))):
        (copy / "my_set" / "ImageSets" / "Main" / f"{split}.txt").write_text(
            "".join(f"{number:04d}\n" for number in numbers)
        )
    return copy


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """As a person has it who activated the virtual environment, without anything of Ray's."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "WANDB_"))
    }
    return kept | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path_factory.mktemp("home")),
        "WANDB_MODE": "disabled",
    }


def run(command: str, folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server() -> Iterator[list["subprocess.Popen[bytes]"]]:
    """What the README leaves running in its own terminal; ended as Ctrl-C does."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) in (0, 130)


def serve(
    command: str, port: int, folder: Path, environment: dict[str, str]
) -> "subprocess.Popen[bytes]":
    log = folder / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*shlex.split(command), "--port", str(port)],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
        )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5):
                return process
        except OSError:  # nothing answers yet, or not in time
            time.sleep(0.3)
    process.kill()
    raise AssertionError(f"{command} does not answer:\n{log.read_text()[-3000:]}")


def test_there_is_something_to_run():
    assert len(COMMANDS) >= 12
    assert len(QUICK) == 1


@pytest.mark.parametrize(
    "command", [command for command in COMMANDS if command.startswith("make ")]
)
def test_a_make_target_is_there(command):
    target = command.removeprefix("make ").strip()
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), (
        f"the Makefile has no {target}"
    )


@pytest.mark.parametrize(
    "command", [command for command in COMMANDS if command.startswith("ray job submit")]
)
def test_what_is_submitted_is_a_job_with_a_valid_config(command, folder, environment):
    """``tests/distributed/test_submit.py`` submits jobs; here the job's own words are looked at."""
    job = command.split(" -- ")[1].replace("-m jobs.train", "-m jobs.config print")
    assert "s3://bucket/runs" in run(job, folder, environment)


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if not c.startswith(("make ", "source ", "ray job submit"))]
)
def test_the_commands_run_one_after_the_other(command, folder, environment, server, port):
    command = command.replace("http://127.0.0.1:8000", f"http://127.0.0.1:{port}")
    if command.startswith("python -m jobs.serve") and "compare" not in command:
        server.append(serve(command, port, folder, environment))
    elif command.startswith("curl ") and shutil.which("curl") is None:
        pytest.skip("needs curl")
    elif "jobs.train" in command:
        run(f"{command} {QUICK[0]} runtime.device=cpu", folder, environment)
        assert (folder / "runs" / "my_set" / "best.json").is_file()
    else:
        said = run(command, folder, environment)
        assert said or "--out" in command


def test_the_places_that_are_named_are_there():
    named = re.findall(
        r"`((?:mtl_ray|jobs|configs|tests)/[\w/.]+|[A-Z]+\.md|requirements\.txt)`", README
    )
    assert len(named) >= 10
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_job_is_in_the_table():
    jobs = {path.stem for path in ROOT.glob("jobs/*.py")} - {"__init__", "run", "tools"}
    jobs |= {path.parent.name for path in ROOT.glob("jobs/*/__main__.py")}
    assert jobs == set(re.findall(r"^\| `jobs\.(\w+)", README, re.MULTILINE))
