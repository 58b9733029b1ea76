"""Delivers an attack over a socket, and judges what came back."""

import contextlib
import json
import re
import socket
import struct
import time
from dataclasses import dataclass

from tests.serving.storm.attacks import Attack

PATIENCE_S = 40.0
"""No answer within this is a fault of the server."""
MORE_S = 0.5
"""After a whole answer: for what should not come any more."""
MOST_ANSWER = 20_000_000
PAGE = (
    b"<html><body><h1>400 Bad request</h1>\nYour browser sent an invalid request.\n</body></html>"
)
"""HAProxy answers this to what is no HTTP; no setting changes it."""
BAD = frozenset((500, 502, 504))
"""The server broke: an exception, a replica that died, an answer that did not come."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a client saw.

    Attributes:
        answer: all bytes that came.
        seconds: until the end.
        hung: whether it waited for an answer in vain.
    """

    answer: bytes
    seconds: float
    hung: bool = False

    @property
    def status(self) -> int | None:
        """Of the first answer; None without one."""
        first = self.answer.split(b" ", 2)
        ours = self.answer.startswith(b"HTTP/1.") and len(first) > 1 and first[1].isdigit()
        return int(first[1]) if ours else None


def deliver(port: int, attack: Attack) -> Outcome:
    """Does what the attack says; a server that closes early is no error."""
    start = time.monotonic()
    answer, hung = b"", False
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for part in attack.sends:
                if isinstance(part, float):
                    time.sleep(part)
                else:
                    connection.sendall(part)
        if attack.end == "half":
            with contextlib.suppress(OSError):  # the server has closed already
                connection.shutdown(socket.SHUT_WR)
        if attack.end in ("read", "half"):
            answer, hung = _read(connection)
        elif attack.end == "reset":
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    return Outcome(answer=answer, seconds=time.monotonic() - start, hung=hung)


def _read(connection: socket.socket) -> tuple[bytes, bool]:
    """All that comes until the server closes; whether an answer was awaited in vain.

    A whole answer is an end, if the connection stays open: where a client has promised more than
    it sent, HAProxy waits for the rest about as long as we do.
    """
    answer = b""
    try:
        while (chunk := connection.recv(65536)) and len(answer) < MOST_ANSWER:
            answer += chunk
            if _is_whole(answer):
                connection.settimeout(MORE_S)
    except TimeoutError:
        return answer, not _is_whole(answer)
    except OSError:  # the server has closed without reading the rest
        return answer, False
    return answer, False


def _is_whole(answer: bytes) -> bool:
    """Whether an answer has as many bytes as its Content-Length says."""
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head.lower())
    return bool(end) and length is not None and len(body) >= int(length[1])


def judge(attack: Attack, outcome: Outcome) -> str | None:
    """What is wrong with an answer, in words; None if nothing is."""
    if outcome.hung:
        return f"no end of the answer within {PATIENCE_S:g} s"
    if attack.end in ("close", "reset"):
        return None
    if not outcome.answer:
        return None if attack.may_be_silent else "no answer"
    status = outcome.status
    if status is None:
        return f"no HTTP: {outcome.answer[:60]!r}"
    if status in BAD:
        return f"status {status}: {outcome.answer[-200:]!r}"
    if status < 400:
        return None if attack.may_pass else f"status {status} to what must fail"
    if attack.no_http and outcome.answer.rstrip().endswith(PAGE):
        return None
    return _sentence(outcome.answer)


def _sentence(answer: bytes) -> str | None:
    """What is wrong with the words of a refusal."""
    head, _, body = answer.partition(b"\r\n\r\n")
    try:
        content = json.loads(body)
        words = content.get("message", content.get("error"))
    except (ValueError, AttributeError):
        return f"no JSON: {head[:80]!r} {body[:120]!r}"
    if not isinstance(words, str) or not words or "\n" in words or "Traceback" in words:
        return f"no sentence: {body[:200]!r}"
    return None if len(words) <= 600 else f"{len(words)} characters: {words[:100]!r}"
