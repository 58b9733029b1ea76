"""Writes weights to a file, and hashes their content."""

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


def write_weights(
    uri: str,
    tensors: Mapping[str, Tensor],
    *,
    key: str = "state_dict",
    rest: Mapping[str, Any] | None = None,
) -> bytes:
    """Writes named tensors atomically, in the format of the file's ending. Returns the bytes.

    Args:
        uri: ends in .pth (or .pt .th .ckpt .bin), .safetensors or .npz.
        tensors: by name. Each is written separately, even if tensors share memory.
        key: the top-level key of a .pth; empty: the tensors are the top level.
        rest: further top-level entries of a .pth; the other formats hold only tensors.

    Raises:
        ValueError: if the ending is unknown.
    """
    data = encode_weights(uri, tensors, key=key, rest=rest)
    storage.write(uri, data)
    return data


def encode_weights(
    uri: str,
    tensors: Mapping[str, Tensor],
    *,
    key: str = "state_dict",
    rest: Mapping[str, Any] | None = None,
) -> bytes:
    """The bytes that ``write_weights`` writes."""
    check_ending(uri)
    own = {name: own_memory(tensor) for name, tensor in tensors.items()}
    if uri.endswith(".safetensors"):
        return bytes(safetensors.torch.save(own, metadata={"format": "pt"}))
    buffer = io.BytesIO()
    if uri.endswith(".npz"):
        np.savez(
            buffer,
            allow_pickle=False,
            **{name: _array(name, tensor) for name, tensor in own.items()},
        )
    else:
        torch.save({key: own, **(rest or {})} if key else own, buffer)
    return buffer.getvalue()


def check_ending(uri: str) -> None:
    """Checks the ending of a file of weights to write.

    Raises:
        ValueError: if no format has this ending.
    """
    if not uri.endswith(ENDINGS):
        raise ValueError(
            f"{uri}: the ending of the name sets the format; use one of {' '.join(ENDINGS)}"
        )


def keeps_rest(uri: str) -> bool:
    """True if the format can hold more than tensors."""
    return uri.endswith(TORCH_ENDINGS)


def own_memory(tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU with its own memory.

    Without it, a view would be saved with its whole base tensor.
    """
    return tensor.detach().to("cpu", copy=True).contiguous().clone()


def _array(name: str, tensor: Tensor) -> Any:
    if tensor.dtype == torch.bfloat16:
        raise ValueError(f"{name} is bfloat16, which .npz cannot hold: write .pth or .safetensors")
    return tensor.numpy()


def content_hash(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 of names, types, shapes and numbers, sorted by name.

    It does not depend on the format or the writer of the file. The little-endian bytes of each
    tensor follow the line ``name dtype shape``, such as ``conv1.weight float32 64,3,7,7``.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(dict(tensors).items()):
        shape = ",".join(map(str, tensor.shape))
        digest.update(f"{name} {str(tensor.dtype).removeprefix('torch.')} {shape}\n".encode())
        digest.update(own_memory(tensor).reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
