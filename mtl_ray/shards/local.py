"""The bytes of blocks whose shards lie on a local disk: memory-mapped, so what is read once
stays in the page cache for all processes.
"""

import mmap
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Protocol

import numpy as np

from mtl_ray.shards.manifest import Manifest

MAX_MAPS = 64
"""Files mapped at once; each takes a file descriptor."""


class ShardFiles(Protocol):
    """Where a Split gets the bytes of its blocks."""

    def view(self, block: int) -> memoryview:
        """The bytes of a block, as they were written or not: who reads them checks."""
        ...

    def renew(self, block: int) -> bool:
        """Forgets a copy of a block that turned out to be damaged; False if there is no copy,
        and what is damaged is the shard.
        """
        ...

    def prefetch(self, blocks: list[int]) -> None:
        """Says that these blocks will be read soon; returns at once."""
        ...


class LocalShards:
    """Shards in a local folder; threads may share it."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Opens nothing yet."""
        self._folder = folder
        self._manifest = manifest
        self._shard_ends = np.cumsum(manifest.shard_blocks)
        self._maps = Maps()

    def view(self, block: int) -> memoryview:
        """The bytes of a block.

        Raises:
            ValueError: if the shard is missing or is not of the size that the manifest says.
        """
        shard = int(np.searchsorted(self._shard_ends, block, side="right"))
        path = self._folder / self._manifest.shard_names[shard]
        whole = self._maps.get(path)
        if len(whole) != self._manifest.shard_bytes[shard]:
            raise ValueError(
                f"{path} does not match its manifest: {len(whole)} bytes instead of "
                f"{self._manifest.shard_bytes[shard]}"
            )
        start = int(self._manifest.block_offsets[block])
        return whole[start : start + int(self._manifest.block_bytes[block])]

    def renew(self, block: int) -> bool:
        """False: the shard itself is read."""
        return False

    def prefetch(self, blocks: list[int]) -> None:
        """Nothing to do: the pages are brought in by the system as they are read."""


class Maps:
    """The files mapped last."""

    def __init__(self) -> None:
        """None yet."""
        self._lock = threading.Lock()
        self._open: OrderedDict[Path, memoryview] = OrderedDict()

    def get(self, path: Path) -> memoryview:
        """A file as memory. It stays readable as long as the view is held, whatever becomes of the
        file's name.

        Raises:
            ValueError: if the file is missing.
        """
        with self._lock:
            if path not in self._open:
                self._open[path] = map_file(path)
            self._open.move_to_end(path)
            found = self._open[path]
            if len(self._open) > MAX_MAPS:
                self._open.popitem(last=False)
            return found


def map_file(path: Path) -> memoryview:
    """A file as read-only memory.

    Raises:
        ValueError: if the file is missing.
    """
    try:
        with open(path, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not match its manifest: the file is missing") from error
