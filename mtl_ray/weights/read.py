"""Reads weights from a file of any kind. The content decides the kind, not the name."""

import io
import zipfile
from typing import Any

import numpy as np
import safetensors
import safetensors.torch

from mtl_ray import storage
from mtl_ray.artifact import Artifact, open_artifact
from mtl_ray.config.validate import read_record
from mtl_ray.inference.checkpoint import find_checkpoint
from mtl_ray.models.imports import read_safetensors
from mtl_ray.pickles.unpickle import load_pickle
from mtl_ray.weights.hugging_face import weight_files
from mtl_ray.weights.torch_checkpoints import BROKEN_ZIP
from mtl_ray.weights.torch_files import is_torch_file, read_torch
from mtl_ray.weights.weights import Weights, find_weights

_GROWTH = 64


def read_weights(uri: str, key: str | None = None) -> Weights:
    """The named tensors at a URI. No code in a file is executed.

    Args:
        uri: a file of ``torch.save`` (zip, older format, tar), safetensors, a pickle with arrays,
            an ``.npz``; the folder of a model of Hugging Face; or a checkpoint or run of this
            project (the best checkpoint of a run; the averaged weights, if there are any).
        key: the top-level key of the tensors; by default the usual keys are tried. Empty: the top
            level itself. For a checkpoint of this project, the name of one of its files without
            ``.safetensors``: ``model`` or ``ema``.

    Raises:
        FileNotFoundError: if nothing exists at the URI.
        ValueError: if there are no named tensors, or the file needs more than plain values.
    """
    if storage.exists(storage.join(uri, "checkpoints")):
        uri = find_checkpoint(uri)
    if storage.exists(storage.join(uri, "MANIFEST.json")):
        return _checkpoint(open_artifact(uri, kind="checkpoint"), key)
    files = weight_files(uri)
    if files is None:
        return find_weights(_content_at(uri), uri, key)
    tensors: dict[str, Any] = {}
    for file in files:
        tensors |= _content_at(file)
    return find_weights(tensors, uri, key)


def _content_at(uri: str) -> Any:
    data = storage.read(uri)
    try:
        return read_content(data)
    except ValueError as error:
        raise ValueError(f"{uri}: {error}") from error


def read_content(data: bytes) -> Any:
    """The content of a file of weights of any kind.

    Raises:
        ValueError: if its kind is unknown, it is incomplete, or it needs more than plain values.
    """
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") < len(data):
        return _safetensors(data)
    if data.startswith(b"PK\x03\x04") and _is_npz(data):
        return _npz(data)
    if is_torch_file(data):
        return read_torch(data)
    # protocol 2 and later, or a container or class of an older protocol
    if not data.startswith((b"\x80", b"(", b"}", b"]", b"c")):
        raise ValueError("this is neither a file of torch.save nor safetensors, npz or a pickle")
    return load_pickle(data)


def _safetensors(data: bytes) -> dict[str, Any]:
    try:
        # the file does not define an order
        return dict(sorted(safetensors.torch.load(data).items()))
    except (safetensors.SafetensorError, KeyError) as error:
        raise ValueError(f"this file of safetensors is broken: {error}") from error


def _is_npz(data: bytes) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            size = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError):
        return False
    if size > _GROWTH * len(data):
        raise ValueError(f"this file of {len(data)} bytes would unpack to {size}")
    return bool(names) and all(name.endswith(".npy") for name in names)


def _npz(data: bytes) -> dict[str, Any]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (
        *BROKEN_ZIP,
        EOFError,
        KeyError,
        SyntaxError,
        TypeError,
        MemoryError,
        OverflowError,
    ) as error:
        raise ValueError(f"this .npz file is broken: {error}") from error


def _checkpoint(opened: Artifact, key: str | None) -> Weights:
    if key is None:
        key = "ema" if "ema.safetensors" in opened.names else "model"
    if f"{key}.safetensors" not in opened.names:
        files = ", ".join(
            name.removesuffix(".safetensors")
            for name in opened.names
            if name.endswith(".safetensors")
        )
        raise ValueError(f"{opened.uri} has no weights {key!r}, only {files}")
    meta = {
        "config": opened.read("config.yaml").decode(errors="replace"),
        **{name: _json(opened, f"{name}.json") for name in ("vocabulary", "state")},
    }
    others = [
        name
        for name in opened.names
        if name.endswith((".safetensors", ".pt")) and name != f"{key}.safetensors"
    ]
    file = f"{key}.safetensors"
    tensors = read_safetensors(opened.read(file), storage.join(opened.uri, file))
    return Weights(
        dict(sorted(tensors.items())),
        "",
        {"meta": meta},
        tuple(f"{name} of the checkpoint" for name in others),
    )


def _json(opened: Artifact, name: str) -> dict[str, Any]:
    return read_record(opened.read(name), dict[str, Any], storage.join(opened.uri, name))
