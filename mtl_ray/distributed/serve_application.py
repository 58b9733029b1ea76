"""Bundles as an application for Serve's own config files: ``serve deploy``, or a RayService on
Kubernetes.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from ray.serve import Application

from mtl_ray.distributed.serve import build_application
from mtl_ray.distributed.serve_state import ServeState
from mtl_ray.serving.config import ServeConfig, absolute_models
from mtl_ray.serving.keys import read_keys


def application(args: Mapping[str, Any]) -> Application:
    """The target of ``import_path: mtl_ray.distributed.serve_application:application``.

    The Serve config file sets the address; ``host`` and ``port`` of ``args`` have no effect.

    Args:
        args: from that file, with the fields of the ``serve`` section of our configs.

    Raises:
        ValueError: if an option is unknown, no bundle is named, or the key is not in the
            environment.
    """
    try:
        config = TypeAdapter(ServeConfig).validate_python(dict(args))
    except ValidationError as error:
        raise ValueError(
            "; ".join(
                f"args.{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()
            )
        ) from None
    if not config.models:
        raise ValueError(
            "args.models names no bundle: {NAME: URI} is what answers at /predictions/NAME"
        )
    config = absolute_models(config)
    keys = read_keys(config)
    return build_application(config, keys, ServeState.start(config, keys, detached=True))
