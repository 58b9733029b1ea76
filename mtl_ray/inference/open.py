"""Whatever can predict, by its address."""

import json

from mtl_ray import storage
from mtl_ray.artifact import MANIFEST
from mtl_ray.inference.predictor import Predictor


def open_predictor(target: str, *, threads: int = 0, api_key: str | None = None) -> Predictor:
    """The predictor at an address.

    Args:
        target: a run folder (its best checkpoint), a checkpoint, a bundle, or the URL of an endpoint
            (``http://HOST:PORT/predictions/MODEL``).
        threads: of the engine, for a bundle; 0 takes all cores.
        api_key: for an endpoint that asks for one.

    Raises:
        ValueError, FileNotFoundError: if there is nothing of the kind, or it is cut short.
    """
    if target.startswith(("http://", "https://")):
        from mtl_ray.inference.endpoint import EndpointPredictor

        return EndpointPredictor(target, api_key=api_key)
    kind = artifact_kind(target)
    if kind == "bundle":
        from mtl_ray.inference.bundle import BundlePredictor

        return BundlePredictor(target, threads=threads)
    if kind == "checkpoint" or storage.names(storage.join(target, "checkpoints")):
        from mtl_ray.inference.checkpoint import default_device, find_checkpoint, open_checkpoint

        return open_checkpoint(target if kind else find_checkpoint(target), device=default_device())
    if not storage.exists(target):
        raise FileNotFoundError(f"there is nothing at {target}")
    raise ValueError(f"{target} is neither a run folder nor a whole checkpoint or bundle (those have a {MANIFEST})")


def artifact_kind(uri: str) -> str | None:
    """What the manifest at a URI says it is: checkpoint or bundle; None where there is no manifest."""
    try:
        manifest = json.loads(storage.read(storage.join(uri, MANIFEST)))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise ValueError(f"the {MANIFEST} of {uri} is damaged: {error}") from error
    return str(manifest.get("kind")) if isinstance(manifest, dict) else None
