"""A training step here beside a plain torch DDP loop: the same network, the same batches, two gloo processes, turn by turn.

python -m benchmarks.step_time [--steps 30] [--rounds 6] [--batch 16] [--size 64] [--model resnet18]

Prints CPU-seconds (user and system, all threads, both processes) and wall seconds a step of each, and the ratios.
"""

import argparse
import copy
import os
import socket
import statistics
import time
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from mtl_ray.experiment import ModelConfig, build_model
from mtl_ray.geometry.placement import PlacementRule, placement_of
from mtl_ray.loading.batch import Batch
from mtl_ray.models.config import PoolNeck, TimmBackbone
from mtl_ray.models.model import Model
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.classification.config import LinearHead
from mtl_ray.training.config import Optimizer, Rate, RuntimeConfig, ScheduleConfig
from mtl_ray.training.context import RunContext
from mtl_ray.training.meter import Meter
from mtl_ray.training.optimizer import build_optimizer, set_rate
from mtl_ray.training.rate import factor
from mtl_ray.training.step import Step

CLASSES = 100
WORLD_SIZE = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30, help="in a turn")
    parser.add_argument("--rounds", type=int, default=6, help="turns of each")
    parser.add_argument("--batch", type=int, default=16, help="samples of each process")
    parser.add_argument("--size", type=int, default=64, help="pixels of a side")
    parser.add_argument("--model", default="resnet18", help="of timm")
    args = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "OMP_NUM_THREADS": "1"}
    cast(Any, spawn)(_measure, (args,), nprocs=WORLD_SIZE)


def _measure(rank: int, args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=WORLD_SIZE)
    model = _model(args.model)
    loops = {"torch DDP": _plain(copy.deepcopy(model)), "mtl_ray": _ours(model, rank)}
    batches = [_batch(args.batch, args.size, seed) for seed in range(rank, 8 * WORLD_SIZE, WORLD_SIZE)]
    cpu: dict[str, list[float]] = {name: [] for name in loops}
    wall: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(args.rounds + 1):
        for name, loop in loops.items():
            dist.barrier()
            started, used = time.perf_counter(), time.process_time()
            for step in range(args.steps):
                loop(batches[step % len(batches)], step)
            seconds = torch.tensor([time.process_time() - used, time.perf_counter() - started], dtype=torch.float64)
            dist.all_reduce(seconds)
            if turn > 0:
                cpu[name].append(float(seconds[0]) / args.steps)
                wall[name].append(float(seconds[1]) / args.steps / WORLD_SIZE)
    if rank == 0:
        for kind, times in (("CPU", cpu), ("wall", wall)):
            medians = {name: statistics.median(values) for name, values in times.items()}
            ratios = [ours / plain for ours, plain in zip(times["mtl_ray"], times["torch DDP"], strict=True)]
            shown = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in medians.items())
            print(f"{kind} a step: {shown}; ratio of medians {medians['mtl_ray'] / medians['torch DDP']:.3f}, of turns", end=" ")
            print(" ".join(f"{ratio:.3f}" for ratio in ratios))
    dist.destroy_process_group()


def _ours(model: Model, rank: int) -> Callable[[Batch, int], object]:
    """What the trainer does at each step: rate, step, meter."""
    schedule = ScheduleConfig(steps=1000, optimizer=Optimizer(lr=1e-3))
    optimizer = build_optimizer(model, schedule.optimizer, 32)
    step_of = Step(model, optimizer, schedule, RuntimeConfig(name="bench"), RunContext(rank=rank, world_size=WORLD_SIZE))
    meter = Meter({})

    def loop(batch: Batch, step: int) -> None:
        set_rate(optimizer, factor(step, 1000, Rate()))
        meter.add(step + 1, step_of(batch, step), 0.0)

    return loop


def _plain(model: Model) -> Callable[[Batch, int], object]:
    """The loop that one would write with DDP."""
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1000)

    def loop(batch: Batch, step: int) -> None:
        terms = wrapped(batch, step)
        loss = cast(torch.Tensor, sum(total / count for total, count in terms.values()))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        loss.item()

    return loop


def _model(name: str) -> Model:
    torch.manual_seed(0)
    config = ModelConfig(
        backbone=TimmBackbone(name=name, levels=("C5",)), necks={"pool": PoolNeck()}, heads={"labels": LinearHead(levels=("G5",))}
    )
    return build_model(config, Vocabulary(classes={"labels": tuple(map(str, range(CLASSES)))}, exclusive_labels=True)).train()


def _batch(size: int, side: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    rule = PlacementRule(kind="stretch", height=side, width=side)
    present = torch.zeros(size, CLASSES)
    present[torch.arange(size), torch.randint(0, CLASSES, (size,), generator=generator)] = 1
    return Batch(
        inputs={
            "image": torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8, generator=generator),
            "valid_hw": torch.full((size, 2), side, dtype=torch.int32),
        },
        targets={"labels": {"present": present, "annotated": torch.ones(size, dtype=torch.bool)}},
        placements=(placement_of(side, side, rule),) * size,
        keys=tuple(map(str, range(size))),
        weights=torch.ones(size),
    )


if __name__ == "__main__":
    main()
