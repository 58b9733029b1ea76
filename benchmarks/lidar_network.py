"""CPU seconds of the networks of lidar: a training step of PointPillars at the published size by
its parts, and a sparse convolution beside a dense one of the same grid.

    OMP_NUM_THREADS=1 python -m benchmarks.lidar_network --data data/kitti_raw/train [--rounds 5]

One thread. The step is that of ``configs/lidar/pointpillars_kitti_3class.yaml`` on batches of two
clouds of ``--data``, without augmentation. The batches are made before: ``benchmarks.lidar`` times
the voxelizer. The convolutions are submanifold ones of 64 channels at the third stage of SECOND,
on the cells of one of the clouds; both are checked to give the same in those cells.
"""

import argparse
import statistics
import sys
import time
from collections import defaultdict
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.lidar import measure
from mtl_ray.experiment import ExperimentConfig, build_model, load_experiment
from mtl_ray.loading.batch import Batch
from mtl_ray.loading.loader import Loader
from mtl_ray.models.model import Model
from mtl_ray.models.pillars import Pillars
from mtl_ray.models.sparse import SparseConv, sites_of, submanifold_rules
from mtl_ray.training.optimizer import build_optimizer

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "lidar" / "pointpillars_kitti_3class.yaml"
BATCH, CHANNELS = 2, 64
SHRUNK = 4
"""How many times smaller than the input the grid of SECOND's third stage is, along each axis."""
GRID = (11, 400, 352)
"""Cells along z, y, x of that stage, of the published grid of 41 x 1600 x 1408."""
LOW, VOXEL = (0.0, -40.0, -3.0), (0.05, 0.05, 0.1)
"""x, y, z: the start of the published grid of SECOND, and its voxels, metres."""


class Clock:
    """Adds up the CPU seconds of modules and of what is between two marks, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._begun: dict[str, float] = {}

    def watch(self, name: str, module: nn.Module) -> None:
        """Counts every forward pass of a module."""
        module.register_forward_pre_hook(lambda *_: self.begin(name))
        module.register_forward_hook(lambda *_: self.end(name))

    def begin(self, name: str) -> None:
        """The clock of a name starts."""
        self._begun[name] = time.process_time()

    def end(self, name: str) -> None:
        """It stops."""
        self.seconds[name] += time.process_time() - self._begun[name]


def step_parts(config: ExperimentConfig, rounds: int) -> dict[str, float]:
    """Median CPU seconds of each part of a step; the first step does not count."""
    torch.manual_seed(0)
    loader = Loader(config.data)
    # the threads of the loader end before the clock starts
    batches = list(islice(loader, rounds + 1))
    model = build_model(config.model, loader.vocabulary, config.data.canvas)
    optimizer = build_optimizer(model, config.schedule.optimizer, BATCH)
    clock, found = Clock(), defaultdict[str, list[float]](list)
    backbone = cast(Pillars, model.trunk.backbone)
    clock.watch("pillar features", backbone.voxel_encoder)
    for stage in backbone.blocks:
        clock.watch("convolutions of the backbone", stage)
    for neck in model.trunk.necks.values():
        clock.watch("neck", neck)
    for turn, batch in enumerate(batches):
        clock.seconds.clear()
        _step(model, batch, optimizer, clock)
        if turn:
            for name, seconds in clock.seconds.items():
                found[name].append(seconds)
    medians = {name: statistics.median(seconds) for name, seconds in found.items()}
    inner = ("pillar features", "convolutions of the backbone", "neck")
    medians["head, losses and scattering"] = medians.pop("forward") - sum(
        medians[name] for name in inner
    )
    return medians


def _step(model: Model, batch: Batch, optimizer: Any, clock: Clock) -> None:
    clock.begin("forward")
    terms = model.losses(batch)
    loss = cast(Tensor, sum(total / count.clamp(min=1) for total, count in terms.values()))
    clock.end("forward")
    clock.begin("backward")
    loss.backward()
    clock.end("backward")
    clock.begin("optimizer")
    optimizer.step()
    optimizer.zero_grad()
    clock.end("optimizer")


def convolutions(points: Tensor, rounds: int) -> tuple[int, dict[str, float]]:
    """Active cells, and median CPU seconds of both convolutions, forward and backward.

    Args:
        points: float32 (N, 3) metres in the frame of the lidar.
        rounds: turns of each.
    """
    torch.manual_seed(0)
    size = points.new_tensor(VOXEL) * SHRUNK
    cells = torch.floor((points - points.new_tensor(LOW)) / size).long().flip(1)  # z, y, x
    inside = ((cells >= 0) & (cells < cells.new_tensor(GRID))).all(dim=1)
    cells = torch.unique(cells[inside], dim=0)
    sites, _ = sites_of(F.pad(cells, (1, 0)), GRID, 1)
    sparse = SparseConv(CHANNELS, CHANNELS, (3, 3, 3))
    dense = nn.Conv3d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
    dense.weight.data = sparse.weight.data.permute(4, 3, 0, 1, 2).contiguous()
    rows = torch.randn(len(cells), CHANNELS)
    z, y, x = sites.coordinates[:, 1:].unbind(dim=1)
    grid = torch.zeros(1, CHANNELS, *GRID)
    grid[0, :, z, y, x] = rows.T
    with torch.no_grad():
        ours, theirs = sparse(rows, submanifold_rules(sites)), dense(grid)[0, :, z, y, x].T
    assert torch.allclose(ours, theirs, atol=1e-4)
    forms = {
        "dense": lambda: dense(grid).sum().backward(),
        "sparse, with its rules": lambda: sparse(rows, submanifold_rules(sites)).sum().backward(),
    }
    return len(cells), measure(forms, rounds)


def main(argv: list[str]) -> int:
    """Prints both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="a split of clouds")
    parser.add_argument("--rounds", type=int, default=5, help="turns (default 5)")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    config = load_experiment(
        CONFIG, [f"data.train.uri={arguments.data}", "data.augment=[]", f"data.batch={BATCH}"]
    )
    parts = step_parts(config, arguments.rounds)
    print(f"a step of PointPillars, {BATCH} clouds: {sum(parts.values()):.2f} CPU-seconds")
    for name, seconds in parts.items():
        print(f"  {name:<30}{seconds:8.3f} s")
    batch = next(iter(Loader(config.data)))
    used = batch.inputs["num_points"][0] > 0
    points = batch.inputs["voxels"][0][used][:, 0, :3].float()
    count, medians = convolutions(points, max(1, arguments.rounds // 2))
    cells = GRID[0] * GRID[1] * GRID[2]
    print(f"3x3x3, {CHANNELS} channels, {count:,} of {cells:,} cells, forward and backward")
    for name, value in medians.items():
        print(f"  {name:<30}{value:8.3f} s   {medians['dense'] / value:8.1f} x")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
