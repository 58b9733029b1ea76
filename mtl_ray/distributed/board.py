"""Where the driver and the ranks of a run on Ray tell each other things: ``ray.train.report`` would make the ranks wait for Ray."""

import logging
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mtl_ray.training.progress import Progress

POLL_S = 0.5
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Present:
    """The group that trains at this moment.

    Attributes:
        number: of the group.
        size: how many workers it has.
        nodes: where its ranks have begun, one for each.
        asked: whether the ranks were asked to stop.
        saved: whether it has saved a checkpoint.
        runtime_env: of its workers, as Ray writes it.
        controller_env: likewise of the controller, and so of what it starts beside the workers.
    """

    number: int
    size: int
    nodes: tuple[str, ...]
    asked: bool
    saved: bool
    runtime_env: str
    controller_env: str


class Board:
    """An actor. Groups of workers have numbers, so that a worker of an older group that wakes up late is not listened to.

    Within a group the ranks may begin again in new processes, which is a turn; a turn is worth it if the one before has saved something.
    """

    def __init__(self) -> None:
        self._group = 0
        self._size = 0
        self._nodes: list[str] = []
        self._runtime_env = self._controller_env = ""
        self._progress: Progress | None = None
        self._evaluations: list[Progress] = []
        self._saved = self._saved_at_start = self._saved_before = 0
        self._turn = 0
        self._again = self._done = False
        self._mistake: Exception | None = None
        self._pause = ""
        self._end = False

    def start_group(self, size: int, runtime_env: str) -> None:
        """By the controller, before it starts a group of so many workers; with its own runtime environment."""
        self._group += 1
        self._controller_env = runtime_env
        self._size, self._nodes, self._pause = size, [], ""
        self._saved_at_start = self._saved_before = self._saved
        self._turn, self._again, self._done = 0, False, False

    def join(self, node_id: str, runtime_env: str) -> int:
        """By each worker when it begins; the number of its group."""
        self._nodes.append(node_id)
        self._runtime_env = runtime_env
        return self._group

    def tell(self, group: int, progress: Progress) -> None:
        """By rank 0, often; the newest counts."""
        if group != self._group:
            return
        measured = self._progress.measured if self._progress is not None else 0
        if progress.measured > measured:
            self._evaluations.append(progress)
        self._progress = progress

    def saved(self, group: int) -> None:
        """By rank 0, when a checkpoint lies whole."""
        self._saved += group == self._group

    def fail(self, group: int, mistake: Exception) -> None:
        """By any rank: what the user has to mend; the first counts."""
        if group == self._group:
            self._mistake = self._mistake or mistake

    def ask(self, reason: str, *, end: bool = False) -> None:
        """By the driver: the ranks shall stop with a checkpoint, to begin again as another group or (``end``) for good."""
        self._pause = self._pause or reason
        self._end = self._end or end

    def asked(self, group: int, turn: int) -> tuple[bool, bool]:
        """By each rank: whether it shall stop with a checkpoint, and whether it shall end at once, since another of its turn has failed."""
        old = group != self._group
        return old or bool(self._pause) or self._end, not old and turn != self._turn

    def failed(self, group: int, turn: int, reason: str) -> bool:
        """By the worker of each rank that failed or was ended: whether the group goes on with another turn. The first of a turn decides."""
        if group != self._group:
            return False
        if turn == self._turn:
            self._turn += 1
            self._again = self._saved > self._saved_before and not self._done
            self._saved_before = self._saved
            if self._again:
                _log.warning("the ranks failed and are started again: %s", reason.strip().rpartition("\n")[2])
        return self._again

    def done(self, group: int, turn: int) -> bool:
        """By the worker of each rank that has ended well: whether that counts; not if another of its turn has failed."""
        if group == self._group and turn == self._turn:
            self._done = True
        return self._done

    def ends(self) -> bool:
        """Whether the ranks were asked to stop for good."""
        return self._end

    def pause(self) -> str:
        """Why the ranks were asked to stop, if they were."""
        return self._pause

    def present(self) -> Present:
        """The group, as it is now."""
        return Present(
            number=self._group,
            size=self._size,
            nodes=tuple(self._nodes),
            asked=bool(self._pause) or self._end,
            saved=self._saved > self._saved_at_start,
            runtime_env=self._runtime_env,
            controller_env=self._controller_env,
        )

    def num_saved(self) -> int:
        """Checkpoints so far."""
        return self._saved

    def progress(self) -> Progress | None:
        """The newest, None before the first."""
        return self._progress

    def evaluations(self) -> list[Progress]:
        """Those that were not given yet; an attempt may repeat what one before it told."""
        given, self._evaluations = self._evaluations, []
        return given

    def mistake(self) -> Exception | None:
        """What the user has to mend, if anything."""
        return self._mistake


def new_board() -> Any:
    """A board on this machine, which lives as long as the driver."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Board).remote()
