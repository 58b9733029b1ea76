"""Bundles behind Ray Serve: every replica holds all of them and takes HTTP itself.

An update does not restart replicas: each opens the new bundles beside the old ones, and then takes
requests with them. ``serve_state.py`` tells it to the replicas. Serve's own ``reconfigure`` takes
no part in it: Serve 2.60 sends a replica no requests while it reconfigures.
"""

import logging
import os
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any

import ray
from ray._private.ray_logging import stdout_deduplicator

from mtl_ray.artifact import open_artifact
from mtl_ray.distributed.lone_requests import take_lone_requests
from mtl_ray.distributed.placeholder import Placeholder
from mtl_ray.distributed.proxy import fast_proxy, serve_host
from mtl_ray.distributed.scaling import HELD, by_held_requests
from mtl_ray.distributed.serve_state import ReplicaMember, ServeState
from mtl_ray.distributed.session import session
from mtl_ray.inference.signature import read_signature
from mtl_ray.serving.asgi import Receive, Send
from mtl_ray.serving.config import ServeConfig, ServedModel, absolute_models
from mtl_ray.serving.keys import ApiKey, read_keys

APPLICATION, DEPLOYMENT = "mtl_ray", "bundles"
ENDING = re.compile(r"ServeController\.graceful_shutdown failed")
"""A raylet prints this when the controller ends, as it must, before its own last call has
returned."""
START_S = 240.0
"""How long Serve and the replicas may take to answer."""
UPDATE_S = 120.0
"""How long the replicas may take to open new bundles."""
LOOK_BACK_S, MIN_LOOK_BACK_S = 30.0, 10.5
"""Seconds of requests over which Serve averages for ``serve.autoscale``. Ray 2.60 warns below 10.
"""
FIXED = ("host", "port", "grpc_port", "replicas", "autoscale", "timeout_s", "request_log")
"""Options that an update cannot change."""
SPARE_REQUESTS = 64
"""Ray admits this many more requests to a replica than it processes, so that surplus requests get
our 503 instead of waiting in a queue."""


class Server:
    """A running server.

    Attributes:
        url: at which this machine reaches it.
    """

    def __init__(
        self, url: str, config: ServeConfig, keys: Mapping[str, ApiKey], state: ServeState
    ) -> None:
        self.url = url
        self._config, self._keys = config, keys
        self._state = state

    def update(self, config: ServeConfig) -> None:
        """Serves other models, versions or weights, or with other limits, from now on; no request
        is dropped.

        Raises:
            FileNotFoundError, ValueError: if it cannot be served. The server goes on as before.
        """
        config = absolute_models(config)
        for name in FIXED:
            if getattr(config, name) != getattr(self._config, name):
                raise ValueError(f"serve.{name} cannot change while the server runs; start it anew")
        keys = read_keys(config)
        _check_bundles(config)
        failures = self._state.update(config, keys, UPDATE_S)
        if failures:
            self._state.update(self._config, self._keys, UPDATE_S)
            raise ValueError(f"{failures[0]}. The server goes on as before")
        self._config, self._keys = config, keys

    def counts(self) -> dict[str, float]:
        """The newest metrics, added over all replicas, by series. Asks no replica."""
        return self._state.counts()


@contextmanager
def running(config: ServeConfig) -> Iterator[Server]:
    """A server that answers over HTTP while the code inside runs.

    Without a session and a cluster it starts a private Ray in HAProxy mode. Inside a session, or on
    a cluster, Serve keeps its settings.

    Raises:
        ValueError: if a bundle is incomplete, the port is taken, or the key is not in the
            environment.
    """
    config = absolute_models(config)
    _check_bundles(config)
    keys = read_keys(config)
    _check_port(config.host, config.port, "--port")
    if config.grpc_port is not None:
        _check_port(config.host, config.grpc_port, "--grpc-port")
    with ExitStack() as stack:
        if not ray.is_initialized() and "RAY_ADDRESS" not in os.environ:
            stack.enter_context(fast_proxy(config.timeout_s, config.host, config.port))
            # until Serve listens itself
            placeholder = stack.enter_context(Placeholder(config.host, config.port))
        else:
            placeholder = None
        stack.enter_context(session(num_cpus=max(os.cpu_count() or 1, config.most_replicas)))
        yield from _serving(config, keys, placeholder)


@contextmanager
def serving(models: Mapping[str, str | ServedModel], config: ServeConfig) -> Iterator[str]:
    """The same for some models.

    Args:
        models: URI of the bundle by name of the model, or its versions.
        config: address, number of replicas, limits.

    Yields:
        The URL of the server.
    """
    with running(replace(config, models=dict(models))) as server:
        yield server.url


def _check_bundles(config: ServeConfig) -> None:
    """Raises if a bundle is incomplete or does not have its engine."""
    for uri, engine in config.bundles().values():
        signature = read_signature(open_artifact(uri, kind="bundle").read("signature.json"))
        if engine is not None:
            signature.of_engine(engine)


def _serving(
    config: ServeConfig, keys: Mapping[str, ApiKey], placeholder: Placeholder | None
) -> Iterator[Server]:
    from ray import serve  # reads the environment when it is imported
    from ray.serve._private import api, client

    # 60 s are too few on a busy machine
    api.HTTP_PROXY_TIMEOUT = client.HTTP_PROXY_TIMEOUT = int(START_S)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    quiet = {"log_level": "WARNING", "enable_access_log": False}
    http = {
        "host": serve_host(config.host),
        "port": config.port,
        "request_timeout_s": config.timeout_s + 5,
    }
    # hides its warning about other nodes
    serve.start(http_options=http, logging_config=quiet | {"log_level": "ERROR"})
    if placeholder is not None:
        placeholder.close()
    try:
        state = ServeState.start(config, keys)
        application = build_application(
            config, keys, state, graceful_shutdown_wait_loop_s=0.5, logging_config=quiet
        )
        serve.run(application, name=APPLICATION, route_prefix="/")
        url = url_of(config)
        _wait(url)
        yield Server(url, config, keys, state)
    finally:
        stdout_deduplicator.skip_re = ENDING
        with suppress(TimeoutError):  # after a minute
            serve.delete(APPLICATION)  # the proxy answers until the replicas have finished
        serve.shutdown()  # ends the proxy first


def build_application(
    config: ServeConfig, keys: Mapping[str, ApiKey], state: ServeState, **options: Any
) -> Any:
    """The application of Serve for the models of a config.

    ``options`` are further options of the deployment.
    """
    from ray import serve

    deployment = serve.deployment(
        serve.ingress()(Replica),
        name=DEPLOYMENT,
        max_ongoing_requests=config.max_queued + parallel_of(config) + SPARE_REQUESTS,
        graceful_shutdown_timeout_s=config.timeout_s,
        # where Serve itself replaces replicas (serve deploy), the old ones answer until then
        max_surge_percent=100,
        **_replicas(config),
        **options,
    )
    return deployment.bind(config, keys, state)


def _replicas(config: ServeConfig) -> dict[str, Any]:
    """The options of a deployment that say how many replicas run."""
    scale = config.autoscale
    if scale is None:
        return {"num_replicas": config.replicas}
    return {
        "autoscaling_config": {
            "min_replicas": scale.min,
            "initial_replicas": max(scale.min, 1),
            "max_replicas": scale.max,
            "target_ongoing_requests": scale.target,
            "upscale_delay_s": scale.up_delay_s,
            "downscale_delay_s": scale.down_delay_s,
            "look_back_period_s": min(LOOK_BACK_S, max(scale.down_delay_s, MIN_LOOK_BACK_S)),
            "policy": {"policy_function": by_held_requests},
        }
    }


class Replica:
    """A replica: all bundles, and the HTTP application around them.

    Args:
        config: models and limits, as the server started.
        keys: that requests must contain, by name; empty if they need none.
        state: has the newest config, and takes the counts of this replica.
    """

    def __init__(self, config: ServeConfig, keys: Mapping[str, ApiKey], state: ServeState) -> None:
        import cv2

        from mtl_ray.serving.app import open_app

        _stay_on_loopback()
        # requests run in parallel: each uses its share of the cores
        cv2.setNumThreads(config.threads)
        config, keys, number = state.newest()
        member = ReplicaMember(state, number)
        self.application = open_app(config, parallel_of(config), keys, member.exchange)
        take_lone_requests(self.application)
        member.follow(self.application, parallel_of)

    def __serve_build_asgi_app__(self) -> Callable[..., Any]:
        """Called by Ray to get the application."""
        answer = self.application.in_serve

        async def application(scope: Any, receive: Receive, send: Send) -> None:
            await answer(scope, receive, send)

        return application  # a function: uvicorn takes methods for an older form of ASGI

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Ray for ``by_held_requests``."""
        return {HELD: self.application.limits.held.mean()}

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
    return config.parallel or max(
        1, (os.cpu_count() or 1) // (config.most_replicas * config.threads)
    )


def _check_port(host: str, port: int, option: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ValueError(
                f"cannot listen on {host}, port {port} ({error.strerror}); {option} chooses another"
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
