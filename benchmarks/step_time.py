"""A training step here beside a plain torch DDP loop: the same network, the same batches, the same
processes, turn by turn.

python -m benchmarks.step_time [--steps 30] [--rounds 6] [--batch 16] [--size 64] [--model resnet18]
python -m benchmarks.step_time --device gpu --precision bf16 --model resnet50 --batch 256 --size 224
[--compile]

Two gloo processes on the CPU, or one process a GPU. Prints CPU-seconds (user and system, all
threads and processes) and wall seconds a step of each, and the ratios; on a GPU the wall seconds
are what counts.
"""

import argparse
import copy
import os
import socket
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from mtl_ray.experiment import ModelConfig, build_model
from mtl_ray.loading.batch import Batch
from mtl_ray.methods.supervised import Supervised
from mtl_ray.models.config import PoolNeck, TimmBackbone
from mtl_ray.models.model import Model
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.classification.config import LinearHead
from mtl_ray.training.config import AdamW, CosineLr, RuntimeConfig, ScheduleConfig
from mtl_ray.training.context import RunContext, choose_device
from mtl_ray.training.optimizer import build_optimizer, set_lr
from mtl_ray.training.schedule import lr_factor
from mtl_ray.training.step import DTYPES, Meter, Step

CLASSES = 100


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=30, help="in a turn")
    parser.add_argument("--rounds", type=int, default=6, help="turns of each")
    parser.add_argument("--batch", type=int, default=16, help="samples of each process")
    parser.add_argument("--size", type=int, default=64, help="pixels of a side")
    parser.add_argument("--model", default="resnet18", help="of timm")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--precision", choices=list(DTYPES), default="fp32")
    parser.add_argument("--compile", action="store_true", help="both compile the trunk")
    args = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(probe.getsockname()[1]),
            "OMP_NUM_THREADS": "1",
        }
    processes = 2 if args.device == "cpu" else torch.cuda.device_count()
    cast(Any, spawn)(_measure, (args, processes), nprocs=processes)


def _measure(rank: int, args: argparse.Namespace, processes: int) -> None:
    torch.set_num_threads(1)
    device = choose_device(args.device, rank)
    torch.backends.cudnn.benchmark = True
    dist.init_process_group(
        "gloo" if args.device == "cpu" else "nccl", rank=rank, world_size=processes
    )
    context = RunContext(rank=rank, world_size=processes, local_rank=rank, device=device)
    model = _model(args.model).to(device)
    copied = copy.deepcopy(model)
    if args.compile:
        model.trunk.compile()
        copied.trunk.compile()
    loops = {
        "torch DDP": _plain(copied, args.precision, device),
        "mtl_ray": _ours(model, args.precision, context),
    }
    batches = [
        _batch(args.batch, args.size, seed) for seed in range(rank, 8 * processes, processes)
    ]
    if device.type == "cuda":
        batches = [_pinned(batch) for batch in batches]
    cpu: dict[str, list[float]] = {name: [] for name in loops}
    wall: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(args.rounds + 1):
        for name, loop in loops.items():
            dist.barrier()
            started, used = time.perf_counter(), time.process_time()
            for step in range(args.steps):
                loop(batches[step % len(batches)], step)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds = torch.tensor(
                [time.process_time() - used, time.perf_counter() - started],
                dtype=torch.float64,
                device=device,
            )
            dist.all_reduce(seconds)
            if turn > 0:
                cpu[name].append(float(seconds[0]) / args.steps)
                wall[name].append(float(seconds[1]) / args.steps / processes)
    if rank == 0:
        for kind, times in (("CPU", cpu), ("wall", wall)):
            medians = {name: statistics.median(values) for name, values in times.items()}
            ratios = [
                ours / plain
                for ours, plain in zip(times["mtl_ray"], times["torch DDP"], strict=True)
            ]
            shown = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in medians.items())
            print(
                f"{kind} a step: {shown}; ratio of medians "
                f"{medians['mtl_ray'] / medians['torch DDP']:.3f}, of turns",
                end=" ",
            )
            print(" ".join(f"{ratio:.3f}" for ratio in ratios))
    dist.destroy_process_group()


def _ours(model: Model, precision: Any, context: RunContext) -> Callable[[Batch, int], object]:
    """What the trainer does at each step: rate, step, meter."""
    schedule = ScheduleConfig(steps=1000, optimizer=AdamW(lr=1e-3))
    optimizer = build_optimizer(model, schedule.optimizer, 32)
    step_of = Step(
        Supervised(model),
        optimizer,
        schedule,
        RuntimeConfig(name="bench", precision=precision),
        context,
    )
    meter = Meter({})

    def loop(batch: Batch, step: int) -> None:
        set_lr(optimizer, lr_factor(step, 1000, CosineLr()))
        meter.add(step + 1, step_of(batch, step), 0.0)

    return loop


def _plain(model: Model, precision: str, device: torch.device) -> Callable[[Batch, int], object]:
    """The loop that one would write with DDP."""
    wrapped = DistributedDataParallel(model)
    dtype = DTYPES[precision]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1000)

    def loop(batch: Batch, step: int) -> None:
        batch = batch.to(device)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            terms = wrapped(batch, step)
            loss = cast(torch.Tensor, sum(total / count for total, count in terms.values()))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()

    return loop


def _model(name: str) -> Model:
    torch.manual_seed(0)
    config = ModelConfig(
        backbone=TimmBackbone(name=name, levels=("C5",)),
        necks={"pool": PoolNeck()},
        heads={"labels": LinearHead(levels=("G5",))},
    )
    return build_model(
        config,
        Vocabulary(classes={"labels": tuple(map(str, range(CLASSES)))}, exclusive_labels=True),
    ).train()


def _batch(size: int, side: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    present = torch.zeros(size, CLASSES)
    present[torch.arange(size), torch.randint(0, CLASSES, (size,), generator=generator)] = 1
    return Batch(
        inputs={
            "image": torch.randint(
                0, 256, (size, 3, side, side), dtype=torch.uint8, generator=generator
            ),
            "valid_hw": torch.full((size, 2), side, dtype=torch.int32),
        },
        targets={
            "labels": {
                "present": present,
                "annotated": torch.ones(size, dtype=torch.bool),
                "known_classes": present >= 0,
            }
        },
        keys=tuple(map(str, range(size))),
    )


def _pinned(batch: Batch) -> Batch:
    """As the loader gives it where there is a GPU."""
    labels = {name: value.pin_memory() for name, value in batch.targets["labels"].items()}
    return replace(
        batch,
        inputs={name: value.pin_memory() for name, value in batch.inputs.items()},
        targets={"labels": labels},
    )


if __name__ == "__main__":
    main()
