"""A head and workers of Ray from ``ray start``, with a token, and with their own ports and
folders.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

CLIENT_S = 200
STARTS = 3


class LocalRay:
    """Processes of ``ray start --block``; all of them end with the block.

    Attributes:
        address: of the head.
        environment: of a client that knows the token.
    """

    def __init__(self, token: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mc", dir="/tmp"))  # short: it contains sockets
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment = kept | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": token,
            "RAY_TMPDIR": str(self.folder),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
        }
        self.processes: list[subprocess.Popen[bytes]] = []
        ports = free_ports(3)
        self.address, self.dashboard = f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}"
        self.head = (
            "--head",
            f"--port={ports[0]}",
            "--num-cpus=0",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={ports[1]}",
        )
        self.head += (f"--ray-client-server-port={ports[2]}",)

    def __enter__(self) -> "LocalRay":
        try:
            self._start(1, *self.head)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        # Ray starts some of its processes in their own process groups
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if (
                    str(self.folder).encode() + b"/" in path.read_bytes()
                    and int(path.parent.name) != os.getpid()
                ):
                    os.kill(int(path.parent.name), signal.SIGKILL)
            except (OSError, ProcessLookupError):
                continue
        shutil.rmtree(self.folder, ignore_errors=True)

    def start_worker(self) -> None:
        """One more node, with one CPU."""
        self._start(len(self.nodes()) + 1, f"--address={self.address}", "--num-cpus=1")

    def _spawn(self, options: tuple[str, ...]) -> "subprocess.Popen[bytes]":
        folder = tempfile.mkdtemp(dir=self.folder)
        common = (
            "--block",
            "--object-store-memory=80000000",
            "--disable-usage-stats",
            f"--temp-dir={folder}",
        )
        agent = f"--dashboard-agent-listen-port={free_ports(1)[0]}"
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                ["ray", "start", *options, *common, agent],
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def nodes(self, *, alive: bool = True) -> list[dict[str, Any]]:
        """The nodes of ``ray list nodes`` that are alive, or those that are not."""
        script = (
            "import json; from ray.util.state import list_nodes; print(json.dumps([vars(n) "
            "for n in list_nodes()], default=str))"
        )
        found = json.loads(self.python(script, RAY_ADDRESS=f"http://{self.dashboard}"))
        return [node for node in found if (node["state"] == "ALIVE") == alive]

    def draining(self) -> dict[str, int]:
        """The deadline of each draining node, in milliseconds since 1970."""
        script = (
            "import json, ray; ray.init(address='auto', logging_level='ERROR'); "
            "from ray._private.state import state; print(json.dumps(state.get_draining_nodes()))"
        )
        return dict(json.loads(self.python(script, RAY_ADDRESS=self.address)))

    def python(self, script: str, **more: str) -> str:
        """The last line that a client prints."""
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=self.environment | more,
            capture_output=True,
            text=True,
            check=False,
            timeout=CLIENT_S,
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        return done.stdout.strip().splitlines()[-1]

    def _start(self, count: int, *options: str) -> None:
        """Starts a node and waits until it is alive.

        Ray itself fails after 30 s, which is too short on a busy machine.
        """
        for _ in range(STARTS):
            process = self._spawn(options)
            while process.poll() is None:
                if self._count() == count:
                    return
                time.sleep(0.5)
        raise RuntimeError((self.folder / "log").read_text()[-2000:])

    def _count(self) -> int:
        """Nodes that are alive; 0 while the head does not answer."""
        try:
            return len(self.nodes())
        except RuntimeError:
            return 0


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
