"""Checks whether a job can run on this machine; each check gives one line."""

import importlib
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion

from mtl_ray import storage

GIB = 2**30
TESTED_RAY = SpecifierSet(">=2.60,<2.61")
"""Versions of Ray that this project was tested with. It uses private modules of Ray, which any
release may change (see pyproject.toml)."""
LONGEST_TEMP = 44
"""Most characters of Ray's temporary folder: a session adds 62 for its sockets, and Linux limits
their paths to 107."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    subject: str
    broken: bool
    text: str
    """What was found, and how to fix it if it is broken."""


def examine(storage_uri: str) -> Iterator[Finding]:
    """Runs all checks, one after the other."""
    yield _python()
    yield _packages()
    yield check_ray_version(_version("ray"))
    yield check_torch_pair()
    yield from _imports("ray", "onnxruntime", "timm", "pyarrow", "cv2")
    yield check_ray_token(os.environ, Path.home())
    yield _ray_folder(os.environ.get("RAY_TMPDIR", "/tmp"))
    yield _memory()
    yield _shared_memory()
    yield check_gpus()
    yield check_storage(storage_uri)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(
        "python",
        sys.version_info < (3, 11),
        f"{version} at {sys.executable} (3.11 or newer is needed)",
    )


def _packages() -> Finding:
    """Whether the installed versions are in the ranges of pyproject.toml."""
    try:
        wanted = [Requirement(text) for text in metadata.requires("mtl_ray") or []]
    except metadata.PackageNotFoundError:
        return Finding(
            "packages",
            False,
            "mtl_ray itself is not installed (it is a folder sent with a job): version ranges are "
            "not checked",
        )
    wrong = [
        problem
        for need in wanted
        if need.marker is None or need.marker.evaluate()
        for problem in _unmet(need)
    ]
    if wrong:
        return Finding(
            "packages",
            True,
            "; ".join(wrong) + ". Fix: make setup, or python -m pip install -r requirements.txt",
        )
    return Finding(
        "packages", False, f"{len(wanted)} requirements of pyproject.toml checked, all met"
    )


def _unmet(need: Requirement) -> Iterator[str]:
    try:
        found = metadata.version(need.name)
    except metadata.PackageNotFoundError:
        yield f"{need.name} is missing"
        return
    if not need.specifier.contains(found, prereleases=True):
        yield f"{need.name} {found} is outside {need.specifier}"


def check_ray_version(found: str) -> Finding:
    """Whether the version of Ray was tested."""
    try:
        tested = TESTED_RAY.contains(found, prereleases=True)
    except InvalidVersion:
        tested = False
    if tested:
        return Finding("ray version", False, f"{found} is a tested version ({TESTED_RAY})")
    text = (
        f"{found} was not tested, only {TESTED_RAY} was: this project uses private modules of "
        "Ray, which other versions may lack"
    )
    return Finding("ray version", True, f"{text}. Fix: python -m pip install -r requirements.txt")


def check_torch_pair() -> Finding:
    """Whether torchvision was built for the installed torch: its compiled operators work."""
    pair = " and ".join(f"{name} {_version(name)}" for name in ("torch", "torchvision"))
    try:
        torch, ops = importlib.import_module("torch"), importlib.import_module("torchvision.ops")
        ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (ImportError, RuntimeError, AttributeError) as error:
        why = (
            "torchvision was built for another torch"
            if "torchvision::nms" in str(error)
            else "torchvision does not run"
        )
        return Finding(
            "torch",
            True,
            f"{pair} do not fit each other: {why} ({error_line(error)}). It happens when a "
            "CPU-only torch meets the torchvision of the "
            "package registry, which is built for CUDA. Fix: take both from the same place in one "
            "command, python -m pip install "
            "--force-reinstall torch torchvision, with the versions of requirements.txt",
        )
    return Finding("torch", False, f"{pair} fit each other; {torch.get_num_threads()} threads")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def error_line(error: BaseException) -> str:
    """The first line of an error's message; its type if there is no message."""
    return (str(error) or type(error).__name__).splitlines()[0]


def _imports(*names: str) -> Iterator[Finding]:
    for name in names:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            yield Finding(name, True, f"cannot be imported ({error_line(error)}). Fix: make setup")
            continue
        yield Finding(name, False, str(getattr(module, "__version__", "installed")))


def check_ray_token(environment: "os._Environ[str] | dict[str, str]", home: Path) -> Finding:
    """Whether the clients of Ray find the token that a cluster asks for."""
    mode = environment.get("RAY_AUTH_MODE")
    if mode == "disabled":
        return Finding(
            "ray token",
            False,
            "RAY_AUTH_MODE=disabled: anyone who reaches Ray's ports can run programs",
        )
    path = Path(environment.get("RAY_AUTH_TOKEN_PATH") or home / ".ray" / "auth_token")
    known = "RAY_AUTH_TOKEN" in environment or path.is_file()
    if "RAY_AUTH_TOKEN_PATH" in environment and not path.is_file():
        return Finding(
            "ray token",
            True,
            f"RAY_AUTH_TOKEN_PATH names {path}, which is not there. Fix: ray get-auth-token "
            "--generate",
        )
    if mode == "token" and not known:
        return Finding(
            "ray token",
            True,
            "RAY_AUTH_MODE=token, but there is no token. Fix: ray get-auth-token --generate",
        )
    if mode == "token":
        return Finding(
            "ray token", False, "RAY_AUTH_MODE=token and a token is there: jobs can be submitted"
        )
    if known:
        return Finding(
            "ray token",
            False,
            "a token is there; to submit jobs to a cluster set RAY_AUTH_MODE=token (without it: "
            "401)",
        )
    return Finding(
        "ray token",
        False,
        "none yet; a private local Ray makes its own, a cluster's must be brought here",
    )


def _ray_folder(folder: str) -> Finding:
    if len(folder) > LONGEST_TEMP:
        return Finding(
            "ray folder",
            True,
            f"{folder} is too long for Ray's sockets: set RAY_TMPDIR to {LONGEST_TEMP} characters "
            "or less",
        )
    # a private Ray creates the rest
    there = next(path for path in (Path(folder), *Path(folder).absolute().parents) if path.exists())
    if not os.access(there, os.W_OK):
        return Finding(
            "ray folder", True, f"{folder} cannot be written: set RAY_TMPDIR to a folder that can"
        )
    disk = shutil.disk_usage(there)
    text = f"{folder}, {disk.free / GIB:.0f} GiB free"
    if disk.free < 0.05 * disk.total:
        return Finding(
            "ray folder",
            True,
            f"{text}: Ray does not spill objects on a disk that is more than 95 % full",
        )
    return Finding("ray folder", False, text)


def _memory() -> Finding:
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and limit.read_text().strip() != "max":
        used = int(limit.with_name("memory.current").read_text())
        free = min(free, int(limit.read_text()) - used)
    return Finding(
        "memory",
        free < 2 * GIB,
        f"{free / GIB:.1f} GiB free, {os.cpu_count()} CPUs (2 GiB needed, 1 more for each worker)",
    )


def _shared_memory() -> Finding:
    free = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else 0
    small = free < 256 * 2**20
    advice = (
        ": Ray's objects go to the disk, slowly. Fix: start the container with a larger --shm-size"
        if small
        else ""
    )
    return Finding("/dev/shm", small, f"{free / GIB:.2f} GiB free{advice}")


def check_gpus() -> Finding:
    """Whether torch can compute on each GPU of this machine."""
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        return Finding("gpu", True, "torch cannot be imported")
    present = Path("/dev/nvidia0").exists() or Path("/dev/nvidiactl").exists()
    if not torch.cuda.is_available():
        if present:
            return Finding(
                "gpu",
                True,
                f"there is one that torch {torch.__version__} cannot use: a CPU build, or the "
                "driver is too old",
            )
        return Finding("gpu", False, "none; everything runs on CPU")
    try:
        for index in range(torch.cuda.device_count()):
            torch.ones(8, device=f"cuda:{index}").sum().item()
    except RuntimeError as error:
        return Finding("gpu", True, f"cuda:{index} does not compute: {error_line(error)}")
    names = ", ".join(
        torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())
    )
    return Finding("gpu", False, f"{names}; CUDA {torch.version.cuda}")


def check_storage(uri: str) -> Finding:
    """Writes, reads and removes a small file, and checks that a file can be written only if it
    does not exist.
    """
    probe = storage.join(storage.absolute(uri), f".doctor-{uuid.uuid4().hex}")
    steps: list[Callable[[], bool]] = [
        lambda: storage.write_new(probe, b"probe"),
        lambda: storage.read(probe) == b"probe",
        lambda: not storage.write_new(probe, b"again"),
    ]
    try:
        good = all(step() for step in steps)
        storage.remove(probe)
    except Exception as error:  # each storage has its own errors; any of them is the finding
        return Finding(
            "storage",
            True,
            f"{uri} cannot be written ({type(error).__name__}: {error_line(error)})",
        )
    if not good:
        return Finding(
            "storage",
            True,
            f"{uri} lets a file be overwritten that must be written once (If-None-Match is not "
            "kept)",
        )
    return Finding("storage", False, f"{uri} can be written and read")
