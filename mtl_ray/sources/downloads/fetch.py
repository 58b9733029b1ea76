"""Downloads one file over HTTP: resumes, tries several URLs, and leaves a complete checked file
or a part.
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mtl_ray.sources.downloads.http_get import Answer, HttpGetError, ask

MAX_BYTES = 1 << 40
"""No file of a dataset is larger than a terabyte."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A file to download.

    Attributes:
        path: relative to the output folder.
        urls: alternatives, the first to be tried first; http or https.
        size: in bytes, if known.
        digest: such as ``md5:0123...`` or ``sha256:...``, if known.
    """

    path: str
    urls: tuple[str, ...]
    size: int | None = None
    digest: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """Attempts and pauses of a download.

    Attributes:
        attempts: rounds over all URLs without progress; the pause doubles after each.
        timeout_s: maximum time without a byte.
        pause_s: the first pause.
    """

    attempts: int = 5
    timeout_s: float = 30.0
    pause_s: float = 1.0


class FetchError(Exception):
    """Raised for a file that could not be downloaded, with the reason for each URL."""


Advance = Callable[[int], object]
"""Called with the number of new bytes."""


def fetch(
    wanted: Wanted, folder: Path, retry: RetryPolicy, advance: Advance = lambda count: None
) -> bool:
    """Downloads a file and writes ``NAME.sha256`` beside it; False if it existed and is complete.

    An interrupted download stays as ``NAME.part``, and the next attempt or run resumes it. An
    existing file without a known checksum is treated as such a part.

    Raises:
        FetchError: if no URL gives the complete file.
        OSError: if it cannot be written.
    """
    target = folder / wanted.path
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    if target.exists():
        if _is_known(target, wanted):
            return False
        os.replace(target, part)
    with open(part.with_name(part.name + ".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FetchError(f"{wanted.path}: another download is writing it") from None
        _download(wanted, part, retry, advance)
        digest = digest_of(part, "sha256")
        os.replace(part, target)
        _sums(target).write_text(f"{digest}  {target.name}\n")
        _note(part).unlink(missing_ok=True)
        os.unlink(lock.name)
    return True


def digest_of(path: Path, algorithm: str) -> str:
    """A file's digest in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _has(path: Path, digest: str) -> bool:
    algorithm, _, expected = digest.partition(":")
    return digest_of(path, algorithm.lower()) == expected.lower()


def _is_known(target: Path, wanted: Wanted) -> bool:
    """Whether a file was downloaded before, or has the wanted checksum."""
    if wanted.size is not None and target.stat().st_size != wanted.size:
        return False
    if wanted.digest is not None:
        return _has(target, wanted.digest)
    sums = _sums(target)
    return sums.exists() and _has(target, "sha256:" + sums.read_text().partition(" ")[0])


def _sums(target: Path) -> Path:
    return target.with_name(target.name + ".sha256")


def _note(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _download(wanted: Wanted, part: Path, retry: RetryPolicy, advance: Advance) -> None:
    """Completes the part and checks it. The count of attempts restarts whenever the part grows."""
    urls, reasons = list(wanted.urls), dict[str, str]()
    attempt, pause, longest = 0, retry.pause_s, _size(part)
    while urls and attempt < retry.attempts:
        for url in list(urls):
            try:
                _stream(url, wanted, part, retry.timeout_s, advance)
            except HttpGetError as error:
                reasons[url] = str(error)
                if error.final:
                    urls.remove(url)
            else:
                return
        attempt, pause = (0, retry.pause_s) if _size(part) > longest else (attempt + 1, 2 * pause)
        longest = max(longest, _size(part))
        if urls and attempt < retry.attempts:
            time.sleep(pause)
    raise FetchError(
        f"{wanted.path}: " + "; ".join(f"{url} {reason}" for url, reason in reasons.items())
    )


def _stream(url: str, wanted: Wanted, part: Path, timeout_s: float, advance: Advance) -> None:
    """Requests the rest of the part from one URL, writes it, and checks the file."""
    offset, known = _size(part), _known(part)
    tag = known.get("tag") if known.get("url") == url else None
    with ask(url, offset, tag, timeout_s) as answer:
        _check_answer(answer, wanted, known, part)
        _note(part).write_text(json.dumps({"url": url, "total": answer.total, "tag": answer.tag}))
        with open(part, "r+b" if part.exists() else "wb") as file:
            file.truncate(answer.start)
            file.seek(answer.start)
            _copy(answer, file, advance)
    digest = wanted.digest or answer.digest
    if digest is None and answer.total is not None:
        _check_end(url, answer.total, part, timeout_s)
    if (wanted.size is not None and _size(part) != wanted.size) or (
        digest is not None and not _has(part, digest)
    ):
        what = (
            f"has {_size(part):,} bytes, which do not have the checksum {digest}"
            if digest
            else f"has {_size(part):,} bytes"
        )
        _discard(part)
        # a part of another URL may be the cause: retry from the start
        raise HttpGetError(f"{what}: removed", final=answer.start == 0)


def _known(part: Path) -> dict[str, Any]:
    """The stored facts of the file that the part belongs to: url, total, tag."""
    try:
        found = json.loads(_note(part).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) and part.exists() else {}


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _check_answer(answer: Answer, wanted: Wanted, known: dict[str, Any], part: Path) -> None:
    """Raises HttpGetError if the answer does not match the wanted file or the existing part."""
    if answer.total is None:
        if answer.response is None and known.get("total") != answer.start:
            _discard(part)
            raise HttpGetError(
                f"has nothing after the {answer.start:,} existing bytes: removed", final=False
            )
        return
    if wanted.size is not None and answer.total != wanted.size:
        raise HttpGetError(f"has {answer.total:,} bytes, the file {wanted.size:,}", final=True)
    if answer.start and known.get("total") not in (None, answer.total):
        _discard(part)
        raise HttpGetError(
            f"had {known['total']:,} bytes before and has {answer.total:,} now", final=False
        )
    if answer.response is None and answer.total != answer.start:
        _discard(part)
        raise HttpGetError(f"has {answer.total:,} bytes, {answer.start:,} exist here", final=False)
    free = shutil.disk_usage(part.parent).free
    if answer.total > MAX_BYTES or answer.total - answer.start > free:
        raise HttpGetError(
            f"has {answer.total:,} bytes; there is room for "
            f"{min(MAX_BYTES, free + answer.start):,}",
            final=True,
        )


def _copy(answer: Answer, file: IO[bytes], advance: Advance) -> None:
    for block in answer.blocks():
        file.write(block)
        advance(len(block))
        if file.tell() > MAX_BYTES:
            raise HttpGetError(f"sends more than {MAX_BYTES:,} bytes", final=True)
    if answer.total is not None and file.tell() != answer.total:
        raise HttpGetError(
            f"broke off after {file.tell():,} of {answer.total:,} bytes", final=False
        )


def _check_end(url: str, total: int, part: Path, timeout_s: float) -> None:
    """Checks, for files without a checksum, that the server has no bytes after the stated total."""
    try:
        with ask(url, total, None, timeout_s) as answer:
            more = answer.start == total and answer.response is not None
    except HttpGetError:
        return  # unknown
    if more:
        _discard(part)
        raise HttpGetError(f"states {total:,} bytes, and has more", final=False)
