"""One forward of a network on given arrays, with all that its heads compute: to compare a network
with another program's.
"""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mtl_ray import storage
from mtl_ray.analysis.forward_arrays import ForwardBatch, batch_of, loss_name, read_arrays
from mtl_ray.analysis.networks import config_at, open_config
from mtl_ray.artifact import open_artifact
from mtl_ray.experiment import build_model
from mtl_ray.geometry.masks import decode_rle
from mtl_ray.inference.checkpoint import find_checkpoint, load_model
from mtl_ray.inference.predictor import artifact_kind
from mtl_ray.inference.stored_config import read_network, read_vocabulary
from mtl_ray.inputs.frame import Frame
from mtl_ray.models.head import Context, Features, Head, dense, inspected
from mtl_ray.models.model import Model
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.detection.mask_decode import MaskFraming, decode_masks
from mtl_ray.weights.imported import read_sources
from mtl_ray.weights.network import import_network
from mtl_ray.weights.original import find_program, read_original
from mtl_ray.weights.read import read_weights

OBJECTS = "instances"
"""The kind of annotation of the objects in an input."""


class OpenedNetwork(NamedTuple):
    """A model in evaluation mode, the classes that it learns, the configs of its heads, and by
    tensor its names in the file of another program.
    """

    model: Model
    vocabulary: Vocabulary
    heads: Mapping[str, object] = {}
    sources: Mapping[str, tuple[str, ...]] = {}


def forward_file(
    target: str,
    source: str,
    out: str,
    *,
    weights: str | None = None,
    classes: int | tuple[str, ...] | None = None,
) -> dict[str, NDArray[Any]]:
    """Computes the arrays of a file and writes the results.

    Args:
        target: a config, a checkpoint or a run.
        source: the .npz file to read.
        out: the .npz file to write.
        weights: a file of weights for it, of this project or another program. If it is of the trunk
            only, there are only features.
        classes: of a config without data, or of that file.

    Returns:
        The arrays that were written.

    Raises:
        ValueError: if the network or the arrays do not fit.
    """
    if not out.endswith(".npz"):
        raise ValueError(f"{out}: the result is a .npz file")
    batch = batch_of(read_arrays(source))
    found = forward_arrays(open_inspected(target, weights, classes), batch)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **found)
    storage.write(out, buffer.getvalue())
    return found


def open_inspected(
    target: str, weights: str | None = None, classes: int | tuple[str, ...] | None = None
) -> OpenedNetwork:
    """The network at an address; see ``forward_file``.

    Raises:
        ValueError: if there is none, or the weights do not fill it.
    """
    if weights is not None:
        return _filled(target, weights, classes)
    if not target.endswith((".yaml", ".yml")):
        uri = target if artifact_kind(target) else find_checkpoint(target)
        opened = open_artifact(uri, kind="checkpoint")
        network = read_network(opened)
        vocabulary = read_vocabulary(opened, network.vocabulary)
        model = load_model(opened, network, vocabulary)
        return OpenedNetwork(model, vocabulary, network.model.heads, read_sources(opened))
    config, vocabulary = open_config(target, _count(classes))
    torch.manual_seed(config.runtime.seed)
    model = build_model(config.model, vocabulary).eval()
    return OpenedNetwork(model, vocabulary, config.model.heads)


def _filled(target: str, weights: str, classes: int | tuple[str, ...] | None) -> OpenedNetwork:
    """The network of a config or a checkpoint with the weights of a file."""
    read = read_weights(weights)
    program = find_program(read.tensors)
    own = any(name.startswith("trunk.") for name in read.tensors)
    if program is not None and not own:
        taken = import_network(
            read_original(read, program, uri=weights), config_at(target), classes=classes
        )
        tensors, network, vocabulary = taken.tensors, taken.config.model, taken.vocabulary
        sources = taken.sources
    else:
        config, vocabulary = open_config(target, _count(classes))
        tensors, network, sources = read.tensors, config.model, {}
    model = build_model(network.without_pretrained(), vocabulary)
    if all(name.startswith("trunk.") for name in tensors):  # features only
        model.heads = nn.ModuleDict()
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(
            f"{weights} does not fill the network: {str(error).splitlines()[-1].strip()}"
        ) from error
    return OpenedNetwork(model.eval(), vocabulary, network.heads, sources)


def _count(classes: int | tuple[str, ...] | None) -> int | None:
    return len(classes) if isinstance(classes, tuple) else classes


def forward_arrays(network: OpenedNetwork, batch: ForwardBatch) -> dict[str, NDArray[Any]]:
    """All arrays of one forward, in evaluation mode, on one thread.

    Args:
        network: with its weights.
        batch: what it gets.

    Returns:
        Features by name; of each head what ``raw_outputs`` gives, ``b{i}_boxes``, ``b{i}_scores``,
        ``b{i}_labels`` of image i, and with objects ``loss_*``, ``target_*``, ``gradnorm_names``
        and ``gradnorm``, and of imported weights ``gradnorm_sources``, the names in the other
        program's file. Instance masks are ``b{i}_masks``, at the size of the valid part, and
        ``b{i}_mask_probabilities``, as the head gives them. With several heads their arrays have
        ``HEAD/`` before the name.
    """
    model = network.model.eval()
    with _one_thread():
        with torch.no_grad():
            features, context = model.prepare(
                {model.trunk.input: batch.image, "valid_hw": batch.valid_hw}
            )
        found = {name: _numpy(value) for name, value in features.items()}
        several = len(model.heads) > 1
        for name, module in model.heads.items():
            arrays = _of_head(cast(Head, module), network.heads.get(name), features, context)
            if batch.objects is not None and cast(Head, module).annotation == OBJECTS:
                arrays |= _trained(name, network, features, context, batch.objects)
            prefix = f"{name}/" if several else ""
            found |= {prefix + key: value for key, value in arrays.items()}
    return found


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums have one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def _of_head(
    head: Head, config: object, features: Features, context: Context
) -> dict[str, NDArray[Any]]:
    if (inspected_head := inspected(head)) is not None:
        arrays = inspected_head.raw_outputs(features, context)
    elif (dense_head := dense(head)) is not None:
        candidates = dense_head.candidates(features, context)
        arrays = {f"candidates_{name}": value for name, value in candidates.items()}
    else:
        arrays = {}
    found = {name: _numpy(value) for name, value in arrays.items()}
    if head.train_only:
        return found
    predicted = {name: _numpy(value) for name, value in head.predict(features, context).items()}
    if "boxes" not in predicted:
        return {**found, **predicted}
    if "masks" in predicted and isinstance(config, MaskFraming):
        predicted["mask_probabilities"] = predicted.pop("masks")
    found |= _detections(predicted)
    if isinstance(config, MaskFraming):
        for row, valid_hw in enumerate(context.valid_hw.tolist()):
            found[f"b{row}_masks"] = _pasted(found, row, valid_hw, context.canvas_hw, config)
    return found


def _pasted(
    found: Mapping[str, NDArray[Any]],
    row: int,
    valid_hw: list[int],
    canvas_hw: tuple[int, int],
    config: MaskFraming,
) -> NDArray[np.uint8]:
    """(N, height, width), the masks of an image at the size of its valid part."""
    height, width = valid_hw
    frame = Frame(
        height=height,
        width=width,
        canvas_height=canvas_hw[0],
        canvas_width=canvas_hw[1],
        scale_x=1.0,
        scale_y=1.0,
        offset_x=0.0,
        offset_y=0.0,
        valid_height=height,
        valid_width=width,
    )
    masks, boxes = found[f"b{row}_mask_probabilities"], found[f"b{row}_boxes"]
    codes = decode_masks(masks, boxes, frame, config)
    empty = np.zeros((0, height, width), np.uint8)
    return np.concatenate([empty, *(decode_rle(each, height, width)[None] for each in codes)])


def _detections(predicted: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Predictions of each image without the rows that only pad."""
    found: dict[str, NDArray[Any]] = {}
    names = {"classes": "labels"}
    for row, scores in enumerate(predicted["scores"]):
        real = scores > 0
        for name, value in predicted.items():
            found[f"b{row}_{names.get(name, name)}"] = value[row][real]
    return found


def _trained(
    name: str,
    network: OpenedNetwork,
    features: Features,
    context: Context,
    objects: Mapping[str, Tensor],
) -> dict[str, NDArray[Any]]:
    """Losses, targets and the lengths of the gradients of a head's parameters."""
    model, classes = network.model, len(network.vocabulary.classes[OBJECTS])
    labels = objects["classes"]
    if (labels < 0).any() or (labels >= classes).any():
        raise ValueError(
            f"the labels of the objects go up to {int(labels.max())}, the network has "
            f"{classes} classes"
        )
    module = model.heads[name]
    head = cast(Head, module)
    known = torch.ones(len(labels), classes, dtype=torch.bool)
    targets: Mapping[str, Tensor] = {**objects, "known_classes": known}
    if name in model.narrow:
        targets = model.narrow[name](targets)
    module.zero_grad(set_to_none=True)
    terms = head.losses(features, targets, context)
    losses = {
        term: value * head.weight / count.clamp(min=1) for term, (value, count) in terms.items()
    }
    total = torch.stack(list(losses.values())).sum()
    if total.requires_grad:
        torch.autograd.backward(total)
    found = {loss_name(term): _numpy(value) for term, value in losses.items()}
    if (inspected_head := inspected(head)) is not None:
        with torch.no_grad():
            arrays = inspected_head.target_arrays(features, targets, context)
        found |= {key: _numpy(value) for key, value in arrays.items()}
    gradients = {
        key: 0.0 if each.grad is None else float(each.grad.double().norm())
        for key, each in module.named_parameters()
    }
    module.zero_grad(set_to_none=True)
    found["gradnorm_names"] = np.array(list(gradients), dtype=np.str_)
    found["gradnorm"] = np.array(list(gradients.values()), np.float64)
    if network.sources:
        sources = (network.sources.get(f"heads.{name}.{key}", ()) for key in gradients)
        found["gradnorm_sources"] = np.array([" + ".join(each) for each in sources], dtype=np.str_)
    return found


def _numpy(value: Tensor) -> NDArray[Any]:
    value = value.detach().cpu()
    return (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy()
