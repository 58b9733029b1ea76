"""Hosts made of namespaces: each has its own network, processes, name and temporary folder.

A bridge joins them. A host's first process ends all others of that host with it, and ends itself
with the process that made it, so nothing is left running after a crash; names and folders of dead
makers are removed when the next network is made.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil

ROOT = Path(__file__).parents[2]
_PARENT = Path("/tmp")  # short: it contains Ray's sockets
_NAME = re.compile(r"\bmh(\d+)[abc]\b")
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")
"""Prefix of a command: the kernel ends it with the thread that started it."""
_INIT = """
set -e
hostname "$1"; mount --bind "$2/hosts" /etc/hosts; mount --bind "$2/resolv.conf" /etc/resolv.conf; mount --bind "$2/$1" "$2/t"
ip link set lo up
echo ready
while true; do sleep 3600 & wait $! || true; done
"""  # noqa: E501


def why_not() -> str:
    """Why hosts cannot be created here; empty if they can."""
    for program in ("ip", "unshare", "nsenter", "setpriv"):
        if shutil.which(program) is None:
            return f"needs the program {program}"
    name = f"mh{os.getpid()}a-try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"needs leave to make network namespaces: {made.stderr.strip()}"
    entered = subprocess.run(
        [
            "ip",
            "netns",
            "exec",
            name,
            "unshare",
            "--mount",
            "--uts",
            "--pid",
            "--fork",
            "--mount-proc",
            "true",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    _ip("netns", "del", name)
    return f"needs leave to make namespaces: {entered.stderr.strip()}" if entered.returncode else ""


class Machine:
    """One host.

    Attributes:
        name: of the host.
        address: on the bridge.
        temporary: its folder for temporary files, as seen from outside.
    """

    def __init__(self, network: "Network", name: str, number: int) -> None:
        self.name, self.address, self._network = name, f"{network.prefix}.{number}", network
        self.temporary = network.folder / name
        self._namespace, self._link = f"{network.name}-{number}", f"{network.name}-{number}"
        self.temporary.mkdir(exist_ok=True)
        _ip("netns", "add", self._namespace)
        _ip(
            "link",
            "add",
            self._link,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            self._namespace,
        )
        _ip("link", "set", self._link, "master", network.name, "up")
        _ip("-n", self._namespace, "addr", "add", f"{self.address}/24", "dev", "eth0")
        _ip("-n", self._namespace, "link", "set", "eth0", "up")
        # The bridges of other networks of this process, and nothing outside.
        _ip("-n", self._namespace, "route", "add", "10.0.0.0/8", "via", network.address)
        self._init = self._boot()
        self.pid = psutil.Process(self._init.pid).children()[0].pid

    def _boot(self) -> "subprocess.Popen[str]":
        command = (
            "ip",
            "netns",
            "exec",
            self._namespace,
            "unshare",
            "--mount",
            "--uts",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        )
        script = ("bash", "-c", _INIT, "init", self.name, str(self._network.folder))
        process = subprocess.Popen(
            [*DIES_WITH_US, *command, *script],
            stdout=subprocess.PIPE,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the host {self.name} did not start")
        return process

    def popen(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> "subprocess.Popen[bytes]":
        """Starts a program on this host, in the checkout; its output is added to a file."""
        inside = (
            "nsenter",
            "-t",
            str(self.pid),
            "--mount",
            "--uts",
            "--net",
            "--pid",
            f"--wdns={ROOT}",
        )
        with open(log, "ab") as file:
            return subprocess.Popen(
                [*DIES_WITH_US, *inside, *command],
                env={**os.environ, **self.environment(), **environment},
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )

    def environment(self) -> dict[str, str]:
        """The environment of the programs of this host."""
        temporary = f"{self._network.folder}/t"
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": temporary,
            "TMPDIR": temporary,
            "RAY_TMPDIR": temporary,
            "GLOO_SOCKET_IFNAME": "eth0",
            "OMP_NUM_THREADS": "1",
        }

    def processes(self) -> list[psutil.Process]:
        """All processes of this host except the first one."""
        here = os.readlink(f"/proc/{self.pid}/ns/pid")
        found = []
        for process in psutil.process_iter():
            try:
                if (
                    process.pid != self.pid
                    and os.readlink(f"/proc/{process.pid}/ns/pid") == here
                    and process.is_running()
                ):
                    found.append(process)
            except (OSError, psutil.Error):  # it has just ended
                continue
        return found

    def set_link(self, *, up: bool) -> None:
        """Disconnects the network, or connects it again."""
        _ip("link", "set", self._link, "up" if up else "down")

    def end(self) -> None:
        """A power failure: everything stops at once, without notice."""
        self.set_link(up=False)
        self._init.kill()
        self._init.wait()
        _ip("link", "del", self._link)
        _ip("netns", "del", self._namespace)


class Network:
    """A bridge with an address for this process, and the hosts that are connected to it.

    Attributes:
        name: of the bridge; it holds the number of this process, which may have three networks at a
            time.
        prefix: first three numbers of all addresses.
        ports: of no other network on this machine, and of no client: SeaweedFS has sockets below
            /tmp that are named after its ports alone.
        folder: what the hosts write; ``t`` in it is the temporary folder of each host, ``small`` a
            disk of 48 MB that all of them have.
    """

    def __init__(self) -> None:
        number = os.getpid()
        index = next(
            index for index in range(3) if not (_PARENT / f"mh{number}{'abc'[index]}").exists()
        )
        self.name = f"mh{number}{'abc'[index]}"
        self.prefix = f"10.{64 + 64 * index + number // 256 % 64}.{number % 256}"
        self.ports = range(10_000 + 8 * (3 * (number % 900) + index), 32_000)[:8]
        self.folder = _PARENT / self.name
        self.machines: dict[str, Machine] = {}
        self._numbers = iter(range(10, 250))

    @property
    def address(self) -> str:
        """Of this process, as the hosts see it."""
        return f"{self.prefix}.1"

    def __enter__(self) -> "Network":
        sweep()
        for name in ("t", "shared"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "small").mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(self.folder / "small")],
            check=True,
        )
        (self.folder / "hosts").write_text("127.0.0.1 localhost\n")
        # refuses at once; an unreachable one costs 10 s
        (self.folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        # Without its own hardware address a bridge uses the lowest one of its hosts, and is
        # unreachable when that host dies.
        hardware = "02:00:" + ":".join(f"{int(number):02x}" for number in self.address.split("."))
        _ip("link", "add", self.name, "address", hardware, "type", "bridge")
        _ip("addr", "add", f"{self.address}/24", "dev", self.name)
        _ip("link", "set", self.name, "up")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for machine in list(self.machines.values()):
            self.remove(machine)
        _ip("link", "del", self.name)
        _remove(self.folder)

    def add(self, name: str) -> Machine:
        """Starts a host."""
        machine = Machine(self, name, next(self._numbers))
        self.machines[name] = machine
        with open(self.folder / "hosts", "a", encoding="ascii") as file:
            file.write(f"{machine.address} {name}\n")
        return machine

    def remove(self, machine: Machine) -> None:
        """A power failure after which the host does not come back."""
        del self.machines[machine.name]
        machine.end()


def sweep() -> None:
    """Removes what a process that has ended left behind."""

    def dead(text: str) -> bool:
        match = _NAME.search(text)
        return match is not None and not psutil.pid_exists(int(match[1]))

    for line in _ip("netns", "list").splitlines():
        if dead(line):
            _ip("netns", "del", line.split()[0])
    for line in _ip("-o", "link", "show").splitlines():
        if dead(line):
            subprocess.run(
                ["ip", "link", "del", line.split()[1].partition("@")[0].rstrip(":")],
                check=False,
                capture_output=True,
            )
    for folder in _PARENT.glob("mh*"):
        if dead(folder.name):
            _remove(folder)


def _remove(folder: Path) -> None:
    subprocess.run(["umount", str(folder / "small")], check=False, capture_output=True)
    shutil.rmtree(folder)


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
