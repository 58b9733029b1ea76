"""A proxy in front of the S3 server that, in a storm, refuses requests, delays them and
truncates bodies.
"""

import http.client
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import urlsplit

FAULTS = ("500", "503", "reset", "slow", "truncated")
SLOW_S = 3.0
_CODES = {"500": "InternalError", "503": "SlowDown"}


class Storm(ThreadingHTTPServer):
    """Forwards requests; without a storm all of them.

    Args:
        address: to listen on.
        target: endpoint of the server.

    Attributes:
        share: of the requests that meet a fault.
        met: how often each fault was met.
    """

    daemon_threads = True
    request_queue_size = (
        128  # with the default of 5, connections of twelve tasks at once are refused
    )

    def __init__(self, address: str, target: str) -> None:
        super().__init__((address, 0), _Handler)
        self.target = urlsplit(target).netloc
        self.endpoint = f"http://{address}:{self.server_port}"
        self.share = 0.0
        self.met: Counter[str] = Counter()
        self._random = random.Random(1)
        self._lock = threading.Lock()

    def __enter__(self) -> "Storm":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.shutdown()
        self.server_close()

    def next(self) -> str:
        """The disturbance of the next request; empty for none."""
        with self._lock:
            fault = self._random.choice(FAULTS) if self._random.random() < self.share else ""
            self.met[fault] += 1
            return fault

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignores errors: these tests kill clients and servers."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Storm

    def _meet(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.next()
        if fault == "reset":
            self.close_connection = True
        elif fault in _CODES:
            self._answer(
                int(fault),
                {},
                f"<Error><Code>{_CODES[fault]}</Code><Message>a bad day</Message></Error>".encode(),
            )
        else:
            time.sleep(SLOW_S if fault == "slow" else 0)
            self._forward(body, short=fault == "truncated")

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _meet  # noqa: N815

    def _forward(self, body: bytes, *, short: bool) -> None:
        connection = http.client.HTTPConnection(self.server.target, timeout=30)
        try:
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            content = answer.read()
        except OSError:  # the server was killed: close the connection to the client too
            self.close_connection = True
            return
        finally:
            connection.close()
        self._answer(
            answer.status, dict(answer.getheaders()), content, short=short and self.command == "GET"
        )

    def _answer(
        self, status: int, headers: dict[str, str], body: bytes, *, short: bool = False
    ) -> None:
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
            headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body)),
        )
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if short else body)
        if short:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""
