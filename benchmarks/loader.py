"""Images per core-second of the loader, beside a bare loop of the same work and beside torch's
DataLoader with Pillow.

    python -m benchmarks.loader [--rounds 5] [--images 512]

All read the same shards of JPEGs (500 x 375 pixels, about 127 kB, cut from scikit-learn's two
photographs) and give uint8 batches of 64 at 224 x 224, cut from the middle. They take turns within
one run, with one thread a library; what counts is the CPU time of the process and its children, so
that neighbours on the machine matter little.
"""

import argparse
import io
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data import DataLoader, Dataset

from mtl_ray.inputs.decode import decode_image
from mtl_ray.inputs.frame import place
from mtl_ray.inputs.image import Canvas
from mtl_ray.loading.config import DataConfig, SplitConfig
from mtl_ray.loading.loader import Loader
from mtl_ray.samples import Vocabulary, image_sample
from mtl_ray.shards.split import Split, open_split
from mtl_ray.shards.write import publish_manifest, write_shard

HEIGHT, WIDTH, SIDE, BATCH = 375, 500, 224, 64


def main(argv: list[str] | None = None) -> int:
    """Prints the figures of every round and the medians of their ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--images", type=int, default=512, help="a multiple of 64; each round reads all of them"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=2,
        help="threads of the loader and processes of the DataLoader",
    )
    options = parser.parse_args(argv)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write(folder, options.images)
        ways = {kernel: loader(folder, options, kernel) for kernel in ("area", "linear")}
        contestants: dict[str, Callable[[], None]] = {
            "loader": ways["area"],
            "bare loop": bare_loop(folder, "area"),
            "loader, linear": ways["linear"],
            "bare loop, linear": bare_loop(folder, "linear"),
            "DataLoader + Pillow": data_loader(folder, options.threads),
        }
        figures: dict[str, list[float]] = {name: [] for name in contestants}
        for turn in range(options.rounds):
            for name in rotated(list(contestants), turn):
                figures[name].append(rate(contestants[name], options.images))
    report(figures)
    return 0


def rotated(names: list[str], turn: int) -> list[str]:
    """Another one begins each round: what comes after the DataLoader pays for pages of memory
    that its processes shared.
    """
    start = turn % len(names)
    return names[start:] + names[:start]


def report(figures: dict[str, list[float]]) -> None:
    """A line for each contestant, and the ratios, round by round, of which the median counts."""
    for name, rates in figures.items():
        print(
            f"{name:22s} {statistics.median(rates):7.0f} images per core-second   "
            f"({', '.join(f'{each:.0f}' for each in rates)})"
        )
    for one, other in (
        ("loader", "bare loop"),
        ("loader, linear", "bare loop, linear"),
        ("loader", "DataLoader + Pillow"),
        ("loader, linear", "DataLoader + Pillow"),
    ):
        ratios = [
            first / second for first, second in zip(figures[one], figures[other], strict=True)
        ]
        print(
            f"{one} / {other}: {statistics.median(ratios):.2f}   "
            f"({', '.join(f'{each:.2f}' for each in ratios)})"
        )


def rate(contest: Callable[[], None], images: int) -> float:
    """Images per second of CPU time, user and system, of this process and of those of its
    children that ended.
    """
    before = cpu_s()
    contest()
    return images / (cpu_s() - before)


def cpu_s() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def write(folder: str, images: int) -> None:
    """A split of different cuts of the two photographs, with a little noise, as JPEGs of about
    127 kB.
    """
    numbers = np.random.default_rng(0)
    photographs = [
        cv2.resize(each, None, fx=1.5, fy=1.5, interpolation=cv2.INTER_CUBIC)
        for each in load_sample_images().images
    ]
    samples = []
    for index in range(images):
        photograph = photographs[index % 2]
        top, left = (
            int(numbers.integers(0, most))
            for most in (photograph.shape[0] - HEIGHT, photograph.shape[1] - WIDTH)
        )
        part = photograph[top : top + HEIGHT, left : left + WIDTH]
        noisy = np.clip(part + numbers.normal(0, 5, part.shape), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noisy).save(buffer, "JPEG", quality=97)
        labels = np.array([index % 2], np.int64)
        samples.append(
            image_sample(
                key=f"{index:05d}.jpg",
                image=buffer.getvalue(),
                height=HEIGHT,
                width=WIDTH,
                labels=labels,
            )
        )
    entry = write_shard(folder, "train-00000", samples)
    vocabulary = Vocabulary(classes={"labels": ("china", "flower")})
    publish_manifest(
        folder, [entry], name="train", vocabulary=vocabulary, shuffled=True, provenance={}
    )
    print(f"{images} JPEGs of {sum(len(each.image) for each in samples) / images / 1000:.0f} kB")


def rule_of(kernel: str) -> Canvas:
    return Canvas(kind="crop", height=SIDE, width=SIDE, kernel=kernel)  # type: ignore[arg-type]


def loader(folder: str, options: argparse.Namespace, kernel: str) -> Callable[[], None]:
    split = SplitConfig(uri=folder)
    data = DataConfig(
        train=split,
        val=split,
        canvas=rule_of(kernel),
        batch=BATCH,
        threads=options.threads,
        cache_mb=0,
    )
    batches = iter(Loader(data))
    next(batches)
    wait_until_idle()

    def run() -> None:
        """As many batches are begun as are taken; those that lie ready at the end were not ready
        at the beginning.
        """
        for batch in islice(batches, options.images // BATCH):
            assert batch.inputs["image"].shape == (BATCH, 3, SIDE, SIDE)
        wait_until_idle()

    return run


def wait_until_idle() -> None:
    """Until the loader's threads have made all the batches that they make ahead."""
    before, now = -1.0, cpu_s()
    while now - before > 0.005:
        time.sleep(0.1)
        before, now = now, cpu_s()


def bare_loop(folder: str, kernel: str) -> Callable[[], None]:
    """The same decoding, placement and collation of JPEGs that lie in memory, and nothing else."""
    split = open_split(folder)
    files = [sample.image for sample in split.read(0, split.num_samples)]
    rule = rule_of(kernel)

    def run() -> None:
        for start in range(0, len(files), BATCH):
            batch = np.empty((BATCH, 3, SIDE, SIDE), np.uint8)
            for slot, data in enumerate(files[start : start + BATCH]):
                canvas, _ = place(decode_image(data), rule)
                cv2.split(canvas, list(batch[slot]))
            torch.from_numpy(batch)

    return run


class PillowDataset(Dataset[tuple[NDArray[np.uint8], int]]):
    """What is usual: Pillow decodes, cuts from the middle and scales (bilinear with
    antialiasing), NumPy gives channels first.
    """

    def __init__(self, split: Split) -> None:
        self.places = [
            (block, row)
            for block, rows in enumerate(split.block_rows.tolist())
            for row in range(rows)
        ]
        self.split = split

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int]:
        sample = self.split.read_row(*self.places[index])
        image = Image.open(io.BytesIO(sample.image)).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        scaled = image.resize(
            (SIDE, SIDE), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side)
        )
        return np.ascontiguousarray(np.asarray(scaled).transpose(2, 0, 1)), int(sample.labels[0])


def data_loader(folder: str, workers: int) -> Callable[[], None]:
    def run() -> None:
        for images, _ in DataLoader(
            PillowDataset(open_split(folder)), batch_size=BATCH, shuffle=True, num_workers=workers
        ):
            assert images.shape == (BATCH, 3, SIDE, SIDE)

    return run


if __name__ == "__main__":
    raise SystemExit(main())
