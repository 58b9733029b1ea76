"""A web server that behaves as it is told: it breaks off, lies about lengths, fails for a while,
knows no ranges, redirects.
"""

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal


@dataclass
class Page:
    """A file and how it is served.

    Attributes:
        data: its bytes.
        break_after: bytes of an answer after which the connection is closed.
        stated: Content-Length in place of the true one.
        failures: statuses of the first answers, one each.
        ranges: whether the server knows of ranges.
        redirect: where to go instead.
        chunked: whether the length is not said; a break then leaves a chunk open.
        digest: whether the digest is stated (RFC 9530).
        tagged: whether the version is stated.
        end: what follows when there is nothing after the offset: 416 with the length, 416 alone, or
            206 with nothing.
    """

    data: bytes = b""
    break_after: int | None = None
    stated: int | None = None
    failures: list[int] = field(default_factory=list)
    ranges: bool = True
    redirect: str = ""
    chunked: bool = False
    digest: bytes | None = None
    tagged: bool = True
    end: Literal["416", "416 alone", "206"] = "416"


@dataclass
class BadServer:
    """The server: its address, its pages by path, and what it was asked for."""

    url: str
    pages: dict[str, Page]
    asked: Counter[str] = field(default_factory=Counter)
    ranges: list[str] = field(default_factory=list)


@contextmanager
def bad_server(**pages: Page) -> Iterator[BadServer]:
    """Serves pages; ``a_zip`` is at ``/a.zip``."""
    state = BadServer("", {"/" + name.replace("_", "."): page for name, page in pages.items()})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            state.asked[self.path] += 1
            state.ranges.append(self.headers.get("Range", ""))
            page = state.pages.get(self.path)
            if page is None:
                self.send_error(404)
            elif page.failures:
                self.send_error(page.failures.pop(0))
            elif page.redirect:
                self.send_response(302)
                self.send_header("Location", page.redirect)
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self._give(page)
            self.close_connection = True

        def _give(self, page: Page) -> None:
            tag = f'"{hashlib.sha1(page.data).hexdigest()}"'
            asked, same = self.headers.get("Range"), self.headers.get("If-Range", tag) == tag
            start = (
                int(asked.removeprefix("bytes=").removesuffix("-"))
                if asked and page.ranges and same
                else 0
            )
            if start >= len(page.data) and start and page.end != "206":
                self.send_response(416)
                if page.end == "416":
                    self.send_header("Content-Range", f"bytes */{len(page.data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = page.data[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header(
                    "Content-Range",
                    f"bytes {start}-{len(page.data) - 1}/{page.stated or len(page.data)}",
                )
            if page.tagged:
                self.send_header("ETag", tag)
            if page.digest is not None:
                self.send_header("Repr-Digest", page.digest.decode())
            if page.chunked:
                self.send_header("Transfer-Encoding", "chunked")
            else:
                length = len(body) if page.stated is None else page.stated - start
                self.send_header("Content-Length", str(length))
            self.end_headers()
            sent = body[: page.break_after] if page.break_after is not None else body
            if page.chunked:
                self.wfile.write(
                    f"{len(body):x}\r\n".encode()
                    + sent
                    + (b"\r\n0\r\n\r\n" if len(sent) == len(body) else b"")
                )
            else:
                self.wfile.write(sent)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
