"""Ray for the time of a job: the cluster that the job runs on, or a private one on this machine."""

import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from mtl_ray import storage

OBJECT_STORE_BYTES = 200_000_000
"""Nothing large travels through the object store: samples go from files to shards, gradients over gloo or NCCL."""
_LONGEST_PARENT = 24
"""The path of a socket may have 107 bytes, of which Ray and the private folder take about 80."""


@contextmanager
def session(*, num_cpus: int | None = None) -> Iterator[None]:
    """Gives the code inside a Ray to work with.

    If Ray already runs in this process it is used and left running, so a pipeline's stages share one. If the job runs on a
    cluster (``RAY_ADDRESS`` is set, as ``ray job submit`` does) that is used. Otherwise a private Ray is started on this machine,
    with a token of its own so that no other user of the machine can send it work, and ended afterwards.

    Args:
        num_cpus: how many CPUs the private Ray believes to have; by default as many as there are.
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


def absolute_output(option: str, uri: str) -> str:
    """An output's URI as other machines and later stages understand it.

    Raises:
        ValueError: if it is relative and this is a submitted job, whose working directory goes away with it.
    """
    relative = not storage.is_remote(uri) and not os.path.isabs(os.path.expanduser(uri.removeprefix("file://")))
    if relative and "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        raise ValueError(
            f"{option} {uri} is a relative path, and a submitted job runs in a copy of the working directory that is removed afterwards: "
            "give an absolute path that every machine has, or a bucket (s3://...)"
        )
    return storage.absolute(uri)


def _private(num_cpus: int | None) -> Iterator[None]:
    parent = os.environ.get("RAY_TMPDIR", "/tmp")
    if len(parent) > _LONGEST_PARENT:
        raise ValueError(f"RAY_TMPDIR={parent} is too long: Ray's sockets lie below it, and it may have {_LONGEST_PARENT} characters")
    folder = tempfile.mkdtemp(prefix="mr", dir=parent)
    # RAY_AUTH_MODE stays as it is: Ray has read it when it was imported, and asks for a token where it was not set.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            logging_level="WARNING",
            _temp_dir=folder,
        )
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
