"""Weights into a file, and the hash of what they are."""

import hashlib
import io
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from mtl_ray import storage

TORCH_ENDINGS = (".pth", ".pt", ".th", ".ckpt", ".bin", ".tar")
ENDINGS = (*TORCH_ENDINGS, ".safetensors", ".npz")


def write_weights(uri: str, tensors: Mapping[str, Tensor], *, key: str = "state_dict", rest: Mapping[str, Any] | None = None) -> bytes:
    """Writes named tensors, in the format that the ending of the name says; whole or not at all. Returns what was written.

    Args:
        uri: ends in .pth (or .pt .th .ckpt .bin), .safetensors or .npz.
        tensors: by name. Each is written by itself, whatever memory it shares.
        key: the top-level key of a .pth; empty: the tensors are the top level.
        rest: further top-level entries of a .pth; the other formats hold tensors alone.

    Raises:
        ValueError: if the ending is unknown.
    """
    data = encode(uri, tensors, key=key, rest=rest)
    storage.write(uri, data)
    return data


def encode(uri: str, tensors: Mapping[str, Tensor], *, key: str = "state_dict", rest: Mapping[str, Any] | None = None) -> bytes:
    """The bytes that ``write_weights`` writes."""
    check_ending(uri)
    own = {name: own_memory(tensor) for name, tensor in tensors.items()}
    if uri.endswith(".safetensors"):
        return bytes(safetensors.torch.save(own, metadata={"format": "pt"}))
    buffer = io.BytesIO()
    if uri.endswith(".npz"):
        np.savez(buffer, allow_pickle=False, **{name: _array(name, tensor) for name, tensor in own.items()})
    else:
        torch.save({key: own, **(rest or {})} if key else own, buffer)
    return buffer.getvalue()


def check_ending(uri: str) -> None:
    """Of a file of weights to be written.

    Raises:
        ValueError: if it is none of those that say a format.
    """
    if not uri.endswith(ENDINGS):
        raise ValueError(f"{uri}: the ending of the name says the format, one of {' '.join(ENDINGS)}")


def keeps_rest(uri: str) -> bool:
    """True where a file holds more than tensors."""
    return uri.endswith(TORCH_ENDINGS)


def own_memory(tensor: Tensor) -> Tensor:
    """On the CPU, contiguous, with a memory of its own: a view would take the whole of what it looks at into the file."""
    return tensor.detach().to("cpu", copy=True).contiguous().clone()


def _array(name: str, tensor: Tensor) -> Any:
    if tensor.dtype == torch.bfloat16:
        raise ValueError(f"{name} is bfloat16, which .npz cannot hold: write .pth or .safetensors")
    return tensor.numpy()


def content_hash(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 of names, types, shapes and numbers, in the order of the names: the same whatever wrote the file, and in which format.

    Before each tensor's little-endian bytes stands the line ``name dtype shape``, such as ``conv1.weight float32 64,3,7,7``.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(dict(tensors).items()):
        shape = ",".join(map(str, tensor.shape))
        digest.update(f"{name} {str(tensor.dtype).removeprefix('torch.')} {shape}\n".encode())
        digest.update(own_memory(tensor).reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
