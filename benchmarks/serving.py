"""What HTTP and Ray Serve cost beside bare onnxruntime: one client's latency, and the throughput of
eight.

    python -m benchmarks.serving [--rounds 5] [--backbone resnet18]

A classifier with random weights at 224 x 224 answers a JPEG of about 127 kB (640 x 427 pixels).
*Bare* is the same work in a process without HTTP: decode, place, onnxruntime. Bare and HTTP take
turns within one run, so neighbours on the machine slow both. The cores' limit is what as many bare
processes as there are cores do in the same time; the clients run on the same cores.
"""

import argparse
import json
import multiprocessing
import os
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.context import SpawnContext
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
from sklearn.datasets import load_sample_image

from mtl_ray.distributed.proxy import free_ports
from mtl_ray.distributed.serve import serving
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inputs.decode import decode_image
from mtl_ray.serving.config import ServeConfig

CLIENTS = 8
MODEL = "classifier"


def main(argv: list[str] | None = None) -> int:
    """Prints the figures of every round and the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement")
    parser.add_argument("--backbone", default="resnet18", help="a model of timm")
    parser.add_argument("--replicas", type=int, default=1)
    options = parser.parse_args(argv)
    cv2.setNumThreads(1)
    body = picture()
    with tempfile.TemporaryDirectory() as folder:
        bundle = str(Path(folder) / "bundle")
        # torch stays out of the processes that are measured
        context = multiprocessing.get_context("spawn")
        run_apart(context, write_model, bundle, options.backbone)
        (port,) = free_ports(1)
        with serving({MODEL: bundle}, ServeConfig(port=port, replicas=options.replicas)):
            rounds = [
                one_round(context, bundle, body, port, options.seconds)
                for _ in range(options.rounds)
            ]
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for name in rounds[0]:
        values = [each[name] for each in rounds]
        print(
            f"{name:42} {statistics.median(values):9.3f}   of "
            f"{', '.join(f'{value:.3f}' for value in values)}"
        )
    return 0


def one_round(
    context: SpawnContext, bundle: str, body: bytes, port: int, seconds: float
) -> dict[str, float]:
    """Latency of one, then throughput of all, each bare and over HTTP."""
    (bare,) = together(context, 1, bare_loop, bundle, body, seconds)
    (http,) = together(context, 1, http_loop, port, body, seconds)
    limit = together(context, os.cpu_count() or 1, bare_loop, bundle, body, seconds)
    clients = together(context, 1, http_clients, port, body, seconds)[0]
    found = {
        "bare p50, ms": 1e3 * statistics.median(bare),
        "HTTP p50, ms": 1e3 * statistics.median(http),
        "HTTP p50 over bare, ms": 1e3 * (statistics.median(http) - statistics.median(bare)),
        "limit of the cores, images/s": sum(map(len, limit)) / seconds,
        f"HTTP, {CLIENTS} clients, images/s": len(clients) / seconds,
    }
    return found | {
        "share of the limit": found[f"HTTP, {CLIENTS} clients, images/s"]
        / found["limit of the cores, images/s"]
    }


def picture() -> bytes:
    """A photograph as a JPEG of about 127 kB."""
    image = load_sample_image("china.jpg")
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 93])[1].tobytes()


def write_model(to: str, backbone: str) -> None:
    """A bundle of a classifier that nobody trained."""
    from pydantic import TypeAdapter

    from mtl_ray.experiment import ModelConfig, build_model
    from mtl_ray.export.bundle import write_bundle
    from mtl_ray.export.config import ExportConfig
    from mtl_ray.export.verify import CheckSamples, generate_samples
    from mtl_ray.inference.torch_predictor import TorchPredictor
    from mtl_ray.inputs.image import IMAGE, Canvas
    from mtl_ray.samples import Vocabulary

    values = {
        "backbone": {"name": backbone, "levels": ["C5"]},
        "necks": {"pool": {"type": "pool"}},
        "heads": {"labels": {"type": "linear"}},
    }
    config = TypeAdapter(ModelConfig).validate_python(values)
    vocabulary = Vocabulary(
        classes={"labels": tuple(f"class {i}" for i in range(10))}, exclusive_labels=True
    )
    predictor = TorchPredictor(
        build_model(config, vocabulary),
        config.heads,
        vocabulary,
        Canvas(kind="crop", height=224, width=224),
    )
    samples = CheckSamples(samples=generate_samples(IMAGE, 3))
    write_bundle(predictor, samples, to, ExportConfig())


def run_apart(context: SpawnContext, function: Callable[..., None], *arguments: object) -> None:
    """Calls a function in a process of its own."""
    process = context.Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0


def together(
    context: SpawnContext, count: int, loop: Callable[..., None], *arguments: object
) -> list[list[float]]:
    """The latencies that each of some processes saw in the same seconds."""
    ready, results = context.Barrier(count), context.Queue()
    processes = [
        context.Process(target=loop, args=(ready, results, *arguments)) for _ in range(count)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=300) for _ in processes]
    for process in processes:
        process.join()
    return found


def bare_loop(ready: Barrier, results: Queue, bundle: str, body: bytes, seconds: float) -> None:
    """Decode, place, onnxruntime."""
    cv2.setNumThreads(1)
    predictor = BundlePredictor(bundle, threads=1)
    results.put(measured(lambda: predictor.predict([decode_image(body)]), ready, seconds))


def http_loop(ready: Barrier, results: Queue, port: int, body: bytes, seconds: float) -> None:
    """One client."""
    results.put(measured(Client(port, body).ask, ready, seconds))


def http_clients(ready: Barrier, results: Queue, port: int, body: bytes, seconds: float) -> None:
    """Eight clients in threads."""
    clients = [Client(port, body) for _ in range(CLIENTS)]
    latencies: list[float] = []
    threads = [
        threading.Thread(target=lambda client=client: latencies.extend(timed(client.ask, seconds)))
        for client in clients
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put(latencies)


def measured(work: Callable[[], object], ready: Barrier, seconds: float) -> list[float]:
    """Latencies of ``work`` after a warm-up, begun at the same moment in all processes."""
    for _ in range(10):
        work()
    ready.wait()
    return timed(work, seconds)


def timed(work: Callable[[], object], seconds: float) -> list[float]:
    """Latencies of ``work`` for some seconds."""
    latencies: list[float] = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        work()
        latencies.append(time.perf_counter() - start)
    return latencies


class Client:
    """One connection that is kept open; as little work as a client can have.

    Args:
        port: of the server.
        body: of each request.
        headers: further lines of its head.
    """

    def __init__(self, port: int, body: bytes, headers: str = "") -> None:
        self.connection = socket.create_connection(("127.0.0.1", port))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request = (
            f"POST /predictions/{MODEL} HTTP/1.1\r\nHost: x\r\nContent-Length: "
            f"{len(body)}\r\n{headers}\r\n".encode()
            + body
        )

    def ask(self) -> None:
        """Sends the picture and reads the answer."""
        self.connection.sendall(self.request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._some()
        head, _, rest = answer.partition(b"\r\n\r\n")
        length = next(
            int(line[15:])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        )
        while len(rest) < length:
            rest += self._some()
        assert head.startswith(b"HTTP/1.1 200"), head
        assert json.loads(rest)

    def _some(self) -> bytes:
        received = self.connection.recv(65536)
        assert received, "the server closed the connection"
        return received


if __name__ == "__main__":
    raise SystemExit(main())
