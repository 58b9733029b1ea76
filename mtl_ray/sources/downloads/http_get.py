"""One request for a file, or for what comes after some of its bytes, and what the server says of the whole."""

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
"""Answers after which it is worth to ask again."""


class HttpGetError(Exception):
    """A place did not give the file; ``final`` if asking it again is of no use."""

    def __init__(self, reason: str, *, final: bool) -> None:
        super().__init__(reason)
        self.final = final


@dataclass(frozen=True, slots=True)
class Answer(AbstractContextManager["Answer"]):
    """What a server answers.

    Attributes:
        response: with the bytes; None where there is nothing after those that are known already.
        start: the first byte that it gives; 0 although more was asked for if the server gives files from their beginning only.
        total: bytes of the whole file; None if the server does not say.
        tag: by which the server knows this version of the file again.
        digest: of the whole file, such as ``md5:0123...``, where the server states it in a way that is known.
    """

    response: HTTPResponse | None
    start: int
    total: int | None
    tag: str | None
    digest: str | None

    def blocks(self) -> Iterator[bytes]:
        """The bytes as they come.

        Raises:
            HttpGetError: if the connection breaks.
        """
        while self.response is not None:
            try:
                block = self.response.read1(_BLOCK)  # what has come, so that nothing of it is lost when the connection breaks
            except (HTTPException, OSError) as error:
                raise HttpGetError(f"broke off: {error or type(error).__name__}", final=False) from error
            if not block:
                return
            yield block

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.response is not None:
            self.response.close()


def ask(url: str, offset: int, tag: str | None, timeout_s: float) -> Answer:
    """Asks for the bytes from an offset on.

    Args:
        url: http or https; also what it redirects to.
        offset: bytes that are there already.
        tag: of the version that they are of; of another one the server then gives all.
        timeout_s: that the server may be silent.

    Raises:
        HttpGetError: if the server cannot be reached, refuses, or answers with something else.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise HttpGetError("not an address of http or https", final=True)
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
        raise HttpGetError(str(getattr(error, "reason", "") or error or type(error).__name__), final=False) from error
    if not isinstance(response, HTTPResponse):
        raise HttpGetError("leads to an address that is neither http nor https", final=True)
    return _answer(response, offset)


def _opener() -> urllib.request.OpenerDirector:
    """Opens http and https alone; ``urlopen`` would also read local files."""
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
            raise HttpGetError(f"was asked for the bytes from {offset} on, and gives {headers.get('Content-Range')}", final=True)
        total = None if found[3] == "*" else int(found[3])
        if int(found[2]) < offset:  # nothing: it should have been a 416
            response.close()
            return Answer(None, offset, total, headers.get("ETag"), _stated(headers))
        return Answer(response, offset, total, headers.get("ETag"), _stated(headers))
    length = headers.get("Content-Length", "")
    return Answer(response, 0, int(length) if length.isdecimal() else None, headers.get("ETag"), _stated(headers))


def _refused(error: urllib.error.HTTPError, offset: int) -> Answer:
    """A server that has nothing after the offset says so with 416, and often how much it has; any other refusal is a fault."""
    error.close()
    if error.code == 416 and offset:
        end = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        return Answer(None, offset, int(end[1]) if end else None, error.headers.get("ETag"), _stated(error.headers))
    raise HttpGetError(f"answers {error.code} {error.reason}", final=error.code not in _TRANSIENT) from error


def _stated(headers: Message | Mapping[str, str]) -> str | None:
    """The digest of the whole file: RFC 9530, Google's storage, or the tag of Amazon's where a file came in one piece."""
    if found := re.search(r"sha-256=:([A-Za-z0-9+/]{43}=):", headers.get("Repr-Digest", "")):
        return f"sha256:{base64.b64decode(found[1]).hex()}"
    if found := re.search(r"md5=([A-Za-z0-9+/]{22}==)", headers.get("x-goog-hash", "")):
        return f"md5:{base64.b64decode(found[1]).hex()}"
    tag = headers.get("ETag", "").strip('"')
    plain = headers.get("Server") == "AmazonS3" and headers.get("x-amz-server-side-encryption", "AES256") == "AES256"
    return f"md5:{tag}" if plain and re.fullmatch(r"[0-9a-f]{32}", tag) else None
