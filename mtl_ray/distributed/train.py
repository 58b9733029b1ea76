"""Training on Ray: any number of workers, on whatever machines the cluster has."""

import functools
import logging
import math
import os
import re
import signal
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray
import ray.train
from ray._private.ray_logging import stderr_deduplicator, stdout_deduplicator
from ray.train import ControllerError, FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.util.placement_group import PlacementGroup, PlacementGroupID, placement_group_table, remove_placement_group

from mtl_ray import storage
from mtl_ray.distributed.board import Board, watched
from mtl_ray.distributed.session import absolute_output, session
from mtl_ray.experiment import ExperimentConfig
from mtl_ray.loading.config import SplitConfig
from mtl_ray.training.beginning import begin, check_splits, run_uri
from mtl_ray.training.context import RunContext
from mtl_ray.training.summary import Summary, summary_of

SETTINGS = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5", "RAY_TRAIN_ENABLE_PRINT_PATCH": "0"}
"""Of Ray Train, unless the environment says otherwise: how soon the end of a run is seen, and prints that appear once."""
NOISE = re.compile("Failed to query Ray Train Controller actor state|Actor with class name: 'PreemptionWatcher'")
"""What Ray Train 2.60 says once a second where there is no dashboard, and at each start; neither means anything."""
_log = logging.getLogger(__name__)


def train(config: ExperimentConfig) -> Summary:
    """Trains with ``runtime.workers`` Ray workers; the same call again goes on where the last one stopped.

    Returns:
        As ``mtl_ray.training.trainer.run``.

    Raises:
        ValueError: as ``run``; also if the cluster can never place the workers, or a job submitted to a cluster would write to a
            relative path, which is lost with the machine that it ran on.
        FileNotFoundError: if a split is not there.
        ray.train.TrainingFailedError: if workers died more than ``runtime.max_failures`` times.
    """
    config = with_absolute_uris(config)
    state = begin(config)
    if state.finished:
        _log.warning("the run %s is finished already: nothing is left to do", run_uri(config))
        return summary_of(run_uri(config), state)
    check_splits(config)
    cpus = math.ceil(config.runtime.workers * config.runtime.cpus_per_worker)
    with session(num_cpus=max(os.cpu_count() or 1, cpus)):
        request = _request(config)
        _check_room(config.runtime.workers, request)
        for failures in range(config.runtime.max_failures + 1):
            found = _attempt(config, request, last=failures == config.runtime.max_failures)
            if found is not None:
                return found
    raise AssertionError("the last attempt gives a result or raises")


def with_absolute_uris(config: ExperimentConfig) -> ExperimentConfig:
    """The config with every path as other machines (or other working directories) understand it.

    Raises:
        ValueError: if the output of a submitted job is relative.
    """
    runtime, data, backbone = config.runtime, config.data, config.model.backbone
    return replace(
        config,
        runtime=replace(runtime, storage=absolute_output("runtime.storage", runtime.storage), load_from=_absolute(runtime.load_from)),
        data=replace(data, train=_absolute_split(data.train), val=_absolute_split(data.val)),
        model=replace(config.model, backbone=replace(backbone, weights=_absolute(backbone.weights))),
    )


def _absolute(uri: str | None) -> str | None:
    return None if uri is None else storage.absolute(uri)


def _absolute_split(split: SplitConfig) -> SplitConfig:
    uri = storage.absolute(split.uri) if isinstance(split.uri, str) else tuple(map(storage.absolute, split.uri))
    return replace(split, uri=uri)


def _request(config: ExperimentConfig) -> dict[str, float]:
    """What one worker asks of Ray. ``auto`` takes GPUs if the cluster has one for each worker."""
    gpus = ray.cluster_resources().get("GPU", 0)
    wants_gpu = config.runtime.device == "gpu" or (config.runtime.device == "auto" and gpus >= config.runtime.workers)
    return {"CPU": config.runtime.cpus_per_worker} | ({"GPU": 1.0} if wants_gpu else {})


def _check_room(workers: int, request: dict[str, float]) -> None:
    """Says if the workers cannot be placed now; other machines may come to a cluster, not to a private Ray.

    Raises:
        ValueError: if they never can.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(min(int(node.get(name, 0) / amount) for name, amount in request.items()) for node in nodes)
    if room >= workers:
        return
    had = "; ".join(", ".join(f"{name}={node.get(name, 0):g}" for name in request) for node in nodes)
    words = f"{workers} workers ask for {', '.join(f'{name}={amount:g}' for name, amount in request.items())} each; the machines have {had}"
    if not os.environ.get("RAY_ADDRESS"):
        raise ValueError(f"there is no room for the run: {words}. Set runtime.workers, runtime.cpus_per_worker or runtime.device")
    _log.warning("the run waits until the cluster has grown: %s", words)


def _attempt(config: ExperimentConfig, request: dict[str, float], last: bool) -> Summary | None:
    """One group of workers until it is done; None if it died and may be started again.

    Ray's own FailureConfig would also start again after a mistake of the user, which no repetition mends.
    """
    board = ray.remote(num_cpus=0)(Board).remote()
    with _settings(), watched(board, config.runtime.name), tempfile.TemporaryDirectory(prefix="mtl_ray-") as scratch:
        trainer = TorchTrainer(
            functools.partial(_worker, config, board),
            torch_config=TorchConfig(backend=_backend(request)),
            scaling_config=ScalingConfig(num_workers=config.runtime.workers, use_gpu="GPU" in request, resources_per_worker=dict(request)),
            run_config=RunConfig(
                name=f"{config.runtime.name}-{uuid.uuid4().hex[:6]}",
                storage_path=scratch,
                failure_config=FailureConfig(max_failures=0),
                logging_config=LoggingConfig(log_level="WARNING"),
            ),
        )
        try:
            with _cleaned():
                found: Summary = trainer.fit().return_value
        except TrainingFailedError as error:
            mistake = ray.get(board.mistake.remote())
            if mistake is not None:
                raise mistake from None
            if last:
                raise
            _log.warning("the workers failed and are started again: %s", str(error).strip().splitlines()[-1])
            return None
    return found


def _backend(request: dict[str, float]) -> str:
    """How gradients travel."""
    return "nccl" if "GPU" in request else "gloo"


def _worker(config: ExperimentConfig, board: Any) -> Summary:
    """One rank, inside a Ray worker."""
    from mtl_ray.training.trainer import run

    world = ray.train.get_context()
    context = RunContext(
        rank=world.get_world_rank(),
        world_size=world.get_world_size(),
        local_rank=world.get_local_rank(),
        device=get_device(),
        on_progress=board.tell.remote,
    )
    try:
        return run(config, context)
    except (ValueError, FileNotFoundError) as error:
        ray.get(board.fail.remote(error))
        raise


@contextmanager
def _settings() -> Iterator[None]:
    """Ray Train reads SETTINGS from the environment when ``fit`` is called; NOISE of its actors is not shown meanwhile."""
    added = {name: value for name, value in SETTINGS.items() if name not in os.environ}
    os.environ.update(added)
    shown = [(filtered, filtered.skip_re) for filtered in (stdout_deduplicator, stderr_deduplicator)]
    for filtered, _ in shown:
        filtered.skip_re = NOISE
    try:
        yield
    finally:
        for filtered, before in shown:
            filtered.skip_re = before
        for name in added:
            del os.environ[name]


@contextmanager
def _cleaned() -> Iterator[None]:
    """Puts right what ``fit`` of Ray 2.60 leaves behind: its handler of Ctrl-C, and after a failed start the workers' CPUs and GPUs."""
    main = threading.current_thread() is threading.main_thread()
    interrupt = signal.getsignal(signal.SIGINT)
    before = set(placement_group_table())
    try:
        yield
    except ControllerError:
        _free_placement_groups(before)
        raise
    finally:
        if main:
            signal.signal(signal.SIGINT, interrupt)


def _free_placement_groups(before: set[str]) -> None:
    """Removes those of this job that came since ``before``; the last bytes of an id are the job's."""
    job = ray.get_runtime_context().get_job_id()
    for name, entry in placement_group_table().items():
        if name not in before and name.endswith(job) and entry["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(name))))
