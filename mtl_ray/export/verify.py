"""Runs a bundle beside torch: the same images at several sizes, through decoding, then the metrics of the samples."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as failures

from mtl_ray.evaluation.measure import measure
from mtl_ray.evaluation.metrics import head_metrics
from mtl_ray.export.config import ExportConfig
from mtl_ray.export.graph import Graph
from mtl_ray.export.parity import Check, MetricPair, Parity, compare, compare_predictions, joined
from mtl_ray.export.samples import Pictured
from mtl_ray.inference.bundle import BundlePredictor, to_input
from mtl_ray.inference.predictor import Arrays, Predictor, decode_head
from mtl_ray.inference.torch_predictor import TorchPredictor
from mtl_ray.inputs.frame import Frame, place
from mtl_ray.inputs.image import Canvas
from mtl_ray.samples import Sample
from mtl_ray.tasks.task import AnyHead

BATCHES = (1, 3, 8)
STEP = 32
"""Open heights and widths may differ from the canvas by multiples of this many pixels, the coarsest stride of a backbone."""
DOES_NOT_RUN = (failures.Fail, failures.InvalidArgument, failures.RuntimeException, failures.NotImplemented)


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Torch and a bundle of the same model; ``graph`` gives the arrays that only a bundle of the layout ``raw`` has."""

    reference: TorchPredictor
    graph: Graph
    bundle: BundlePredictor

    def arrays(self, canvases: NDArray[np.uint8], frames: Sequence[Frame]) -> tuple[Arrays, Arrays, Arrays]:
        """What torch predicts, the same in the layout of the bundle, and what the bundle gives."""
        found = self.bundle.run(canvases, frames)
        ours = self.reference.run(canvases, frames)
        if not self.graph.raw:
            return ours, ours, found
        valid_hw = torch.tensor([[each.valid_height, each.valid_width] for each in frames], dtype=torch.int32)
        with torch.no_grad():
            raw = self.graph(torch.from_numpy(to_input(canvases, self.bundle.signature)), valid_hw, False)
        return ours, {head: {name: value.numpy() for name, value in fields.items()} for head, fields in raw.items()}, found


def verify(reference: TorchPredictor, graph: Graph, bundle: BundlePredictor, samples: Sequence[Pictured], config: ExportConfig) -> Parity:
    """Compares a bundle with torch on real images: the arrays, and all that is decoded of them.

    Args:
        reference: the model as it is evaluated, on the CPU.
        graph: the same model as it was traced.
        bundle: what was written.
        samples: with their decoded images (H, W, 3) uint8; strips of the first are compared too, which do not fill their canvas.
        config: tolerances, and whether other canvas sizes are promised.
    """
    parity = Parity(layout=config.layout, samples=len(samples))
    pair = _Pair(reference=reference, graph=graph, bundle=bundle)
    images = [*_strips(samples[0][1]), *(image for _, image in samples)]
    for rule in _canvases(bundle.canvas, config):
        for batch in BATCHES:
            _compare_images(pair, images if batch == max(BATCHES) else images[:batch], rule, batch, config, parity)
    if not parity.failures:
        _compare_metrics(reference, bundle, [sample for sample, _ in samples], config, parity)
    return parity


def _strips(image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """The upper half of an image and its left half: neither has the shape of a canvas that the image fills."""
    height, width = image.shape[:2]
    return [image[: max(1, height // 2)], image[:, : max(1, width // 2)]]


def _canvases(rule: Canvas, config: ExportConfig) -> list[Canvas]:
    """The canvas of the training and, where sizes are open, one of another shape."""
    if config.size == "fixed":
        return [rule]
    return [rule, replace(rule, height=rule.height + STEP, width=rule.width + 2 * STEP)]


def _compare_images(
    pair: _Pair, images: Sequence[NDArray[np.uint8]], rule: Canvas, batch: int, config: ExportConfig, parity: Parity
) -> None:
    """Compares images in batches of one size, the last of which begins again with the first images."""
    checks: dict[str, list[Check]] = {head: [] for head in pair.reference.heads}
    filled = list(itertools.islice(itertools.cycle(images), -(-len(images) // batch) * batch))
    for start in range(0, len(filled), batch):
        placed = [place(image, rule) for image in filled[start : start + batch]]
        try:
            ours, expected, found = pair.arrays(np.stack([canvas for canvas, _ in placed]), [frame for _, frame in placed])
        except DOES_NOT_RUN as error:
            parity.failures.append(f"the graph does not run at {rule.width}x{rule.height}, batch {batch}: {str(error).splitlines()[0]}")
            return
        for head, config_of_head in pair.reference.heads.items():
            for check, sentences in _checks(head, config_of_head, (ours, expected, found), [each for _, each in placed], config):
                checks[head].append(check)
                parity.failures.extend(sentences)
    parity.checks.extend(joined(of_head) for of_head in checks.values())


def _checks(
    head: str, head_config: AnyHead, arrays: tuple[Arrays, Arrays, Arrays], frames: Sequence[Frame], config: ExportConfig
) -> Iterator[tuple[Check, list[str]]]:
    """The arrays of one head, then, if they can be decoded alike, its predictions."""
    ours, expected, found = (each[head] for each in arrays)
    canvas_hw = (frames[0].canvas_height, frames[0].canvas_width)
    check, sentences = compare(head, head_config.task, expected, found, canvas_hw, config)
    yield check, sentences
    if not sentences:
        first, second = ([decode_head(side, i, each, head_config) for i, each in enumerate(frames)] for side in (ours, found))
        yield compare_predictions(check, head_config.task, first, second, frames, config)


def _compare_metrics(
    reference: TorchPredictor, bundle: BundlePredictor, samples: Sequence[Sample], config: ExportConfig, parity: Parity
) -> None:
    ours, theirs = _metrics(reference, samples), _metrics(bundle, samples)
    for head, results in ours.items():
        for metric, value in results.items():
            if math.isnan(value) and math.isnan(theirs[head][metric]):
                continue  # nothing of the kind is annotated; the predictions were compared all the same
            pair = MetricPair(head=head, metric=metric, torch=value, bundle=theirs[head][metric])
            parity.metrics.append(pair)
            if not (pair.difference <= config.max_metric):
                parity.failures.append(f"{head}/{metric} is {pair.torch:.5f} in torch and {pair.bundle:.5f} in the bundle")


def _metrics(predictor: Predictor, samples: Sequence[Sample]) -> dict[str, Mapping[str, float]]:
    metrics = head_metrics(predictor.heads, predictor.vocabulary)
    measure(predictor, samples, metrics)
    return {name: metric.result() for name, metric in metrics.items()}
