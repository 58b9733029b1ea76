"""The state that the driver and the ranks of a run on Ray share.

``ray.train.report`` would make the ranks wait for Ray.
"""

import logging
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mtl_ray.training.progress import Progress

POLL_S = 0.5
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class GroupState:
    """The group of workers that trains now.

    Attributes:
        number: of the group.
        size: number of its workers.
        nodes: the node of each rank that has started.
        stop_requested: the driver asked the ranks to stop.
        saved: the group has saved a checkpoint.
        runtime_env: runtime environment of its workers, as Ray serialises it.
        controller_env: runtime environment of the controller, and of the actors that it starts
            beside the workers.
    """

    number: int
    size: int
    nodes: tuple[str, ...]
    stop_requested: bool
    saved: bool
    runtime_env: str
    controller_env: str


class RunState:
    """An actor that holds the state of a run.

    Groups of workers are numbered, so calls of a worker that belongs to an older group have no
    effect. A group can start its ranks several times; each start is an attempt. A further attempt
    is made only if the last one saved a checkpoint.
    """

    def __init__(self) -> None:
        self._group = 0
        self._size = 0
        self._nodes: list[str] = []
        self._runtime_env = self._controller_env = ""
        self._progress: Progress | None = None
        self._evaluations: list[Progress] = []
        self._saved = self._saved_at_start = self._saved_before = 0
        self._attempt = 0
        self._again = self._done = False
        self._user_error: Exception | None = None
        self._pause_reason = ""
        self._end = False

    def start_group(self, size: int, runtime_env: str) -> None:
        """The controller calls this before it starts a group of ``size`` workers.

        ``runtime_env`` is its own runtime environment.
        """
        self._group += 1
        self._controller_env = runtime_env
        self._size, self._nodes, self._pause_reason = size, [], ""
        self._saved_at_start = self._saved_before = self._saved
        self._attempt, self._again, self._done = 0, False, False

    def join(self, node_id: str, runtime_env: str) -> int:
        """Each worker calls this when it starts. Returns the number of its group."""
        self._nodes.append(node_id)
        self._runtime_env = runtime_env
        return self._group

    def update_progress(self, group: int, progress: Progress) -> None:
        """Rank 0 calls this often; only the newest progress is kept."""
        if group != self._group:
            return
        measured = self._progress.measured if self._progress is not None else 0
        if progress.measured > measured:
            self._evaluations.append(progress)
        self._progress = progress

    def checkpoint_saved(self, group: int) -> None:
        """Rank 0 calls this when a checkpoint is complete."""
        self._saved += group == self._group

    def record_user_error(self, group: int, error: Exception) -> None:
        """Any rank calls this with an error that the user has to fix; the first one is kept."""
        if group == self._group:
            self._user_error = self._user_error or error

    def request_stop(self, reason: str, *, end: bool = False) -> None:
        """The driver calls this: the ranks must save a checkpoint and stop.

        With ``end`` no other group follows.
        """
        self._pause_reason = self._pause_reason or reason
        self._end = self._end or end

    def stop_requested(self, group: int, attempt: int) -> tuple[bool, bool]:
        """Each rank polls this.

        Returns:
            Whether the rank must save a checkpoint and stop; whether it must exit at once because
            another rank of its attempt failed.
        """
        old = group != self._group
        return old or bool(self._pause_reason) or self._end, not old and attempt != self._attempt

    def rank_failed(self, group: int, attempt: int, reason: str) -> bool:
        """The worker of each rank that failed or was killed calls this.

        Returns whether the group makes another attempt. The first call of an attempt decides.
        """
        if group != self._group:
            return False
        if attempt == self._attempt:
            self._attempt += 1
            self._again = self._saved > self._saved_before and not self._done
            self._saved_before = self._saved
            if self._again:
                _log.warning(
                    "the ranks failed and are started again: %s", reason.strip().rpartition("\n")[2]
                )
        return self._again

    def rank_done(self, group: int, attempt: int) -> bool:
        """The worker of each rank that finished calls this.

        Returns False if another rank of the attempt failed.
        """
        if group == self._group and attempt == self._attempt:
            self._done = True
        return self._done

    def end_requested(self) -> bool:
        """Whether the driver asked the ranks to stop for good."""
        return self._end

    def pause_reason(self) -> str:
        """Why the ranks were asked to stop; empty if they were not."""
        return self._pause_reason

    def group_state(self) -> GroupState:
        """The state of the current group."""
        return GroupState(
            number=self._group,
            size=self._size,
            nodes=tuple(self._nodes),
            stop_requested=bool(self._pause_reason) or self._end,
            saved=self._saved > self._saved_at_start,
            runtime_env=self._runtime_env,
            controller_env=self._controller_env,
        )

    def num_saved(self) -> int:
        """The number of checkpoints that the run has saved since this actor started."""
        return self._saved

    def progress(self) -> Progress | None:
        """The newest progress; None before the first."""
        return self._progress

    def new_evaluations(self) -> list[Progress]:
        """The evaluations since the last call.

        A later attempt may repeat evaluations of an earlier one.
        """
        new, self._evaluations = self._evaluations, []
        return new

    def user_error(self) -> Exception | None:
        """The error that the user has to fix; None if there is none."""
        return self._user_error


def start_run_state() -> Any:
    """Starts a ``RunState`` on this machine; it lives as long as the driver."""
    this_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=this_node)(RunState).remote()
