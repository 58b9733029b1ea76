"""Writes a file of weights for publication: without the state of the training, named after its
content.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from mtl_ray import storage
from mtl_ray.weights.read import read_weights
from mtl_ray.weights.weights import Weights
from mtl_ray.weights.write import ENDINGS, check_ending, content_hash, encode_weights, keeps_rest

EmaChoice = Literal["averaged", "raw"]

_SECOND = {
    "ema_state_dict": "raw",
    "state_dict_ema": "averaged",
    "model_ema": "averaged",
    "ema": "averaged",
}
"""Top-level keys of a second copy of the weights, and which copy it is. MMEngine stores the
averaged weights, which it uses for tests, under ``state_dict``, and the raw ones under
``ema_state_dict``. timm, DeiT and others store the averaged ones under a key of their own."""


@dataclass(frozen=True, slots=True)
class Published:
    """The published file.

    Attributes:
        uri: the name ends in the first eight digits of ``sha256``.
        sha256: of the file.
        content: hash of names, types, shapes and numbers (``write.content_hash``), the same in
            every format.
        weights: which copy it holds, if there were two; else empty.
        removed: entries and tensors of the source that it does not contain.
        tensors, numbers, size_bytes: number of tensors and of their elements; size of the file.
    """

    uri: str
    sha256: str
    content: str
    weights: str
    removed: tuple[str, ...]
    tensors: int
    numbers: int
    size_bytes: int


def publish_weights(
    source: str,
    to: str,
    *,
    ema: EmaChoice = "averaged",
    keep: Sequence[str] = ("meta",),
    key: str | None = None,
) -> Published:
    """Writes the weights of a training checkpoint as ``{stem of to}-{8 hex}{ending of to}``.

    Args:
        source: any file that ``read_weights`` reads, or a checkpoint or run of this project.
        to: name of the new file; its ending sets the format (``.pth`` if it has none). A .pth holds
            ``state_dict`` and ``keep``.
        ema: which copy of the weights, if the file holds two: their moving average or those of the
            last step.
        keep: top-level entries to keep beside the weights, in a .pth.
        key: the top-level key of the weights; found automatically by default.

    Raises:
        ValueError: if there are no weights, or the ending of ``to`` is unknown.
    """
    to = to if to.endswith(ENDINGS) else to + ".pth"
    check_ending(to)
    weights = (
        read_weights(source, key)
        if key is not None or not _is_checkpoint(source)
        else _of_checkpoint(source, ema)
    )
    tensors, taken, removed = choose_copy(weights, ema)
    rest = {name: value for name, value in weights.rest.items() if name in keep and keeps_rest(to)}
    removed += [
        f"{name} ({_kind(value)})" for name, value in weights.rest.items() if name not in rest
    ]
    data = encode_weights(to, tensors, rest=rest)
    digest = hashlib.sha256(data).hexdigest()
    stem, ending = to[: to.rindex(".")], to[to.rindex(".") :]
    uri = f"{stem}-{digest[:8]}{ending}"
    storage.write(uri, data)
    numbers, _ = replace(weights, tensors=tensors).size()
    return Published(
        uri,
        digest,
        content_hash(tensors),
        taken,
        (*removed, *weights.left),
        len(tensors),
        numbers,
        len(data),
    )


def choose_copy(weights: Weights, ema: EmaChoice) -> tuple[dict[str, Tensor], str, list[str]]:
    """The requested copy of the weights, which copy it is (empty if there is only one), and what
    was removed from the tensors.

    MMCV's hooks store the second copy among the weights, as ``ema_backbone_conv1_weight`` for
    ``backbone.conv1.weight``. They swap the two before they write the checkpoint of an epoch: the
    plain names then hold the average, which is used for tests.
    """
    plain = {
        name: tensor for name, tensor in weights.tensors.items() if not name.startswith("ema_")
    }
    doubled = {name: f"ema_{name.replace('.', '_')}" for name in plain}
    buffers = weights.tensors.keys() - plain.keys()
    if buffers and buffers.issubset({*doubled.values(), "ema_steps"}):
        raw = {name: weights.tensors.get(doubled[name], tensor) for name, tensor in plain.items()}
        return (
            plain if ema == "averaged" else raw,
            ema,
            [f"{len(buffers)} buffers ema_* (the other copy of the weights)"],
        )
    second = next((name for name in _SECOND if isinstance(weights.rest.get(name), dict)), None)
    if second is None:
        return weights.tensors, "", []
    if _SECOND[second] != ema:
        return weights.tensors, ema, []
    other = {
        name.removeprefix("module."): value
        for name, value in weights.rest[second].items()
        if isinstance(value, Tensor)
    }
    missing = [name for name in weights.tensors if name.removeprefix("module.") not in other]
    if missing:
        raise ValueError(
            f"{second} lacks {missing[0]} ({len(missing)} of {len(weights.tensors)} tensors)"
        )
    chosen = {
        name.removeprefix("module."): other[name.removeprefix("module.")]
        for name in weights.tensors
    }
    return chosen, ema, [f"{weights.key} (the other copy of the weights)"]


def _is_checkpoint(uri: str) -> bool:
    return storage.exists(storage.join(uri, "MANIFEST.json")) or storage.exists(
        storage.join(uri, "checkpoints")
    )


def _of_checkpoint(uri: str, ema: EmaChoice) -> Weights:
    """The weights of a checkpoint of this project: ``ema.safetensors`` if it exists, unless the
    raw weights are requested.
    """
    return read_weights(uri, "model" if ema == "raw" else None)


def _kind(value: object) -> str:
    return f"{len(value)} entries" if isinstance(value, dict | list) else type(value).__name__
