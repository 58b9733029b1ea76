"""Where the time of a request goes: the same request at each layer of the server, by turns.

    python -m benchmarks.serving_layers [--rounds 20] [--backbone resnet10t]

*Bare* decodes, places and runs the network. Each further layer adds one thing: *service* the
answer and its JSON; *application* the ASGI application, called in the same process; *uvicorn* HTTP
over a socket; *replica* the same inside Ray Serve, on its own port; *proxy* HAProxy before it,
which is what clients see. All requests are alone, so none needs a thread. A small network makes the
differences plain; they do not depend on it. The processors' time of client and server together
(``cpu``) hardly depends on what else the machine does.
"""

import argparse
import asyncio
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import psutil

from benchmarks.serving import MODEL, Client, picture, run_apart, write_model
from mtl_ray.distributed.proxy import free_ports
from mtl_ray.distributed.serve import serving
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inputs.decode import decode_image
from mtl_ray.serving.app import App
from mtl_ray.serving.asgi import ALONE_HEADER
from mtl_ray.serving.config import ServeConfig
from mtl_ray.serving.service import Service
from tests.serving.storm.run import members

CONFIG = ServeConfig(threads=1, parallel=1)
ALONE = f"{ALONE_HEADER}: ?1\r\n"
"""What HAProxy adds."""


def main(argv: list[str] | None = None) -> int:
    """Prints the median and the first decile of every layer, and what it adds to the last."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--requests", type=int, default=20, help="of each layer in each round")
    parser.add_argument("--backbone", default="resnet10t", help="a model of timm")
    options = parser.parse_args(argv)
    cv2.setNumThreads(1)
    body = picture()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        bundle = str(Path(folder) / "bundle")
        context = multiprocessing.get_context("spawn")
        run_apart(context, write_model, bundle, options.backbone)
        (port,) = free_ports(1)
        stack.enter_context(serving({MODEL: bundle}, ServeConfig(port=port)))
        replica = int(os.environ["RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT"])
        serve = members(os.getpid())
        alone, process = stack.enter_context(uvicorn_alone(bundle))
        layers = [
            *(Layer(name, ask) for name, ask in stack.enter_context(in_process(bundle, body))),
            Layer("uvicorn", Client(alone, body, ALONE).ask, [process]),
            Layer("replica", Client(replica, body, ALONE).ask, serve),
            Layer("proxy", Client(port, body).ask, serve),
        ]
        for turn in range(options.rounds + 1):
            for layer in layers:
                layer.ask_often(options.requests, counted=turn > 0)
    report(layers)
    return 0


class Layer:
    """One way to ask, and what it took.

    Args:
        name: of the layer.
        ask: one request.
        processes: of the server, if they are others than this one.
    """

    def __init__(
        self, name: str, ask: Callable[[], object], processes: Sequence[psutil.Process] = ()
    ) -> None:
        self.name, self._ask, self._processes = name, ask, processes
        self.times: list[float] = []
        self.cpu_ms = 0.0

    def ask_often(self, count: int, *, counted: bool) -> None:
        """Requests one after the other."""
        before = self._cpu_s()
        found = [timed(self._ask) for _ in range(count)]
        if counted:
            self.times += found
            self.cpu_ms += 1e3 * (self._cpu_s() - before)

    def _cpu_s(self) -> float:
        """Seconds of processors so far, of this process and the server's."""
        times = [process.cpu_times() for process in self._processes]
        return time.process_time() + sum(each.user + each.system for each in times)


def timed(ask: Callable[[], object]) -> float:
    """Milliseconds of a call."""
    start = time.perf_counter()
    ask()
    return (time.perf_counter() - start) * 1e3


def report(layers: Sequence[Layer]) -> None:
    """Prints a row for each layer."""
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(
        f"{'ms':12}"
        + "".join(f"{name:>9}{'adds':>9}{'above':>9}" for name in ("p50", "p10", "cpu"))
    )
    rows = [
        {
            "p50": statistics.median(layer.times),
            "p10": statistics.quantiles(layer.times, n=10)[0],
            "cpu": layer.cpu_ms / len(layer.times),
        }
        for layer in layers
    ]
    for layer, row, before in zip(layers, rows, [rows[0], *rows], strict=False):
        cells = [
            f"{value:9.3f}{value - before[key]:9.3f}{value - rows[0][key]:9.3f}"
            for key, value in row.items()
        ]
        print(f"{layer.name:12}{''.join(cells)}")


@contextmanager
def in_process(bundle: str, body: bytes) -> Iterator[list[tuple[str, Callable[[], object]]]]:
    """The layers without a socket."""
    predictor = BundlePredictor(bundle, threads=1)
    service = Service({MODEL: predictor}, CONFIG)
    asked = service.check_request(MODEL, {}, "")
    app = App(service, CONFIG, parallel=1)
    loop = asyncio.new_event_loop()
    try:
        yield [
            ("bare", lambda: predictor.predict([decode_image(body)])),
            ("service", lambda: service.replies(MODEL, [replace(asked, file=body)])),
            ("application", lambda: loop.run_until_complete(asgi(app, body))),
        ]
    finally:
        app.close()
        loop.close()


async def asgi(app: App, body: bytes) -> None:
    """One request to an ASGI application."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": f"/predictions/{MODEL}",
        "query_string": b"",
        "headers": [
            (b"content-length", str(len(body)).encode()),
            (ALONE_HEADER.encode(), b"?1"),
        ],
    }
    sent = False

    async def receive() -> MutableMapping[str, Any]:
        nonlocal sent
        if sent:
            await asyncio.Event().wait()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        assert message.get("status", 200) == 200

    answer: Awaitable[None] = app(scope, receive, send)
    await answer


@contextmanager
def uvicorn_alone(bundle: str) -> Iterator[tuple[int, psutil.Process]]:
    """The application behind uvicorn in a process of its own; gives the port and the process."""
    context = multiprocessing.get_context("spawn")
    (port,) = free_ports(1)
    ready = context.Event()
    process = context.Process(target=serve_uvicorn, args=(bundle, port, ready), daemon=True)
    process.start()
    try:
        assert ready.wait(120)
        time.sleep(1)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.join()


def serve_uvicorn(bundle: str, port: int, ready: Event) -> None:
    """The process of ``uvicorn_alone``."""
    import uvicorn

    cv2.setNumThreads(1)
    app = App(Service({MODEL: BundlePredictor(bundle, threads=1)}, CONFIG), CONFIG, parallel=1)
    ready.set()
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", lifespan="off")


if __name__ == "__main__":
    raise SystemExit(main())
