"""A group of Ray Train workers that is started again, as large as the cluster allows, until the run
is done.

Ray Train asks two policies: one how many workers to start, one whether to start again after a
failure. Ours differ from Ray's:

* The number of workers follows from the free resources of the cluster.
* A group that has not saved a checkpoint is restarted only if it dies.
* Failures count only until the next checkpoint.

Both run in the controller, an actor on the node of the driver.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.controller.controller import (
    TrainControllerLoopIterationResult,
)
from ray.train.v2._internal.execution.controller.state import (
    FinishedState,
    RestartingState,
    ShuttingDownState,
)
from ray.train.v2._internal.execution.failure_handling import FailureDecision, FailurePolicy
from ray.train.v2._internal.execution.scaling_policy import (
    NoopDecision,
    ResizeDecision,
    ScalingDecision,
    ScalingPolicy,
)
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from mtl_ray.distributed.capacity import Resources, machines, num_fitting
from mtl_ray.distributed.run_state import POLL_S
from mtl_ray.distributed.spare_workers import import_hook

SETTLE_S = 5.0
"""How long a new group waits for all resources of the cluster: those of a dead group become free
after a moment."""
SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0",
}
"""Environment variables of Ray Train: how soon it notices a dead worker. The driver watches for
nodes that leave, see ``train``."""
_log = logging.getLogger(__name__)


class NoRoomError(RuntimeError):
    """Fewer workers fit than the run needs at least."""


class FittingPolicy(ScalingPolicy):  # type: ignore[misc]
    """Starts as many workers as fit.

    It never resizes a running group: the driver asks the group to stop first.
    """

    def __init__(
        self,
        scaling_config: ScalingConfig,
        fewest: int,
        most: int,
        request: Resources,
        run_state: Any,
    ) -> None:
        super().__init__(scaling_config)
        self._fewest, self._most, self._request, self._run_state = fewest, most, request, run_state

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """Called by Ray before each start."""
        size = self._size()
        ray.get(
            self._run_state.start_group.remote(
                size, ray.get_runtime_context().get_runtime_env_string()
            )
        )
        return ResizeDecision(num_workers=size, resources_per_worker=dict(self._request))

    def _size(self) -> int:
        since = time.monotonic()
        while True:
            found = machines()
            most = min(self._most, num_fitting((machine.total for machine in found), self._request))
            free = min(self._most, num_fitting((machine.free for machine in found), self._request))
            waited = time.monotonic() - since > SETTLE_S
            if free >= self._fewest and (free >= most or waited):
                return free
            if waited:
                raise NoRoomError(f"{self._fewest} workers are needed, {free} fit")
            time.sleep(0.1)

    def make_decision_for_running_worker_group(
        self, worker_group_state: Any, worker_group_status: Any
    ) -> ScalingDecision:
        """Called by Ray at each check of a running group."""
        return NoopDecision()

    def _get_num_workers_for_resource_request(self) -> int:
        return self._most

    def after_controller_start(self, train_run_context: Any) -> None:
        """Called by Ray.

        Ray's own policies start an actor that asks the autoscaler; here the driver does that.
        """

    async def before_controller_shutdown(self) -> None:
        """Called by Ray."""

    def before_controller_abort(self) -> None:
        """Called by Ray."""


class ProgressPolicy(FailurePolicy):  # type: ignore[misc]
    """Starts again after a failure, unless there were too many without a new checkpoint."""

    def __init__(self, failure_config: FailureConfig, max_failures: int, run_state: Any) -> None:
        super().__init__(failure_config)
        self._max_failures, self._run_state = max_failures, run_state
        self._failures = self._saved = 0

    def end_requested(self) -> bool:
        """Whether the driver asked the ranks to stop for good."""
        return bool(ray.get(self._run_state.end_requested.remote()))

    def make_decision(self, training_failed_error: Exception) -> FailureDecision:
        """Called by Ray after each failure."""
        no_room = isinstance(
            getattr(training_failed_error, "controller_failure", None), NoRoomError
        )
        if (
            no_room
            or ray.get(self._run_state.user_error.remote()) is not None
            or self.end_requested()
        ):
            return FailureDecision.RAISE
        if ray.get(self._run_state.pause_reason.remote()):
            return FailureDecision.RETRY
        saved = ray.get(self._run_state.num_saved.remote())
        self._failures = 1 if saved > self._saved else self._failures + 1
        self._saved = saved
        last = str(training_failed_error).strip().splitlines()[-1:]
        if self._failures > self._max_failures:
            return FailureDecision.RAISE
        _log.warning("the workers failed and are started again: %s", *last)
        time.sleep(min(30.0, 2.0 ** (self._failures - 1) - 1))
        return FailureDecision.RETRY


class _Workers(WorkerGroup):  # type: ignore[misc]
    """Shuts down workers that start but cannot synchronise: Ray 2.60 leaves them alive, and
    their GPUs taken.
    """

    def _start(self) -> None:
        try:
            super()._start()
        except Exception:
            if self.has_started():
                self._worker_group_state.shutdown()
            raise


class _Controller(TrainController):  # type: ignore[misc]
    """Starts another group after the ranks stopped with a checkpoint.

    It shuts the last group down before it counts free resources.
    """

    worker_group_cls = _Workers

    async def _step(self) -> TrainControllerLoopIterationResult:
        result = await super()._step()
        over = isinstance(result.next_state, ShuttingDownState) and isinstance(
            result.next_state.next_state, FinishedState
        )
        if over and not self._return_value["finished"] and not self._failure_policy.end_requested():
            result.next_state = RestartingState(training_failed_error=None)
        return result

    def _make_and_handle_scaling_decision_for_non_running_worker_group(
        self, controller_state: Any
    ) -> TrainControllerLoopIterationResult:
        if self._worker_group is not None:
            self._shutdown_worker_group()
        return super()._make_and_handle_scaling_decision_for_non_running_worker_group(
            controller_state
        )


class ElasticTrainer(DataParallelTrainer):  # type: ignore[misc]
    """Trains one run with as many workers as fit.

    Args:
        work: the function of each worker.
        name: of the run, for logs.
        storage: a local folder for Ray's own files.
        fewest, most: number of workers.
        request: resources of each worker.
        run_state: handle of the ``RunState``.
        max_failures: in a row, without a new checkpoint.
        watch: called about twice a second while ``fit`` runs; an exception from it ends the workers
            and leaves ``fit``.
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
        run_state: Any,
        max_failures: int,
        watch: Callable[[], None],
    ) -> None:
        super().__init__(
            work,
            scaling_config=ScalingConfig(
                num_workers=most, use_gpu="GPU" in request, resources_per_worker=dict(request)
            ),
            run_config=RunConfig(
                name=name, storage_path=storage, logging_config=LoggingConfig(log_level="WARNING")
            ),
        )
        self._scaling = FittingPolicy(self.scaling_config, fewest, most, request, run_state)
        self._failures = ProgressPolicy(FailureConfig(), max_failures, run_state)
        self._watch = watch

    def _create_default_callbacks(self) -> list[Any]:
        """Called by Ray.

        No callback is needed; Ray's own would start an actor that needs a dashboard.
        """
        return []

    def _initialize_and_run_controller(self, **given: Any) -> Any:
        """Called by Ray. It uses our policies, and calls ``watch`` instead of blocking."""
        this_node = {ray._raylet.RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()}
        remote = ray.remote(
            num_cpus=0,
            label_selector=this_node,
            runtime_env={"env_vars": SETTINGS | import_hook() | get_env_vars_to_propagate()},
        )
        controller = remote(_Controller).remote(
            **given | {"scaling_policy": self._scaling, "failure_policy": self._failures}
        )
        try:
            running = controller.run.remote()
            while not ray.wait([running], timeout=POLL_S)[0]:
                self._watch()
            ray.get(running)
            return ray.get(controller.get_result.remote())
        finally:
            ray.kill(controller)
