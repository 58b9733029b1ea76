"""What one rank trains: the method with its weights, their moving average, the optimizer and the
step.
"""

import logging
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mtl_ray import storage
from mtl_ray.artifact import Artifact, open_artifact
from mtl_ray.experiment import ExperimentConfig, ModelConfig, build_model
from mtl_ray.inference.checkpoint import find_checkpoint
from mtl_ray.loading.batch import Batch
from mtl_ray.methods.method import Method, MethodSetup
from mtl_ray.models.imports import read_safetensors, read_state_dict
from mtl_ray.models.model import Model
from mtl_ray.samples import Vocabulary
from mtl_ray.training import checkpoint
from mtl_ray.training.batch_norm import use_sync_batch_norm
from mtl_ray.training.class_rows import find_other_classes, move_classes
from mtl_ray.training.context import Collective, RunContext
from mtl_ray.training.ema import EmaModel
from mtl_ray.training.optimizer import OptimizerSchedule, build_optimizer
from mtl_ray.training.saver import frozen
from mtl_ray.training.step import Step, StepResult

_log = logging.getLogger(__name__)


class Learner:
    """Built from the config, or restored from a checkpoint.

    Args:
        config: of the run.
        vocabulary: the classes of the training split.
        context: of this rank.
        ranks: all ranks; their weights are equal afterwards.
        steps: of the whole run.
        restored_from: URI of the checkpoint to go on from; None at the start of a run.

    Attributes:
        method: what is optimised.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        vocabulary: Vocabulary,
        context: RunContext,
        ranks: Collective,
        *,
        steps: int,
        restored_from: str | None,
    ) -> None:
        schedule = config.schedule
        self.method = build_method(config, vocabulary, steps, restored_from)
        self._weights = MethodWeights(self.method)
        if restored_from is not None:
            self._weights.restore(restored_from)
        module, model = self.method.module.to(context.device), self.method.model()
        ranks.same_weights(module)
        if config.runtime.sync_bn and context.world_size > 1:
            use_sync_batch_norm(module, context.device)
        self._ema = _ema_of(config, model)
        self._optimizer = build_optimizer(
            module,
            schedule.optimizer,
            config.data.batch,
            decay_changes=schedule.weight_decay is not None,
            prefix=self._weights.prefix or "",
        )
        self._optimizer_schedule = OptimizerSchedule(self._optimizer, schedule)
        self._step = Step(self.method, self._optimizer, schedule, config.runtime, context)
        if restored_from is not None:
            self._restore(restored_from)
        if config.runtime.compile and model is not None:
            model.trunk.compile()

    def _restore(self, uri: str) -> None:
        """The state that is not in the method's weights."""
        if self._ema is not None:
            self._ema.model.load_state_dict(checkpoint.read_tensors(uri, checkpoint.EMA_FILE))
        training = checkpoint.read_training(uri)
        self._optimizer.load_state_dict(training["optimizer"])
        self._step.scaler.load_state_dict(training["scaler"])
        if "method" in training:
            self.method.load_state_dict(training["method"])

    @property
    def evaluated(self) -> Model | None:
        """The model that is measured: the averaged one where there is one; None if the method has
        no model.
        """
        return self.method.model() if self._ema is None else self._ema.model

    def train_step(
        self, batch: Batch, step: int, place: int, steps: int
    ) -> tuple[StepResult, float]:
        """One optimizer step.

        Args:
            batch: this rank's share.
            step: counted from 0.
            place: the step that the schedules see, at most ``steps`` - 1; see
                ``RunSchedule.place``.
            steps: of the whole run.

        Returns:
            What the step measured, and the greatest learning rate.
        """
        lr = self._optimizer_schedule.set(place, steps)
        result = self._step(batch, step)
        if self._ema is not None:
            self._ema.update(step)
        return result, lr

    def content(self) -> checkpoint.Content:
        """What a checkpoint holds of it, copied to the CPU: later steps do not change it."""
        training = {
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._step.scaler.state_dict(),
        }
        if state := self.method.state_dict():
            training["method"] = state
        model, further = self._weights.split()
        tensors = {checkpoint.MODEL_FILE: model, checkpoint.METHOD_FILE: further}
        if self._ema is not None:
            tensors[checkpoint.EMA_FILE] = self._ema.model.state_dict()
        held = frozen(
            {
                "tensors": {name: each for name, each in tensors.items() if each},
                "training": training,
            }
        )
        return checkpoint.Content(**held)


def build_method(
    config: ExperimentConfig, vocabulary: Vocabulary, steps: int, restored_from: str | None
) -> Method:
    """The method of a config, on the CPU.

    With ``restored_from`` no other weights are loaded: the checkpoint has them.

    Raises:
        ValueError: if the method does not follow the protocol, or does not fit the model.
    """
    network = config.model
    if restored_from is not None:
        network = network.without_pretrained()
    torch.manual_seed(config.runtime.seed)
    model = build_model(network, vocabulary, config.data.canvas)
    if restored_from is None and config.runtime.load_from is not None:
        load_from(model, config.runtime.load_from, network, vocabulary)
    setup = MethodSetup(model=model, vocabulary=vocabulary, steps=steps, batch=config.data.batch)
    method: Method = config.method.build(setup)
    if isinstance(method, nn.Module):
        raise ValueError(
            f"the method {config.method.type!r} is a torch.nn.Module. Fix: let it hold its modules "
            "as 'module'"
        )
    return method


def _ema_of(config: ExperimentConfig, model: Model | None) -> EmaModel | None:
    if config.schedule.ema is None:
        return None
    if model is None:
        raise ValueError(
            f"schedule.ema averages a model, and the method {config.method.type!r} has none. Fix: "
            "schedule.ema=null"
        )
    return EmaModel(model, config.schedule.ema, config.schedule.ema_warmup)


class SplitWeights(NamedTuple):
    """Weights by name: those of the model, named as the model names them, and all others."""

    model: dict[str, Tensor]
    further: dict[str, Tensor]


class MethodWeights:
    """The weights of a method as checkpoints hold them.

    Args:
        method: whose model, if it has one, is a part of its module.

    Attributes:
        prefix: what ``method.module`` writes before the names of the model's weights; None if there
            is no model.

    Raises:
        ValueError: if the model is not a part of the module.
    """

    def __init__(self, method: Method) -> None:
        self._module = method.module
        self.prefix: str | None = None
        model = method.model()
        if model is not None:
            names = [name for name, module in self._module.named_modules() if module is model]
            if not names:
                raise ValueError(
                    f"{type(method).__name__}.model() is not a part of its module, so it would not "
                    "be saved"
                )
            self.prefix = f"{names[0]}." if names[0] else ""

    def split(self) -> SplitWeights:
        """The weights now; not copied."""
        found = SplitWeights({}, {})
        for name, tensor in self._module.state_dict().items():
            if self.prefix is not None and name.startswith(self.prefix):
                found.model[name.removeprefix(self.prefix)] = tensor
            else:
                found.further[name] = tensor
        return found

    def restore(self, uri: str) -> None:
        """Loads the weights of a checkpoint.

        Raises:
            ValueError: if they are not those of this module.
        """
        own = self.split()
        weights: dict[str, Tensor] = {}
        if own.model:
            stored = checkpoint.read_tensors(uri, checkpoint.MODEL_FILE)
            weights |= {f"{self.prefix}{name}": tensor for name, tensor in stored.items()}
        if own.further:
            weights |= checkpoint.read_tensors(uri, checkpoint.METHOD_FILE)
        try:
            self._module.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(
                f"the weights in {uri} do not fit the method: {str(error).splitlines()[-1].strip()}"
            ) from error


def load_from(
    model: nn.Module,
    uri: str,
    network: ModelConfig | None = None,
    vocabulary: Vocabulary | None = None,
) -> None:
    """Fills a model from a checkpoint, a run (its best checkpoint) or a weight file; the log names
    what does not fit.

    Args:
        model: to be filled.
        uri: of the weights.
        network: the config of the model. With it and the vocabulary the rows of the classes of a
            checkpoint move to the classes of the same names; a weight file does not name its own.
        vocabulary: of the model.

    Raises:
        ValueError: if nothing fits, or there is no whole checkpoint.
        FileNotFoundError: if there is nothing at the URI.
    """
    opened = _open(uri)
    stored, own = read_state_dict(uri) if opened is None else _weights(opened), model.state_dict()
    found = dict(stored)
    if opened is not None and network is not None and vocabulary is not None:
        found = move_classes(found, model, network, find_other_classes(opened, network, vocabulary))
    fitting = {
        name: value
        for name, value in found.items()
        if name in own and own[name].shape == value.shape
    }
    if not fitting:
        raise ValueError(
            f"runtime.load_from={uri}: none of its {len(stored)} entries fits this model (an "
            f"entry: {next(iter(stored), 'none')})"
        )
    model.load_state_dict(fitting, strict=False)
    for name in own.keys() - fitting.keys():
        if name not in stored:
            reason = "is not there"
        elif name not in found:
            reason = "has no rows there for these classes"
        else:
            reason = f"is {tuple(found[name].shape)} there and {tuple(own[name].shape)} here"
        _log.warning("load_from: %s %s; it starts from random weights", name, reason)
    if left := [name for name in stored if name not in own]:
        shown = ", ".join(left[:5]) + (", ..." if len(left) > 5 else "")
        _log.warning("load_from: %d entries are not used: %s", len(left), shown)


def _open(uri: str) -> Artifact | None:
    """The checkpoint at a URI, or the best of the run there; None if it is a weight file."""
    if uri.endswith((".safetensors", ".pt", ".pth")):
        return None
    if not storage.exists(uri):
        raise FileNotFoundError(f"runtime.load_from={uri}: there is nothing there")
    if storage.exists(storage.join(uri, "checkpoints")):
        uri = find_checkpoint(uri)
    return open_artifact(uri, kind=checkpoint.KIND)


def _weights(opened: Artifact) -> dict[str, Tensor]:
    """The averaged weights of a checkpoint where it has some, else the model's, else the
    method's.
    """
    names = (checkpoint.EMA_FILE, checkpoint.MODEL_FILE, checkpoint.METHOD_FILE)
    name = next((name for name in names if name in opened.names), checkpoint.MODEL_FILE)
    return read_safetensors(opened.read(name), storage.join(opened.uri, name))
