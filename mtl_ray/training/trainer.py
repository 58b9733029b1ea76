"""A whole training, from the newest checkpoint to the last step, as one rank sees it."""

import json
import logging
import math
import time
from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import Any

import torch

from mtl_ray import storage
from mtl_ray.config.validate import to_yaml
from mtl_ray.experiment import ExperimentConfig, build_model
from mtl_ray.inference.checkpoint import find_checkpoint
from mtl_ray.inference.stored_config import CONFIG_FILE, MODEL_FILE, VOCABULARY_FILE, network_yaml
from mtl_ray.loading.batch import Batch
from mtl_ray.loading.loader import Loader
from mtl_ray.models.model import Model
from mtl_ray.training import checkpoint
from mtl_ray.training.attempts import Claim
from mtl_ray.training.average import Average
from mtl_ray.training.beginning import Beginning, check_pins, run_uri, take_over
from mtl_ray.training.checkpoint import State
from mtl_ray.training.collective import Collective
from mtl_ray.training.context import RunContext
from mtl_ray.training.ledger import Ledger
from mtl_ray.training.load_from import load_from
from mtl_ray.training.meter import Meter
from mtl_ray.training.numerics import numerics
from mtl_ray.training.object_sizes import say_object_sizes
from mtl_ray.training.optimizer import OptimizerSchedule, build_optimizer
from mtl_ray.training.reporter import Reporter
from mtl_ray.training.saver import Saver, frozen
from mtl_ray.training.step import Step
from mtl_ray.training.summary import Summary, summary_of
from mtl_ray.training.sync_norm import synchronise
from mtl_ray.training.timetable import Timetable
from mtl_ray.training.validation import Validation
from mtl_ray.vocabulary import vocabulary_to_json

_log = logging.getLogger(__name__)


def run(config: ExperimentConfig, context: RunContext) -> Summary:
    """Trains until the schedule is done, going on from the newest whole checkpoint under ``runtime.storage``/name.

    Every rank calls it. A run that is finished already is not touched.

    Returns:
        The same on every rank.

    Raises:
        ValueError: if the run was begun with another config or other data, none of its checkpoints is whole, the loss is not
            finite, or too many samples cannot be read.
        FileNotFoundError: if a split is not there.
    """
    ranks = Collective(context)
    beginning = ranks.decide(lambda: take_over(config, context.world_size))
    state = beginning.state
    if state.finished:
        _log.warning("the run %s is finished already: nothing is left to do", run_uri(config))
    else:
        with numerics(config.runtime.deterministic):
            state = _Training(config, context, ranks, beginning).train()
    return ranks.decide(lambda: summary_of(run_uri(config), state))


class _Training:
    """One attempt of one rank."""

    def __init__(self, config: ExperimentConfig, context: RunContext, ranks: Collective, beginning: Beginning) -> None:
        self.config, self.context, self.ranks = config, context, ranks
        self.uri = run_uri(config)
        state = beginning.state
        self.loader = Loader(config.data, seed=config.runtime.seed, rank=context.rank, world_size=context.world_size, cursor=state.cursor)
        check_pins(state, self.loader.pins)
        self.state = replace(state, pins=dict(self.loader.pins))
        per_epoch = self.loader.samples_per_epoch
        self.timetable = Timetable(config.schedule, config.runtime, batch=config.data.batch, samples_per_epoch=per_epoch)
        self._build(beginning.checkpoint)
        self.validation = Validation(config, self.loader.vocabulary, context, ranks)
        self.metric = self.validation.main_metric()
        self.meter = Meter(state.meter)
        self.vote = ranks.vote()
        ledger = config.runtime.ledger
        self.ledger = Ledger(ledger, state.attempt, context.rank) if ledger is not None else None
        self.claim = Claim(self.uri, state.attempt)
        first = context.rank == 0
        self.reporter = Reporter(config, self.uri, state, self.timetable.steps, context.on_progress) if first else None
        self.saver = Saver(config.runtime.save_patience_s) if first else None

    def _build(self, found: str | None) -> None:
        """The network and what learns it, as they were at the checkpoint."""
        config, context = self.config, self.context
        self.model = self._network(found).to(context.device)
        self.ranks.same_weights(self.model)
        if config.runtime.sync_bn and context.world_size > 1:
            synchronise(self.model, context.device)
        self.average = Average(self.model, config.schedule.ema) if config.schedule.ema is not None else None
        decay_changes = config.schedule.weight_decay is not None
        self.optimizer = build_optimizer(self.model, config.schedule.optimizer, config.data.batch, decay_changes=decay_changes)
        self.optimizer_schedule = OptimizerSchedule(self.optimizer, config.schedule)
        self.step = Step(self.model, self.optimizer, config.schedule, config.runtime, context)
        if found is not None:
            if self.average is not None:
                self.average.model.load_state_dict(checkpoint.read_tensors(found, "ema.safetensors"))
            training = checkpoint.read_training(found)
            self.optimizer.load_state_dict(training["optimizer"])
            self.step.scaler.load_state_dict(training["scaler"])
        if config.runtime.compile:
            self.model.trunk.compile()

    def _network(self, found: str | None) -> Model:
        """With the weights of the checkpoint that was found, else those that the config says."""
        config = self.config.model
        if found is not None:
            config = config.without_pretrained()
        torch.manual_seed(self.config.runtime.seed)
        model = build_model(config, self.loader.vocabulary)
        if found is not None:
            model.load_state_dict(checkpoint.read_tensors(found, "model.safetensors"))
        elif self.config.runtime.load_from is not None:
            load_from(model, self.config.runtime.load_from)
        return model

    def train(self) -> State:
        """All steps that are left; the state in the end."""
        if self.reporter is not None:
            storage.write(storage.join(self.uri, CONFIG_FILE), to_yaml(self.config).encode())
            if self.state.step == 0:
                say_object_sizes(self.config)
        batches = iter(self.loader)
        best = None
        try:
            self.model.train()
            while self.state.step < self.timetable.steps and not self._advance(batches):
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
        place = self.timetable.place(done, self.state.trained_s)
        lr = self.optimizer_schedule.set(place, self.timetable.steps)
        outcome = self.step(batch, done)
        if self.average is not None:
            self.average.update(self.model, done)
        self.meter.add(done + 1, outcome, waited)
        self.state = replace(self.state, step=done + 1, cursor=self.state.cursor + self.config.data.batch)
        if self.config.schedule.seconds is not None:
            self.state = replace(self.state, trained_s=self.state.trained_s + self.ranks.longest(time.perf_counter() - since))
            self.timetable.look_at_clock(done + 1, self.state.trained_s)
        if self.ledger is not None:
            self.ledger.add(done + 1, batch.keys)
        return self._after(done + 1, lr)

    def _after(self, step: int, lr: float) -> bool:
        stopped = self.vote(self.context.should_stop())
        if step % self.config.runtime.log_every_steps == 0 or step == self.timetable.steps:
            means = self.meter.flush()
            if self.reporter is not None:
                self.claim.check_sometimes()
                self.reporter.training(step, self.timetable.epoch(step), {"lr": lr, **means})
        metrics = self._evaluate(step) if self.timetable.evaluates(step) else {}
        busy = self.saver is not None and self.saver.busy()
        if metrics or stopped or self.timetable.saves(step, busy=busy):
            self._save(metrics)
        return stopped

    def _evaluate(self, step: int) -> Mapping[str, float | None]:
        since = time.perf_counter()
        found, pictures = self.validation.measure(self.model if self.average is None else self.average.model)
        metrics = {name: value if math.isfinite(value) else None for name, value in found.items()}
        seconds = time.perf_counter() - since
        if self.reporter is not None:
            self.reporter.evaluation(step, self.timetable.epoch(step), metrics, seconds, lambda: self.validation.draw(pictures))
        self.meter.pause(time.perf_counter() - since)
        return metrics

    def _save(self, metrics: Mapping[str, float | None]) -> None:
        """The state is every rank's; rank 0 makes a checkpoint of it."""
        self.state = replace(self.state, metrics=dict(metrics), finished=self.state.step == self.timetable.steps)
        self.timetable.saved()
        if self.saver is None or self.reporter is None:
            return
        self.reporter.flush()
        state = replace(self.state, meter=self.meter.state())
        training = {"optimizer": self.optimizer.state_dict(), "scaler": self.step.scaler.state_dict()}
        average = None if self.average is None else self.average.model.state_dict()
        texts = {
            CONFIG_FILE: to_yaml(self.config),
            MODEL_FILE: network_yaml(self.config),
            VOCABULARY_FILE: json.dumps(vocabulary_to_json(self.loader.vocabulary), indent=1),
        }
        content = frozen({"model": self.model.state_dict(), "average": average, "training": training})
        self.saver.submit(lambda: self._write(content, state, texts))

    def _write(self, content: Mapping[str, Any], state: State, texts: Mapping[str, str]) -> None:
        self.claim.check()
        uri = checkpoint.publish(self.uri, state, checkpoint.pack(**content, state=state, texts=texts))
        lower = self.validation.lower_is_better(self.metric)
        checkpoint.settle(self.uri, self.config.runtime.keep, self.metric, self.claim, lower_is_better=lower)
        self.context.on_checkpoint(uri, {name: value for name, value in state.metrics.items() if value is not None})

    def _finish_saving(self) -> str | None:
        """Waits until the last checkpoint is whole; the best one if the run is done."""
        if self.saver is None:
            return None
        self.saver.finish()
        return find_checkpoint(self.uri) if self.state.finished else None
