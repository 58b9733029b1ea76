"""A whole training, from the newest checkpoint to the last step, on one rank."""

import json
import logging
import math
import time
from collections.abc import Generator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from mtl_ray import storage
from mtl_ray.config.validate import to_yaml
from mtl_ray.experiment import ExperimentConfig, batch_fields
from mtl_ray.inference.checkpoint import find_checkpoint
from mtl_ray.inference.stored_config import CONFIG_FILE, MODEL_FILE, VOCABULARY_FILE, network_yaml
from mtl_ray.loading.batch import Batch
from mtl_ray.loading.loader import Loader
from mtl_ray.training import checkpoint
from mtl_ray.training.checkpoint import Claim, Content, TrainState
from mtl_ray.training.context import Collective, RunContext, numerics
from mtl_ray.training.learner import Learner
from mtl_ray.training.object_sizes import log_object_sizes
from mtl_ray.training.reporter import Reporter
from mtl_ray.training.resume import (
    ResumePoint,
    Summary,
    check_pins,
    resume_run,
    run_uri,
    summary_of,
)
from mtl_ray.training.saver import Saver
from mtl_ray.training.scalars import SampleLog
from mtl_ray.training.schedule import RunSchedule
from mtl_ray.training.step import Meter
from mtl_ray.training.trackers import EvaluationFigures
from mtl_ray.training.validation import WATCHED, Validation, best_by, measurable_heads
from mtl_ray.vocabulary import vocabulary_to_json

_log = logging.getLogger(__name__)


def run(config: ExperimentConfig, context: RunContext) -> Summary:
    """Trains until the schedule is done, from the newest whole checkpoint under
    ``runtime.storage``/name.

    Every rank calls it. A run that is finished already is not touched.

    Returns:
        The same on every rank.

    Raises:
        ValueError: if the run was started with another config or other data, none of its
            checkpoints is whole, the loss is not finite, or too many samples cannot be read.
        FileNotFoundError: if a split is not there.
    """
    ranks = Collective(context)
    point = ranks.decide(lambda: resume_run(config, context.world_size))
    state = point.state
    if state.finished:
        _log.warning("the run %s is finished already: nothing is left to do", run_uri(config))
    else:
        with numerics(config.runtime.deterministic):
            state = _Training(config, context, ranks, point).train()
    return ranks.decide(lambda: summary_of(run_uri(config), state))


class _Training:
    """One attempt of one rank."""

    def __init__(
        self, config: ExperimentConfig, context: RunContext, ranks: Collective, point: ResumePoint
    ) -> None:
        self.config, self.context, self.ranks = config, context, ranks
        self.uri = run_uri(config)
        state, runtime = point.state, config.runtime
        self.loader = Loader(
            config.data,
            seed=runtime.seed,
            rank=context.rank,
            world_size=context.world_size,
            cursor=state.cursor,
            fields=batch_fields(config.model.heads),
        )
        check_pins(state, self.loader.pins)
        self.state = replace(state, pins=dict(self.loader.pins))
        per_epoch, vocabulary = self.loader.samples_per_epoch, self.loader.vocabulary
        self.schedule = RunSchedule(
            config.schedule,
            runtime,
            batch=config.data.batch,
            samples_per_epoch=per_epoch,
            close_mosaic=config.data.close_mosaic,
        )
        self.loader.closed_from = self._closed_from()
        self.learner = Learner(
            config,
            vocabulary,
            context,
            ranks,
            steps=self.schedule.steps,
            restored_from=point.checkpoint,
        )
        method = self.learner.method
        heads = measurable_heads(config, method)
        self.validation = Validation(config, vocabulary, context, ranks) if heads else None
        self.best = best_by(config, heads, vocabulary, method.watches)
        self.meter = Meter(state.meter)
        self.watched = Meter(state.watched) if method.watches is not None else None
        self.vote = ranks.vote()
        self.sample_log = (
            SampleLog(runtime.ledger, state.attempt, context.rank)
            if runtime.ledger is not None
            else None
        )
        self.claim = Claim(self.uri, state.attempt)
        first = context.rank == 0
        self.reporter = (
            Reporter(config, self.uri, state, self.schedule.steps, context.on_progress)
            if first
            else None
        )
        self.saver = Saver(runtime.save_patience_s) if first else None

    def _closed_from(self) -> int | None:
        """The cursor of the first batch without mosaic, as far as it is known when an attempt
        starts.
        """
        if self.state.closed_from is not None or self.schedule.closing_step is None:
            return self.state.closed_from
        return self.schedule.closing_step * self.config.data.batch

    def train(self) -> TrainState:
        """All steps that are left; returns the state at the end."""
        if self.reporter is not None:
            storage.write(storage.join(self.uri, CONFIG_FILE), to_yaml(self.config).encode())
            if self.state.step == 0:
                log_object_sizes(self.config)
                if self.validation is not None:
                    self.validation.log_counted_objects()
        batches = iter(self.loader)
        best = None
        try:
            self.learner.method.module.train()
            while self.state.step < self.schedule.steps and not self._advance(batches):
                pass
            best = self._finish_saving()
        finally:
            if isinstance(batches, Generator):
                batches.close()
            if self.saver is not None:
                self.saver.close()
            if self.reporter is not None:
                self.reporter.close(best)
        return self.state

    def _advance(self, batches: Any) -> bool:
        """One step and whatever is due after it; True if the run was asked to stop."""
        done = self.state.step
        since = time.perf_counter()
        batch: Batch = next(batches)
        waited = time.perf_counter() - since
        place = self.schedule.place(done, self.state.trained_s)
        result, lr = self.learner.train_step(batch, done, place, self.schedule.steps)
        self.meter.add(done + 1, result, waited)
        if self.watched is not None:
            self.watched.add(done + 1, result, waited)
        self.state = replace(
            self.state, step=done + 1, cursor=self.state.cursor + self.config.data.batch
        )
        if self.config.schedule.seconds is not None:
            self.state = replace(
                self.state,
                trained_s=self.state.trained_s + self.ranks.longest(time.perf_counter() - since),
            )
            if self.state.closed_from is None and self.schedule.closes_by_time(
                done + 1, self.state.trained_s
            ):
                self.state = replace(self.state, closed_from=self.loader.close_mosaic())
            self.schedule.check_time(done + 1, self.state.trained_s)
        if self.sample_log is not None:
            self.sample_log.add(done + 1, batch.keys)
        return self._after(done + 1, lr)

    def _after(self, step: int, lr: float) -> bool:
        stopped = self.vote(self.context.should_stop())
        if step % self.config.runtime.log_every_steps == 0 or step == self.schedule.steps:
            means = self.meter.flush()
            if self.watched is not None:
                # frees what a long evaluation interval would keep on the device
                self.watched.state()
            if self.reporter is not None:
                self.claim.check_sometimes()
                self.reporter.training(step, self.schedule.epoch(step), {"lr": lr, **means})
        metrics = self._evaluate(step) if self.schedule.evaluates(step) else {}
        busy = self.saver is not None and self.saver.busy()
        if metrics or stopped or self.schedule.saves(step, busy=busy):
            self._save(metrics)
        return stopped

    def _evaluate(self, step: int) -> Mapping[str, float | None]:
        """Measures the heads on the validation split, and the mean of what the method watches.

        Raises:
            ValueError: if ``runtime.best`` names no figure of it: there would be no best
                checkpoint.
        """
        since = time.perf_counter()
        found, show = self._watched_mean(), partial(EvaluationFigures, (), {})
        model = self.learner.evaluated
        if self.validation is not None and model is not None:
            measured, result = self.validation.measure(model)
            found |= measured
            show = partial(self.validation.draw, result)
        if (best := self.config.runtime.best) is not None and self.best.name not in found:
            raise ValueError(f"runtime.best={best} is not measured; there is {', '.join(found)}")
        metrics = {name: value if math.isfinite(value) else None for name, value in found.items()}
        seconds = time.perf_counter() - since
        if self.reporter is not None:
            self.reporter.evaluation(step, self.schedule.epoch(step), metrics, seconds, show)
        self.meter.pause(time.perf_counter() - since)
        return metrics

    def _watched_mean(self) -> dict[str, float]:
        """``training/NAME``: the mean since the last evaluation.

        Raises:
            ValueError: if no step gave a figure of that name.
        """
        watches = self.learner.method.watches
        if self.watched is None or watches is None:
            return {}
        means = self.watched.flush()
        if watches.name not in means:
            raise ValueError(
                f"the method watches {watches.name!r}, which is not among the figures of training: "
                f"{', '.join(means)}"
            )
        return {WATCHED + watches.name: means[watches.name]}

    def _save(self, metrics: Mapping[str, float | None]) -> None:
        """Updates the state on every rank; rank 0 makes a checkpoint of it."""
        self.state = replace(
            self.state, metrics=dict(metrics), finished=self.state.step == self.schedule.steps
        )
        self.schedule.saved()
        if self.saver is None or self.reporter is None:
            return
        self.reporter.flush()
        watched = {} if self.watched is None else self.watched.state()
        state = replace(self.state, meter=self.meter.state(), watched=watched)
        texts = {
            CONFIG_FILE: to_yaml(self.config),
            MODEL_FILE: network_yaml(self.config),
            VOCABULARY_FILE: json.dumps(vocabulary_to_json(self.loader.vocabulary), indent=1),
        }
        content = self.learner.content()
        self.saver.submit(lambda: self._write(content, state, texts))

    def _write(self, content: Content, state: TrainState, texts: Mapping[str, str]) -> None:
        self.claim.check()
        uri = checkpoint.publish_checkpoint(self.uri, state, checkpoint.pack(content, state, texts))
        best = self.best
        checkpoint.prune(
            self.uri,
            self.config.runtime.keep,
            best.name,
            self.claim,
            lower_is_better=best.lower_is_better,
        )
        self.context.on_checkpoint(
            uri, {name: value for name, value in state.metrics.items() if value is not None}
        )

    def _finish_saving(self) -> str | None:
        """Waits until the last checkpoint is whole; returns the best one if the run is done."""
        if self.saver is None:
            return None
        self.saver.finish()
        return find_checkpoint(self.uri) if self.state.finished else None
