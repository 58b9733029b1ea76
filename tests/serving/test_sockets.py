"""Clients that misbehave on the wire; the server stays up."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.serving.app import App
from mtl_ray.serving.config import ServeConfig
from mtl_ray.serving.service import Service
from tests.serving.server import running

Server = tuple[App, int]
PATIENCE_S = 60
"""After so long without an answer a test gives up."""


@pytest.fixture(scope="module")
def server(bundle: Callable[..., str]) -> Iterator[Server]:
    config = ServeConfig(max_body_bytes=100_000, timeout_s=3.0)
    app = App(
        Service({"boxes": BundlePredictor(bundle("boxes"), threads=1)}, config), config, parallel=2
    )
    with running(app) as port:
        yield app, port
    app.close()


def send(port: int, *parts: bytes, end: bool = False) -> bytes:
    """Sends raw bytes; all that is answered until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        for part in parts:
            connection.sendall(part)
        if end:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


def request(length: int | str, query: str = "", close: bool = True) -> bytes:
    lines = [
        f"POST /predictions/boxes{query} HTTP/1.1",
        "Host: test",
        f"Content-Length: {length}",
    ] + ["Connection: close"] * close
    return "\r\n".join([*lines, "", ""]).encode()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def said(answer: bytes) -> Any:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


@pytest.fixture(autouse=True)
def _still_up(server: Server, picture: bytes) -> Iterator[None]:
    yield
    app, port = server
    assert status(send(port, request(len(picture)), picture)) == 200
    assert app.limits.held.count == 0


def test_body_that_ends_early(server: Server, picture: bytes) -> None:
    answer = send(server[1], request(len(picture)), picture[:50], end=True)
    assert answer == b"" or status(answer) == 400


def test_client_that_goes_away(server: Server, picture: bytes) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server[1]), timeout=PATIENCE_S) as connection:
            connection.sendall(request(len(picture)) + picture[:10])


def test_client_that_sends_too_slowly(server: Server, picture: bytes) -> None:
    answer = send(server[1], request(len(picture)), picture[:50])
    assert status(answer) == 408
    assert "in time" in said(answer)["message"]


def test_body_that_is_too_large_is_read_to_its_end_and_refused(server: Server) -> None:
    answer = send(server[1], request(3_000_000), b"x" * 3_000_000)
    assert status(answer) == 413
    assert "100,000" in said(answer)["message"]


def test_body_that_is_far_too_large_is_refused_at_its_header(server: Server) -> None:
    assert status(send(server[1], request(10**12))) == 413


def test_chunked_body(server: Server, picture: bytes) -> None:
    head = request(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    chunks = [
        b"%x\r\n%s\r\n" % (len(picture[at : at + 64]), picture[at : at + 64])
        for at in range(0, len(picture), 64)
    ]
    assert status(send(server[1], head, *chunks, b"0\r\n\r\n")) == 200
    endless = [b"%x\r\n%s\r\n" % (50_000, b"x" * 50_000)] * 4
    assert status(send(server[1], head, *endless, b"0\r\n\r\n")) == 413


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff\xfe" * 100,
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /predictions/boxes HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    ],
)
def test_what_is_no_http(server: Server, garbage: bytes) -> None:
    answer = send(server[1], garbage, end=True)
    assert b"Traceback" not in answer
    assert answer == b"" or status(answer) in (400, 404, 405)


def test_many_clients_at_once_are_all_answered(server: Server, picture: bytes) -> None:
    found: list[int] = []
    clients = [
        threading.Thread(
            target=lambda: found.append(status(send(server[1], request(len(picture)), picture)))
        )
        for _ in range(24)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join(PATIENCE_S)
    assert found == [200] * 24
