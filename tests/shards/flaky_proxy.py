"""A proxy before the S3 server that answers some requests as a bad day would."""

import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

FAULTS = ("503", "500", "reset", "truncated", "short", "flipped")


class FlakyProxy(ThreadingHTTPServer):
    """Forwards to a server; GETs of shards meet the faults first, in their order.

    Attributes:
        faults: what the next GETs of shards meet; "hang" never answers.
        ranges: how often each range of each shard was asked for.
        bytes_sent: bodies of shards.
    """

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(target).netloc
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.faults: list[str] = []
        self.ranges: Counter[tuple[str, str]] = Counter()
        self.bytes_sent = 0
        self.lock = threading.Lock()
        self.hanging = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FlakyProxy

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        connection = http.client.HTTPConnection(self.server.target, timeout=30)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        self._answer(answer.status, dict(answer.getheaders()), answer.read())
        connection.close()

    do_PUT = do_HEAD = do_POST = do_DELETE = _forward  # noqa: N815

    def do_GET(self) -> None:
        if ".arrow" not in self.path and ".tfrecord" not in self.path:
            return self._forward()
        with self.server.lock:
            self.server.ranges[self.path, self.headers.get("Range", "")] += 1
            fault = self.server.faults.pop(0) if self.server.faults else ""
        if fault == "hang":
            self.server.hanging.set()
            time.sleep(600)
        if fault in ("500", "503"):
            return self._answer(
                int(fault),
                {},
                b"<Error><Code>InternalError</Code><Message>a bad day</Message></Error>",
            )
        if fault == "reset":
            self.close_connection = True
            return None
        self._fault = fault
        return self._forward()

    _fault = ""

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        length = len(body)
        if self._fault in ("truncated", "short"):
            body = body[: length // 2]
            length = length if self._fault == "truncated" else len(body)
            self.close_connection = True
        if self._fault == "flipped":
            body = body[:100] + bytes([body[100] ^ 1]) + body[101:]
        self._fault = ""
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in (
                "content-length",
                "transfer-encoding",
                "connection",
                "date",
                "server",
            ):
                self.send_header(name, value)
        self.send_header(
            "Content-Length",
            headers.get("Content-Length", "0") if self.command == "HEAD" else str(length),
        )
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            if self.command == "GET" and (".arrow" in self.path or ".tfrecord" in self.path):
                self.server.bytes_sent += len(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def flaky_proxy(target: str) -> Iterator[FlakyProxy]:
    """A proxy that is there for the time of the block."""
    proxy = FlakyProxy(target)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
