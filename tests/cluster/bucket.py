"""The S3 server of the tests at an address that hosts of a network reach.

It can be killed and started again.
"""

import os
import subprocess
from pathlib import Path
from types import TracebackType

from s3fs import S3FileSystem

from tests.cluster.network import DIES_WITH_US, Network
from tests.s3_server import BUCKET, command, make_bucket, prepare, program, server_at, wait_for


class Bucket:
    """A bucket at the address of the bridge.

    Inside the block the environment of this process points to it.
    """

    def __init__(self, network: Network) -> None:
        self._address, self._ports = network.address, list(network.ports)
        self._folder = network.folder / "s3"
        self._program = program()
        self._server = server_at(f"http://{self._address}:{self._ports[0]}")
        self._process: subprocess.Popen[bytes] | None = None
        self._before: dict[str, str | None] = {}

    @property
    def environment(self) -> dict[str, str]:
        """Of a client."""
        return self._server.environment

    @property
    def endpoint(self) -> str:
        """Of the server."""
        return self._server.endpoint

    def folder(self, name: str) -> str:
        """A URI in the bucket."""
        return f"s3://{BUCKET}/{name}"

    def __enter__(self) -> "Bucket":
        self._folder.mkdir()
        prepare(self._folder)
        self.start()
        self._before = {name: os.environ.get(name) for name in self.environment}
        os.environ.update(self.environment)
        # it caches the server that the environment named before
        S3FileSystem.clear_instance_cache()
        make_bucket()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        for port in self._ports:
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                path.unlink()
        for name, value in self._before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        S3FileSystem.clear_instance_cache()

    def start(self) -> None:
        """Starts the server with its content, and waits until it answers."""
        log = self._folder / "log"
        with open(log, "ab") as file:
            line = [
                *DIES_WITH_US,
                *command(self._program, self._folder, self._ports, self._address),
            ]
            self._process = subprocess.Popen(line, stdout=file, stderr=file)
        wait_for(self._server, self._process, log)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
