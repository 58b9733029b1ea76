"""Unpacks untrusted archives: nothing outside the folder, no links, a limited size."""

import errno
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

_BLOCK = 1 << 20
MOST_TIMES_LARGER = 100
AT_LEAST_BYTES = 1 << 30
MOST_FILES = 20_000_000
ENDS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".gz")

ArchiveMember = tuple[str, int, IO[bytes] | gzip.GzipFile]
"""Name, stated size in bytes, and content of a file in an archive."""


class DamagedError(ValueError):
    """Raised for an archive that cannot be read to its end; a new download may help."""


def is_archive(name: str) -> bool:
    """Whether a file can be unpacked, by its name."""
    return name.lower().endswith(ENDS)


def unpack(archive: Path, folder: Path, *, max_bytes: int | None = None) -> int:
    """Unpacks an archive into a folder, replaces existing files, and returns the number of files.

    Files are unpacked to a temporary folder first: a damaged or hostile archive leaves nothing.

    Args:
        archive: ZIP, TAR (also compressed), or a single file in gzip.
        folder: of the unpacked files.
        max_bytes: maximum sum of file sizes; by default 100 times the archive, and at least 1 GiB.

    Raises:
        DamagedError: if it is damaged or not an archive.
        ValueError: if a member leaves the folder, is a link or a device, or the size limit is
            exceeded.
    """
    limit = (
        max_bytes
        if max_bytes is not None
        else max(AT_LEAST_BYTES, MOST_TIMES_LARGER * archive.stat().st_size)
    )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder) as temporary:
        place, names, written = Path(temporary), set[str](), 0
        with _explained(archive):
            for name, stated, content in _members(archive):
                path = safe_path(name, archive.name)
                if len(names) >= MOST_FILES or written + stated > limit:
                    raise ValueError(
                        f"{archive.name} holds more than {limit:,} bytes or {MOST_FILES:,} files; "
                        "--max-gigabytes allows more"
                    )
                written += _write(content, place / path, limit - written, archive.name)
                names.add(path)
        for path in sorted(names):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(place / path, folder / path)
    return len(names)


def safe_path(name: str, archive: str) -> str:
    """A member's name as a path in a folder.

    Raises:
        ValueError: if it leads out of the folder.
    """
    path = PurePosixPath(name)
    if (
        not path.parts
        or path.is_absolute()
        or ".." in path.parts
        or "\\" in name
        or "\0" in name
        or ":" in path.parts[0]
    ):
        raise ValueError(
            f"{archive} has a member {name!r}, which would lie outside the folder; nothing of it "
            "is unpacked"
        )
    return str(path)


@contextmanager
def _explained(archive: Path) -> Iterator[None]:
    try:
        yield
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        gzip.BadGzipFile,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise _damaged(archive, error) from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise ValueError(
            f"{archive.name} has a file and a folder of one name: {error.filename}"
        ) from error
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # bz2 gives none, a place before the file this
            raise
        raise _damaged(archive, error) from error


def _damaged(archive: Path, error: Exception) -> DamagedError:
    """With the first line of a message; tarfile's have one for each compression that it tried."""
    reason = (str(error).splitlines() or ["it ends too early"])[0].rstrip(":")
    return DamagedError(f"{archive.name} is damaged or not an archive: {reason}")


def _members(archive: Path) -> Iterator[ArchiveMember]:
    name = archive.name.lower()
    if name.endswith(".zip"):
        yield from _in_zip(archive)
    elif name.endswith(".gz") and not name.endswith((".tar.gz", ".tgz")):
        with gzip.open(archive) as content:
            yield archive.name[: -len(".gz")], 0, content
    elif is_archive(name):
        yield from _in_tar(archive)
    else:
        raise ValueError(
            f"{archive.name} is not an archive that can be unpacked: {', '.join(ENDS)}"
        )


def _in_zip(archive: Path) -> Iterator[ArchiveMember]:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ValueError(
                    f"{archive.name} has a link or a device {member.filename!r}; nothing of it is "
                    "unpacked"
                )
            if member.is_dir():
                safe_path(member.filename, archive.name)
                continue
            with opened.open(member) as content:
                yield member.filename, member.file_size, content


def _in_tar(archive: Path) -> Iterator[ArchiveMember]:
    with tarfile.open(archive) as opened:
        for member in opened:
            if member.isdir():
                _ = member.name in (".", "./") or safe_path(member.name, archive.name)
                continue
            content = opened.extractfile(member) if member.isreg() else None
            if content is None:
                raise ValueError(
                    f"{archive.name} has a link or a device {member.name!r}; nothing of it is "
                    "unpacked"
                )
            yield member.name, member.size, content
        assert opened.fileobj is not None
        opened.fileobj.seek(opened.offset)
        if opened.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise tarfile.ReadError("its end is missing")  # tarfile itself accepts this as the end


def _write(content: IO[bytes] | gzip.GzipFile, path: Path, limit: int, archive: str) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with open(path, "wb") as file:
        while block := content.read(_BLOCK):
            written += len(block)
            if written > limit:
                raise ValueError(
                    f"{archive} holds more bytes than the {limit:,} that are left of what it may; "
                    "--max-gigabytes allows more"
                )
            file.write(block)
    if shutil.disk_usage(path.parent).free < _BLOCK:
        raise ValueError(f"there is no room left for {archive} in {path.parent}")
    return written
