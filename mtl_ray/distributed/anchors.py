"""Anchors by Optuna through Ray Tune: each trial climbs from the anchors that the sampler
proposes.
"""

import logging
import os
import tempfile
from typing import Any, Literal

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import BaseSampler, CmaEsSampler, TPESampler
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from mtl_ray.distributed.session import session
from mtl_ray.terminal import progress_bar
from mtl_ray.tuning.anchor_climb import climb_anchors
from mtl_ray.tuning.anchor_points import BoxShapes, Shapes, reduced_points
from mtl_ray.tuning.anchors import COARSE, kmeans_anchors, refine_anchors

Sampler = Literal["tpe", "cmaes"]
ROUNDS = 20
"""Of each climb."""


def search_anchors(
    shapes: Shapes,
    num: int,
    *,
    sampler: Sampler = "tpe",
    trials: int = 40,
    workers: int = 1,
    seed: int = 0,
) -> Shapes:
    """Proposes the logarithms of all sides, climbs from them, and refines the best; the first trial
    begins with k-means.

    Args:
        shapes: (N, 2) of the boxes, above 0.
        num: of anchors.
        sampler: TPE (Bergstra et al. 2011) or CMA-ES (Hansen and Ostermeier 2001).
        trials: how many.
        workers: trials at a time; with more than one their order, and so the proposals, depend on
            timing.
        seed: of the sampler.

    Returns:
        (num, 2) by area.

    Raises:
        ValueError: if there is nothing to try, or no trial has ended.
    """
    if min(trials, workers) < 1:
        raise ValueError(f"--trials is {trials} and --workers {workers}; both must be at least 1")
    points, start = reduced_points(shapes, COARSE), kmeans_anchors(shapes, num, seed=seed)
    with (
        session(num_cpus=max(os.cpu_count() or 1, workers)),
        tempfile.TemporaryDirectory(prefix="mtl_ray-") as scratch,
    ):
        _quiet()
        with progress_bar(total=trials, desc="anchors", unit="trial") as bar:
            results = _tuner(
                points, start, _sampler(sampler, seed), trials, workers, scratch, bar
            ).fit()
        ended = [
            result.metrics for result in results if result.metrics and "anchors" in result.metrics
        ]
    if not ended:
        raise ValueError(
            "no trial of Optuna has ended: "
            f"{results.errors[0] if results.errors else 'the search was stopped'}"
        )
    best = max(ended, key=lambda metrics: float(metrics["average"]))
    return refine_anchors(shapes, np.array(best["anchors"]))


def _sampler(name: Sampler, seed: int) -> BaseSampler:
    if name == "tpe":
        return TPESampler(seed=seed, multivariate=True)
    return CmaEsSampler(seed=seed)


def _tuner(
    points: BoxShapes,
    start: Shapes,
    sampler: BaseSampler,
    trials: int,
    workers: int,
    scratch: str,
    bar: Any,
) -> tune.Tuner:
    sides = np.log(np.stack([points.width, points.height]))
    space = {
        f"{name}{index}": optuna.distributions.FloatDistribution(
            float(side.min()), float(max(side.max(), side.min() + 1e-6))
        )
        for index in range(len(start))
        for name, side in zip(("w", "h"), sides, strict=True)
    }
    first = dict(zip(space, np.log(start).ravel().tolist(), strict=True))
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(_Climb, points=points), {"CPU": 1}),
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(
                space, metric="average", mode="max", sampler=sampler, points_to_evaluate=[first]
            ),
            num_samples=trials,
            max_concurrent_trials=workers,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="anchors",
            storage_path=scratch,
            verbose=0,
            callbacks=[_Shown(bar)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )


class _Climb(tune.Trainable):  # type: ignore[misc]
    """One process climbs for one trial after the other."""

    def setup(self, config: dict[str, float], points: BoxShapes) -> None:
        """Of Ray Tune."""
        self._points, self._config = points, config

    def reset_config(self, new_config: dict[str, float]) -> bool:
        """Of Ray Tune."""
        self._config = new_config
        return True

    def step(self) -> dict[str, Any]:
        """Of Ray Tune."""
        logs: NDArray[np.float64] = np.array(
            [[self._config[f"{side}{i}"] for side in "wh"] for i in range(len(self._config) // 2)]
        )
        anchors = climb_anchors(self._points, np.exp(logs), ROUNDS)
        return {"average": self._points.average(anchors), "anchors": anchors.tolist(), "done": True}


class _Shown(tune.Callback):  # type: ignore[misc]
    """Tells the progress bar of each trial that has ended."""

    def __init__(self, bar: Any) -> None:
        self._bar, self._best = bar, 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray Tune writes down what it is given, to restore it in a way that is not used

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Of Ray Tune."""
        self._best = max(self._best, float(trial.last_result.get("average", 0.0)))
        self._bar.set_postfix_str(f"average IoU {self._best:.4f}", refresh=False)
        self._bar.update()


def _quiet() -> None:
    """Without Ray Tune's own files and tables."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
