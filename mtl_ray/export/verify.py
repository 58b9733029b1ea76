"""Compares a bundle with torch on the same samples: output arrays at several sizes, decoded
predictions, and metrics.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from mtl_ray.backends.backend import EngineError
from mtl_ray.evaluation.data import class_converter
from mtl_ray.evaluation.measure import measure
from mtl_ray.evaluation.metrics import head_metrics
from mtl_ray.export.config import ExportConfig
from mtl_ray.export.graph import ExportGraph
from mtl_ray.export.parity import (
    MetricPair,
    Parity,
    ParityCheck,
    compare_arrays,
    compare_predictions,
    join_checks,
)
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inference.predictor import HeadArrays, Predictor, decode_head
from mtl_ray.inference.torch_predictor import TorchPredictor
from mtl_ray.inputs.input import AnyCanvas, Arrays, Input, placed
from mtl_ray.loading.config import DataConfig
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.shards.split import open_split
from mtl_ray.tasks.optional import brief
from mtl_ray.tasks.task import AnyHead

BATCHES = (1, 2, 3, 8)
"""Batch sizes that are compared."""
OF_OTHER_SIZES = (1, 3)
"""Those that are compared on other canvases."""
LEAST = 2
"""Samples that are compared one by one: an engine may keep its first answer."""
GENERATED = "generated"
"""How the description of samples begins that no split holds."""


DecodedSample = tuple[Sample, Any]
"""A sample and its decoded input: of an image (H, W, 3) uint8 RGB."""


@dataclass(frozen=True, kw_only=True)
class CheckSamples:
    """What an exported graph is checked on.

    Attributes:
        samples: of the validation split, or generated.
        source: the URI of the split, or words that begin with ``GENERATED``.
        rest: the samples of the split after these, each decoded when it is asked for.
    """

    samples: Sequence[DecodedSample]
    source: str = GENERATED
    rest: Iterable[DecodedSample] = ()

    @property
    def generated(self) -> bool:
        """Whether no split holds them."""
        return self.source.startswith(GENERATED)


def check_samples(data: DataConfig, vocabulary: Vocabulary, count: int) -> CheckSamples:
    """The first samples of the validation split, with the class indices of the model. If the split
    cannot be read, samples are generated instead.
    """
    uri, kind = data.val.uris[0], data.canvas.input
    try:
        found = _readable(val_samples(data, vocabulary), kind, data.max_pixels)
    except (FileNotFoundError, ValueError) as error:
        reason = f"the validation split cannot be read ({error})"
    else:
        if samples := list(islice(found, count)):
            return CheckSamples(samples=samples, source=uri, rest=found)
        reason = f"no {kind.name} of {uri} can be read"
    return CheckSamples(
        samples=generate_samples(kind, count), source=f"{GENERATED} {kind.name}s, since {reason}"
    )


def val_samples(data: DataConfig, vocabulary: Vocabulary) -> Iterator[Sample]:
    """The samples of the validation split, one at a time, with the class indices of the model.

    Raises:
        FileNotFoundError, ValueError: if the split cannot be opened.
    """
    split = open_split(data.val.uris[0])
    convert, _ = class_converter(split, vocabulary)
    return map(convert, split.read(0, split.num_samples))


def _readable(
    samples: Iterable[Sample], kind: Input[Any, Any, Any, Any], limit: int
) -> Iterator[DecodedSample]:
    for sample in samples:
        if kind.name not in sample.inputs:
            continue
        try:
            yield sample, kind.decode(sample.inputs[kind.name], limit)
        except ValueError:
            continue  # the loader reports these; the next one is used here


def generate_samples(kind: Input[Any, Any, Any, Any], count: int) -> list[DecodedSample]:
    """Generated data of an input, without annotations; the same in every call."""
    rng = np.random.default_rng(0)
    made = [kind.generate(rng) for _ in range(count)]
    return [
        (Sample(key=f"generated-{number}", inputs={kind.name: encoded}), raw)
        for number, (encoded, raw) in enumerate(made)
    ]


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Torch and a bundle of the same model; ``graph`` gives the torch arrays in the form of the
    bundle.
    """

    reference: TorchPredictor
    graph: ExportGraph
    bundle: BundlePredictor

    def arrays(self, inputs: Arrays) -> tuple[HeadArrays, HeadArrays, HeadArrays]:
        """The arrays of torch, the same in the layout of the bundle, and those of the bundle."""
        ours = expected = self.reference.run(inputs)
        if self.graph.raw or self.graph.logits:
            with torch.no_grad():
                raw = self.graph(
                    *self.graph.arguments(self.reference.tensors(inputs)), exporting=False
                )
            expected = {
                head: {name: value.numpy() for name, value in fields.items()}
                for head, fields in raw.items()
            }
        # last: an engine that writes into its input must not change that of torch
        return ours, expected, self.bundle.run(inputs)


def verify(
    reference: TorchPredictor,
    graph: ExportGraph,
    bundle: BundlePredictor,
    samples: Sequence[DecodedSample],
    config: ExportConfig,
) -> Parity:
    """Compares a bundle with torch on samples: arrays, predictions and metrics.

    Args:
        reference: the model in torch, on the CPU.
        graph: the traced module.
        bundle: the written bundle.
        samples: with their decoded inputs. Pieces of the first one, which do not fill the canvas,
            are compared too.
        config: tolerances, and whether sizes are dynamic.
    """
    parity = Parity(layout=config.layout, samples=len(samples))
    pair = _Pair(reference=reference, graph=graph, bundle=bundle)
    raws = [*bundle.canvas.input.pieces(samples[0][1]), *(raw for _, raw in samples)]
    most = bundle.signature.engine.limits().max_batch or max(BATCHES)
    batches = sorted({min(batch, most) for batch in BATCHES})
    parity.batches = tuple(batches)
    for batch in batches:
        _compare_samples(
            pair,
            raws if batch == batches[-1] else raws[: max(batch, LEAST)],
            bundle.canvas,
            batch,
            config,
            parity,
        )
    parity.canvases.append(bundle.canvas)
    _compare_sizes(pair, raws, [n for n in batches if n in OF_OTHER_SIZES], config, parity)
    if not parity.failures:
        _compare_metrics(reference, bundle, [sample for sample, _ in samples], config, parity)
    return parity


def _compare_sizes(
    pair: _Pair,
    raws: Sequence[Any],
    batches: Sequence[int],
    config: ExportConfig,
    parity: Parity,
) -> None:
    """Compares at other sizes, if they are open. At odd ones the graph may be wrong: these are then
    outside the range of the bundle.
    """
    if config.size != "dynamic":
        return
    canvas = pair.bundle.canvas
    for rule in canvas.input.other_rules(canvas):
        for batch in batches:
            _compare_samples(pair, raws[:batch], rule, batch, config, parity)
        parity.canvases.append(rule)
    for rule in canvas.input.odd_rules(canvas):
        odd = Parity(layout=parity.layout, samples=parity.samples)
        for batch in batches:
            _compare_samples(pair, raws[:batch], rule, batch, config, odd)
        if not odd.failures:
            parity.checks += odd.checks
            parity.canvases.append(rule)


def _compare_samples(
    pair: _Pair,
    raws: Sequence[Any],
    rule: AnyCanvas,
    batch: int,
    config: ExportConfig,
    parity: Parity,
) -> None:
    """Compares samples in batches of one size; the last batch is filled up with the first
    samples.
    """
    size = rule.input.size_of(rule)
    checks: dict[str, list[ParityCheck]] = {head: [] for head in pair.reference.heads}
    filled = list(itertools.islice(itertools.cycle(raws), -(-len(raws) // batch) * batch))
    for start in range(0, len(filled), batch):
        inputs, frames = placed(filled[start : start + batch], rule)
        try:
            arrays = pair.arrays(inputs)
        except EngineError as error:
            parity.failures.append(f"the graph does not run at {size}, batch {batch}: {error}")
            return
        for head, head_config in pair.reference.heads.items():
            check = ParityCheck(head=head, canvas=size, batch=batch)
            for figures, sentences in _checks(check, head_config, arrays, frames, config):
                checks[head].append(figures)
                parity.failures.extend(sentences)
    parity.checks.extend(join_checks(of_head) for of_head in checks.values())


def _checks(
    check: ParityCheck,
    head: AnyHead,
    arrays: tuple[HeadArrays, HeadArrays, HeadArrays],
    frames: Sequence[Any],
    config: ExportConfig,
) -> Iterator[tuple[ParityCheck, list[str]]]:
    """Checks the arrays of one head, then its predictions if the arrays agree."""
    ours, expected, found = (each[check.head] for each in arrays)
    figures, sentences = compare_arrays(check, head.task, expected, found, frames, config)
    yield figures, sentences
    if not sentences:
        first, second = (
            [decode_head(side, i, each, head) for i, each in enumerate(frames)]
            for side in (ours, found)
        )
        yield compare_predictions(check, head.task, first, second, frames, config)


def _compare_metrics(
    reference: TorchPredictor,
    bundle: BundlePredictor,
    samples: Sequence[Sample],
    config: ExportConfig,
    parity: Parity,
) -> None:
    ours, theirs = _metrics(reference, samples), _metrics(bundle, samples)
    names = [f"{head}/{metric}" for head, results in ours.items() for metric in results]
    tasks = {name: head.task for name, head in reference.heads.items()}
    shown = frozenset(brief(tasks, names))
    for head, results in ours.items():
        for metric, value in results.items():
            if math.isnan(value) and math.isnan(theirs[head][metric]):
                continue  # nothing is annotated for it; the predictions were compared anyway
            pair = MetricPair(
                head=head,
                metric=metric,
                torch=value,
                bundle=theirs[head][metric],
                shown=f"{head}/{metric}" in shown,
            )
            parity.metrics.append(pair)
            if not (pair.difference <= config.max_metric):
                parity.failures.append(
                    f"{head}/{metric} is {pair.torch:.5f} in torch and {pair.bundle:.5f} in the "
                    "bundle"
                )


def _metrics(predictor: Predictor, samples: Sequence[Sample]) -> dict[str, Mapping[str, float]]:
    metrics = head_metrics(predictor.heads, predictor.vocabulary)
    measure(predictor, samples, metrics)
    return {name: metric.result() for name, metric in metrics.items()}
