"""The cost of inference with a trained network."""

import statistics
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from mtl_ray.inference.checkpoint import open_checkpoint
from mtl_ray.inputs.input import empty_batch

WARM_UP, RUNS = 3, 20


def inference_cost(checkpoint_uri: str) -> dict[str, float]:
    """The cost of one empty sample through the network of a checkpoint, on one CPU thread.

    Returns:
        ``latency_ms``, the median; ``flops``, two for each multiply-add; ``parameters``.
    """
    predictor = open_checkpoint(checkpoint_uri, device="cpu")
    model, canvas = predictor.model.eval(), predictor.canvas
    inputs = predictor.tensors(empty_batch(canvas, 1))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            counter = FlopCounterMode(display=False)
            with counter:
                model.predict(inputs)
            seconds = [_timed(lambda: model.predict(inputs)) for _ in range(WARM_UP + RUNS)]
    finally:
        torch.set_num_threads(threads)
    return {
        "latency_ms": 1000 * statistics.median(seconds[WARM_UP:]),
        "flops": float(counter.get_total_flops()),
        "parameters": float(sum(parameter.numel() for parameter in model.parameters())),
    }


def _timed(function: Callable[[], object]) -> float:
    since = time.perf_counter()
    function()
    return time.perf_counter() - since
