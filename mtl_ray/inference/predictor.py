"""The interface of everything that predicts (a checkpoint, a bundle, an HTTP endpoint), and how it
is opened by its address.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.artifact import MANIFEST
from mtl_ray.config.validate import read_record
from mtl_ray.experiment import head_types
from mtl_ray.inputs.input import AnyCanvas, Arrays, placed
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.task import AnyHead, HeadKind, KnownHead

Predictions = Mapping[str, Any]
"""The prediction of each head by name, in units of the original data (``tasks/*/decode.py``)."""

HeadArrays = Mapping[str, Mapping[str, NDArray[Any]]]
"""By head name, then by the array names of ``decode``; batch first."""


class Predictor(Protocol):
    """Predicts on original data. It places the data on the canvas, and maps predictions back.

    Attributes:
        heads: the config of each predicting head by name, or what is known of it.
        vocabulary: the classes.
        canvas: how data is placed on the canvas; its ``input`` is the kind of data.
        plugins: the names of the plugins of the heads and the input.
    """

    vocabulary: Vocabulary

    @property
    def canvas(self) -> AnyCanvas: ...  # noqa: D102

    @property
    def heads(self) -> Mapping[str, HeadKind]: ...  # noqa: D102

    @property
    def plugins(self) -> tuple[str, ...]: ...  # noqa: D102

    def predict(self, raws: Sequence[Any]) -> list[Predictions]:
        """The predictions for each datum, in order. Sizes may differ; images are uint8 (H, W, 3)
        RGB as shown.
        """
        ...


Run = Callable[[Arrays], HeadArrays]
"""From the input arrays of a batch to the output arrays of the heads."""


def predict_in_batches(
    raws: Sequence[Any], canvas: AnyCanvas, heads: Mapping[str, AnyHead], run: Run, batch: int
) -> list[Predictions]:
    """Places data on the canvas, runs the network on batches of up to ``batch``, and decodes.

    Checkpoints and bundles both use it, so they differ in ``run`` only.
    """
    predictions: list[Predictions] = []
    for start in range(0, len(raws), batch):
        inputs, frames = placed(raws[start : start + batch], canvas)
        arrays = run(inputs)
        predictions += [decode_one(arrays, i, frame, heads) for i, frame in enumerate(frames)]
    return predictions


def decode_one(
    arrays: HeadArrays, index: int, frame: Any, heads: Mapping[str, AnyHead]
) -> Predictions:
    """The predictions of sample ``index`` of a batch, all heads."""
    return {name: decode_head(arrays[name], index, frame, head) for name, head in heads.items()}


def decode_head(arrays: Mapping[str, NDArray[Any]], index: int, frame: Any, head: AnyHead) -> Any:
    """The prediction of sample ``index`` of a batch, one head.

    Raises:
        ValueError: if the head's task reads an array that the network does not give.
    """
    fields = _Fields({field: values[index] for field, values in arrays.items()})
    return head.task.decode(fields, frame, head)


class _Fields(dict[str, NDArray[Any]]):
    """The arrays of one head for one sample. A signature or a plugin may lack one."""

    def __missing__(self, name: str) -> NDArray[Any]:
        raise ValueError(
            f"a head's predictions are read from the array {name!r}, and its network gives "
            f"{', '.join(self) or 'none'}"
        )


def known_heads(plugins: Sequence[str] = ()) -> dict[str, KnownHead]:
    """What is known of a head by its type alone, by type: the built-in types and those of plugins.

    Raises:
        ValueError: if a plugin cannot be loaded.
    """
    kinds = (cast(HeadKind, each) for each in head_types(tuple(plugins)))
    return {
        kind.type: KnownHead(
            type=kind.type, task=kind.task, annotation=kind.annotation, exclusive=kind.exclusive
        )
        for kind in kinds
    }


def head_of(
    head_type: str, plugins: Sequence[str] = (), *, classes: tuple[str, ...] | None = None
) -> HeadKind:
    """What is known of a head by its type, with its own list of classes if it has one.

    Raises:
        ValueError: if there is no such type, or a plugin cannot be loaded.
    """
    known = known_heads(plugins)
    if head_type not in known:
        raise ValueError(
            f"there is no head of the type {head_type!r} in this version; there is "
            f"{', '.join(known)}"
        )
    return replace(known[head_type], classes=classes)


def open_predictor(
    target: str, *, threads: int = 0, api_key: str | None = None, engine: str | None = None
) -> Predictor:
    """The predictor at an address.

    Args:
        target: a run folder (its best checkpoint), a checkpoint, a bundle, or the URL of an
            endpoint (``http://HOST:PORT/predictions/MODEL``).
        threads: of the engine, for a bundle; 0 takes all cores.
        api_key: for an endpoint that requires one.
        engine: one of the engines of a bundle; None for its default.

    Raises:
        ValueError, FileNotFoundError: if there is no such thing, or it is incomplete.
    """
    if target.startswith(("http://", "https://")):
        from mtl_ray.inference.endpoint import EndpointPredictor

        return EndpointPredictor(target, api_key=api_key)
    kind = artifact_kind(target)
    if engine is not None and kind != "bundle":
        raise ValueError(f"--engine is for bundles, and {target} is none")
    if kind == "bundle":
        from mtl_ray.inference.bundle import BundlePredictor

        return BundlePredictor(target, threads=threads, engine=engine)
    if kind == "checkpoint" or storage.names(storage.join(target, "checkpoints")):
        from mtl_ray.inference.checkpoint import default_device, find_checkpoint, open_checkpoint

        return open_checkpoint(target if kind else find_checkpoint(target), device=default_device())
    if not storage.exists(target):
        raise FileNotFoundError(f"there is nothing at {target}")
    raise ValueError(
        f"{target} is neither a run folder nor a complete checkpoint or bundle (with a {MANIFEST})"
    )


def artifact_kind(uri: str) -> str | None:
    """The kind that the manifest at a URI states: checkpoint or bundle; None without a manifest."""
    location = storage.join(uri, MANIFEST)
    try:
        data = storage.read(location)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return str(read_record(data, dict[str, Any], location).get("kind"))
