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
"""Nothing large travels through the object store: samples go from files to shards, gradients over gloo or NCCL."""
_LONGEST_PARENT = 24
"""The path of a socket may have 107 bytes, of which Ray and the private folder take about 80."""
_STARTS = 4
"""How often the start of a private Ray is tried."""


@contextmanager
def session(*, num_cpus: int | None = None) -> Iterator[None]:
    """Gives the code inside a Ray to work with.

    If Ray already runs in this process it is used and left running, so a pipeline's stages share one. If the job runs on a
    cluster (``RAY_ADDRESS`` is set, as ``ray job submit`` does) that is used. Otherwise a private Ray is started on this machine,
    with a token of its own so that no other user of the machine can send it work, and ended afterwards. Its processes listen on
    the loopback interface only.

    Args:
        num_cpus: how many CPUs the private Ray believes to have; by default as many as there are.

    Raises:
        ValueError: if no private Ray can be started here.
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
    """Whether the Ray of a ``session`` was started by one, so that no machine can join it; also inside its tasks and actors."""
    return "RAY_ADDRESS" not in os.environ and ray.get_runtime_context().gcs_address.startswith("127.0.0.1:")


def _private(num_cpus: int | None) -> Iterator[None]:
    parent = os.environ.get("RAY_TMPDIR", "/tmp")
    if len(parent) > _LONGEST_PARENT:
        raise ValueError(f"RAY_TMPDIR={parent} is too long: Ray's sockets lie below it, and it may have {_LONGEST_PARENT} characters")
    os.makedirs(parent, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="mr", dir=parent)
    # RAY_AUTH_MODE stays as it is: Ray has read it when it was imported, and asks for a token where it was not set.
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
    except Exception as error:  # whatever of Ray's processes died or did not answer: Ray has no class of its own for it
        raise ValueError(
            f"no private Ray could be started on this machine ({str(error).strip().splitlines()[0]}); "
            "python -m jobs.doctor looks at its memory, its folders and its token"
        ) from error


def init_patiently(**options: Any) -> None:
    """``ray.init`` of a local Ray, tried again where the machine was too busy for it.

    Ray 2.60 gives its own processes 30 s to appear, a number in its code, which a machine with much other work exceeds.
    """
    for attempt in range(_STARTS):
        try:
            ray.init(address="local", include_dashboard=False, **options)
        except Exception as error:
            if "timed out during startup" not in str(error) or attempt == _STARTS - 1:
                raise
            ray.shutdown()
        else:
            return


def _object_folder(folder: str) -> str | None:
    """Where Ray's objects lie if not in /dev/shm, of which containers often have too little or none."""
    if os.path.isdir("/dev/shm") and shutil.disk_usage("/dev/shm").free >= OBJECT_STORE_BYTES:
        return None
    return folder


@contextmanager
def _loopback() -> Iterator[None]:
    """A Ray that is started inside has the address 127.0.0.1, and so do its workers' gradients.

    ``ray.init`` makes of 127.0.0.1 the address by which others reach the machine, and Ray's processes then listen on all
    interfaces. Ray itself stays on the loopback interface where it allows no cluster, which is so on macOS and Windows.
    """
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
