"""A search: proposes the next trial, records the results, knows the best trials."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mtl_ray import storage
from mtl_ray.config.load import override_tree
from mtl_ray.config.tree import Node, find, merge
from mtl_ray.config.validate import to_yaml, values_of
from mtl_ray.experiment import (
    ExperimentConfig,
    parse_experiment,
    predicting_heads,
    read_experiment,
)
from mtl_ray.inputs.image import Canvas
from mtl_ray.shards.split import open_split
from mtl_ray.tasks.head_classes import head_metric
from mtl_ray.tasks.task import AnyHead
from mtl_ray.training.identity import differences
from mtl_ray.tuning.anchor_boxes import shapes_of
from mtl_ray.tuning.anchor_points import Shapes
from mtl_ray.tuning.anchors import by_level, fast_anchors
from mtl_ray.tuning.config import COSTS, Anchors, TuneConfig
from mtl_ray.tuning.record import Records, Trial, TrialResult, trial_name
from mtl_ray.tuning.space import TrialParameters, check_space, override, overrides_of
from mtl_ray.tuning.study import Study

MAY_CHANGE = ("trials", "concurrent", "max_failures")
"""Fields that may differ when the same search is started again."""


class Search:
    """All trials of a search, including those of earlier starts.

    Args:
        tree: of the config file and the overrides of the command line.
        config: the validated config, with absolute paths.

    Attributes:
        uri: the folder of the search, ``runtime.storage``/name.
        trials, results: by number.

    Raises:
        ValueError: if the space does not fit the config, a figure of which less is better would be
            maximised, or the folder holds another search.
    """

    def __init__(self, tree: Node, config: ExperimentConfig) -> None:
        if config.tune is None:
            raise ValueError(
                "the config has no section tune, which says what to search (space), by which "
                "metric, and how many trials"
            )
        check_space(tree, config.tune.space)
        self.config, self.tune, self._tree = config, config.tune, tree
        self.uri = storage.join(config.runtime.storage, config.runtime.name)
        self._check_same()
        self.records = Records(self.uri)
        self.trials, self.results = self.records.read()
        self.study = Study(self.tune, list(self.trials.values()), self.results)
        self.waiting = [
            trial for number, trial in self.trials.items() if number not in self.results
        ]
        self._fitted: dict[str, Shapes] = {}

    def _check_modes(self) -> None:
        """Raises a ValueError if an objective would be maximised of which less is better."""
        heads = predicting_heads(self.config.model.heads)
        for goal in self.tune.goals:
            name, _, entry = goal.metric.partition("/")
            lower = goal.metric in COSTS or (
                name in heads and entry in self._lower_is_better(name, heads[name])
            )
            if lower and goal.mode == "max":
                raise ValueError(
                    f"the search would look for the highest {goal.metric}, of which less is "
                    "better. Fix: mode: min beside it (tune.mode, or in tune.objectives)"
                )

    def _lower_is_better(self, name: str, head: AnyHead) -> frozenset[str]:
        try:
            vocabulary = open_split(self.config.data.val.uris[0]).vocabulary
        except FileNotFoundError:  # the first trial says it
            return frozenset()
        if head.annotation not in vocabulary.classes:
            return frozenset()
        return head_metric(head, vocabulary).lower_is_better

    def _check_same(self) -> None:
        uri = storage.join(self.uri, "search.yaml")
        if not storage.exists(uri):
            self._check_modes()
        if storage.write_new(uri, to_yaml(self.config).encode()):
            return
        before = parse_experiment(storage.read(uri).decode(), uri)
        assert before.tune is not None
        changed = [*_changed(self.tune, before.tune), *differences(self.config, before)]
        if changed:
            raise ValueError(
                f"the search {self.uri} was started with another config: {', '.join(changed)}. "
                "Set another runtime.name for this one, or remove that folder"
            )

    @property
    def total(self) -> int:
        """The number of trials of the complete search."""
        return self.study.trials

    @property
    def done(self) -> bool:
        """Whether all trials have ended."""
        return len(self.results) >= self.total

    def next(self) -> Trial | None:
        """The trial to start now: one that was interrupted, else a new one.

        None if there are enough.
        """
        if self.waiting:
            return self.waiting.pop(0)
        number = len(self.trials)
        if number >= self.total:
            return None
        parameters = self.study.propose(number)
        trial = Trial(number=number, parameters=parameters, overrides=self._overrides(parameters))
        if not self.records.propose(trial):
            raise ValueError(f"another process runs the search {self.uri}: stop one of the two")
        self.trials[number] = trial
        return trial

    def end(self, number: int, result: TrialResult) -> None:
        """Records the result of a trial."""
        self.records.finish(number, result)
        self.results[number] = result
        self.study.finish(number, result)

    def trial_config(self, trial: Trial) -> ExperimentConfig:
        """The config of a trial's run.

        Raises:
            ValueError: if its values do not go together.
        """
        config = read_experiment(
            merge(self._tree, override_tree(trial.overrides, f"trial {trial.number}"))
        )
        runtime = replace(
            config.runtime,
            name=trial_name(trial.number),
            storage=self.records.folder,
            wandb_group=config.runtime.wandb_group or config.runtime.name,
        )
        schedule = (
            config.schedule
            if self.tune.seconds is None
            else replace(config.schedule, seconds=self.tune.seconds)
        )
        return replace(config, runtime=runtime, schedule=schedule, tune=None)

    def _overrides(self, parameters: TrialParameters) -> list[str]:
        overrides = overrides_of(self.tune.space, parameters)
        heads = [path for path in parameters if isinstance(self.tune.space[path], Anchors)]
        if not heads:
            return overrides
        try:
            config = read_experiment(
                self._with_some_anchors(merge(self._tree, override_tree(overrides)), heads)
            )
        except ValueError:
            # the start of the trial raises it again, and it becomes the reason of the failure
            return overrides
        for path in heads:
            levels = config.model.heads[path.split(".")[2]].levels
            anchors = by_level(self._anchors(config, len(levels) * int(parameters[path])), levels)
            if len(anchors) < len(levels):
                overrides.append(override(f"{path.removesuffix('.anchors')}.levels", list(anchors)))
            overrides.append(override(path, list(anchors.values())))
        return overrides

    def _with_some_anchors(self, tree: Node, heads: Sequence[str]) -> Node:
        """The config with one anchor for each level, since its own anchors may be for another
        number of levels.
        """
        for path in heads:
            levels, found = find(tree, (*path.split(".")[:-1], "levels"))
            if found and isinstance(levels.value, list):
                tree = merge(
                    tree, override_tree([override(path, [[[1.0, 1.0]]] * len(levels.value))])
                )
        return tree

    def _anchors(self, config: ExperimentConfig, num: int) -> Shapes:
        """Anchors for the boxes of the training split on the canvas of a trial. They are fitted
        once for each canvas and number.
        """
        uris = (
            (config.data.train.uri,)
            if isinstance(config.data.train.uri, str)
            else config.data.train.uri
        )
        canvas = config.data.canvas
        if not isinstance(canvas, Canvas):
            raise ValueError("anchors are searched for images; the input is another one")
        key = f"{uris} {canvas} {num}"
        if key not in self._fitted:
            self._fitted[key] = fast_anchors(shapes_of(uris, canvas), num, seed=self.tune.seed)
        return self._fitted[key]

    def best(self) -> list[int]:
        """The number of the best complete trial.

        With several objectives those of the Pareto front, sorted by the first objective.
        """
        found = (
            [trial.number for trial in self.study.optuna.best_trials] if self._complete() else []
        )
        first = self.tune.goals[0]
        return sorted(
            found, key=lambda number: self.goal(number, 0) * (-1 if first.mode == "max" else 1)
        )[: None if len(self.tune.goals) > 1 else 1]

    def goal(self, number: int, place: int) -> float:
        """The value of one objective of a complete trial."""
        values = self.results[number].values
        assert values is not None
        return values[place]

    def _complete(self) -> bool:
        return any(result.state == "complete" for result in self.results.values())


def _changed(now: TuneConfig, before: TuneConfig) -> list[str]:
    mine, theirs = values_of(now), values_of(before)
    return [f"tune.{key}" for key in mine if key not in MAY_CHANGE and mine[key] != theirs[key]]


def parameters_text(values: Mapping[str, object]) -> str:
    """Parameters as a line of text: the last parts of their paths, numbers with four digits."""
    return "  ".join(
        f"{path.split('.')[-1]}={value:.4g}"
        if isinstance(value, float)
        else f"{path.split('.')[-1]}={value}"
        for path, value in values.items()
    )
