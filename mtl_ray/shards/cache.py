"""Bytes from a bucket kept on the local disk: a folder of files named after their content, shared
by all processes of a machine.

Nothing but the folder is kept: a file is there whole or not at all, the time of its last use is its
modification time, and a lock ends with the process that holds it. Killing any process at any moment
leaves nothing to repair.
"""

import fcntl
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mtl_ray.shards.local import map_file

FOLDER_VARIABLE = "MTL_RAY_CACHE"
LIMIT_VARIABLE = "MTL_RAY_CACHE_BYTES"
DEFAULT_LIMIT_BYTES = 50 << 30
_LOCKS = 256
_ABANDONED_S = 3600


class Cache:
    """Files by key, the least recently used of which make room for new ones.

    Attributes:
        limit_bytes: how much it holds.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        """Uses a folder, which is made if need be."""
        self._folder = folder
        self.limit_bytes = limit_bytes
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def get(self, key: str, fetch: Callable[[], bytes]) -> memoryview:
        """The bytes of a key, from the folder or from ``fetch``; of all processes that want them at
        once, one fetches.

        The view stays readable whatever becomes of the file.

        Raises:
            ValueError: if the bytes do not fit on the disk.
        """
        found = self._open(key)
        if found is None:
            with self._locked(key):
                found = self._open(key)
                if found is None:
                    found = self._put(key, fetch())
        return found

    def __contains__(self, key: str) -> bool:
        return (self._folder / key).exists()

    def remove(self, key: str) -> None:
        """Forgets a key."""
        (self._folder / key).unlink(missing_ok=True)

    def _open(self, key: str) -> memoryview | None:
        path = self._folder / key
        try:
            os.utime(path)
            return map_file(path)
        except (
            FileNotFoundError,
            ValueError,
        ):
            # not there, or made room for another between the two calls
            return None

    def _put(self, key: str, data: bytes) -> memoryview:
        self._make_room(len(data))
        temporary = self._folder / f".{uuid.uuid4().hex}"
        try:
            temporary.write_bytes(data)
            found = map_file(temporary)
            os.replace(temporary, self._folder / key)
        except OSError as error:
            raise ValueError(
                f"the cache {self._folder} cannot take {len(data)} bytes ({error.strerror}); "
                f"set {FOLDER_VARIABLE} to a folder with more room or {LIMIT_VARIABLE} to less"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)
        return found

    def _make_room(self, needed: int) -> None:
        entries = sorted(self._entries())
        total = sum(size for _, size, _ in entries) + needed
        for used_at, size, path in entries:
            abandoned = path.name.startswith(".") and used_at < time.time() - _ABANDONED_S
            if abandoned or (total > self.limit_bytes and not path.name.startswith(".")):
                path.unlink(missing_ok=True)
                total -= size

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """When each file was last used, its bytes, and the file; those that others remove
        meanwhile are left out.
        """
        with os.scandir(self._folder) as found:
            for entry in found:
                try:
                    status = entry.stat()
                except FileNotFoundError:
                    continue
                if entry.is_file():
                    yield status.st_mtime, status.st_size, Path(entry.path)

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        folder = self._folder / "locks"
        folder.mkdir(exist_ok=True)
        with open(folder / str(zlib.crc32(key.encode()) % _LOCKS), "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def user_folder(name: str) -> Path:
    """A folder of this program below the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mtl_ray" / name


def default_cache() -> Cache:
    """The cache of this user, as large as ``MTL_RAY_CACHE_BYTES`` says; by default at most half
    of what the disk has to give.
    """
    folder = Path(os.environ.get(FOLDER_VARIABLE) or user_folder("shards"))
    cache = Cache(folder, DEFAULT_LIMIT_BYTES)
    if limit := os.environ.get(LIMIT_VARIABLE):
        if not limit.isdecimal():
            raise ValueError(f"{LIMIT_VARIABLE} must be a number of bytes, not {limit!r}")
        cache.limit_bytes = int(limit)
    else:
        used = sum(size for _, size, _ in cache._entries())
        cache.limit_bytes = min(DEFAULT_LIMIT_BYTES, (shutil.disk_usage(folder).free + used) // 2)
    return cache
