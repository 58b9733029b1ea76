"""Training on Ray: as many workers as the cluster has room for, on whatever machines, until the run is done."""

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
from mtl_ray.distributed.board import Present, new_board
from mtl_ray.distributed.group import Group, NoRoomError
from mtl_ray.distributed.growth import Demand
from mtl_ray.distributed.nursery import Nurseries
from mtl_ray.distributed.outputs import absolute_output
from mtl_ray.distributed.session import is_private, session
from mtl_ray.distributed.work import work
from mtl_ray.distributed.world import cpus_of, draining, fit, machines, request_of, wait_for_room
from mtl_ray.experiment import ExperimentConfig
from mtl_ray.loading.config import ValSplitConfig
from mtl_ray.shards.sequence import default_lanes
from mtl_ray.training.progress import ProgressBar
from mtl_ray.training.resume import Summary, check_splits, find_resume_point, run_uri, summary_of
from mtl_ray.training.schedule import check_length

OnMetrics = Callable[[int, float, Mapping[str, float]], bool]
PATIENCE_S, PATIENCE_AFTER_LOSS_S = 45.0, 600.0
"""So long machines may take to join a cluster that does not grow by itself: at the start, and after some were lost."""
MEETING_S = 600.0
"""After so long ranks that wait for each other give up, besides the time that the last checkpoint may take."""
LOOK_EVERY_S = 2.0
"""How often the driver looks whether machines come or go."""
_log = logging.getLogger(__name__)
AnySplit = TypeVar("AnySplit", bound=ValSplitConfig)


def train(config: ExperimentConfig, *, on_metrics: OnMetrics | None = None) -> Summary:
    """Trains with ``runtime.workers`` Ray workers; the same call again goes on where the last one stopped.

    Args:
        config: of the run.
        on_metrics: called in this process after each evaluation with step, epoch and HEAD/METRIC; True ends the run there, unfinished.

    Returns:
        As ``mtl_ray.training.trainer.run``; not finished if ``on_metrics`` ended it.

    Raises:
        ValueError: as ``run``; also if the cluster can never place the workers, or a job submitted to a cluster would write to a
            relative path, which is lost with the machine that it ran on.
        FileNotFoundError: if a split is not there.
        ray.train.TrainingFailedError: if workers died more than ``runtime.max_failures`` times without a new checkpoint.
        KeyboardInterrupt, SystemExit: after SIGINT, or SIGTERM (status 143), once a checkpoint is made; a second signal does not wait.
    """
    config = with_absolute_uris(config)
    state = find_resume_point(config).state
    if state.finished:
        _log.warning("the run %s is finished already: nothing is left to do", run_uri(config))
        return summary_of(run_uri(config), state)
    check_length(config.schedule)
    check_splits(config)
    with session(num_cpus=max(os.cpu_count() or 1, cpus_of(config))), _Driver(config, on_metrics) as driver:
        return driver.run()


def with_absolute_uris(config: ExperimentConfig) -> ExperimentConfig:
    """The config with every path as other machines (or other working directories) understand it.

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
        model=replace(config.model, backbone=replace(backbone, weights=_absolute(backbone.weights))),
    )


def _absolute(uri: str | None) -> str | None:
    return None if uri is None else storage.absolute(uri)


def _absolute_split(split: AnySplit) -> AnySplit:
    uri = storage.absolute(split.uri) if isinstance(split.uri, str) else tuple(map(storage.absolute, split.uri))
    return replace(split, uri=uri)


class _Driver:
    """What the process that was asked for a training does meanwhile: shows progress, looks at the cluster, hears signals."""

    def __init__(self, config: ExperimentConfig, on_metrics: OnMetrics | None) -> None:
        self._config, self._on_metrics = config, on_metrics
        self._runtime = config.runtime
        self._request = request_of(config)
        self._board = new_board()
        self._measured = self._losses = 0
        self._nurseries = Nurseries(self._request)
        self._bar = ProgressBar(config.runtime.name)
        self._signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._looked_at = self._grouped_at = time.monotonic()
        shares = config.data.lanes or default_lanes(config.data.batch)
        self._most = max(self._runtime.fewest_workers, min(self._runtime.most_workers, shares))
        self._demand = Demand(self._request, self._runtime.fewest_workers, self._most)

    def __enter__(self) -> "_Driver":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        self._demand.close()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._bar.close()

    def _hear(self, number: int, _: object) -> None:
        if self._signal is not None:
            self._leave()
        self._signal = signal.Signals(number)
        _log.warning("%s: the run stops with a checkpoint; once more ends it without", self._signal.name)

    def run(self) -> Summary:
        """Groups of workers, until the run is done or shall end."""
        patience_s = PATIENCE_S
        while True:
            self._nurseries.spread()
            wait_for_room(
                self._runtime.fewest_workers, self._request, private=is_private(), patience_s=patience_s, watch=self._stop_if_told
            )
            patience_s = PATIENCE_AFTER_LOSS_S
            try:
                with tempfile.TemporaryDirectory(prefix="mtl_ray-") as scratch:
                    return self._finished(self._group(scratch).fit().return_value)
            except TrainingFailedError as error:
                mistake = ray.get(self._board.mistake.remote())
                if mistake is not None:
                    raise mistake from None
                self._stop_if_told()
                if not (isinstance(error, ControllerError) and isinstance(error.controller_failure, NoRoomError)):
                    raise
            except RayActorError as error:
                self._losses += 1
                if self._losses > self._runtime.max_failures:
                    raise
                _log.warning("the actors that look after the workers died and are started again: %s", str(error).splitlines()[0])
                self._board = new_board()

    def _group(self, scratch: str) -> Group:
        runtime = self._runtime
        timeout_s = runtime.save_patience_s + MEETING_S
        return Group(
            functools.partial(work, self._config, "GPU" in self._request, timeout_s, self._nurseries.family, self._board),
            name=f"{runtime.name}-{uuid.uuid4().hex[:6]}",
            storage=scratch,
            fewest=runtime.fewest_workers,
            most=self._most,
            request=self._request,
            board=self._board,
            max_failures=runtime.max_failures,
            watch=self._watch,
        )

    def _finished(self, summary: Summary) -> Summary:
        self._show()
        if not summary["finished"]:
            _log.warning("the run stopped after step %d, with a checkpoint: the same command goes on from there", summary["step"])
            self._stop_if_told()
        return summary

    def _stop_if_told(self) -> None:
        if self._signal is not None:
            self._leave()

    def _leave(self) -> None:
        if self._signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    def _watch(self) -> None:
        """Twice a second while workers train, start or die."""
        self._show()
        if self._signal is not None:
            self._board.ask.remote(self._signal.name, end=True)
        elif time.monotonic() - self._looked_at > LOOK_EVERY_S:
            self._looked_at = time.monotonic()
            self._nurseries.spread()
            self._demand.look()
            present = ray.get(self._board.present.remote())
            if self._on_metrics is None:  # the trials of a search come one after another in one job, and would each leave some
                self._nurseries.keep_spares(present)
            reason = self._change(present)
            if reason:
                _log.warning("the workers stop with a checkpoint and begin again: %s", reason)
                self._board.ask.remote(reason)

    def _show(self) -> None:
        progress, evaluations = ray.get([self._board.progress.remote(), self._board.evaluations.remote()])
        if progress is not None:
            self._bar.show(progress)
        new = [each for each in evaluations if each.step > self._measured]
        for each in new:
            self._measured = each.step
            if self._on_metrics is not None and self._on_metrics(each.step, each.epoch, each.metrics):
                self._board.ask.remote("on_metrics", end=True)

    def _change(self, present: Present) -> str:
        """Why the workers should begin again as another group; empty if they should not."""
        size, nodes = present.size, set(present.nodes)
        if not nodes or present.asked:
            self._grouped_at = time.monotonic()
            return ""
        leaving = nodes & draining()
        if leaving:
            return f"the cluster takes away {len(leaving)} of the machines"
        if size < self._most and time.monotonic() - self._grouped_at > self._runtime.grow_every_s:
            more = fit((machine.free for machine in machines() if self._nurseries.warm(machine.node_id)), self._request)
            if more:
                return f"there is room for {min(size + more, self._most)} workers instead of {size}"
        return ""
