"""The bytes of blocks whose shards lie in a bucket: fetched in large ranges, kept in the local
cache, checked before they get there.
"""

import logging
import random
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import google_crc32c
import numpy as np

from mtl_ray import storage
from mtl_ray.shards.cache import Cache
from mtl_ray.shards.local import MAX_MAPS
from mtl_ray.shards.manifest import Manifest

WHOLE_SHARD_BYTES = 64 << 20
"""Shards up to this size are fetched whole, if the whole split fits into the cache; of others,
single blocks are.
"""
ATTEMPTS = 6
FIRST_WAIT_S = 0.2
_FETCHING_AHEAD = 16
_THREADS = 4
_log = logging.getLogger(__name__)


class RemoteShards:
    """Shards in a bucket; threads may share it.

    A piece is what is fetched and cached as one: a whole shard without its header, or a block.
    """

    def __init__(self, uri: str, manifest: Manifest, cache: Cache) -> None:
        """Fetches nothing yet."""
        self._uri = uri
        self._manifest = manifest
        self._cache = cache
        self._block_shard = np.repeat(
            np.arange(len(manifest.shard_names), dtype=np.int32), manifest.shard_blocks
        )
        small = manifest.num_bytes <= cache.limit_bytes
        whole = (manifest.shard_bytes <= WHOLE_SHARD_BYTES)[self._block_shard] & small
        first = np.diff(self._block_shard, prepend=-1).astype(np.bool_) | ~whole
        self._piece = np.cumsum(first) - 1
        self._first_block = np.append(np.flatnonzero(first), len(first))
        self._lock = threading.Lock()
        self._open: OrderedDict[int, memoryview] = OrderedDict()
        self._ahead: set[int] = set()
        self._threads: ThreadPoolExecutor | None = None

    def view(self, block: int) -> memoryview:
        """The bytes of a block, from the cache or the bucket.

        Raises:
            ValueError: if the bucket does not give the bytes that the manifest describes.
            ConnectionError: if it does not answer for about a minute.
        """
        piece = int(self._piece[block])
        with self._lock:
            found = self._open.get(piece)
        if found is None:
            found = self._cache.get(self._key(piece), lambda: self._fetch(piece))
            with self._lock:
                self._open[piece] = found
                if len(self._open) > MAX_MAPS:
                    self._open.popitem(last=False)
        start = int(self._manifest.block_offsets[block] - self._span(piece)[0])
        return found[start : start + int(self._manifest.block_bytes[block])]

    def renew(self, block: int) -> bool:
        """Forgets the cached copy of a block, which turned out to be damaged."""
        piece = int(self._piece[block])
        with self._lock:
            self._open.pop(piece, None)
        self._cache.remove(self._key(piece))
        return True

    def prefetch(self, blocks: list[int]) -> None:
        """Fetches blocks in the background; more than a few at a time are left until they are
        asked for again.
        """
        for piece in dict.fromkeys(self._piece[blocks].tolist()):
            with self._lock:
                if (
                    piece in self._ahead
                    or len(self._ahead) >= _FETCHING_AHEAD
                    or self._key(piece) in self._cache
                ):
                    continue
                self._ahead.add(piece)
                self._threads = self._threads or ThreadPoolExecutor(
                    _THREADS, thread_name_prefix="mtl_ray-prefetch"
                )
                self._threads.submit(self._fetch_ahead, piece)

    def _fetch_ahead(self, piece: int) -> None:
        try:
            self._cache.get(self._key(piece), lambda: self._fetch(piece))
        except (ValueError, ConnectionError) as error:
            _log.warning("%s (will be tried again when it is needed)", error)
        finally:
            with self._lock:
                self._ahead.discard(piece)

    def _key(self, piece: int) -> str:
        start, stop = self._span(piece)
        return f"{self._manifest.shard_sha256[self._shard(piece)]}-{start}-{stop}"

    def _shard(self, piece: int) -> int:
        return int(self._block_shard[self._first_block[piece]])

    def _span(self, piece: int) -> tuple[int, int]:
        """The bytes [start, stop) of a piece in its shard."""
        first, last = int(self._first_block[piece]), int(self._first_block[piece + 1]) - 1
        offsets = self._manifest.block_offsets
        return int(offsets[first]), int(offsets[last] + self._manifest.block_bytes[last])

    def _fetch(self, piece: int) -> bytes:
        """The bytes of a piece, with patience: a server error, a body cut short and a damaged
        one are all asked for again.
        """
        name = self._manifest.shard_names[self._shard(piece)]
        uri, (start, stop) = storage.join(self._uri, name), self._span(piece)
        wrong: Exception = ValueError("never asked")
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(FIRST_WAIT_S * 2 ** (attempt - 1) * (0.5 + random.random()))
            try:
                data = storage.read(uri, start, stop)
            except FileNotFoundError as error:
                raise ValueError(
                    f"split {self._uri} does not match its manifest: {name} is missing; convert "
                    "the dataset again"
                ) from error
            except (
                Exception
            ) as error:  # the clients of the object stores share no class of exceptions
                wrong = ConnectionError(
                    f"{uri}, bytes {start} to {stop}, cannot be read: {type(error).__name__}: "
                    f"{error}"
                )
            else:
                fault = self._wrong(piece, data)
                if not fault:
                    return data
                wrong = ValueError(
                    f"{uri}, bytes {start} to {stop}, cannot be read as its manifest describes "
                    f"them: {fault}"
                )
            _log.warning("attempt %d of %d: %s", attempt + 1, ATTEMPTS, wrong)
        raise wrong

    def _wrong(self, piece: int, data: bytes) -> str:
        """What is wrong with the bytes of a piece; nothing if they are those that were written."""
        start, stop = self._span(piece)
        if len(data) != stop - start:
            return f"{len(data)} bytes instead of {stop - start}"
        content = np.frombuffer(data, np.uint8)
        for block in range(int(self._first_block[piece]), int(self._first_block[piece + 1])):
            offset = int(self._manifest.block_offsets[block]) - start
            found = google_crc32c.value(
                content[offset : offset + int(self._manifest.block_bytes[block])]
            )
            if found != self._manifest.block_crc32c[block]:
                return "the content is not what was written (CRC-32C)"
        return ""
