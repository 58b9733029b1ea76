"""Images a core-second that become shards without being encoded again, beside the least that such work can cost.

    python -m benchmarks.conversion [--images N] [--to DIR]

Files of 127 kB (the mean of ImageNet at 500x375) are read, written as a shard in each encoding, and measured: CRC-32C of every block (and,
in TFRecords, of every record) and SHA-256 of the whole. The limit reads the same files, copies them once, takes one CRC-32C and
writes. All are timed by turns in one process by the CPU time that it used; after a round to warm up, the median of three counts.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median

import google_crc32c
import numpy as np

from mtl_ray.samples import Instances, Sample
from mtl_ray.shards.write import write_shard

IMAGE_BYTES = 127 * 1024
IMAGES_A_SHARD = 500
TARGET = 5000
ROUNDS = 3


def make_files(folder: Path, count: int) -> list[Path]:
    noise = np.random.default_rng(0).bytes(2 * IMAGE_BYTES)
    paths = [folder / f"{index:06d}.jpg" for index in range(count)]
    for index, path in enumerate(paths):
        path.write_bytes(noise[index % IMAGE_BYTES :][:IMAGE_BYTES])
    return paths


def samples(paths: list[Path]) -> Iterator[Sample]:
    """As a source gives them: the file as it is, and seven objects, as many as COCO's images have on average."""
    objects = Instances(
        boxes_xyxy=np.arange(28, dtype=np.float32).reshape(7, 4),
        classes=np.arange(7),
        ids=np.arange(7),
        areas=np.ones(7, np.float32),
        crowd=np.zeros(7, np.bool_),
        difficult=np.zeros(7, np.bool_),
        truncated=np.zeros(7, np.bool_),
    )
    for path in paths:
        yield Sample(key=path.name, image=path.read_bytes(), height=375, width=500, instances=objects)


def limit(paths: list[Path], target: Path) -> None:
    with open(target, "wb", buffering=0) as file:
        for start in range(0, len(paths), 64):
            block = b"".join([path.read_bytes() for path in paths[start : start + 64]])
            google_crc32c.value(block)
            file.write(block)
        os.fsync(file.fileno())


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(count: int, folder: Path) -> dict[str, float]:
    """Images a CPU second by what was done."""
    paths = make_files(folder, count)
    parts = [paths[start : start + IMAGES_A_SHARD] for start in range(0, count, IMAGES_A_SHARD)]
    works: dict[str, Callable[[list[Path]], object]] = {
        "limit: read, copy, CRC-32C, write": lambda part: limit(part, folder / "out" / "limit"),
        "arrow shards": lambda part: write_shard(str(folder / "out"), "shard", samples(part)),
        "tfrecord shards": lambda part: write_shard(str(folder / "out"), "shard", samples(part), encoding="tfrecord"),
    }
    spent: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(1 + ROUNDS):
        for name in works:
            spent[name].append(0.0)
        for part, (name, work) in product(parts, works.items()):
            (folder / "out").mkdir()
            spent[name][-1] += cpu_seconds(partial(work, part))
            shutil.rmtree(folder / "out")  # so that all write to memory that the machine has used before
    return {name: count / median(seconds[1:]) for name, seconds in spent.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000, help="how many files of 127 kB (default %(default)s)")
    parser.add_argument("--to", type=Path, default=None, help="where to write (a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.to) as folder:
        found = measure(args.images, Path(folder))
    best = max(found.values())
    print(f"{'':36} {'images/core-s':>14} {'MB/core-s':>10} {'of limit':>9} {'target':>8}")
    for name, rate in found.items():
        target = "" if name.startswith("limit") else f"{'>=' if rate >= TARGET else 'MISSED'} {TARGET}"
        print(f"{name:36} {rate:14,.0f} {rate * IMAGE_BYTES / 1e6:10,.0f} {rate / best:9.2f} {target:>8}")
    return 0 if all(rate >= TARGET for rate in found.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
