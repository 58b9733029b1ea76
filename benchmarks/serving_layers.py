"""Where the time of a request goes: the same request at each layer of the server, by turns.

    python -m benchmarks.serving_layers [--rounds 20] [--backbone resnet10t]

*Bare* decodes, places and runs the network. Each further layer adds one thing: *service* the
answer and its JSON; *application* the ASGI application with its queue and threads, called in the
same process; *uvicorn* HTTP over a socket; *replica* the same inside Ray Serve, on its own port;
*proxy* HAProxy before it, which is what clients see. A small network makes the differences plain;
they do not depend on it.
"""

import argparse
import asyncio
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2

from benchmarks.serving import MODEL, Client, picture, run_apart, write_model
from mtl_ray.distributed.proxy import free_ports
from mtl_ray.distributed.serve import serving
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inputs.decode import decode_image
from mtl_ray.serving.app import App
from mtl_ray.serving.config import ServeConfig
from mtl_ray.serving.service import Service

CONFIG = ServeConfig(threads=1, parallel=1)


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
        asks: dict[str, Callable[[], object]] = {
            **stack.enter_context(in_process(bundle, body)),
            "uvicorn": Client(stack.enter_context(uvicorn_alone(bundle)), body).ask,
            "replica": Client(replica, body).ask,
            "proxy": Client(port, body).ask,
        }
        times: dict[str, list[float]] = {name: [] for name in asks}
        for turn in range(options.rounds + 1):
            for name, ask in asks.items():
                found = [timed(ask) for _ in range(options.requests)]
                times[name] += found if turn else []
    report(times)
    return 0


def timed(ask: Callable[[], object]) -> float:
    """Milliseconds of a call."""
    start = time.perf_counter()
    ask()
    return (time.perf_counter() - start) * 1e3


def report(times: dict[str, list[float]]) -> None:
    """Prints a row for each layer."""
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'ms':12}{'p50':>9}{'adds':>9}{'over bare':>11}{'p10':>9}{'adds':>9}{'over bare':>11}")
    before: dict[str, float] = {}
    bare: dict[str, float] = {}
    for name, found in times.items():
        tenths = statistics.quantiles(found, n=10)
        row = {"p50": statistics.median(found), "p10": tenths[0]}
        bare = bare or row
        cells = [
            f"{value:9.3f}{value - before.get(key, value):9.3f}{value - bare[key]:11.3f}"
            for key, value in row.items()
        ]
        print(f"{name:12}{''.join(cells)}")
        before = row


@contextmanager
def in_process(bundle: str, body: bytes) -> Iterator[dict[str, Callable[[], object]]]:
    """The layers without a socket."""
    predictor = BundlePredictor(bundle, threads=1)
    service = Service({MODEL: predictor}, CONFIG)
    asked = service.check_request(MODEL, {}, "")
    app = App(service, CONFIG, parallel=1)
    loop = asyncio.new_event_loop()
    try:
        yield {
            "bare": lambda: predictor.predict([decode_image(body)]),
            "service": lambda: service.replies(MODEL, [replace(asked, file=body)]),
            "application": lambda: loop.run_until_complete(asgi(app, body)),
        }
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
        "headers": [(b"content-length", str(len(body)).encode())],
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
def uvicorn_alone(bundle: str) -> Iterator[int]:
    """The application behind uvicorn in a process of its own; gives the port."""
    context = multiprocessing.get_context("spawn")
    (port,) = free_ports(1)
    ready = context.Event()
    process = context.Process(target=serve_uvicorn, args=(bundle, port, ready), daemon=True)
    process.start()
    try:
        assert ready.wait(120)
        time.sleep(1)
        yield port
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
