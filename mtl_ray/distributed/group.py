"""A group of Ray Train workers that is started again, as large as fits, until the run is done.

Ray Train asks two policies what to do: one how many workers to start, one whether to start again after a failure. Ours differ from
Ray's: the number follows from what the cluster has at this moment, nothing restarts a group without a checkpoint but its death,
and failures count only as long as there is no new checkpoint in between. Both run in the controller, an actor on the driver's node.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.controller.controller import TrainControllerLoopIterationResult
from ray.train.v2._internal.execution.controller.state import FinishedState, RestartingState, ShuttingDownState
from ray.train.v2._internal.execution.failure_handling import FailureDecision, FailurePolicy
from ray.train.v2._internal.execution.scaling_policy import NoopDecision, ResizeDecision, ScalingDecision, ScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from mtl_ray.distributed.board import POLL_S
from mtl_ray.distributed.spares import hook
from mtl_ray.distributed.world import Resources, fit, machines

SETTLE_S = 5.0
"""What a dead group used is free again after a moment; so long the next one waits for all that the cluster has."""
SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0",
}
"""Of Ray Train, unless the environment says otherwise: how soon a death is seen; the driver looks for nodes that leave, see ``train``."""
_log = logging.getLogger(__name__)


class NoRoomError(RuntimeError):
    """Fewer workers fit than the run needs."""


class Sizing(ScalingPolicy):  # type: ignore[misc]
    """As many workers as fit when a group starts; a group that runs is left alone, since the driver asks it to stop in time."""

    def __init__(self, scaling_config: ScalingConfig, fewest: int, most: int, request: Resources, board: Any) -> None:
        super().__init__(scaling_config)
        self._fewest, self._most, self._request, self._board = fewest, most, request, board

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """Of Ray: before each start."""
        size = self._size()
        ray.get(self._board.start_group.remote(size, ray.get_runtime_context().get_runtime_env_string()))
        return ResizeDecision(num_workers=size, resources_per_worker=dict(self._request))

    def _size(self) -> int:
        since = time.monotonic()
        while True:
            there = machines()
            most = min(self._most, fit((machine.total for machine in there), self._request))
            free = min(self._most, fit((machine.free for machine in there), self._request))
            waited = time.monotonic() - since > SETTLE_S
            if free >= self._fewest and (free >= most or waited):
                return free
            if waited:
                raise NoRoomError(f"{self._fewest} workers are needed, {free} fit")
            time.sleep(0.1)

    def make_decision_for_running_worker_group(self, worker_group_state: Any, worker_group_status: Any) -> ScalingDecision:
        """Of Ray: at each look at a running group."""
        return NoopDecision()

    def _get_num_workers_for_resource_request(self) -> int:
        return self._most

    def after_controller_start(self, train_run_context: Any) -> None:
        """Of Ray: would start an actor that tells the autoscaler; the driver does that, where there is one."""

    async def before_controller_shutdown(self) -> None:
        """Of Ray."""

    def before_controller_abort(self) -> None:
        """Of Ray."""


class Patience(FailurePolicy):  # type: ignore[misc]
    """Starts again after failures, unless there are too many without progress."""

    def __init__(self, failure_config: FailureConfig, max_failures: int, board: Any) -> None:
        super().__init__(failure_config)
        self._max_failures, self._board = max_failures, board
        self._failures = self._saved = 0

    def ends(self) -> bool:
        """Whether the driver asked the ranks to stop for good."""
        return bool(ray.get(self._board.ends.remote()))

    def make_decision(self, training_failed_error: Exception) -> FailureDecision:
        """Of Ray: after each failure."""
        no_room = isinstance(getattr(training_failed_error, "controller_failure", None), NoRoomError)
        if no_room or ray.get(self._board.mistake.remote()) is not None or self.ends():
            return FailureDecision.RAISE
        if ray.get(self._board.pause.remote()):
            return FailureDecision.RETRY
        saved = ray.get(self._board.num_saved.remote())
        self._failures = 1 if saved > self._saved else self._failures + 1
        self._saved = saved
        last = str(training_failed_error).strip().splitlines()[-1:]
        if self._failures > self._max_failures:
            return FailureDecision.RAISE
        _log.warning("the workers failed and are started again: %s", *last)
        time.sleep(min(30.0, 2.0 ** (self._failures - 1) - 1))
        return FailureDecision.RETRY


class _Workers(WorkerGroup):  # type: ignore[misc]
    """Ray 2.60 leaves the workers of a group alive, and their GPUs taken, if they start but cannot meet."""

    def _start(self) -> None:
        try:
            super()._start()
        except Exception:
            if self.has_started():
                self._worker_group_state.shutdown()
            raise


class _Controller(TrainController):  # type: ignore[misc]
    """Starts another group where the ranks stopped with a checkpoint, and knows what is free only when the last one is gone."""

    worker_group_cls = _Workers

    async def _step(self) -> TrainControllerLoopIterationResult:
        result = await super()._step()
        over = isinstance(result.next_state, ShuttingDownState) and isinstance(result.next_state.next_state, FinishedState)
        if over and not self._return_value["finished"] and not self._failure_policy.ends():
            result.next_state = RestartingState(training_failed_error=None)
        return result

    def _make_and_handle_scaling_decision_for_non_running_worker_group(self, controller_state: Any) -> TrainControllerLoopIterationResult:
        if self._worker_group is not None:
            self._shutdown_worker_group()
        return super()._make_and_handle_scaling_decision_for_non_running_worker_group(controller_state)


class Group(DataParallelTrainer):  # type: ignore[misc]
    """The workers of one run.

    Args:
        work: what each worker does.
        name: of the run, for logs.
        storage: a local folder for Ray's own notes.
        fewest, most: workers.
        request: of each worker.
        board: see there.
        max_failures: in a row, without a new checkpoint.
        watch: called about twice a second while ``fit`` runs; what it raises ends the workers and leaves ``fit``.
    """

    def __init__(
        self,
        work: Callable[[], Any],
        *,
        name: str,
        storage: str,
        fewest: int,
        most: int,
        request: Resources,
        board: Any,
        max_failures: int,
        watch: Callable[[], None],
    ) -> None:
        super().__init__(
            work,
            scaling_config=ScalingConfig(num_workers=most, use_gpu="GPU" in request, resources_per_worker=dict(request)),
            run_config=RunConfig(name=name, storage_path=storage, logging_config=LoggingConfig(log_level="WARNING")),
        )
        self._sizing = Sizing(self.scaling_config, fewest, most, request, board)
        self._patience = Patience(FailureConfig(), max_failures, board)
        self._watch = watch

    def _create_default_callbacks(self) -> list[Any]:
        """Of Ray: none is needed; its actor that cleans up after dead controllers would ask a dashboard for them."""
        return []

    def _initialize_and_run_controller(self, **given: Any) -> Any:
        """Of Ray: with our policies, and with a driver that looks around instead of waiting."""
        here = {ray._raylet.RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()}
        remote = ray.remote(num_cpus=0, label_selector=here, runtime_env={"env_vars": SETTINGS | hook() | get_env_vars_to_propagate()})
        controller = remote(_Controller).remote(**given | {"scaling_policy": self._sizing, "failure_policy": self._patience})
        try:
            running = controller.run.remote()
            while not ray.wait([running], timeout=POLL_S)[0]:
                self._watch()
            ray.get(running)
            return ray.get(controller.get_result.remote())
        finally:
            ray.kill(controller)
