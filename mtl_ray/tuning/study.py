"""The sampler of a search, on an Optuna study: proposes parameters from the results so far."""

import datetime
import hashlib
import warnings
from collections.abc import Sequence

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, CmaEsSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from mtl_ray.tuning.config import (
    Anchors,
    Choice,
    Distribution,
    Int,
    LogUniform,
    TuneConfig,
    Uniform,
)
from mtl_ray.tuning.record import Reported, Trial, TrialResult
from mtl_ray.tuning.space import (
    ParameterValue,
    TrialParameters,
    choice_names,
    choose_parameters,
    grid_parameters,
)

EPOCH = 1000
"""Steps per epoch: Optuna's steps are whole numbers."""
WARM = 10
"""Fewest trials for a warm start, which uses the best tenth of them."""
_STATES = {"complete": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}


class Study:
    """An Optuna study in memory. After a restart it is rebuilt from the records of the search.

    A trial that was stopped early has the state PRUNED in Optuna, with all its evaluations; one
    that failed has FAIL.

    Args:
        config: of the search.
        trials: of earlier starts, by number from 0.
        results: of the trials that have ended.
    """

    def __init__(
        self, config: TuneConfig, trials: Sequence[Trial], results: dict[int, TrialResult]
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._config = config
        self._grid = grid_parameters(config.space) if config.sampler == "grid" else []
        directions = [
            StudyDirection.MAXIMIZE if goal.mode == "max" else StudyDirection.MINIMIZE
            for goal in config.goals
        ]
        self.optuna = optuna.create_study(directions=directions)
        self._ids: list[int] = []
        for trial in trials:
            self.add(trial, results.get(trial.number))
        self._known = self.optuna.get_trials(deepcopy=False, states=[TrialState.COMPLETE])

    @property
    def trials(self) -> int:
        """The number of trials of the complete search."""
        return len(self._grid) or self._config.trials

    def add(self, trial: Trial, result: TrialResult | None = None) -> None:
        """Adds a trial of an earlier start, ended or not."""
        now = datetime.datetime.now()
        state = TrialState.RUNNING if result is None else _STATES[result.state]
        self.optuna.add_trial(
            FrozenTrial(
                number=-1,
                trial_id=-1,
                state=state,
                value=None,
                values=result.values if result is not None and result.state == "complete" else None,
                datetime_start=now,
                datetime_complete=None if result is None else now,
                params=dict(trial.parameters),
                distributions={
                    path: optuna_distribution(self._config.space[path]) for path in trial.parameters
                },
                user_attrs={},
                system_attrs={},
                intermediate_values=_intermediate(result.reports if result else []),
            )
        )

    def propose(self, number: int) -> TrialParameters:
        """The parameters of trial ``number``, which then counts as running.

        They depend on the seed, the number and the other trials, not on the process.
        """
        if self._grid:
            self.optuna.enqueue_trial(dict(self._grid[number]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.optuna.sampler = self._sampler(number)
            trial = self.optuna.ask()
            assert trial.number == number

            def pick(path: str, entry: Distribution) -> ParameterValue:
                return _suggest(trial, path, optuna_distribution(entry))

            return choose_parameters(self._config.space, pick)

    def _sampler(self, number: int) -> BaseSampler:
        seed = int.from_bytes(
            hashlib.blake2b(f"{self._config.seed} {number}".encode(), digest_size=4).digest(),
            "little",
        )
        random = RandomSampler(seed=seed)
        if number == 0:
            return random
        if self._config.sampler == "tpe":
            return TPESampler(
                seed=seed,
                n_startup_trials=self._config.startup,
                multivariate=True,
                group=True,
                constant_liar=True,
            )
        if self._config.sampler == "cmaes":
            return CmaEsSampler(
                seed=seed,
                n_startup_trials=self._config.startup,
                independent_sampler=random,
                warn_independent_sampling=False,
                source_trials=self._sources(),
            )
        return random

    def _sources(self) -> list[FrozenTrial] | None:
        """The trials for a warm start of CMA-ES after a restart (Nomura et al. 2021).

        Its own state is not saved.
        """
        if len(self._known) < WARM:
            return None
        shared = CmaEsSampler().infer_relative_search_space(
            self.optuna, self.optuna.get_trials(deepcopy=False)[-1]
        )
        return [
            create_trial(
                value=known.value,
                params={path: known.params[path] for path in shared},
                distributions={path: known.distributions[path] for path in shared},
            )
            for known in self._known
            if shared
        ]

    def finish(self, number: int, result: TrialResult) -> None:
        """Adds the result of a trial."""
        trial = optuna.Trial(self.optuna, self.optuna.get_trials(deepcopy=False)[number]._trial_id)
        for step, value in _intermediate(result.reports).items():
            trial.report(value, step)
        values = result.values if result.state == "complete" else None
        self.optuna.tell(number, values, state=_STATES[result.state], skip_if_finished=True)


def _intermediate(reports: Sequence[Reported]) -> dict[int, float]:
    return {round(reported.epoch * EPOCH): reported.value for reported in reports}


def optuna_distribution(entry: Distribution) -> BaseDistribution:
    """The distribution of Optuna for an entry of the space."""
    match entry:
        case Uniform():
            return FloatDistribution(entry.low, entry.high)
        case LogUniform():
            return FloatDistribution(entry.low, entry.high, log=True)
        case Int():
            return IntDistribution(
                entry.low, entry.high - (entry.high - entry.low) % entry.step, step=entry.step
            )
        case Anchors():
            return IntDistribution(entry.low, entry.high)
        case Choice():
            return CategoricalDistribution(list(choice_names(entry)))


def _suggest(trial: optuna.Trial, path: str, kind: BaseDistribution) -> ParameterValue:
    if isinstance(kind, FloatDistribution):
        return trial.suggest_float(path, kind.low, kind.high, log=kind.log)
    if isinstance(kind, IntDistribution):
        return trial.suggest_int(path, kind.low, kind.high, step=kind.step)
    assert isinstance(kind, CategoricalDistribution)
    return str(trial.suggest_categorical(path, kind.choices))
