"""Latency and throughput per core of every engine, against ONNX Runtime with fp32.

    python -m benchmarks.engines [--rounds 5] [--engines NAME ...] [--bundle URI]

By default the network is a convolutional detector (ResNet-18, FPN, FCOS head, 256 x 256) with
random weights, in the layout raw: what follows the convolutions is left out. ``--bundle`` measures
the engines of a bundle instead. The engines take turns in one process, each with one thread, in
another order in every round. A ratio compares an engine with ONNX Runtime in the same round;
CPU-seconds are those of the process.
"""

import argparse
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from mtl_ray import storage
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inputs.image import IMAGE
from mtl_ray.inputs.input import placed

NAMES = (
    *("onnxruntime", "onnxruntime:int8", "openvino", "openvino:fp16", "openvino:int8"),
    *("ncnn", "ncnn:fp16", "torchscript", "executorch"),
)
REFERENCE = NAMES[0]
TARGET = 0.40
"""Most CPU time of an int8 engine, relative to the reference, on a CPU with VNNI."""
BATCH = 8
SIDE = 256
CALIBRATION = 16


@dataclass(frozen=True)
class Figures:
    """Of one engine in one round."""

    p50_ms: float
    cpu_ms: float
    per_core_s: float


def main(argv: Sequence[str] | None = None) -> int:
    """0 if the fastest int8 engine meets the target."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--engines", nargs="+", default=NAMES, metavar="NAME[:PRECISION]")
    parser.add_argument("--bundle", help="of this bundle; its first engine is the reference")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        if options.bundle:
            first = BundlePredictor(options.bundle, threads=1)
            names = first.signature.engine_names
            opened = {
                name: BundlePredictor(options.bundle, threads=1, engine=name) for name in names
            }
        else:
            names = tuple(dict.fromkeys((REFERENCE, *options.engines)))
            process = multiprocessing.get_context("spawn").Process(
                target=write_bundles, args=(folder, names)
            )
            process.start()
            process.join()
            opened = {
                name: BundlePredictor(str(Path(folder) / name), threads=1)
                for name in names
                if (Path(folder) / name).exists()
            }
        rounds = [one_round(opened, options.seconds) for _ in range(options.rounds)]
        sizes = {
            name: size_of(predictor, options.bundle or str(Path(folder) / name))
            for name, predictor in opened.items()
        }
    return print_table(rounds, sizes)


def one_round(opened: dict[str, BundlePredictor], seconds: float) -> dict[str, Figures]:
    """Each engine once, in random order."""
    order = list(opened)
    random.shuffle(order)
    return {name: measured(opened[name], seconds) for name in order}


def measured(predictor: BundlePredictor, seconds: float) -> Figures:
    """One sample at a time, then batches."""
    _, raw = predictor.canvas.input.generate(np.random.default_rng(0))
    one, _ = placed([raw], predictor.canvas)
    many, _ = placed([raw] * BATCH, predictor.canvas)
    latencies, cpu_s = timed(lambda: predictor.run(one), seconds)
    batches, batch_cpu_s = timed(lambda: predictor.run(many), seconds)
    return Figures(
        p50_ms=1e3 * statistics.median(latencies),
        cpu_ms=1e3 * cpu_s / len(latencies),
        per_core_s=BATCH * len(batches) / batch_cpu_s,
    )


def timed(work: Callable[[], object], seconds: float) -> tuple[list[float], float]:
    """The seconds of each call, and the CPU-seconds of all of them."""
    work()
    latencies: list[float] = []
    cpu, until = time.process_time(), time.perf_counter() + seconds
    while (start := time.perf_counter()) < until or not latencies:
        work()
        latencies.append(time.perf_counter() - start)
    return latencies, time.process_time() - cpu


def size_of(predictor: BundlePredictor, uri: str) -> float:
    """Megabytes of the engine's files."""
    return sum(storage.size(storage.join(uri, file)) for file in predictor.signature.files) / 1e6


def write_bundles(folder: str, names: Sequence[str]) -> None:
    """A bundle for each engine that is installed, in a process of its own."""
    from pydantic import TypeAdapter

    from mtl_ray.artifact import publish
    from mtl_ray.backends.backend import Calibration, EngineError
    from mtl_ray.backends.config import EngineConfig
    from mtl_ray.export.build import TracedGraph, build, form_for, sign, trace
    from mtl_ray.export.config import ExportConfig
    from mtl_ray.export.verify import generate_samples
    from mtl_ray.inference.bundle import to_graph

    predictor = detector()
    raws = [raw for _, raw in generate_samples(IMAGE, CALIBRATION)]
    forms: dict[tuple[str, str], TracedGraph] = {}
    for name in names:
        kind, _, precision = name.partition(":")
        engine = TypeAdapter(EngineConfig).validate_python(
            {"type": kind, **({"precision": precision} if precision else {})}
        )
        if (reason := engine.unavailable()) is not None:
            print(f"{name}: {reason}")
            continue
        config = form_for(engine, ExportConfig(layout="raw"))
        form = (config.input, config.size)
        if form not in forms:
            forms[form] = trace(predictor, config)
        traced = forms[form]
        signature = sign(predictor, traced, config, ("none",))
        batches = [to_graph(placed([raw], predictor.canvas)[0], signature) for raw in raws]
        with tempfile.TemporaryDirectory() as scratch:
            try:
                built = build(
                    predictor, traced, config, Path(scratch), (), Calibration(batches=batches)
                )
            except EngineError as error:
                print(f"{name}: {error}")
                continue
            files = {**built.files, "signature.json": built.signature.to_json()}
            publish(str(Path(folder) / name), files, kind="bundle")


def detector() -> "object":
    """A detector that nobody trained."""
    import torch
    from pydantic import TypeAdapter

    from mtl_ray.experiment import ModelConfig, build_model
    from mtl_ray.inference.torch_predictor import TorchPredictor
    from mtl_ray.inputs.image import Canvas
    from mtl_ray.samples import Vocabulary

    head = {"type": "fcos", "levels": ["P3", "P4", "P5"], "channels": 64, "convs": 2}
    values = {
        "backbone": {"name": "resnet18", "levels": ["C3", "C4", "C5"]},
        "necks": {"pyramid": {"type": "fpn", "inputs": ["C3", "C4", "C5"], "channels": 64}},
        "heads": {"boxes": {**head, "norm_groups": 16}},
    }
    config = TypeAdapter(ModelConfig).validate_python(values)
    vocabulary = Vocabulary(classes={"instances": tuple(f"class {i}" for i in range(10))})
    torch.manual_seed(0)
    model = build_model(config, vocabulary)
    return TorchPredictor(model, config.heads, vocabulary, Canvas(height=SIDE, width=SIDE))


def print_table(rounds: Sequence[dict[str, Figures]], sizes: dict[str, float]) -> int:
    """The medians of all rounds, and whether int8 meets the target."""
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    head = f"{'engine':18}{'MB':>7}{'p50 ms':>9}{'CPU ms':>9}{'ratio':>7}  {'(of rounds)':20}"
    print(f"{head}{'per core-s':>11}{'ratio':>7}")
    first = next(iter(sizes))
    smallest = None
    for name, size in sizes.items():
        of_name = [each[name] for each in rounds]
        ratios = [each[name].cpu_ms / each[first].cpu_ms for each in rounds]
        throughput = [each[name].per_core_s / each[first].per_core_s for each in rounds]
        ratio = statistics.median(ratios)
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(
            f"{name:18}{size:7.1f}{statistics.median(each.p50_ms for each in of_name):9.2f}"
            f"{statistics.median(each.cpu_ms for each in of_name):9.2f}{ratio:7.2f}  {spread:20}"
            f"{statistics.median(each.per_core_s for each in of_name):11.1f}"
            f"{statistics.median(throughput):7.2f}"
        )
        if name.endswith(":int8"):
            smallest = ratio if smallest is None else min(smallest, ratio)
    if smallest is None:
        return 0
    print(f"fastest int8: {smallest:.2f} of the CPU time (target {TARGET:.2f})")
    return 0 if smallest <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
