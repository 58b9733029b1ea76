"""The metadata services of the clouds, as far as the spot watcher uses them: local HTTP servers.

A test can set the notice.
"""

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit


class Service(BaseHTTPRequestHandler):
    """The common part of all clouds: counts requests, and answers."""

    protocol_version = "HTTP/1.1"
    noticed: ClassVar[threading.Event]
    refused: ClassVar[list[str]]
    asked: ClassVar[threading.Semaphore]
    failures: ClassVar[list[int]]

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""

    def answer(self, code: int, text: str = "") -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def refuse(self, code: int) -> None:
        self.refused.append(self.path)
        self.answer(code)

    def failed(self) -> bool:
        if not self.failures:
            return False
        self.answer(self.failures.pop())
        return True


class Aws(Service):
    """IMDSv2: a token by PUT with its time to live, which each request must contain."""

    tokens: ClassVar[set[str]] = set()

    def do_PUT(self) -> None:
        if (
            self.path != "/latest/api/token"
            or not self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "").isdigit()
        ):
            self.refuse(400)
            return
        token = secrets.token_hex(8)
        self.tokens.add(token)
        self.answer(200, token)

    def do_GET(self) -> None:
        if self.failed():
            return
        if self.headers.get("X-aws-ec2-metadata-token") not in self.tokens:
            self.refuse(401)
        elif self.path != "/latest/meta-data/spot/instance-action" or not self.noticed.is_set():
            self.answer(404)
        else:
            self.answer(
                200,
                f'{{"action": "terminate", "time": '
                f'"{datetime.now(UTC) + timedelta(seconds=115):%Y-%m-%dT%H:%M:%SZ}"}}',
            )
        self.asked.release()


class Gcp(Service):
    """Answers TRUE or FALSE, at once or when the value changes."""

    def do_GET(self) -> None:
        if self.failed():
            return
        place = urlsplit(self.path)
        if (
            self.headers.get("Metadata-Flavor") != "Google"
            or place.path != "/computeMetadata/v1/instance/preempted"
        ):
            self.refuse(403)
            return
        if parse_qs(place.query).get("wait_for_change") == ["true"]:
            self.asked.release()
            self.noticed.wait(float(parse_qs(place.query)["timeout_sec"][0]))
        self.answer(200, "TRUE" if self.noticed.is_set() else "FALSE")


class Azure(Service):
    """The events of all machines of a set; this machine has the name mine."""

    def do_GET(self) -> None:
        if self.failed():
            return
        if self.headers.get("Metadata") != "true" or "api-version=" not in self.path:
            self.refuse(400)
        elif self.path.startswith("/metadata/instance/compute/name?"):
            self.answer(200, "mine")
        else:
            when = f"{datetime.now(UTC) + timedelta(seconds=28):%a, %d %b %Y %H:%M:%S GMT}"
            events = [("Preempt", "another"), ("Freeze", "mine")] + [
                ("Preempt", "mine")
            ] * self.noticed.is_set()
            listed = ", ".join(
                f'{{"EventId": "e", "EventType": "{kind}", "ResourceType": "VirtualMachine", '
                f'"Resources": ["{name}"], '
                f'"EventStatus": "Scheduled", "NotBefore": "{when}"}}'
                for kind, name in events
            )
            self.answer(200, f'{{"DocumentIncarnation": 2, "Events": [{listed}]}}')
        self.asked.release()


KINDS = {"aws": Aws, "gcp": Gcp, "azure": Azure}


@contextmanager
def metadata_service(cloud: str) -> Iterator[tuple[str, type[Service]]]:
    """The URL, and the class that holds the requests and the notice."""
    state = {
        "noticed": threading.Event(),
        "refused": [],
        "asked": threading.Semaphore(0),
        "failures": [],
    }
    service = type(cloud, (KINDS[cloud],), state)
    server = ThreadingHTTPServer(("127.0.0.1", 0), service)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", service
    finally:
        service.noticed.set()
        server.shutdown()
        server.server_close()
