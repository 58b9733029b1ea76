"""Bundles behind Ray Serve: every replica holds all of them and takes HTTP itself."""

import logging
import os
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import ray
from ray._private.ray_logging import stdout_deduplicator

from mtl_ray import storage
from mtl_ray.artifact import open_artifact
from mtl_ray.distributed.proxy import fast_proxy
from mtl_ray.distributed.session import session
from mtl_ray.inference.signature import read_signature
from mtl_ray.serving.config import ServeConfig

APPLICATION = "mtl_ray"
ENDING = re.compile(r"ServeController\.graceful_shutdown failed")
"""A raylet prints this when the controller ends, as it must, before its own last call has
returned."""
START_S = 120.0
SPARE_REQUESTS = 64
"""Ray admits this many more requests to a replica than it processes, so that surplus requests get
our 503 instead of waiting in a queue."""


@contextmanager
def serving(models: Mapping[str, str], config: ServeConfig) -> Iterator[str]:
    """Answers over HTTP while the code inside runs.

    Without a session and a cluster it starts a private Ray in HAProxy mode. Inside a session, or on
    a cluster, Serve keeps its settings.

    Args:
        models: URI of the bundle by name of the model.
        config: address, number of replicas, limits.

    Yields:
        The URL of the server.

    Raises:
        ValueError: if a bundle is incomplete, the port is taken, or the key is not in the
            environment.
    """
    models = {name: storage.absolute(uri) for name, uri in models.items()}
    for uri in models.values():
        signature = read_signature(open_artifact(uri, kind="bundle").read("signature.json"))
        if config.engine is not None:
            signature.of_engine(config.engine)
    key = api_key(config)
    _check_port(config)
    with ExitStack() as stack:
        if not ray.is_initialized() and "RAY_ADDRESS" not in os.environ:
            stack.enter_context(fast_proxy(config.timeout_s))
        stack.enter_context(session(num_cpus=max(os.cpu_count() or 1, config.replicas)))
        yield from _serving(models, config, key)


def _serving(models: Mapping[str, str], config: ServeConfig, key: str | None) -> Iterator[str]:
    from ray import serve  # reads the environment when it is imported

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    quiet = {"log_level": "WARNING", "enable_access_log": False}
    http = {"host": config.host, "port": config.port, "request_timeout_s": config.timeout_s + 5}
    # hides its warning about other nodes
    serve.start(http_options=http, logging_config=quiet | {"log_level": "ERROR"})
    try:
        application = build_application(
            models, config, key, graceful_shutdown_wait_loop_s=0.5, logging_config=quiet
        )
        serve.run(application, name=APPLICATION, route_prefix="/")
        url = url_of(config)
        _wait(url)
        yield url
    finally:
        stdout_deduplicator.skip_re = ENDING
        serve.shutdown()


def build_application(
    models: Mapping[str, str], config: ServeConfig, key: str | None, **options: Any
) -> Any:
    """The application of Serve for some bundles.

    ``options`` are further options of the deployment.
    """
    from ray import serve

    deployment = serve.deployment(
        serve.ingress()(Replica),
        name="bundles",
        num_replicas=config.replicas,
        max_ongoing_requests=config.max_queued + parallel_of(config) + SPARE_REQUESTS,
        graceful_shutdown_timeout_s=config.timeout_s,
        **options,
    )
    return deployment.bind(models, config, key)


class Replica:
    """A replica: all bundles, and the HTTP application around them.

    Args:
        models: URI of the bundle by name of the model.
        config: limits.
        key: the key that requests must contain; None if they need none.
    """

    def __init__(self, models: Mapping[str, str], config: ServeConfig, key: str | None) -> None:
        import cv2

        from mtl_ray.serving.app import open_app

        _stay_on_loopback()
        # requests run in parallel: each uses its share of the cores
        cv2.setNumThreads(config.threads)
        self.application = open_app(models, config, parallel_of(config), key)

    def __serve_build_asgi_app__(self) -> Callable[..., Any]:
        """Called by Ray to get the application."""
        return self.application

    def __del__(self) -> None:
        self.application.close()


def _stay_on_loopback() -> None:
    """If Ray's address is 127.0.0.1, binds the port for calls between deployments to it too.

    Each replica of Ray 2.60 opens this port on all interfaces, after the constructor of ``Replica``
    has returned.
    """
    from ray.serve._private import replica

    if ray.util.get_node_ip_address() == "127.0.0.1":
        opened = replica.add_port_to_grpc_server
        replica.add_port_to_grpc_server = lambda server, address: opened(
            server, address.replace("[::]", "127.0.0.1")
        )


def url_of(config: ServeConfig) -> str:
    """The URL at which this machine reaches the server."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)
    return f"http://[{host}]:{config.port}" if ":" in host else f"http://{host}:{config.port}"


def parallel_of(config: ServeConfig) -> int:
    """How many requests to one model a replica processes at the same time."""
    return config.parallel or max(1, (os.cpu_count() or 1) // (config.replicas * config.threads))


def api_key(config: ServeConfig) -> str | None:
    """The key that requests must contain; ValueError if the environment variable is empty."""
    if config.api_key_env is None:
        return None
    if not os.environ.get(config.api_key_env):
        raise ValueError(
            f"serve.api_key_env is {config.api_key_env}, but that environment variable is empty"
        )
    return os.environ[config.api_key_env]


def _check_port(config: ServeConfig) -> None:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError as error:
            raise ValueError(
                f"cannot listen on {config.host}, port {config.port} ({error.strerror}); --port "
                "chooses another"
            ) from error


def _wait(url: str) -> None:
    """Returns when the proxy knows the replicas."""
    give_up = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(f"{url}/ping", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
            if time.monotonic() > give_up:
                raise ValueError(
                    f"nothing answers at {url} ({error}); if Serve runs on this cluster already, "
                    "it listens elsewhere"
                ) from error
            time.sleep(0.05)
