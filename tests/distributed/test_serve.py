"""Ray Serve with bundles: as its own job, and inside a session."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from jobs.serve import main
from mtl_ray.distributed.proxy import _is_free, fast_proxy, free_ports, serve_host
from mtl_ray.distributed.serve import serving
from mtl_ray.serving.asgi import ALONE_HEADER
from mtl_ray.serving.config import ServeConfig
from tests.serving.bundles import make_bundle, two_halves

pytestmark = pytest.mark.jobs

ROOT = Path(__file__).parents[2]
KEY = "sesame"


@dataclass(frozen=True)
class Server:
    """A server that ``python -m jobs.serve`` started."""

    process: subprocess.Popen[str]
    url: str
    log: Path
    early: list[httpx.Response]
    """The answers while it started."""

    def ask(self, path: str, key: str | None = KEY, **options: object) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.request(
            "POST" if "content" in options else "GET",
            self.url + path,
            headers=headers,
            timeout=60,
            **options,
        )


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("bundles")
    return {
        "all": make_bundle(folder / "all", "boxes", "semantic", "labels"),
        "boxes": make_bundle(folder / "boxes", "boxes"),
    }


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    path.write_bytes(two_halves())
    return path


@pytest.fixture(scope="module")
def server(bundles: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    config = folder / "serve.yaml"
    config.write_text(
        f"serve:\n  models: {{all: {bundles['all']}}}\n  replicas: 2\n  max_body_bytes: 200_000\n  "
        "api_key_env: SERVER_KEY\n"
    )
    (port,) = free_ports(1)
    command = [
        sys.executable,
        "-m",
        "jobs.serve",
        str(config),
        bundles["boxes"],
        "--port",
        str(port),
        "serve.timeout_s=20",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    log = folder / "log"
    with open(log, "w") as out:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**environment, "SERVER_KEY": KEY},
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    url, early = f"http://127.0.0.1:{port}", []
    taken = socket.socket()  # the first port that Ray would try for a replica
    with suppress(OSError):
        taken.bind(("", 30_000))
        taken.listen()
    try:
        give_up = time.monotonic() + 270
        while "curl" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < give_up, log.read_text()
            for path in ("/ping", "/models", "/-/routes"):
                with suppress(httpx.HTTPError):
                    early.append(
                        httpx.get(url + path, headers={"Authorization": f"Bearer {KEY}"}, timeout=5)
                    )
            time.sleep(0.1)
        yield Server(process, url, log, early)
    finally:
        taken.close()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(120)


def ports(process: psutil.Process) -> dict[str, list[tuple[str, int]]]:
    """The ports of a process and its descendants, by their role."""
    found: dict[str, list[tuple[str, int]]] = {}
    for each in [process, *process.children(recursive=True)]:
        try:
            name, connections = " ".join(each.cmdline()), each.net_connections("inet")
        except psutil.NoSuchProcess:  # it has ended
            continue
        listening = [
            connection.laddr
            for connection in connections
            if connection.status == psutil.CONN_LISTEN
        ]
        if listening:
            found.setdefault(name, []).extend((address.ip, address.port) for address in listening)
    return found


def answers_http(address: tuple[str, int]) -> bool:
    host = {"::": "[::1]", "0.0.0.0": "127.0.0.1"}.get(
        address[0], address[0].removeprefix("::ffff:")
    )
    try:
        return bool(httpx.get(f"http://{host}:{address[1]}/", timeout=3).status_code)
    except httpx.HTTPError:
        return False


def test_only_this_machine_reaches_what_serve_opens(server: Server) -> None:
    """HAProxy has three ports (ours, statistics, metrics), each replica takes HTTP, and Ray
    keeps a proxy in reserve.
    """
    haproxy: list[tuple[str, int]] = []
    give_up = time.monotonic() + 60
    # the list may contain a process that was just replaced and has ended
    while not haproxy and time.monotonic() < give_up:
        found = ports(psutil.Process(server.process.pid))
        haproxy = [
            address
            for name, addresses in found.items()
            if "haproxy.cfg" in name
            for address in addresses
        ]
    assert len(set(haproxy)) == 3
    assert {host for host, _ in haproxy} == {"127.0.0.1"}
    ours = [
        address
        for name, addresses in found.items()
        if "ServeReplica" in name or "ProxyActor" in name
        for address in addresses
    ]
    http = [address for address in ours if answers_http(address)]
    assert len(http) >= 3, "two replicas and the proxy in reserve"
    every = {host.removeprefix("::ffff:") for addresses in found.values() for host, _ in addresses}
    assert every == {"127.0.0.1"}, "Ray's own processes too"


def test_while_it_starts_it_says_so_in_our_words(server: Server) -> None:
    for answer in server.early:
        assert answer.status_code in (200, 503), answer.text
        if answer.status_code == 503:
            assert "starting" in answer.json()["message"]
            assert answer.headers["retry-after"] == "1"
    assert "30000" not in server.log.read_text()


def test_it_answers_as_the_bundle_does(server: Server, picture: Path) -> None:
    (dog,) = server.ask("/predictions/boxes", content=picture.read_bytes()).json()
    assert dog == {
        "class_label": 1,
        "class_name": "dog",
        "bbox": [16, 8, 48, 40],
        "score": pytest.approx(0.9),
    }
    assert list(server.ask("/predictions/all", content=picture.read_bytes()).json()) == [
        "boxes",
        "semantic",
        "labels",
    ]
    assert (
        server.ask("/predictions/all?head=semantic", content=picture.read_bytes()).headers[
            "content-type"
        ]
        == "image/png"
    )
    assert [model["name"] for model in server.ask("/models").json()["models"]] == ["all", "boxes"]
    assert server.ask("/ping", key=None).json() == {"status": "Healthy"}
    assert "<canvas" in server.ask("/", key=None).text
    assert "openapi.json" in server.ask("/docs", key=None).text


def test_limits_hold_behind_the_proxy(server: Server, picture: Path) -> None:
    for answer, status in (
        (server.ask("/predictions/boxes", key=None, content=picture.read_bytes()), 401),
        (server.ask("/predictions/boxes", key="open", content=picture.read_bytes()), 401),
        (server.ask("/predictions/boxes", content=b"x" * 2_000_000), 413),
        (server.ask("/predictions/boxes", content=b"x"), 400),
        (server.ask("/predictions/nothing", content=b"x"), 404),
        (server.ask("/predictions/boxes?score_thr=2", content=b"x"), 400),
        (server.ask("/nothing"), 404),
    ):
        assert answer.status_code == status
        assert answer.json()["code"] == status
        assert "Traceback" not in answer.text


def test_the_proxy_knows_which_requests_are_alone(server: Server, picture: Path) -> None:
    """One client after the other, then several at the same time."""
    data = picture.read_bytes()

    def answered_alone() -> float:
        text = server.ask("/metrics").text  # of all replicas
        found = re.search(r'mtl_ray_alone_total\{model="boxes"\} (\d+)', text)
        return float(found[1]) if found else 0

    def ask(_: int) -> int:
        forged = {"Authorization": f"Bearer {KEY}", ALONE_HEADER: "?1"}
        address = f"{server.url}/predictions/boxes"
        return httpx.post(address, content=data, headers=forged, timeout=60).status_code

    give_up = time.monotonic() + 120
    while not answered_alone():  # on a busy machine a call may take too long
        assert ask(0) == 200
        assert time.monotonic() < give_up
    alone = answered_alone()
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(200))) == {200}
    assert answered_alone() - alone < 100, "the proxy removes the header of a client"


def test_compare_holds_and_sees_another_model(
    server: Server,
    bundles: dict[str, str],
    picture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SERVER_KEY", KEY)
    key = ["--api-key-env", "SERVER_KEY"]
    assert (
        main(["compare", f"{server.url}/predictions/all", bundles["all"], str(picture), *key]) == 0
    )
    assert "the endpoint agrees with the model" in capsys.readouterr().out
    for changes in (
        {"sure": "0.9, 0.4"},
        {"fixed": "8,8,24,41, 32,8,56,24"},
        {"kinds": "1, 1"},
        {"white": "250"},
    ):
        other = make_bundle(tmp_path / "-".join(changes), "boxes", "semantic", "labels", **changes)
        assert main(["compare", f"{server.url}/predictions/all", other, str(picture), *key]) == 1, (
            changes
        )
        assert "mismatch" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a" * 129, 'a"b', "<a>", "a,b", "", "mine.1"])
def test_every_answer_has_one_id(server: Server, picture: Path, name: str) -> None:
    """Also that of a lone request, which Serve's code does not see."""
    headers = {"X-Request-ID": name, "Authorization": f"Bearer {KEY}"}
    for answer in (
        httpx.get(f"{server.url}/ping", headers=headers),
        httpx.post(
            f"{server.url}/predictions/boxes", headers=headers, content=picture.read_bytes()
        ),
    ):
        assert answer.status_code == 200
        (given,) = answer.headers.get_list("x-request-id")
        assert (given == name) == (name == "mine.1")


def test_a_lone_request_skips_the_code_of_serve(server: Server, picture: Path) -> None:
    """Serve's code fails on this header, which HAProxy removes; so it goes to replicas directly."""
    headers = {b"serve_multiplexed_model_id": b"\xff", b"Authorization": f"Bearer {KEY}".encode()}
    replicas = [
        port
        for name, addresses in ports(psutil.Process(server.process.pid)).items()
        if "ServeReplica" in name
        for host, port in addresses
        if host == "127.0.0.1" and answers_http((host, port))
    ]
    assert replicas
    for port in replicas:
        for lone, status in ((b"?1", 200), (b"?0", 500)):
            answer = httpx.post(
                f"http://127.0.0.1:{port}/predictions/boxes",
                headers={**headers, ALONE_HEADER.encode(): lone},
                content=picture.read_bytes(),
            )
            assert answer.status_code == status


def test_sigterm_finishes_what_has_begun_and_leaves_nothing(server: Server, picture: Path) -> None:
    """The last test of this server."""
    family = psutil.Process(server.process.pid).children(recursive=True)
    body, port = picture.read_bytes(), int(server.url.rpartition(":")[2])
    head = (
        "POST /predictions/boxes HTTP/1.1\r\nHost: here\r\nConnection: close\r\n"
        f"Authorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    meanwhile = set[int]()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as begun:
        begun.sendall(head.encode() + body[:10])
        server.process.send_signal(signal.SIGTERM)
        while 503 not in meanwhile:  # all replicas have left the proxy
            meanwhile.add(httpx.get(f"{server.url}/ping", timeout=60).status_code)
        begun.sendall(body[10:])
        assert begun.recv(15) == b"HTTP/1.1 200 OK"
    assert meanwhile <= {200, 503}
    assert server.process.wait(120) == 0, server.log.read_text()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert [each.name() for each in alive] == []
    assert "Traceback" not in server.log.read_text()


@contextmanager
def haproxy(config: Path, opened: int) -> Iterator[psutil.Process]:
    """HAProxy with a config, once it listens on some ports; it ends with what started it."""
    code = (
        "import subprocess, sys, time; print(subprocess.Popen(sys.argv[1:]).pid, flush=True); "
        "time.sleep(100)"
    )
    binary = os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"]
    command = [sys.executable, "-c", code, binary, "-db", "-f", str(config)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        assert parent.stdout is not None
        process = psutil.Process(int(parent.stdout.readline()))
        try:
            give_up = time.monotonic() + 30
            while len(listening(process)) < opened:
                assert time.monotonic() < give_up
                time.sleep(0.05)
            yield process
        finally:
            parent.kill()
    assert psutil.wait_procs([process], timeout=30)[1] == []


def listening(process: psutil.Process) -> set[tuple[str, int]]:
    return {each for found in ports(process).values() for each in found}


def test_haproxy_listens_to_this_machine_and_ends_with_what_started_it(tmp_path: Path) -> None:
    statistics, metrics = free_ports(2)
    config = tmp_path / "haproxy.cfg"
    lines = [
        "defaults",
        "  mode http",
        "  timeout client 5s",
        "frontend prometheus",
        f"    bind :{metrics}",
        "listen stats",
        f"  bind *:{statistics}",
    ]
    config.write_text("\n".join([*lines, ""]))
    with fast_proxy(5), haproxy(config, 2) as process:
        assert listening(process) == {("127.0.0.1", metrics), ("127.0.0.1", statistics)}
    assert "RAY_SERVE_HAPROXY_BINARY_PATH" not in os.environ


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::", "0.0.0.0"])
def test_haproxy_listens_where_it_is_told_to(host: str, tmp_path: Path) -> None:
    """Serve is told the loopback address."""
    (port,) = free_ports(1)
    config = tmp_path / "haproxy.cfg"
    with fast_proxy(5, host, port):
        lines = ["defaults", "  mode http", "  timeout client 5s", "frontend http_frontend"]
        config.write_text("\n".join([*lines, f"    bind {serve_host(host)}:{port}", ""]))
        with haproxy(config, 1) as process:
            assert listening(process) == {(host, port)}
    assert serve_host(host) == host, "Serve on a cluster"


def test_where_nothing_is_deployed_yet_haproxy_answers_in_our_words(tmp_path: Path) -> None:
    """The lines come from Ray's own template, so the test notices a Ray that changes them."""
    from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE

    (metrics, port, nowhere) = free_ports(3)
    texts = HAPROXY_CONFIG_TEMPLATE.splitlines()
    (not_found,) = (line for line in texts if "return status 404 content-type text/plain" in line)
    (routes,) = (line for line in texts if "if routes" in line and "return" in line)
    routes = routes.replace("{{ route_info.status }}", "503").replace(
        "{{ route_info.routes_content_type }}", "text/plain"
    )
    errors = [
        line.replace("{{ config.error_file_path }}", "/nowhere")
        for line in texts
        if line.startswith("    errorfile")
    ]
    config = tmp_path / "haproxy.cfg"
    lines = [
        "defaults",
        "  mode http",
        "  timeout client 5s",
        "  timeout connect 5s",
        "  timeout server 5s",
        *errors,
    ]
    lines += [
        "frontend prometheus",
        f"    bind :{metrics}",
        "frontend http_frontend",
        f"    bind 127.0.0.1:{port}",
    ]
    lines += [
        "    acl routes path -i /-/routes",
        routes.replace("{{ route_info.routes_message }}", "not populated"),
    ]
    lines += [
        "    use_backend gone if { path /gone }",
        "    default_backend default_backend",
        "backend default_backend",
        not_found,
    ]
    config.write_text(
        "\n".join([*lines, "backend gone", f"    server one 127.0.0.1:{nowhere}", ""])
    )
    assert len(errors) == 3
    with fast_proxy(5):
        command = [os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"], "-db", "-f", str(config)]
        with (
            subprocess.Popen(command, stderr=subprocess.DEVNULL) as haproxy,
            httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
        ):
            try:
                _until_it_listens(port)
                for path in ("/ping", "/-/routes", "/gone", "/"):
                    answer = client.get(path, timeout=20)
                    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), path
                    assert answer.headers["content-type"] == "application/json"
                    assert answer.json()["code"] == 503
                assert client.post("/predictions/x", content=b"x", timeout=20).status_code == 503
                for line, status in (
                    ("OPTIONS *", b"204 No Content\r\nallow: GET, HEAD, POST, PUT, OPTIONS"),
                    ("OPTIONS http://host", b"204 No Content"),
                    ("GET *", b"400 Bad Request"),
                    ("GET host:80", b"400 Bad Request"),
                ):
                    assert _first_bytes(port, line).startswith(b"HTTP/1.1 " + status), line
            finally:
                haproxy.terminate()


def _first_bytes(port: int, line: str) -> bytes:
    """Of the answer to a request without a body; httpx would write another first line."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(f"{line} HTTP/1.1\r\nHost: host\r\n\r\n".encode())
        return connection.recv(4096)


def _until_it_listens(port: int) -> None:
    give_up = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            assert time.monotonic() < give_up
            time.sleep(0.05)


def test_servers_on_one_machine_take_different_ports_for_their_replicas() -> None:
    with fast_proxy(5):
        first = int(os.environ["RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT"])
        last = int(os.environ["RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT"])
    assert 10_000 <= first < last < 32_768, (
        "not among the ports that the system gives out by itself"
    )
    with socket.socket() as held:
        held.bind(("", first + 5))
        assert not _is_free(first + 5)
        assert _is_free(first + 6)
    assert _is_free(first + 5)


def test_inside_a_session_it_serves_and_leaves_ray_running(
    ray_session: None, bundles: dict[str, str], picture: Path
) -> None:
    import ray

    (port,) = free_ports(1)
    with serving(bundles, ServeConfig(port=port)) as url:
        answer = httpx.post(f"{url}/predictions/boxes", content=picture.read_bytes(), timeout=60)
        assert [item["class_name"] for item in answer.json()] == ["dog"]
        with (
            pytest.raises(ValueError, match="--port chooses another"),
            serving(bundles, ServeConfig(port=port)),
        ):
            pass
    assert ray.is_initialized()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["{folder}/nothing"], "no whole bundle"),
        (["{folder}/nothing", "--host", "::"], "no whole bundle"),  # the host is read first
        (["{boxes}", "{boxes}"], "Fix: rename one"),
        (["{folder}/none.yaml"], "no config file"),
        (["{boxes}", "serve.prot=1"], "port"),
        (["{boxes}", "serve.api_key_env=NO_SUCH_VARIABLE"], "is empty"),
        (["a b={boxes}"], "no whole bundle"),
        (["{folder}/empty.yaml"], "there is no model to serve"),
    ],
)
def test_mistakes_are_said_before_ray_is_started(
    arguments: list[str], part: str, bundles: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "empty.yaml").write_text("serve: {}\n")
    with pytest.raises((ValueError, FileNotFoundError), match=part):
        main([argument.format(folder=tmp_path, boxes=bundles["boxes"]) for argument in arguments])
