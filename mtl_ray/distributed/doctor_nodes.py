"""Checks every machine of a running cluster by a task that runs there."""

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
from mtl_ray.distributed.doctor import (
    Finding,
    check_gpus,
    check_storage,
    check_torch_pair,
    error_line,
)

ANSWER_S = 120.0
"""Longest time until a machine answers: the task waits for a process, and imports torch."""
SMALLEST_SHM = 2**30
MOST_SKEW_S = 5.0
"""Largest clock difference. S3 refuses requests that are off by 15 minutes; tokens and logs suffer
long before."""
LONGEST_LOOKUP_S = 1.0
"""torch looks up the name of the machine where ranks meet, so each start of a rank waits for the
answer."""
PACKAGES = ("ray", "torch", "torchvision", "pyarrow", "numpy", "fsspec")


@dataclass(frozen=True)
class MachineReport:
    """What the task on one machine found."""

    versions: dict[str, str]
    auth_mode: str
    shm_bytes: int
    clock_s: float
    findings: list[Finding] = field(default_factory=list)
    head_port: str = ""
    """Why the machine cannot reach the port of the head; empty if it can."""


def examine_cluster(address: str, storage_uri: str | None) -> Iterator[Finding]:
    """Checks every machine of a running cluster.

    Args:
        address: of Ray on the head (``HOST:6379``), or ``auto`` inside a submitted job or on a
            machine of the cluster.
        storage_uri: where runs will be written; not checked if None.

    Raises:
        ValueError: if there is no cluster, or it rejects the token.
    """
    with _joined(address) as dashboard:
        nodes = sorted(
            (node for node in ray.nodes() if node["Alive"]), key=lambda node: not _is_head(node)
        )
        yield Finding("nodes", False, f"{len(nodes)} alive: {_resources(nodes)}")
        yield _dashboard(dashboard)
        head_address = ray.get_runtime_context().gcs_address
        mark = None if storage_uri is None else _mark(storage_uri)
        seen: dict[str, MachineReport] = {}
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
    """Connects to the cluster. Yields the address of the dashboard; empty if there is none."""
    try:
        context = ray.init(
            address=address, logging_level="ERROR", log_to_driver=False, runtime_env=_sent()
        )
    except (ConnectionError, RuntimeError) as error:
        raise ValueError(
            f"no cluster answers at {address} ({error_line(error)}). Give the head's HOST:6379 on "
            "a machine of its network with "
            "RAY_AUTH_MODE=token and the token in ~/.ray/auth_token, or submit this job to the "
            "cluster with the address `auto`"
        ) from error
    try:
        yield context.address_info["webui_url"] or ""
    finally:
        ray.shutdown()


def _sent() -> dict[str, Any]:
    """The runtime environment that takes this package to the machines.

    A submitted job has its working directory there already.
    """
    return (
        {}
        if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
        else {"py_modules": [str(Path(mtl_ray.__path__[0]))]}
    )


def _look(head_address: str, storage_uri: str | None, mark: str | None) -> MachineReport:
    """Runs on the machine itself."""
    findings = [check_torch_pair(), check_gpus(), check_name_lookup(head_address)]
    if storage_uri is not None:
        findings.append(check_storage(storage_uri))
    if storage_uri is not None and mark is not None:
        findings.append(_other_machines_file(storage_uri, mark))
    try:
        own = metadata.version("mtl_ray")
    except metadata.PackageNotFoundError:
        own = "sent with the job"
    versions = {"python": platform.python_version(), "mtl_ray": own} | {
        name: _installed(name) for name in PACKAGES
    }
    shm = shutil.disk_usage("/dev/shm").total if os.path.isdir("/dev/shm") else 0
    mode = os.environ.get("RAY_AUTH_MODE", "not set")
    return MachineReport(versions, mode, shm, time.time(), findings, _reach(head_address))


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


def check_name_lookup(address: str, longest_s: float = LONGEST_LOOKUP_S) -> Finding:
    """Whether the lookup of a machine's name ends fast, with or without a name.

    Args:
        address: HOST:PORT.
        longest_s: a longer lookup is broken.
    """
    host = address.rpartition(":")[0].strip("[]")
    began = time.monotonic()
    with suppress(OSError):  # no name is an answer too
        socket.getnameinfo((host if ":" in host else f"::ffff:{host}", 0), 0)  # as torch does
    seconds = time.monotonic() - began
    slow = seconds > longest_s
    fix = (
        ". Fix: a DNS server in /etc/resolv.conf that answers, since each start of a rank waits "
        "for it"
        if slow
        else ""
    )
    return Finding("names", slow, f"the lookup of the name of {host} took {seconds:.1f} s{fix}")


def _mark(storage_uri: str) -> str | None:
    """The URI of a file that this machine writes for the others to read.

    None if it cannot write.
    """
    mark = storage.join(storage.absolute(storage_uri), f".doctor-{uuid.uuid4().hex}")
    try:
        storage.write(mark, b"mark")
    except OSError:  # each machine reports the error itself
        return None
    return mark


def _other_machines_file(storage_uri: str, mark: str) -> Finding:
    """Whether this machine sees the storage of the other machines: a local path can exist on all
    of them and be a different folder.
    """
    if storage.exists(mark):
        return Finding("shared", False, f"{storage_uri} is the same on all machines")
    return Finding(
        "shared",
        True,
        f"{storage_uri} is not the one that the other machines see. Fix: a bucket, or a folder "
        "that all machines mount",
    )


def _ask(
    node: dict[str, Any], head_address: str, storage_uri: str | None, mark: str | None
) -> tuple[MachineReport, float] | Finding:
    """The report of a machine, and how far its clock is from this one's, in seconds.

    The travel time of the task limits the accuracy.
    """
    place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=place)
    began = time.time()
    reference = task(_look).remote(head_address, storage_uri, mark)
    try:
        seen: MachineReport = ray.get(reference, timeout=ANSWER_S)
    except (ray.exceptions.RayError, ImportError) as error:
        what = (
            "does not answer"
            if isinstance(error, ray.exceptions.GetTimeoutError)
            else f"cannot run a task: {error_line(error)}"
        )
        return Finding(
            _name(node),
            True,
            f"{what}. Fix: look at its logs (ray logs) and packages, or take it out of the cluster",
        )
    ended = time.time()
    skew = (
        min((seen.clock_s - moment for moment in (began, ended)), key=abs)
        if not began <= seen.clock_s <= ended
        else 0.0
    )
    return seen, skew


def _of_one(
    name: str, node: dict[str, Any], seen: MachineReport, skew_s: float
) -> Iterator[Finding]:
    for finding in seen.findings:
        yield Finding(f"{name} {finding.subject}", finding.broken, finding.text)
    promised = node["Resources"].get("GPU", 0)
    gpu = next(finding for finding in seen.findings if finding.subject == "gpu")
    if promised and gpu.text.startswith("none"):
        yield Finding(
            f"{name} gpu",
            True,
            f"Ray counts {promised:g} GPUs, but torch sees none. Fix: an image with the NVIDIA "
            "driver",
        )
    small = seen.shm_bytes < SMALLEST_SHM
    fix = (
        ". Fix: --shm-size for a container, an emptyDir of medium Memory at /dev/shm for a pod"
        if small
        else ""
    )
    yield Finding(f"{name} /dev/shm", small, f"{seen.shm_bytes / 2**30:.1f} GiB{fix}")
    late = abs(skew_s) > MOST_SKEW_S
    yield Finding(
        f"{name} clock",
        late,
        f"{skew_s:+.1f} s from here" + (". Fix: a time service (chrony)" if late else ""),
    )
    fix = (
        f"the head's Ray cannot be reached ({seen.head_port}). Fix: let the machines of the "
        "cluster reach each other on all ports"
    )
    yield Finding(
        f"{name} ports",
        bool(seen.head_port),
        fix if seen.head_port else "the head's Ray can be reached",
    )


def _versions(seen: dict[str, MachineReport]) -> Finding:
    """Tasks are sent between machines as pickles, so Python's minor version and all packages
    must be the same.
    """
    differing = []
    for package in ("python", "mtl_ray", *PACKAGES):
        by_version: dict[str, list[str]] = {}
        for name, one in seen.items():
            by_version.setdefault(one.versions[package], []).append(name)
        if len(by_version) > 1:
            differing.append(
                f"{package} is "
                + ", ".join(
                    f"{version} on {' '.join(names)}" for version, names in by_version.items()
                )
            )
    if differing:
        return Finding(
            "versions",
            True,
            "; ".join(differing) + ". Fix: the same image or requirements.txt everywhere",
        )
    versions = next(iter(seen.values())).versions if seen else {}
    return Finding(
        "versions",
        not seen,
        ", ".join(f"{name} {version}" for name, version in versions.items()) + " everywhere",
    )


def _token(seen: dict[str, MachineReport]) -> Finding:
    without = [name for name, one in seen.items() if one.auth_mode != "token"]
    if without:
        return Finding(
            "token",
            True,
            f"not required on {', '.join(without)}. Fix: RAY_AUTH_MODE=token in the environment of "
            "ray start",
        )
    return Finding("token", not seen, "required everywhere")


def _dashboard(url: str) -> Finding:
    """Whether the dashboard, which runs programs, answers without the token."""
    if not url:
        return Finding("dashboard", False, "there is none")
    try:
        with urllib.request.urlopen(f"http://{url}/api/jobs/", timeout=10):
            danger = (
                "anyone who reaches it can run programs. Fix: RAY_AUTH_MODE=token in the "
                "environment of ray start"
            )
            return Finding("dashboard", True, f"{url} answers without the token: {danger}")
    except urllib.error.HTTPError as error:
        return Finding(
            "dashboard",
            error.code not in (401, 403),
            f"{url} answers {error.code} without the token",
        )
    except OSError as error:
        return Finding(
            "dashboard",
            False,
            f"{url} cannot be reached from here ({error_line(error)}), so it listens on the "
            "loopback of the head",
        )


def _is_head(node: dict[str, Any]) -> bool:
    return "node:__internal_head__" in node["Resources"]


def _name(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerAddress']}/{node['NodeID'][:6]}" + (
        "(head)" if _is_head(node) else ""
    )


def _resources(nodes: list[dict[str, Any]]) -> str:
    total = {name: sum(node["Resources"].get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
    return ", ".join(f"{count:g} {name}s" for name, count in total.items())
