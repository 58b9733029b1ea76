"""What must hold of every machine of a running cluster, looked at by a task that is sent to it."""

import os
import platform
import shutil
import socket
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import mtl_ray
from mtl_ray import storage
from mtl_ray.distributed.doctor import Finding, _first_line, _gpus, _storage, torch_pair

ANSWER_S = 120.0
"""A task waits for its process and imports torch; what takes longer is broken."""
SMALLEST_SHM = 2**30
MOST_SKEW_S = 5.0
"""S3 refuses what was signed 15 minutes away; tokens and logs suffer long before."""
LONGEST_LOOKUP_S = 1.0
"""torch asks for the name of the machine where ranks meet, so each of their beginnings waits for the answer."""
PACKAGES = ("ray", "torch", "torchvision", "pyarrow", "numpy", "fsspec")


@dataclass(frozen=True)
class Seen:
    """What one machine says of itself."""

    versions: dict[str, str]
    auth_mode: str
    shm_bytes: int
    clock_s: float
    findings: list[Finding] = field(default_factory=list)
    head_port: str = ""
    """Why the head's port cannot be reached from there; empty if it can."""


def examine_cluster(address: str, storage_uri: str | None) -> Iterator[Finding]:
    """Looks at every machine of a running cluster.

    Args:
        address: of the head's Ray (``HOST:6379``), or ``auto`` inside a submitted job or on a machine of the cluster.
        storage_uri: where runs are to be written; not looked at if None.

    Raises:
        ValueError: if there is no cluster, or it does not take the token.
    """
    with _joined(address) as dashboard:
        nodes = sorted((node for node in ray.nodes() if node["Alive"]), key=lambda node: not _is_head(node))
        yield Finding("nodes", False, f"{len(nodes)} alive: {_resources(nodes)}")
        yield _dashboard(dashboard)
        head_address = ray.get_runtime_context().gcs_address
        mark = None if storage_uri is None else _mark(storage_uri)
        seen: dict[str, Seen] = {}
        for node in nodes:
            name = _name(node)
            found = _ask(node, head_address, storage_uri, mark)
            if isinstance(found, Finding):
                yield found
                continue
            seen[name] = found[0]
            yield from _of_one(name, node, *found)
        if mark is not None:
            storage.remove(mark)
        yield _versions(seen)
        yield _token(seen)


@contextmanager
def _joined(address: str) -> Iterator[str]:
    """Gives the address of the dashboard, empty if there is none."""
    try:
        context = ray.init(address=address, logging_level="ERROR", log_to_driver=False, runtime_env=_sent())
    except (ConnectionError, RuntimeError) as error:
        raise ValueError(
            f"no cluster answers at {address} ({_first_line(error)}). Give the head's HOST:6379 on a machine of its network with "
            "RAY_AUTH_MODE=token and the token in ~/.ray/auth_token, or submit this job to the cluster with the address `auto`"
        ) from error
    try:
        yield context.address_info["webui_url"] or ""
    finally:
        ray.shutdown()


def _sent() -> dict[str, Any]:
    """This package goes to the machines with the question; a submitted job has its working directory there already."""
    return {} if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else {"py_modules": [str(Path(mtl_ray.__path__[0]))]}


def _look(head_address: str, storage_uri: str | None, mark: str | None) -> Seen:
    """Runs on the machine itself."""
    findings = [torch_pair(), _gpus(), names(head_address)]
    if storage_uri is not None:
        findings.append(_storage(storage_uri))
    if storage_uri is not None and mark is not None:
        findings.append(_other_machines_file(storage_uri, mark))
    try:
        own = metadata.version("mtl_ray")
    except metadata.PackageNotFoundError:
        own = "sent with the job"
    versions = {"python": platform.python_version(), "mtl_ray": own} | {name: _installed(name) for name in PACKAGES}
    shm = shutil.disk_usage("/dev/shm").total if os.path.isdir("/dev/shm") else 0
    mode = os.environ.get("RAY_AUTH_MODE", "not set")
    return Seen(versions, mode, shm, time.time(), findings, _reach(head_address))


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def _reach(address: str) -> str:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
            return ""
    except OSError as error:
        return str(error)


def names(address: str, longest_s: float = LONGEST_LOOKUP_S) -> Finding:
    """Whether the name of a machine is known, or said to be unknown, soon.

    Args:
        address: HOST:PORT.
        longest_s: what takes longer is broken.
    """
    host = address.rpartition(":")[0].strip("[]")
    began = time.monotonic()
    with suppress(OSError):  # that there is no name is an answer, too
        socket.getnameinfo((host if ":" in host else f"::ffff:{host}", 0), 0)  # as torch asks
    seconds = time.monotonic() - began
    slow = seconds > longest_s
    mend = ". Mend: a DNS server in /etc/resolv.conf that answers, since ranks wait for it whenever they begin" if slow else ""
    return Finding("names", slow, f"asked for the name of {host} for {seconds:.1f} s{mend}")


def _mark(storage_uri: str) -> str | None:
    """A file that this machine writes for the others to read; None if it cannot."""
    mark = storage.join(storage.absolute(storage_uri), f".doctor-{uuid.uuid4().hex}")
    try:
        storage.write(mark, b"mark")
    except OSError:  # the machines say of themselves what is wrong
        return None
    return mark


def _other_machines_file(storage_uri: str, mark: str) -> Finding:
    """Whether this is the same storage that the other machines have: a local path is there everywhere, but not the same."""
    if storage.exists(mark):
        return Finding("shared", False, f"{storage_uri} is the one that the other machines see")
    return Finding(
        "shared", True, f"{storage_uri} is not the one that the other machines see. Mend: a bucket, or a folder that all machines mount"
    )


def _ask(node: dict[str, Any], head_address: str, storage_uri: str | None, mark: str | None) -> tuple[Seen, float] | Finding:
    """What a machine says, and how far its clock is from this one's (seconds, as well as the question's way allows)."""
    place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=place)
    began = time.time()
    reference = task(_look).remote(head_address, storage_uri, mark)
    try:
        seen: Seen = ray.get(reference, timeout=ANSWER_S)
    except (ray.exceptions.RayError, ImportError) as error:
        what = "does not answer" if isinstance(error, ray.exceptions.GetTimeoutError) else f"cannot run a task: {_first_line(error)}"
        return Finding(_name(node), True, f"{what}. Mend: its logs (ray logs), its packages, or take it out of the cluster")
    ended = time.time()
    skew = min((seen.clock_s - moment for moment in (began, ended)), key=abs) if not began <= seen.clock_s <= ended else 0.0
    return seen, skew


def _of_one(name: str, node: dict[str, Any], seen: Seen, skew_s: float) -> Iterator[Finding]:
    for finding in seen.findings:
        yield Finding(f"{name} {finding.subject}", finding.broken, finding.text)
    promised = node["Resources"].get("GPU", 0)
    gpu = next(finding for finding in seen.findings if finding.subject == "gpu")
    if promised and gpu.text.startswith("none"):
        yield Finding(f"{name} gpu", True, f"Ray counts {promised:g} GPUs where torch sees none. Mend: an image with the NVIDIA driver")
    small = seen.shm_bytes < SMALLEST_SHM
    mend = ". Mend: --shm-size for a container, an emptyDir of medium Memory at /dev/shm for a pod" if small else ""
    yield Finding(f"{name} /dev/shm", small, f"{seen.shm_bytes / 2**30:.1f} GiB{mend}")
    late = abs(skew_s) > MOST_SKEW_S
    yield Finding(f"{name} clock", late, f"{skew_s:+.1f} s from here" + (". Mend: a time service (chrony)" if late else ""))
    mend = f"the head's Ray cannot be reached ({seen.head_port}). Mend: let the machines of the cluster reach each other on all ports"
    yield Finding(f"{name} ports", bool(seen.head_port), mend if seen.head_port else "the head's Ray can be reached")


def _versions(seen: dict[str, Seen]) -> Finding:
    """Tasks travel between machines as pickles: Python's minor version and all packages must be the same."""
    differing = []
    for package in ("python", "mtl_ray", *PACKAGES):
        by_version: dict[str, list[str]] = {}
        for name, one in seen.items():
            by_version.setdefault(one.versions[package], []).append(name)
        if len(by_version) > 1:
            differing.append(f"{package} is " + ", ".join(f"{version} on {' '.join(names)}" for version, names in by_version.items()))
    if differing:
        return Finding("versions", True, "; ".join(differing) + ". Mend: the same image or requirements.txt everywhere")
    versions = next(iter(seen.values())).versions if seen else {}
    return Finding("versions", not seen, ", ".join(f"{name} {version}" for name, version in versions.items()) + " everywhere")


def _token(seen: dict[str, Seen]) -> Finding:
    without = [name for name, one in seen.items() if one.auth_mode != "token"]
    if without:
        return Finding("token", True, f"not asked for on {', '.join(without)}. Mend: RAY_AUTH_MODE=token in the environment of ray start")
    return Finding("token", not seen, "asked for everywhere")


def _dashboard(url: str) -> Finding:
    """Whether the dashboard, which runs programs, answers someone without the token."""
    if not url:
        return Finding("dashboard", False, "there is none")
    try:
        with urllib.request.urlopen(f"http://{url}/api/jobs/", timeout=10):
            danger = "whoever reaches it may run programs. Mend: RAY_AUTH_MODE=token in the environment of ray start"
            return Finding("dashboard", True, f"{url} answers without the token: {danger}")
    except urllib.error.HTTPError as error:
        return Finding("dashboard", error.code not in (401, 403), f"{url} answers {error.code} without the token")
    except OSError as error:
        return Finding("dashboard", False, f"{url} cannot be reached from here ({_first_line(error)}), so it is on the head's loopback")


def _is_head(node: dict[str, Any]) -> bool:
    return "node:__internal_head__" in node["Resources"]


def _name(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerAddress']}/{node['NodeID'][:6]}" + ("(head)" if _is_head(node) else "")


def _resources(nodes: list[dict[str, Any]]) -> str:
    total = {name: sum(node["Resources"].get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
    return ", ".join(f"{count:g} {name}s" for name, count in total.items())
