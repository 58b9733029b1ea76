"""A search on Ray.

Ray Tune starts the trials; each is an ordinary training with its share of the cluster. Ray Tune
runs as many trials as there is room for, and restarts a trial whose process or machine was lost;
the trial then resumes from its own checkpoint. ``tuning.search`` keeps the parameters and results
of all trials in the storage of the search, so a search that was killed resumes from there. Ray
Tune's own record is thrown away.
"""

import functools
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher

from mtl_ray.config.tree import Node
from mtl_ray.config.validate import to_yaml
from mtl_ray.distributed.capacity import machines, num_fitting, resources_per_worker
from mtl_ray.distributed.session import session
from mtl_ray.distributed.train import train, with_absolute_uris
from mtl_ray.distributed.tune_trial import RESULT, Train, parse_result, run_trial
from mtl_ray.experiment import ExperimentConfig, read_experiment
from mtl_ray.terminal import progress_bar
from mtl_ray.tuning.record import TrialResult
from mtl_ray.tuning.scheduler import TrialScheduler
from mtl_ray.tuning.search import Search, parameters_text

DRIVER_BYTES = 500_000_000
"""Memory that the process of a trial requests besides its workers. It requests no CPU, since the
workers may need all of them."""
_log = logging.getLogger(__name__)


def search(tree: Node, *, train: Train = train) -> Search:
    """Runs all trials that are left. Call it again to resume a search that was stopped.

    Args:
        tree: of the config file and the overrides of the command line.
        train: trains one trial.

    Returns:
        The search, of which ``done`` is False if a signal ended it.

    Raises:
        ValueError: if the config is wrong, or the folder holds another search.
    """
    found = Search(tree, with_absolute_uris(read_experiment(tree)))
    if found.done:
        _log.warning("the search %s is finished already: nothing is left to do", found.uri)
        return found
    wanted = (
        (found.tune.concurrent or 1)
        * found.config.runtime.most_workers
        * found.config.runtime.cpus_per_worker
    )
    with (
        session(num_cpus=max(os.cpu_count() or 1, int(wanted))),
        tempfile.TemporaryDirectory(prefix="mtl_ray-") as scratch,
        _quiet(),
    ):
        _tune(found, scratch, train)
    return found


def _tune(found: Search, scratch: str, train: Train) -> None:
    config = found.tune
    this_node = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    curves = {
        number: found.results[number].reports
        if number in found.results
        else found.records.curve(number)
        for number in found.trials
    }
    scheduler = ray.remote(num_cpus=0, scheduling_strategy=this_node)(TrialScheduler).remote(
        curves, config.goals[0], config.scheduler, config.grace, config.reduction
    )
    trial = functools.partial(
        run_trial, scheduler=scheduler, goals=config.goals, folder=found.uri, train=train
    )
    with progress_bar(
        total=found.total,
        initial=len(found.results),
        desc=found.config.runtime.name,
        unit="trial",
        leave=True,
    ) as bar:
        tune.Tuner(
            tune.with_resources(
                _named(trial), tune.PlacementGroupFactory([{"CPU": 0.0, "memory": DRIVER_BYTES}])
            ),
            tune_config=tune.TuneConfig(
                search_alg=_Proposer(found, bar),
                num_samples=-1,
                max_concurrent_trials=config.concurrent or max_concurrent(found.config),
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=scratch,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=config.max_failures),
            ),
        ).fit()


def max_concurrent(config: ExperimentConfig) -> int:
    """How many trials the cluster has room for now.

    An autoscaler does not say how far it can grow.
    """
    workers = num_fitting((machine.total for machine in machines()), resources_per_worker(config))
    return max(1, workers // config.runtime.most_workers)


def _named(trial: Any) -> Any:
    """Ray Tune needs a function with a name, not a partial."""

    def run(given: dict[str, Any]) -> None:
        trial(given)

    return run


class _Proposer(Searcher):  # type: ignore[misc]
    """Gives Ray Tune the next trial, and records the result of each."""

    def __init__(self, found: Search, bar: Any) -> None:
        super().__init__(metric=RESULT, mode="max")
        self._search, self._bar = found, bar
        self._numbers: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray Tune pickles this object to restore it; that is not used

    def suggest(self, trial_id: str) -> Any:
        """Called by Ray Tune."""
        trial = self._search.next()
        if trial is None:
            return Searcher.FINISHED
        self._numbers[trial_id] = trial.number
        try:
            return {
                "number": trial.number,
                "config": to_yaml(with_absolute_uris(self._search.trial_config(trial))),
            }
        except ValueError as error:
            return {"number": trial.number, "problem": str(error)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Called by Ray Tune."""
        number = self._numbers[trial_id]
        if result is not None and RESULT in result:
            ended = parse_result(result[RESULT])
        elif error:
            times = self._search.tune.max_failures + 1
            ended = TrialResult(
                state="failed",
                values=None,
                reason=f"its process or its machine was lost {times} times",
            )
        else:
            return  # the search is being stopped: the next start resumes the trial
        self._search.end(number, ended)
        self._bar.write(line_of(self._search, number), file=sys.stdout)
        self._bar.set_postfix_str(_best(self._search), refresh=False)
        self._bar.update()

    def save(self, checkpoint_path: str) -> None:
        """Called by Ray Tune; its own record is not used."""

    def restore(self, checkpoint_path: str) -> None:
        """Called by Ray Tune; its own record is not used."""


def line_of(found: Search, number: int) -> str:
    """One line about a trial that has ended."""
    result, goals = found.results[number], found.tune.goals
    if result.values is not None:
        shown = "  ".join(
            f"{goal.metric}={value:.4g}" for goal, value in zip(goals, result.values, strict=True)
        )
    else:
        last = (
            f"{goals[0].metric}={result.reports[-1].value:.4g}  "
            if result.reports and result.state == "stopped"
            else ""
        )
        shown = last + result.reason.splitlines()[0][:160]
    return (
        f"trial {number:<4} {result.state:<8} {shown}   "
        f"{parameters_text(found.trials[number].parameters)}   {result.seconds:.0f} s"
    )


def _best(found: Search) -> str:
    best = found.best()
    if not best:
        return ""
    return f"best {found.tune.goals[0].metric}={found.goal(best[0], 0):.4g} (trial {best[0]})"


@contextmanager
def _quiet() -> Iterator[None]:
    """Turns off Ray Tune's own files and tables.

    SIGTERM (``ray job stop``) ends a search as Ctrl-C does.
    """
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    main = threading.current_thread() is threading.main_thread()
    before = (
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
        if main
        else None
    )
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)
