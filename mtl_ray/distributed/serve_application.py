"""Bundles as an application for Serve's own config files: ``serve deploy``, or a RayService on Kubernetes."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from ray.serve import Application

from mtl_ray import storage
from mtl_ray.distributed.serve import api_key, bound
from mtl_ray.serving.config import ServeConfig


def application(args: Mapping[str, Any]) -> Application:
    """What ``import_path: mtl_ray.distributed.serve_application:application`` stands for.

    Where it listens is for the Serve config file to say, not for ``host`` and ``port``.

    Args:
        args: of that file: the ``serve`` section of a config of ours.

    Raises:
        ValueError: if an option is not known, no bundle is named, or the key is not in the environment.
    """
    try:
        config = TypeAdapter(ServeConfig).validate_python(dict(args))
    except ValidationError as error:
        raise ValueError("; ".join(f"args.{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())) from None
    if not config.models:
        raise ValueError("args.models names no bundle: {NAME: URI} is what answers at /predictions/NAME")
    return bound({name: storage.absolute(uri) for name, uri in config.models.items()}, config, api_key(config))
