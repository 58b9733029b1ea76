"""A whole training, from the newest checkpoint to the last step, as one rank sees it."""

import json
import logging
import math
import time
import uuid
from collections.abc import Mapping
from typing import Any

import torch

from mtl_ray import storage
from mtl_ray.config.validate import to_yaml
from mtl_ray.experiment import ExperimentConfig, build_model
from mtl_ray.loading.loader import Loader
from mtl_ray.training import checkpoint
from mtl_ray.training.average import Average
from mtl_ray.training.checkpoint import State
from mtl_ray.training.collective import Collective
from mtl_ray.training.context import Progress, RunContext
from mtl_ray.training.identity import config_hash, data_hash
from mtl_ray.training.meter import Meter, memory_mb
from mtl_ray.training.optimizer import build_optimizer, set_rate
from mtl_ray.training.rate import factor
from mtl_ray.training.scalars import Scalars
from mtl_ray.training.step import Step
from mtl_ray.training.timetable import Timetable
from mtl_ray.training.validation import Validation
from mtl_ray.vocabulary import vocabulary_to_json

Summary = dict[str, Any]
_log = logging.getLogger(__name__)


def run(config: ExperimentConfig, context: RunContext) -> Summary:
    """Trains until the schedule is done, going on from the newest whole checkpoint under ``runtime.storage``/name.

    Returns:
        The same on every rank, JSON-able: ``run`` (its URI), ``step``, ``steps``, ``finished``, ``metrics`` of the last
        evaluation and ``best`` (the content of best.json).

    Raises:
        ValueError: if the run was begun with another config or other data, none of its checkpoints is whole, the loss is not
            finite, or too many samples cannot be read.
        FileNotFoundError: if a split is not there.
    """
    uri = storage.join(storage.absolute(config.runtime.storage), config.runtime.name)
    ranks = Collective(context)
    state = ranks.decide(lambda: _begin(uri, config))
    if state.finished:
        return _summary(uri, state, state.step)
    return _Training(config, context, ranks, uri, state).train()


def _begin(uri: str, config: ExperimentConfig) -> State:
    """The state to start from: that of the newest checkpoint, or a fresh one.

    Raises:
        ValueError: see ``run``.
    """
    identity = {"config_hash": config_hash(config), "data_hash": data_hash(config)}
    found = checkpoint.newest(uri)
    if found is None:
        return State(step=0, cursor=0, attempt=1, run_id=uuid.uuid4().hex[:8], finished=False, metrics={}, meter={}, **identity)
    state = checkpoint.read_state(found)
    if state.config_hash != identity["config_hash"]:
        raise ValueError(f"the run {uri} was begun with another config: give this one another runtime.name, or remove that folder")
    if state.data_hash != identity["data_hash"]:
        raise ValueError(f"the run {uri} was begun with other data: its splits have changed; give runtime.name another name")
    return State(**{**vars(state), "attempt": state.attempt + 1})


def _summary(uri: str, state: State, steps: int) -> Summary:
    try:
        best = json.loads(storage.read(storage.join(uri, "best.json")))
    except FileNotFoundError:
        best = None
    return {"run": uri, "step": state.step, "steps": steps, "finished": state.finished, "metrics": state.metrics, "best": best}


class _Training:
    """One attempt of one rank."""

    def __init__(self, config: ExperimentConfig, context: RunContext, ranks: Collective, uri: str, state: State) -> None:
        self.config, self.context, self.ranks, self.uri, self.state = config, context, ranks, uri, state
        self.loader = Loader(config.data, seed=config.runtime.seed, rank=context.rank, world_size=context.world_size, cursor=state.cursor)
        self.timetable = Timetable(
            config.schedule, config.runtime, batch=config.data.batch, samples_per_epoch=self.loader.samples_per_epoch
        )
        torch.manual_seed(config.runtime.seed)
        self.model = build_model(config.model, self.loader.vocabulary).to(context.device)
        self.optimizer = build_optimizer(self.model, config.schedule.optimizer, config.data.batch)
        self.step = Step(self.model, self.optimizer, config.schedule, config.runtime, context)
        self.average = Average(self.model, config.schedule.ema) if config.schedule.ema is not None else None
        self._restore()
        ranks.same_weights(self.model)
        self.validation = Validation(config, self.loader.vocabulary, context, ranks)
        self.metric = self.validation.main_metric()
        self.meter = Meter(state.meter)
        self.scalars = Scalars(storage.join(uri, "scalars.jsonl"), state.step) if context.rank == 0 else None
        self.metrics: dict[str, float | None] = {}

    def _restore(self) -> None:
        if self.state.step == 0:
            return
        found = checkpoint.folder(self.uri, self.state.step)
        self.model.load_state_dict(checkpoint.read_tensors(found, "model.safetensors"))
        if self.average is not None:
            self.average.model.load_state_dict(checkpoint.read_tensors(found, "ema.safetensors"))
        training = checkpoint.read_training(found)
        self.optimizer.load_state_dict(training["optimizer"])
        self.step.scaler.load_state_dict(training["scaler"])

    def train(self) -> Summary:
        """All steps that are left."""
        if self.context.rank == 0:
            storage.write(storage.join(self.uri, "config.yaml"), to_yaml(self.config).encode())
        self.model.train()
        batches = iter(self.loader)
        try:
            stopped = False
            while self.state.step < self.timetable.steps and not stopped:
                stopped = self._advance(batches)
        finally:
            batches.close()
        return _summary(self.uri, self.state, self.timetable.steps)

    def _advance(self, batches: Any) -> bool:
        """One step and whatever is due after it; True if the run was asked to stop."""
        done, steps = self.state.step, self.timetable.steps
        since = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - since
        lr = set_rate(self.optimizer, factor(done, steps, self.config.schedule.rate))
        outcome = self.step(batch, done)
        if self.average is not None:
            self.average.update(self.model, done)
        self.meter.add(done + 1, outcome, waited)
        self.state = State(**{**vars(self.state), "step": done + 1, "cursor": self.state.cursor + self.config.data.batch})
        return self._after(lr)

    def _after(self, lr: float) -> bool:
        step = self.state.step
        stopped = False
        if step % self.config.runtime.log_every_steps == 0 or step == self.timetable.steps:
            stopped = self.ranks.any(self.context.should_stop())
            self._log_training(lr)
        evaluates = self.timetable.evaluates(step)
        metrics = self._evaluate() if evaluates else {}
        if evaluates or stopped or self.timetable.saves(step):
            self._save(metrics)
        return stopped

    def _log_training(self, lr: float) -> None:
        means = self.meter.flush()
        if self.scalars is None:
            return
        step = self.state.step
        epoch = self.timetable.epoch(step)
        rate = self.config.data.batch / means["time"]
        row: dict[str, Any] = {"mode": "train", "epoch": max(1, math.ceil(epoch)), "iter": step, "step": step, "lr": lr, **means}
        memory = memory_mb(self.context.device)
        self.scalars.add(row | ({} if memory is None else {"memory": memory}) | {"images_per_s": rate})
        self.context.on_progress(
            Progress(step=step, steps=self.timetable.steps, epoch=epoch, images_per_s=rate, loss=means["loss"], metrics=self.metrics)
        )

    def _evaluate(self) -> Mapping[str, float | None]:
        since = time.perf_counter()
        model = self.model if self.average is None else self.average.model
        found, _ = self.validation.measure(model)
        self.metrics = {name: value if math.isfinite(value) else None for name, value in found.items()}
        seconds = time.perf_counter() - since
        self.meter.pause(seconds)
        if self.scalars is not None:
            step = self.state.step
            self.scalars.add(
                {"mode": "val", "epoch": max(1, math.ceil(self.timetable.epoch(step))), "step": step, **self.metrics, "time": seconds}
            )
        return self.metrics

    def _save(self, metrics: Mapping[str, float | None]) -> None:
        """Makes a checkpoint on rank 0, and takes its state over on all."""
        finished = self.state.step == self.timetable.steps
        self.state = State(**{**vars(self.state), "metrics": dict(metrics), "finished": finished})
        if self.scalars is not None:
            self.scalars.flush()
            state = State(**{**vars(self.state), "meter": self.meter.state()})
            training = {"optimizer": self.optimizer.state_dict(), "scaler": self.step.scaler.state_dict()}
            average = None if self.average is None else self.average.model.state_dict()
            texts = {
                "config.yaml": to_yaml(self.config),
                "vocabulary.json": json.dumps(vocabulary_to_json(self.loader.vocabulary), indent=1),
            }
            files = checkpoint.pack(self.model.state_dict(), average, training, state, texts)
            uri = checkpoint.publish(self.uri, state.step, files)
            checkpoint.settle(self.uri, self.config.runtime.keep, self.metric)
            self.context.on_checkpoint(uri, {name: value for name, value in metrics.items() if value is not None})
        self.timetable.saved()
