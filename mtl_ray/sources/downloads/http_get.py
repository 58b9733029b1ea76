"""One HTTP request for a file or the rest of it, and what the server states about the file."""

import base64
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPResponse
from types import TracebackType
from urllib.parse import urlsplit

_BLOCK = 1 << 18
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
"""Status codes after which a retry can succeed."""


class HttpGetError(Exception):
    """Raised if a server does not give the file; ``final`` if a retry is useless."""

    def __init__(self, reason: str, *, final: bool) -> None:
        super().__init__(reason)
        self.final = final


@dataclass(frozen=True, slots=True)
class Answer(AbstractContextManager["Answer"]):
    """The answer of a server.

    Attributes:
        response: with the bytes; None if there are no further bytes.
        start: offset of the first byte; 0 if the server does not support offsets.
        total: size of the file; None if unknown.
        tag: the ETag of this version of the file.
        digest: of the file, such as ``md5:0123...``, if the server states one.
    """

    response: HTTPResponse | None
    start: int
    total: int | None
    tag: str | None
    digest: str | None

    def blocks(self) -> Iterator[bytes]:
        """Yields the bytes in blocks.

        Raises:
            HttpGetError: if the connection breaks.
        """
        while self.response is not None:
            try:
                # available bytes, so that none are lost if the connection breaks
                block = self.response.read1(_BLOCK)
            except (HTTPException, OSError) as error:
                raise HttpGetError(
                    f"broke off: {error or type(error).__name__}", final=False
                ) from error
            if not block:
                return
            yield block

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.response is not None:
            self.response.close()


def ask(url: str, offset: int, tag: str | None, timeout_s: float) -> Answer:
    """Requests the bytes from an offset.

    Args:
        url: http or https, also after redirects.
        offset: number of existing bytes.
        tag: ETag of the existing bytes; if the file has changed, the server sends all of it.
        timeout_s: that the server may be silent.

    Raises:
        HttpGetError: if the server cannot be reached, refuses, or gives an invalid answer.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise HttpGetError("not an http or https URL", final=True)
    headers = {"User-Agent": "mtl_ray", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if tag is not None and not tag.startswith("W/"):
            headers["If-Range"] = tag
    try:
        response = _opener().open(urllib.request.Request(url, headers=headers), timeout=timeout_s)
    except urllib.error.HTTPError as error:
        return _refused(error, offset)
    except (urllib.error.URLError, HTTPException, OSError, ValueError) as error:
        raise HttpGetError(
            str(getattr(error, "reason", "") or error or type(error).__name__), final=False
        ) from error
    if not isinstance(response, HTTPResponse):
        raise HttpGetError("redirects to a URL that is neither http nor https", final=True)
    return _answer(response, offset)


def _opener() -> urllib.request.OpenerDirector:
    """Opens only http and https; ``urlopen`` would also read local files."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _answer(response: HTTPResponse, offset: int) -> Answer:
    headers = response.headers
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", headers.get("Content-Range", ""))
        if found is None or int(found[1]) != offset:
            response.close()
            raise HttpGetError(
                f"was asked for the bytes from {offset}, and gives {headers.get('Content-Range')}",
                final=True,
            )
        total = None if found[3] == "*" else int(found[3])
        if int(found[2]) < offset:  # an empty range: should have been a 416
            response.close()
            return Answer(None, offset, total, headers.get("ETag"), _stated(headers))
        return Answer(response, offset, total, headers.get("ETag"), _stated(headers))
    length = headers.get("Content-Length", "")
    return Answer(
        response,
        0,
        int(length) if length.isdecimal() else None,
        headers.get("ETag"),
        _stated(headers),
    )


def _refused(error: urllib.error.HTTPError, offset: int) -> Answer:
    """Status 416 means that nothing follows the offset, often with the total size; other errors
    are raised.
    """
    error.close()
    if error.code == 416 and offset:
        end = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        return Answer(
            None,
            offset,
            int(end[1]) if end else None,
            error.headers.get("ETag"),
            _stated(error.headers),
        )
    raise HttpGetError(
        f"answers {error.code} {error.reason}", final=error.code not in _TRANSIENT
    ) from error


def _stated(headers: Message | Mapping[str, str]) -> str | None:
    """The digest of the file: RFC 9530, Google Cloud Storage, or the ETag of Amazon S3 for
    single-part uploads.
    """
    if found := re.search(r"sha-256=:([A-Za-z0-9+/]{43}=):", headers.get("Repr-Digest", "")):
        return f"sha256:{base64.b64decode(found[1]).hex()}"
    if found := re.search(r"md5=([A-Za-z0-9+/]{22}==)", headers.get("x-goog-hash", "")):
        return f"md5:{base64.b64decode(found[1]).hex()}"
    tag = headers.get("ETag", "").strip('"')
    plain = (
        headers.get("Server") == "AmazonS3"
        and headers.get("x-amz-server-side-encryption", "AES256") == "AES256"
    )
    return f"md5:{tag}" if plain and re.fullmatch(r"[0-9a-f]{32}", tag) else None
