"""A Ray for the duration of a job: one for all stages inside, ended afterwards, private to its
user.
"""

import json
import os
import subprocess
import sys

import pytest
import ray

from mtl_ray.distributed.session import session

pytestmark = pytest.mark.jobs

TWICE = """
import os, ray
from mtl_ray.distributed.session import session
for number in (1, 2):
    with session(num_cpus=1):
        with session():
            pass
        assert ray.is_initialized()
        assert ray.cluster_resources()["CPU"] == 1
        print("answer", ray.get(ray.remote(lambda: number).remote()))
    assert not ray.is_initialized()
"""

LISTENING = """
import json, psutil, ray
from mtl_ray.distributed.session import session
def gradients():
    import torch.distributed as dist
    group = dist.ProcessGroupGloo(dist.HashStore(), 0, 1)
    return listening(psutil.Process())
def listening(process):
    found = [each.laddr.ip for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN]
    return [" ".join(process.cmdline())[:60], found]
with session(num_cpus=1):
    worker = ray.get(ray.remote(gradients).remote())
    driver = psutil.Process()
    print("LISTENING", json.dumps([worker, *map(listening, [driver, *driver.children(recursive=True)])]))
"""  # noqa: E501


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A new process with only the given variables of Ray."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=clean | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_sessions_nest_and_follow_each_other() -> None:
    done = run(TWICE)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("answer")] == [
        "answer 1",
        "answer 2",
    ]


def test_only_this_machine_reaches_a_private_ray() -> None:
    """All its processes (GCS, raylet, agents, driver and workers) listen on the loopback
    interface.
    """
    done = run(LISTENING)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("LISTENING")]
    found = json.loads(line.removeprefix("LISTENING"))
    assert len(found[0][1]) >= 1
    assert sum(bool(addresses) for _, addresses in found) >= 5
    others = [
        (name, address)
        for name, addresses in found
        for address in addresses
        if address.removeprefix("::ffff:") != "127.0.0.1"
    ]
    assert others == []


def test_a_ray_that_does_not_start_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(**_: object) -> None:
        raise RuntimeError("the raylet died\nmore of it")

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", dies)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with (
        pytest.raises(
            ValueError,
            match=r"no private Ray could be started on this machine \(the raylet died\);",
        ),
        session(),
    ):
        pass


def test_a_long_folder_for_sockets_is_refused_in_words() -> None:
    done = run(
        "from mtl_ray.distributed.session import session\nwith session(): pass",
        RAY_TMPDIR="/tmp/" + "x" * 60,
    )
    assert "RAY_TMPDIR=/tmp/xxx" in done.stderr
    assert "too long" in done.stderr


@pytest.mark.usefixtures("ray_session")
def test_a_running_ray_is_used_and_left_running() -> None:
    with session(num_cpus=64):
        assert ray.cluster_resources()["CPU"] == 2
    assert ray.is_initialized()
