"""Files on this machine's disks: written whole, and listed with what their links lead to."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR


@contextmanager
def temporary_file(target: Path) -> Iterator[Path]:
    """A name beside ``target`` for a file in the making; nothing is left under it, and a new
    name in the folder reaches the disk.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        yield temporary
        to_disk(target.parent)
    except OSError as error:
        # writing to an open file does not say which
        if error.filename is None and error.errno is not None:
            error.filename = str(target)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def to_disk(path: Path) -> None:
    """Waits until what was written to a file, or to a folder's list of names, would survive a
    loss of power.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def stamps_below(
    folder: str, above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[tuple[str, str]]:
    """Path, and size and time of change, of all files below a folder.

    Args:
        folder: its path.
        above: device and inode numbers of the folders that contain it.
    """
    try:
        own = os.stat(folder)
        found = list(entries_of(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    inside = above | {(own.st_dev, own.st_ino)}
    for entry, status in found:
        if not S_ISDIR(status.st_mode):
            yield entry.path, f"{status.st_size} {status.st_mtime}"
        elif (status.st_dev, status.st_ino) not in inside:
            yield from stamps_below(entry.path, inside)


def entries_of(folder: str) -> Iterator[tuple["os.DirEntry[str]", os.stat_result]]:
    """What lies in a folder. The status is that of what a link leads to, or that of the link itself
    if it leads nowhere.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                yield entry, entry.stat()
            except OSError:
                with suppress(FileNotFoundError):  # it was removed meanwhile
                    yield entry, entry.stat(follow_symlinks=False)
