"""Checks the output path of a job. Imports no ray, for jobs that need none."""

import os

from mtl_ray import storage


def absolute_output(option: str, uri: str) -> str:
    """The absolute URI of an output, valid on other machines and for later stages.

    Raises:
        ValueError: if it is relative and this is a submitted job, whose working directory goes away
            with it; or if nothing can be written there.
    """
    if uri.startswith(("http://", "https://")):
        raise ValueError(
            f"{option} {uri} cannot be written to: give a path, or a bucket (s3://...)"
        )
    relative = not storage.is_remote(uri) and not os.path.isabs(
        os.path.expanduser(uri.removeprefix("file://"))
    )
    if relative and "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        raise ValueError(
            f"{option} {uri} is a relative path, and a submitted job runs in a copy of the working "
            "directory that is removed afterwards: "
            "give an absolute path that every machine has, or a bucket (s3://...)"
        )
    return storage.absolute(uri)
