"""Wall seconds of ``jobs.analyze results`` with one and with two Ray tasks: scores of all images,
and pictures of many.

    python -m benchmarks.results [--images N] [--rounds R]

Photographs of noise, 640 x 480, with seven objects and a hundred detections each; half of them are
drawn. Both counts of workers run inside one Ray, by turns, so that its start counts for neither;
reading the two files is part of each run.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from benchmarks.evaluation import HEIGHT, WIDTH, make_files
from mtl_ray.analysis.paired import read_paired
from mtl_ray.analysis.results import results
from mtl_ray.distributed.executor import ray_executor
from mtl_ray.distributed.session import session

TARGET = 1.7


def run(gt: Path, found: Path, out: Path, workers: int, topk: int) -> float:
    started = time.monotonic()
    paired = read_paired(str(found), str(gt))
    results(paired, str(out), ray_executor(workers), topk=topk, show_score=0.3)
    return time.monotonic() - started


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument(
        "--rounds", type=int, default=3, help="by turns; the ratio is that of the medians"
    )
    args = parser.parse_args()
    times: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder, session(num_cpus=2):
        gt, found = make_files(Path(folder), args.images)
        rng = np.random.default_rng(0)
        for number in range(1, args.images + 1):
            noise = rng.integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
            cv2.imwrite(
                str(Path(folder) / f"{number:012d}.jpg"), cv2.resize(noise, (WIDTH, HEIGHT))
            )
        run(gt, found, Path(folder) / "warm", 2, 4)
        for turn in range(args.rounds):
            for workers in (1, 2):
                times[workers].append(
                    run(gt, found, Path(folder) / str(workers), workers, args.images // 4)
                )
            print(
                f"round {turn + 1}: one task at a time {times[1][-1]:.1f} s, two "
                f"{times[2][-1]:.1f} s"
            )
    ratio = float(np.median(times[1]) / np.median(times[2]))
    print(f"ratio of medians: {ratio:.2f} (target {TARGET:g})")
    return 0 if ratio >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
