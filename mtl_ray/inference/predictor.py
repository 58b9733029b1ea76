"""The one face of everything that predicts: a torch checkpoint, a bundle, an HTTP endpoint."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.artifact import MANIFEST
from mtl_ray.experiment import head_types
from mtl_ray.inputs.input import AnyCanvas, placed
from mtl_ray.inputs.input import Arrays as InputArrays
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.task import AnyHead, HeadKind, KnownHead

Predictions = Mapping[str, Any]
"""By head name, each the prediction of its task (``tasks/*/decode.py``), on the original data."""

HeadArrays = Mapping[str, Mapping[str, NDArray[Any]]]
"""By head name, then by the names that ``decode`` takes; batch first."""


class Predictor(Protocol):
    """Predicts on original data; placing it in the network's frame and the inverse are its own
    business.

    Attributes:
        heads: of each head that predicts its config, or what is known of it, by name.
        vocabulary: what the numbers mean.
        canvas: the frame rule; its ``input`` says what the data is.
        plugins: the names of the plugins that the heads or the input come from.
    """

    vocabulary: Vocabulary

    @property
    def canvas(self) -> AnyCanvas: ...  # noqa: D102

    @property
    def heads(self) -> Mapping[str, HeadKind]: ...  # noqa: D102

    @property
    def plugins(self) -> tuple[str, ...]: ...  # noqa: D102

    def predict(self, raws: Sequence[Any]) -> list[Predictions]:
        """Predictions for each of some data, all sizes allowed, in order; images are (H, W, 3)
        uint8 RGB as shown.
        """
        ...


Run = Callable[[InputArrays], HeadArrays]
"""Takes the arrays of an input for some samples, gives the arrays of the heads."""


def predict_in_batches(raws: Sequence[Any], canvas: AnyCanvas, heads: Mapping[str, AnyHead], run: Run, batch: int) -> list[Predictions]:
    """Places data of any size, runs the network on up to ``batch`` of it at a time, and decodes.

    Every predictor that has the network at hand goes through here, so that a checkpoint and its
    bundle differ in ``run`` only.
    """
    found: list[Predictions] = []
    for start in range(0, len(raws), batch):
        inputs, frames = placed(raws[start : start + batch], canvas)
        arrays = run(inputs)
        found += [decode_one(arrays, i, frame, heads) for i, frame in enumerate(frames)]
    return found


def decode_one(arrays: HeadArrays, index: int, frame: Any, heads: Mapping[str, AnyHead]) -> Predictions:
    """Decodes sample ``index`` of a batch, all heads."""
    return {name: decode_head(arrays[name], index, frame, head) for name, head in heads.items()}


def decode_head(arrays: Mapping[str, NDArray[Any]], index: int, frame: Any, head: AnyHead) -> Any:
    """Decodes sample ``index`` of a batch, one head."""
    return head.task.decode({field: values[index] for field, values in arrays.items()}, frame, head)


# Heads of which only the name of the type is known, as it comes over the wire and in predictions files.


def known_heads(plugins: Sequence[str] = ()) -> dict[str, KnownHead]:
    """What the type of each head says, by its name: the built-in ones and those of plugins.

    Raises:
        ValueError: if a plugin cannot be loaded.
    """
    kinds = (cast(HeadKind, each) for each in head_types(tuple(plugins)))
    return {kind.type: KnownHead(type=kind.type, task=kind.task, annotation=kind.annotation, exclusive=kind.exclusive) for kind in kinds}


def head_of(head_type: str, plugins: Sequence[str] = (), classes: tuple[str, ...] | None = None) -> HeadKind:
    """What is known of every head of a type, or of one with a list of classes of its own.

    Raises:
        ValueError: if there is no such type, or a plugin cannot be loaded.
    """
    known = known_heads(plugins)
    if head_type not in known:
        raise ValueError(f"there is no head of the type {head_type!r} in this version; there is {', '.join(known)}")
    return replace(known[head_type], classes=classes)


# Whatever can predict, by its address.


def open_predictor(target: str, *, threads: int = 0, api_key: str | None = None) -> Predictor:
    """The predictor at an address.

    Args:
        target: a run folder (its best checkpoint), a checkpoint, a bundle, or the URL of an
            endpoint (``http://HOST:PORT/predictions/MODEL``).
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
