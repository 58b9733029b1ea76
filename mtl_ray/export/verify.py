"""Runs a bundle beside torch: the same canvases at several sizes, then whole predictions and their metrics."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as failures

from mtl_ray.evaluation.measure import measure
from mtl_ray.experiment import task_part
from mtl_ray.export.config import ExportConfig
from mtl_ray.export.graph import Graph
from mtl_ray.export.parity import MetricPair, Parity, compare
from mtl_ray.export.samples import Pictured
from mtl_ray.geometry.placement import PlacementRule, place
from mtl_ray.inference.bundle import BundlePredictor, to_input
from mtl_ray.inference.predictor import Predictor
from mtl_ray.inference.torch_predictor import TorchPredictor
from mtl_ray.samples import Sample

BATCHES = (1, 3, 8)
STEP = 32
"""Open heights and widths may differ from the canvas by multiples of this many pixels, the coarsest stride of a backbone."""
DOES_NOT_RUN = (failures.Fail, failures.InvalidArgument, failures.RuntimeException, failures.NotImplemented)


def verify(reference: TorchPredictor, graph: Graph, bundle: BundlePredictor, samples: Sequence[Pictured], config: ExportConfig) -> Parity:
    """Compares a bundle with torch on real pictures.

    Args:
        reference: the model as it is evaluated.
        graph: the same model as it was traced.
        bundle: what was written.
        samples: with their decoded pictures (H, W, 3) uint8.
        config: tolerances, and whether other canvas sizes are promised.
    """
    parity = Parity(layout=config.layout, samples=len(samples))
    for rule in _canvases(bundle.canvas, config):
        placed = [place(image, rule)[0] for _, image in samples]
        for batch in BATCHES:
            canvases = np.stack(list(itertools.islice(itertools.cycle(placed), batch)))
            _compare_canvases(graph, bundle, canvases, config, parity)
    if not parity.failures:
        _compare_metrics(reference, bundle, [sample for sample, _ in samples], config, parity)
    return parity


def _canvases(rule: PlacementRule, config: ExportConfig) -> list[PlacementRule]:
    """The canvas of the training and, where sizes are open, one of another shape."""
    if config.size == "fixed":
        return [rule]
    return [rule, replace(rule, height=rule.height + STEP, width=rule.width + 2 * STEP)]


def _compare_canvases(graph: Graph, bundle: BundlePredictor, canvases: NDArray[np.uint8], config: ExportConfig, parity: Parity) -> None:
    height, width = canvases.shape[1:3]
    try:
        found = bundle.run(canvases, [])
    except DOES_NOT_RUN as error:
        parity.failures.append(f"the graph does not run at {width}x{height}, batch {len(canvases)}: {str(error).splitlines()[0]}")
        return
    with torch.no_grad():
        expected = graph(torch.from_numpy(to_input(canvases, bundle.signature)), False)
    for head, arrays in expected.items():
        check, sentences = compare(head, {name: value.numpy() for name, value in arrays.items()}, found[head], (height, width), config)
        parity.checks.append(check)
        parity.failures.extend(sentences)


def _compare_metrics(
    reference: TorchPredictor, bundle: BundlePredictor, samples: Sequence[Sample], config: ExportConfig, parity: Parity
) -> None:
    ours, theirs = _metrics(reference, samples), _metrics(bundle, samples)
    for head, results in ours.items():
        for metric, value in results.items():
            if math.isnan(value) and math.isnan(theirs[head][metric]):
                continue  # nothing of the kind is annotated
            pair = MetricPair(head=head, metric=metric, torch=value, bundle=theirs[head][metric])
            parity.metrics.append(pair)
            if not (pair.difference <= config.max_metric):
                parity.failures.append(f"{head}/{metric} is {pair.torch:.5f} in torch and {pair.bundle:.5f} in the bundle")


def _metrics(predictor: Predictor, samples: Sequence[Sample]) -> dict[str, Mapping[str, float]]:
    metrics = {name: task_part(head, "metric").metric(head, predictor.vocabulary) for name, head in predictor.heads.items()}
    measure(predictor, samples, metrics)
    return {name: metric.result() for name, metric in metrics.items()}
