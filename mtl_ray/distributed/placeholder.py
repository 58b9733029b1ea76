"""Answers 503 on the port of a server until Serve listens there itself.

Ray needs some seconds to start. Until then a client would see a refused connection, and a load
balancer a dead machine.
"""

import select
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from mtl_ray.distributed.proxy import answer_of

BACKLOG = 128
TIMEOUT_S = 2.0
MOST_BYTES = 65_536


class Placeholder:
    """A context in which a port answers; ``close`` ends it earlier.

    Its socket allows others at the same port (SO_REUSEPORT), as HAProxy's does, so that Serve can
    begin to listen before this ends.

    Args:
        host: to listen on.
        port: to listen on.
    """

    def __init__(self, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind((host, port))
        self._socket.listen(BACKLOG)
        self._socket.setblocking(False)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="placeholder", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Answers what has arrived, and stops."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            select.select([self._socket], [], [], 0.05)
            self._accept_all()
        self._accept_all()
        self._socket.close()

    def _accept_all(self) -> None:
        with suppress(OSError):  # nobody waits any more
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    """Reads the beginning of a request, answers, and closes."""
    with suppress(OSError), connection:
        connection.settimeout(TIMEOUT_S)
        received = b""
        while b"\r\n\r\n" not in received and len(received) < MOST_BYTES:
            chunk = connection.recv(4096)
            if not chunk:
                return
            received += chunk
        connection.sendall(answer_of(503).replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        connection.shutdown(socket.SHUT_WR)
        for _ in range(64):  # the rest of a body: a reset would hide the answer
            if not connection.recv(MOST_BYTES):
                break
