"""Jobs run unchanged through ``ray job submit`` on a local Ray that needs its token."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.jobs

NOT_SENT = (
    ".git",
    ".venv",
    "data",
    "runs",
    "out",
    "wandb",
    "__pycache__",
    "*.egg-info",
    ".*_cache",
    ".hypothesis",
)


@dataclass(frozen=True)
class Cluster:
    """A Ray head for this test.

    Attributes:
        address: of its dashboard, which takes jobs.
        environment: of a client that knows the token.
        folder: the working tree that is sent with a job.
    """

    address: str
    environment: dict[str, str]
    folder: Path

    def submit(self, *command: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Runs ``ray job submit --working-dir . -- COMMAND`` and waits for its end."""
        return subprocess.run(
            [
                "ray",
                "job",
                "submit",
                "--address",
                self.address,
                "--working-dir",
                ".",
                "--",
                *command,
            ],
            cwd=self.folder,
            env={**self.environment, **changes},
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    home = tmp_path_factory.mktemp("home")
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text(secrets.token_hex(32))
    temporary = Path(f"/tmp/ms{os.getpid()}")  # short: it contains sockets
    temporary.mkdir()
    port, dashboard, agent, client = free_ports(4)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("RAY_")
    } | {
        "HOME": str(home),
        "RAY_TMPDIR": str(temporary),
        "RAY_AUTH_MODE": "token",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "disabled",
    }
    folder = tmp_path_factory.mktemp("tree") / "mtl_ray"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*NOT_SENT))
    for name in (".venv", "data", "runs"):
        (folder / name).mkdir()
        (folder / name / "large.bin").write_bytes(b"not sent")
    head = subprocess.Popen(
        [
            *(
                "ray",
                "start",
                "--head",
                "--block",
                "--node-ip-address=127.0.0.1",
                f"--port={port}",
                "--num-cpus=3",
            ),
            *(
                "--dashboard-host=127.0.0.1",
                f"--dashboard-port={dashboard}",
                f"--dashboard-agent-listen-port={agent}",
            ),
            *(
                f"--ray-client-server-port={client}",
                "--object-store-memory=150000000",
                "--disable-usage-stats",
            ),
        ],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        _wait_for(head, address)
        yield Cluster(address, environment, folder)
    finally:
        _end(head, temporary)


def _wait_for(head: "subprocess.Popen[bytes]", address: str) -> None:
    """Waits until the dashboard answers, with 401, since no token is sent."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and head.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=5)
        except urllib.error.HTTPError as error:
            if error.code == 401:
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"ray start did not bring up a dashboard that asks for a token at {address}")


def _end(head: "subprocess.Popen[bytes]", temporary: Path) -> None:
    """Ends the head and everything that it started: all processes of its session."""
    head.send_signal(signal.SIGTERM)
    try:
        head.wait(timeout=20)
    except subprocess.TimeoutExpired:
        head.kill()
        head.wait()
    for process in _processes_below(temporary):
        os.kill(process, signal.SIGKILL)
    shutil.rmtree(temporary, ignore_errors=True)


def _processes_below(temporary: Path) -> list[int]:
    """The processes whose command line names the temporary folder of this cluster."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = entry.read_bytes()
        except OSError:
            continue
        if f"{temporary}/".encode() in text and int(entry.parent.name) != os.getpid():
            found.append(int(entry.parent.name))
    return found


def test_without_the_token_a_job_is_refused(cluster):
    done = cluster.submit("python", "-c", "print('ran')", RAY_AUTH_MODE="disabled")
    assert done.returncode != 0
    assert "authentication is enabled" in done.stderr
    assert "ran" not in done.stdout.split()


def test_only_the_code_is_sent(cluster):
    done = cluster.submit("python", "-c", "import os; print('FILES', sorted(os.listdir()))")
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FILES")]
    sent = set(json.loads(line.removeprefix("FILES").replace("'", '"')))
    assert {"mtl_ray", "jobs", "configs", "pyproject.toml"} <= sent
    assert not sent & {".venv", ".git", "data", "runs"}


def test_a_relative_output_is_refused_in_words(cluster):
    done = cluster.submit(
        "python",
        "-m",
        "jobs.convert",
        "digits",
        "--split",
        "train",
        "--num",
        "4",
        "--size",
        "64",
        "--to",
        "shards/train",
    )
    assert done.returncode != 0
    assert "relative path" in done.stdout + done.stderr


def test_a_training_runs_unchanged(cluster, tmp_path):
    # the first is cut into two shards, each a Ray task
    for split, num in (
        ("train", "1001"),
        ("val", "8"),
    ):
        to = ("--to", str(tmp_path / split))
        done = cluster.submit(
            "python",
            "-m",
            "jobs.convert",
            "digits",
            "--split",
            split,
            "--num",
            num,
            "--size",
            "64",
            *to,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert len(list((tmp_path / "train").glob("*.arrow"))) == 2
    changes = [
        *(f"data.{split}.uri={tmp_path / split}" for split in ("train", "val")),
        *(
            "data.canvas.height=64",
            "data.canvas.width=64",
            "data.batch=4",
            "schedule.epochs=null",
            "schedule.steps=2",
        ),
        *("runtime.workers=2", "runtime.name=submitted", f"runtime.storage={tmp_path / 'runs'}"),
    ]
    done = cluster.submit("python", "-m", "jobs.train", "configs/multitask/digits.yaml", *changes)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "finished after 2 steps" in done.stdout
    assert (tmp_path / "runs" / "submitted" / "best.json").is_file()
