"""Training on Ray: as many workers as the cluster has room for, on any machines, until the run
is done.
"""

import functools
import logging
import os
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import ray
from ray.exceptions import RayActorError
from ray.train import ControllerError, TrainingFailedError

from mtl_ray import storage
from mtl_ray.distributed.capacity import (
    AutoscalerRequest,
    cpus_of_all_workers,
    draining,
    machines,
    num_fitting,
    resources_per_worker,
    wait_for_room,
)
from mtl_ray.distributed.elastic_trainer import ElasticTrainer, NoRoomError
from mtl_ray.distributed.fork_server import RankForkServers
from mtl_ray.distributed.outputs import absolute_output
from mtl_ray.distributed.rank_worker import run_worker
from mtl_ray.distributed.run_state import GroupState, start_run_state
from mtl_ray.distributed.session import is_private, session
from mtl_ray.experiment import ExperimentConfig
from mtl_ray.loading.config import ValSplitConfig
from mtl_ray.shards.sequence import default_lanes
from mtl_ray.training.progress import ProgressBar
from mtl_ray.training.resume import Summary, check_splits, find_resume_point, run_uri, summary_of
from mtl_ray.training.schedule import check_length

OnMetrics = Callable[[int, float, Mapping[str, float]], bool]
PATIENCE_S, PATIENCE_AFTER_LOSS_S = 45.0, 600.0
"""How long machines may take to join a cluster without an autoscaler: at the start, and after some
were lost."""
MEETING_S = 600.0
"""Ranks that wait for each other give up after this time plus the time that the last checkpoint may
take."""
CHECK_EVERY_S = 2.0
"""How often the driver checks whether machines have come or gone."""
_log = logging.getLogger(__name__)
AnySplit = TypeVar("AnySplit", bound=ValSplitConfig)


def train(config: ExperimentConfig, *, on_metrics: OnMetrics | None = None) -> Summary:
    """Trains with ``runtime.workers`` Ray workers. Call it again to resume a run that was stopped.

    Args:
        config: of the run.
        on_metrics: called in this process after each evaluation with step, epoch and the values by
            HEAD/METRIC; if it returns True the run stops there, unfinished.

    Returns:
        As ``mtl_ray.training.trainer.run``; not finished if ``on_metrics`` ended it.

    Raises:
        ValueError: as ``run``; also if the cluster can never hold the workers, or if a job
            submitted to a cluster would write to a relative path, which is lost together with the
            machine.
        FileNotFoundError: if a split does not exist.
        ray.train.TrainingFailedError: if workers died more than ``runtime.max_failures`` times
        without a new checkpoint.
        KeyboardInterrupt, SystemExit: after SIGINT, or SIGTERM (status 143), once a checkpoint is
            saved; a second signal does not wait.
    """
    config = with_absolute_uris(config)
    state = find_resume_point(config).state
    if state.finished:
        _log.warning("the run %s is finished already: nothing is left to do", run_uri(config))
        return summary_of(run_uri(config), state)
    check_length(config.schedule)
    check_splits(config)
    with (
        session(num_cpus=max(os.cpu_count() or 1, cpus_of_all_workers(config))),
        _Driver(config, on_metrics) as driver,
    ):
        return driver.run()


def with_absolute_uris(config: ExperimentConfig) -> ExperimentConfig:
    """The config with absolute paths, which other machines and other working directories
    understand.

    Raises:
        ValueError: if the output of a submitted job is relative.
    """
    runtime, data, backbone = config.runtime, config.data, config.model.backbone
    return replace(
        config,
        runtime=replace(
            runtime,
            storage=absolute_output("runtime.storage", runtime.storage),
            load_from=_absolute(runtime.load_from),
            ledger=_absolute(runtime.ledger),
        ),
        data=replace(data, train=_absolute_split(data.train), val=_absolute_split(data.val)),
        model=replace(
            config.model,
            backbone=replace(
                backbone, **{name: storage.absolute(uri) for name, uri in backbone.paths().items()}
            ),
        ),
    )


def _absolute(uri: str | None) -> str | None:
    return None if uri is None else storage.absolute(uri)


def _absolute_split(split: AnySplit) -> AnySplit:
    uri = (
        storage.absolute(split.uri)
        if isinstance(split.uri, str)
        else tuple(map(storage.absolute, split.uri))
    )
    return replace(split, uri=uri)


class _Driver:
    """Runs in the process that started the training: shows progress, watches the cluster,
    handles signals.
    """

    def __init__(self, config: ExperimentConfig, on_metrics: OnMetrics | None) -> None:
        self._config, self._on_metrics = config, on_metrics
        self._runtime = config.runtime
        self._request = resources_per_worker(config)
        self._run_state = start_run_state()
        self._measured = self._losses = 0
        self._servers = RankForkServers(self._request)
        self._bar = ProgressBar(config.runtime.name)
        self._signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._checked_at = self._grouped_at = time.monotonic()
        shares = config.data.lanes or default_lanes(config.data.batch)
        self._most = max(self._runtime.fewest_workers, min(self._runtime.most_workers, shares))
        self._autoscaler = AutoscalerRequest(
            self._request, self._runtime.fewest_workers, self._most
        )

    def __enter__(self) -> "_Driver":
        if threading.current_thread() is threading.main_thread():
            self._before = {
                number: signal.signal(number, self._on_signal)
                for number in (signal.SIGTERM, signal.SIGINT)
            }
        return self

    def __exit__(self, *_: object) -> None:
        self._autoscaler.close()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._bar.close()

    def _on_signal(self, number: int, _: object) -> None:
        if self._signal is not None:
            self._exit()
        self._signal = signal.Signals(number)
        _log.warning(
            "%s: the run stops with a checkpoint; once more ends it without", self._signal.name
        )

    def run(self) -> Summary:
        """Starts groups of workers until the run is done or must end."""
        patience_s = PATIENCE_S
        while True:
            self._servers.update()
            wait_for_room(
                self._runtime.fewest_workers,
                self._request,
                private=is_private(),
                patience_s=patience_s,
                watch=self._exit_if_signalled,
            )
            patience_s = PATIENCE_AFTER_LOSS_S
            try:
                with tempfile.TemporaryDirectory(prefix="mtl_ray-") as scratch:
                    return self._finished(self._trainer(scratch).fit().return_value)
            except TrainingFailedError as error:
                user_error = ray.get(self._run_state.user_error.remote())
                if user_error is not None:
                    raise user_error from None
                self._exit_if_signalled()
                if not (
                    isinstance(error, ControllerError)
                    and isinstance(error.controller_failure, NoRoomError)
                ):
                    raise
            except RayActorError as error:
                self._losses += 1
                if self._losses > self._runtime.max_failures:
                    raise
                _log.warning(
                    "the actors that look after the workers died and are started again: %s",
                    str(error).splitlines()[0],
                )
                self._run_state = start_run_state()

    def _trainer(self, scratch: str) -> ElasticTrainer:
        runtime = self._runtime
        timeout_s = runtime.save_patience_s + MEETING_S
        return ElasticTrainer(
            functools.partial(
                run_worker,
                self._config,
                "GPU" in self._request,
                timeout_s,
                self._servers.code_hash,
                self._run_state,
            ),
            name=f"{runtime.name}-{uuid.uuid4().hex[:6]}",
            storage=scratch,
            fewest=runtime.fewest_workers,
            most=self._most,
            request=self._request,
            run_state=self._run_state,
            max_failures=runtime.max_failures,
            watch=self._watch,
        )

    def _finished(self, summary: Summary) -> Summary:
        self._show()
        if not summary["finished"]:
            _log.warning(
                "the run stopped after step %d, with a checkpoint: the same command goes on from "
                "there",
                summary["step"],
            )
            self._exit_if_signalled()
        return summary

    def _exit_if_signalled(self) -> None:
        if self._signal is not None:
            self._exit()

    def _exit(self) -> None:
        if self._signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    def _watch(self) -> None:
        """Twice a second while workers train, start or die."""
        self._show()
        if self._signal is not None:
            self._run_state.request_stop.remote(self._signal.name, end=True)
        elif time.monotonic() - self._checked_at > CHECK_EVERY_S:
            self._checked_at = time.monotonic()
            self._servers.update()
            self._autoscaler.update()
            group = ray.get(self._run_state.group_state.remote())
            if (
                self._on_metrics is None
                # a search runs its trials one after another in one job, and each would leave spares
                # behind
            ):
                self._servers.keep_spares(group)
            reason = self._regroup_reason(group)
            if reason:
                _log.warning("the workers stop with a checkpoint and begin again: %s", reason)
                self._run_state.request_stop.remote(reason)

    def _show(self) -> None:
        progress, evaluations = ray.get(
            [self._run_state.progress.remote(), self._run_state.new_evaluations.remote()]
        )
        if progress is not None:
            self._bar.show(progress)
        new = [each for each in evaluations if each.step > self._measured]
        for each in new:
            self._measured = each.step
            if self._on_metrics is not None and self._on_metrics(
                each.step, each.epoch, each.metrics
            ):
                self._run_state.request_stop.remote("on_metrics", end=True)

    def _regroup_reason(self, group: GroupState) -> str:
        """Why the workers must start again as another group; empty if they need not."""
        size, nodes = group.size, set(group.nodes)
        if not nodes or group.stop_requested:
            self._grouped_at = time.monotonic()
            return ""
        leaving = nodes & draining()
        if leaving:
            return f"the cluster takes away {len(leaving)} of the machines"
        if size < self._most and time.monotonic() - self._grouped_at > self._runtime.grow_every_s:
            more = num_fitting(
                (machine.free for machine in machines() if self._servers.is_warm(machine.node_id)),
                self._request,
            )
            if more:
                return f"there is room for {min(size + more, self._most)} workers instead of {size}"
        return ""
