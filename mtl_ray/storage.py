"""Bytes at a URI: a local path or anything fsspec knows (``s3://``, ``gs://``, ``abfs://``).

A credential never appears in a URI here; s3fs takes them, and the endpoint (``AWS_ENDPOINT_URL``),
from the environment.
"""

import glob
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISDIR
from typing import Any, NamedTuple

import fsspec
from fsspec import AbstractFileSystem

from mtl_ray.local_disk import entries_of, stamps_below, temporary_file, to_disk

_CONFLICTS = 5
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_S3: dict[str, Any] = {
    "config_kwargs": {
        "connect_timeout": 5,
        "read_timeout": 20,
        "retries": {"mode": "standard", "total_max_attempts": 3},
    },
}
"""A request that fails (a server error, a request to slow down, a connection that breaks or is
silent for 20 s, a body cut short) is repeated by botocore, three times in all, and then by s3fs,
five times in all, with growing pauses: about a minute together.
"""
_VERSIONS = ("ETag", "etag", "mtime", "LastModified", "last_modified")
"""Where a file system's listing says of which version a file is; the first that is there counts."""


def is_remote(uri: str) -> bool:
    """True for ``scheme://...`` other than ``file://``."""
    match = _SCHEME.match(uri)
    return match is not None and match[1] != "file"


def absolute(uri: str) -> str:
    """The URI with a relative local path made absolute; a remote one as it is, without a
    trailing slash.
    """
    if is_remote(uri):
        return uri.rstrip("/")
    return str(Path(uri.removeprefix("file://")).expanduser().absolute())


def join(uri: str, *parts: str) -> str:
    """``join("s3://bucket/a", "b", "c.txt")`` -> ``s3://bucket/a/b/c.txt``."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def filesystem(uri: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a URI and the path on it. Listings are never cached: other machines
    write here too.
    """
    if not is_remote(uri):
        return fsspec.filesystem("file"), absolute(uri)
    found, path = fsspec.core.url_to_fs(
        uri, use_listings_cache=False, **(_S3 if uri.startswith("s3://") else {})
    )
    return found, path


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Adds the URI to a refusal, and turns the errors of the clients of S3 and HTTP, some of which
    are no OSErrors, into errors that callers know.
    """
    try:
        yield
    except PermissionError as error:
        raise PermissionError(f"access to {uri} is refused: {error}") from error
    except Exception as error:
        if not type(error).__module__.startswith(("botocore", "aiohttp")):
            raise
        kind = PermissionError if "Credential" in type(error).__name__ else ConnectionError
        raise kind(f"{uri} cannot be reached: {error}") from error


def exists(uri: str) -> bool:
    """True if a file or folder is there."""
    fs, path = filesystem(uri)
    with _explained(uri):
        return bool(fs.exists(path))


def size(uri: str) -> int:
    """Bytes of a file.

    Raises:
        FileNotFoundError: if there is none.
    """
    fs, path = filesystem(uri)
    with _explained(uri):
        return int(fs.size(path))


def read(uri: str, start: int | None = None, stop: int | None = None) -> bytes:
    """The bytes [start, stop) of a file, all of them by default.

    Raises:
        FileNotFoundError: if there is none.
    """
    with _explained(uri):
        if start is None and stop is None and not is_remote(uri):
            with open(
                absolute(uri), "rb"
            ) as file:  # for an image, fsspec's way takes three times as long
                return file.read()
        fs, path = filesystem(uri)
        return bytes(fs.cat_file(path, start=start, end=stop))


def write(uri: str, data: bytes) -> None:
    """Writes a file whole or not at all: through a temporary file and a rename, or one PUT."""
    if is_remote(uri):
        fs, path = filesystem(uri)
        with _explained(uri):
            fs.pipe_file(path, data)
        return
    with writing(uri) as temporary:
        temporary.write_bytes(data)


@contextmanager
def writing(uri: str) -> Iterator[Path]:
    """A local path to write a file to, which becomes the file at the URI, whole, if no exception
    leaves the block.
    """
    if is_remote(uri):
        with tempfile.TemporaryDirectory(prefix="mtl_ray-") as folder:
            temporary = Path(folder) / "file"
            yield temporary
            upload(temporary, uri)
        return
    target = Path(absolute(uri))
    with temporary_file(target) as temporary:
        yield temporary
        to_disk(temporary)
        os.replace(temporary, target)


def write_new(uri: str, data: bytes) -> bool:
    """Writes a file whole only if there is none yet; False if there was one, which is then left
    alone.

    Two writers at once: exactly one gets True (``If-None-Match: *`` on S3, a hard link on a local
    disk).
    """
    fs, path = filesystem(uri)
    if is_remote(uri):
        with _explained(uri):
            return _put_new(fs, path, data)
    try:
        with temporary_file(Path(path)) as temporary:
            temporary.write_bytes(data)
            to_disk(temporary)
            os.link(temporary, path)
    except FileExistsError:
        return False
    return True


def _put_new(fs: AbstractFileSystem, path: str, data: bytes) -> bool:
    """One conditional PUT, repeated where S3 says that another writer's request is still open
    and it cannot know yet.
    """
    for attempt in range(_CONFLICTS):
        try:
            fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:  # s3fs knows no class of its own for these two answers
            answer = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code")
            if answer == "PreconditionFailed":
                return False
            if answer != "ConditionalRequestConflict" or attempt == _CONFLICTS - 1:
                raise
            time.sleep(0.1 * 2**attempt)
        else:
            return True
    raise AssertionError("the last attempt returns or raises")


def names(uri: str) -> list[str]:
    """The names (last parts) of what lies directly in a folder, sorted; empty if there is no
    such folder.
    """
    fs, path = filesystem(uri)
    try:
        with _explained(uri):
            entries = fs.ls(path, detail=False)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(
        {name for name in (entry.rstrip("/").rsplit("/", 1)[-1] for entry in entries) if name}
    )


def folders(uri: str) -> list[str]:
    """The names of the folders that lie directly in a folder, sorted; empty if there is no such
    folder.
    """
    return sorted(name for name, found in _entries(uri).items() if found.is_folder)


def sizes(uri: str) -> dict[str, int]:
    """Bytes of each file that lies directly in a folder, by name; empty if there is no such
    folder. One listing, no request a file.
    """
    return {name: found.size for name, found in _entries(uri).items() if not found.is_folder}


class _Entry(NamedTuple):
    is_folder: bool
    size: int


def _entries(uri: str) -> dict[str, _Entry]:
    """What lies directly in a folder, by name. A local link is what it leads to."""
    fs, path = filesystem(uri)
    try:
        with _explained(uri):
            if not is_remote(uri):
                return {
                    entry.name: _Entry(S_ISDIR(status.st_mode), status.st_size)
                    for entry, status in entries_of(path)
                }
            found = fs.ls(path, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {
        about["name"].rstrip("/").rsplit("/", 1)[-1]: _Entry(
            about["type"] == "directory", int(about["size"] or 0)
        )
        for about in found
    }


def files(uri: str) -> Iterator[str]:
    """The URIs of all files below a folder, sorted by path."""
    yield from stamps(uri)


def stamps(uri: str) -> dict[str, str]:
    """Size and version (tag or time of change) of all files below a folder by URI, sorted by
    path. One listing, no request a file. Local links are followed, unless they lead to a folder
    that they are in.
    """
    fs, path = filesystem(uri)
    with _explained(uri):
        if not is_remote(uri):
            return dict(sorted(stamps_below(path)))
        found = fs.find(path, detail=True)
    found.pop(path, None)  # some stores take an empty folder for a file
    return {
        str(fs.unstrip_protocol(name)): f"{about['size']} {_version(about)}"
        for name, about in sorted(found.items())
    }


def _version(about: Mapping[str, Any]) -> str:
    return next((str(about[key]) for key in _VERSIONS if key in about), "")


def remove(uri: str) -> None:
    """Removes a file or a folder with all that is in it; nothing happens if there is none."""
    fs, path = filesystem(uri)
    with _explained(uri):
        if fs.exists(path):
            # else fsspec removes whatever the name fits as a pattern
            fs.rm(glob.escape(path) if is_remote(uri) else path, recursive=True)


def upload(path: Path, uri: str) -> None:
    """Copies a local file to a URI, whole or not at all (multipart where it is large)."""
    if is_remote(uri):
        fs, target = filesystem(uri)
        with _explained(uri):
            fs.put_file(str(path), target)
        return
    with writing(uri) as temporary:
        shutil.copyfile(path, temporary)


def download(uri: str, path: Path) -> None:
    """Copies a file from a URI to a local path, whole or not at all."""
    fs, source = filesystem(uri)
    with _explained(uri), temporary_file(path) as temporary:
        fs.get_file(source, str(temporary))
        os.replace(temporary, path)
