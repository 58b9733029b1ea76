"""Downloads datasets: several files at a time, each checked and unpacked; every failure is
reported.
"""

import difflib
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import unquote, urlsplit

from mtl_ray import storage
from mtl_ray.sources.downloads.catalog import CATALOG, File
from mtl_ray.sources.downloads.fetch import (
    Advance,
    FetchError,
    RetryPolicy,
    Wanted,
    digest_of,
    fetch,
)
from mtl_ray.sources.downloads.unpack import DamagedError, is_archive, unpack
from mtl_ray.terminal import progress_bar

_DIGEST = re.compile(r"(md5:[0-9a-f]{32}|sha1:[0-9a-f]{40}|sha256:[0-9a-f]{64})", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Options of a download.

    Attributes:
        to: the output folder.
        mirrors: used instead of the original URLs: BASE/NAME, and BASE with the path of the
            original URL.
        unpack: whether archives are unpacked.
        delete: whether archives are removed after unpacking.
        check: whether sizes and checksums of the catalog must match; the archives of a mirror may
            differ.
        threads: number of files at a time.
        retry: attempts and timeout per file.
        max_bytes: maximum unpacked size of an archive; by default 100 times its own size.
    """

    to: str
    mirrors: tuple[str, ...] = ()
    unpack: bool = True
    delete: bool = False
    check: bool = True
    threads: int = 4
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    max_bytes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Downloaded:
    """The result of a file.

    Attributes:
        name: path in the output folder.
        status: fetched; there (existed and was complete); or failed.
        files: number of unpacked files, None if it was not unpacked.
        reason: of the failure.
    """

    name: str
    status: Literal["fetched", "there", "failed"]
    files: int | None = None
    reason: str = ""


def files_of(wanted: str, only: Sequence[str] = ()) -> tuple[File, ...]:
    """The files of a dataset of the catalog.

    Args:
        wanted: name of the dataset.
        only: names of files, or their prefixes; empty for all.

    Raises:
        ValueError: if there is no such dataset or file, or the dataset needs an account.
    """
    if wanted not in CATALOG:
        near = (
            difflib.get_close_matches(wanted, CATALOG, n=1, cutoff=0.5)
            or [name for name in CATALOG if name.startswith(wanted)][:1]
        )
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(
            f"there is no dataset {wanted!r} in the catalog{hint or '.'} It has "
            f"{', '.join(CATALOG)}"
        )
    files = CATALOG[wanted].files
    if not files:
        raise ValueError(
            f"{wanted} has no files that can be downloaded: {CATALOG[wanted].instructions}"
        )
    for part in only:
        if not any(_is_called(file, part) for file in files):
            raise ValueError(
                f"{wanted} has no file {part!r}; it has {', '.join(file.name for file in files)}"
            )
    return tuple(file for file in files if not only or any(_is_called(file, part) for part in only))


def file_at(url: str, digest: str | None = None) -> File:
    """A file by its URL.

    Raises:
        ValueError: if the URL has no file name, or the digest is invalid.
    """
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    if urlsplit(url).scheme not in ("http", "https") or not name or name.startswith("."):
        raise ValueError(f"{url} is not the URL of a file over http or https")
    if digest is not None and not _DIGEST.fullmatch(digest):
        raise ValueError(f"{digest} is not a digest such as sha256:HEX or md5:HEX")
    return File(urls=(url,), path=name, digest=digest)


def download_files(files: Sequence[File], options: Options) -> list[Downloaded]:
    """Downloads and unpacks files in parallel, each once; a failed file does not stop the others.

    Raises:
        ValueError: if the folder is not local.
    """
    if storage.is_remote(options.to):
        raise ValueError(
            f"{options.to} is not a local folder: download to a disk, then convert writes to a "
            "bucket"
        )
    bar = progress_bar(unit="B", unit_scale=True, desc="download")
    once = {file.name: file for file in files}
    with bar, ThreadPoolExecutor(options.threads) as pool:
        return list(
            pool.map(partial(_download_one, options=options, advance=bar.update), once.values())
        )


def _is_called(file: File, part: str) -> bool:
    return file.name == part or PurePosixPath(file.name).name.partition(".")[0] == part


def _download_one(file: File, *, options: Options, advance: Advance) -> Downloaded:
    folder = Path(storage.absolute(options.to))
    marker = folder / f"{file.name}.unpacked"
    unpacks = options.unpack and is_archive(file.name)
    size, digest = (file.size, file.digest) if options.check else (None, None)
    wanted = Wanted(path=file.name, urls=_places(file, options.mirrors), size=size, digest=digest)
    if unpacks and options.delete and marker.exists() and not (folder / file.name).exists():
        return Downloaded(name=file.name, status="there")
    try:
        fresh = fetch(wanted, folder, options.retry, advance)
        count = _unpack(folder, file, marker, options) if unpacks else None
    except (FetchError, ValueError, OSError) as error:
        return Downloaded(name=file.name, status="failed", reason=str(error))
    return Downloaded(name=file.name, status="fetched" if fresh else "there", files=count)


def _unpack(folder: Path, file: File, marker: Path, options: Options) -> int | None:
    """Unpacks an archive, unless that was done; returns the number of files."""
    archive = folder / file.name
    digest = digest_of(archive, "sha256")
    count = None
    if not marker.exists() or marker.read_text().strip() != digest:
        try:
            count = unpack(archive, folder / file.into, max_bytes=options.max_bytes)
        except DamagedError as error:
            archive.unlink()
            raise ValueError(f"{error}; it is removed") from error
        marker.write_text(digest + "\n")
    if options.delete:
        archive.unlink()
    return count


def _places(file: File, mirrors: Sequence[str]) -> tuple[str, ...]:
    if not mirrors:
        return file.urls
    name, path = PurePosixPath(file.name).name, urlsplit(file.urls[0]).path.lstrip("/")
    return tuple(
        dict.fromkeys(f"{mirror.rstrip('/')}/{end}" for mirror in mirrors for end in (name, path))
    )
