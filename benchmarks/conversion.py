"""Images a core-second that become shards without being encoded again, beside the least that such
work can cost.

    python -m benchmarks.conversion [--images N] [--to DIR]

Files of 127 kB (the mean of ImageNet at 500x375) are read and written as shards with a label each,
or with seven objects each (the mean of COCO). A shard costs a CRC-32C of every block, in TFRecords
one of every record besides, and a SHA-256 of the whole. The limits read the same files, copy them
once, take one CRC-32C, or that and a SHA-256, and write. All are timed by turns in one process by
the CPU time that it used; after a round to warm up, the median of three counts.
"""

import argparse
import hashlib
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

from mtl_ray.annotations.instance_values import Instances
from mtl_ray.samples import Sample, image_sample
from mtl_ray.shards.manifest import Encoding
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


def samples(paths: list[Path], objects: int) -> Iterator[Sample]:
    """As a source gives them: the file as it is, with a label or with some objects."""
    instances = Instances(
        boxes_xyxy=np.arange(4 * objects, dtype=np.float32).reshape(objects, 4),
        classes=np.arange(objects),
        ids=np.arange(objects),
        areas=np.ones(objects, np.float32),
        crowd=np.zeros(objects, np.bool_),
        difficult=np.zeros(objects, np.bool_),
        truncated=np.zeros(objects, np.bool_),
    )
    for path in paths:
        if objects:
            yield image_sample(
                key=path.name, image=path.read_bytes(), height=375, width=500, instances=instances
            )
        else:
            yield image_sample(
                key=path.name, image=path.read_bytes(), height=375, width=500, labels=np.array([1])
            )


def limit(paths: list[Path], folder: Path, sha256: bool) -> None:
    digest = hashlib.sha256()
    with open(folder / "limit", "wb", buffering=0) as file:
        for start in range(0, len(paths), 64):
            block = b"".join([path.read_bytes() for path in paths[start : start + 64]])
            google_crc32c.value(block)
            if sha256:
                digest.update(block)
            file.write(block)
            del block
        os.fsync(file.fileno())


def shard(paths: list[Path], folder: Path, encoding: Encoding, objects: int) -> None:
    write_shard(str(folder), "shard", samples(paths, objects), encoding=encoding)


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(count: int, folder: Path) -> dict[str, float]:
    """Images a CPU second by what was done."""
    paths = make_files(folder, count)
    parts = [paths[start : start + IMAGES_A_SHARD] for start in range(0, count, IMAGES_A_SHARD)]
    works: dict[str, Callable[[list[Path], Path], None]] = {
        "limit: read, copy, CRC-32C, write": partial(limit, sha256=False),
        "limit: the same and SHA-256": partial(limit, sha256=True),
        "arrow, a label each": partial(shard, encoding="arrow", objects=0),
        "arrow, seven objects each": partial(shard, encoding="arrow", objects=7),
        "tfrecord, a label each": partial(shard, encoding="tfrecord", objects=0),
        "tfrecord, seven objects each": partial(shard, encoding="tfrecord", objects=7),
    }
    spent: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(1 + ROUNDS):
        for name in works:
            spent[name].append(0.0)
        for part, (name, work) in product(parts, works.items()):
            (folder / "out").mkdir()
            spent[name][-1] += cpu_seconds(partial(work, part, folder / "out"))
            # so that all write to memory that the machine has used before
            shutil.rmtree(folder / "out")
    return {name: count / median(seconds[1:]) for name, seconds in spent.items()}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images", type=int, default=2000, help="how many files of 127 kB (default %(default)s)"
    )
    parser.add_argument("--to", type=Path, default=None, help="where to write (a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.to) as folder:
        found = measure(args.images, Path(folder))
    lower, upper = found["limit: read, copy, CRC-32C, write"], found["limit: the same and SHA-256"]
    print(f"{'':34} {'images/core-s':>14} {'MB/core-s':>10} {'of limit':>9} {'with SHA-256':>13}")
    for name, rate in found.items():
        verdict = (
            ""
            if name.startswith("limit")
            else f"   {'>=' if rate >= TARGET else 'MISSED'} {TARGET}"
        )
        print(
            f"{name:34} {rate:14,.0f} {rate * IMAGE_BYTES / 1e6:10,.0f} {rate / lower:9.2f} "
            f"{rate / upper:13.2f}{verdict}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
