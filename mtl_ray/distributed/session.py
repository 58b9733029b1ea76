"""Ray for the time of a job: the cluster that the job runs on, or a private one on this machine."""

import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private import ray_constants

OBJECT_STORE_BYTES = 200_000_000
"""The object store holds nothing large: samples go from files to shards, gradients over gloo or
NCCL."""
_LONGEST_PARENT = 24
"""Most characters of RAY_TMPDIR: the path of a socket may have 107 bytes, and Ray and the private
folder need about 80."""
_STARTS = 4
"""How often starting a private Ray is tried."""
_TOO_SLOW = ("timed out during startup", "Failed to connect to GCS")
"""What Ray says where its own processes did not answer in time."""


@contextmanager
def session(*, num_cpus: int | None = None) -> Iterator[None]:
    """Connects the code inside to a Ray.

    * If Ray already runs in this process, it is used and left running, so the stages of a pipeline
      share one.
    * If the job runs on a cluster (``ray job submit`` sets ``RAY_ADDRESS``), the cluster is used.
    * Otherwise a private Ray is started on this machine and shut down afterwards. It has a token of
      its own, so no other user of the machine can send it work. Its processes listen on the
      loopback interface only.

    Args:
        num_cpus: number of CPUs of the private Ray; the default is that of the machine.

    Raises:
        ValueError: if a private Ray cannot be started here.
    """
    if ray.is_initialized():
        yield
    elif os.environ.get("RAY_ADDRESS"):
        ray.init(address="auto", logging_level="WARNING")
        try:
            yield
        finally:
            ray.shutdown()
    else:
        yield from _private(num_cpus)


def is_private() -> bool:
    """Whether a ``session`` started this Ray, so that no machine can join it.

    Works inside its tasks and actors too.
    """
    return "RAY_ADDRESS" not in os.environ and ray.get_runtime_context().gcs_address.startswith(
        "127.0.0.1:"
    )


def _private(num_cpus: int | None) -> Iterator[None]:
    parent = os.environ.get("RAY_TMPDIR", "/tmp")
    if len(parent) > _LONGEST_PARENT:
        raise ValueError(
            f"RAY_TMPDIR={parent} is too long: Ray's sockets lie below it, so it may have at most "
            f"{_LONGEST_PARENT} characters"
        )
    os.makedirs(parent, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="mr", dir=parent)
    # RAY_AUTH_MODE stays unchanged: Ray read it at import, and requires a token if it was not set.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        with _loopback():
            _start(folder, num_cpus)
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: str, num_cpus: int | None) -> None:
    try:
        init_patiently(
            num_cpus=num_cpus,
            object_store_memory=OBJECT_STORE_BYTES,
            logging_level="WARNING",
            _temp_dir=folder,
            _plasma_directory=_object_folder(folder),
        )
    except (
        Exception
    ) as error:  # a process of Ray died or did not answer; Ray has no exception class for that
        raise ValueError(
            "no private Ray could be started on this machine "
            f"({str(error).strip().splitlines()[0]}); "
            "python -m jobs.doctor checks its memory, its folders and its token"
        ) from error


def init_patiently(**options: Any) -> None:
    """``ray.init`` of a local Ray, with retries on a busy machine.

    Ray 2.60 gives its own processes 30 s to start. This limit is fixed in its code, and too short
    for a busy machine.
    """
    for attempt in range(_STARTS):
        try:
            ray.init(address="local", include_dashboard=False, **options)
        except Exception as error:
            slow = any(words in str(error) for words in _TOO_SLOW)
            if not slow or attempt == _STARTS - 1:
                raise
            ray.shutdown()
        else:
            return


def _object_folder(folder: str) -> str | None:
    """The folder for Ray's objects if /dev/shm is missing or too small, as it often is in
    containers; else None.
    """
    if os.path.isdir("/dev/shm") and shutil.disk_usage("/dev/shm").free >= OBJECT_STORE_BYTES:
        return None
    return folder


@contextmanager
def _loopback() -> Iterator[None]:
    """A Ray that is started inside, and the communication between its ranks, use the address
    127.0.0.1.

    ``ray.init`` replaces 127.0.0.1 by the external address of the machine, and Ray's processes then
    listen on all interfaces. Ray stays on the loopback interface only if it allows no cluster, as
    on macOS and Windows.
    """
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
