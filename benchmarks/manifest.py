"""CPU seconds and memory to open a manifest of 100 million samples and learn where the first ones
lie.

    python -m benchmarks.manifest [--shards N]

The split has shards of 1,000 rows in 4 blocks, 32 MB each: 100,000 of them are 3.2 TB, of which
only the manifest is written here. A fresh Python reads the manifest, lays out the order of the
first epoch, and gives rank 0 of 8 its share of the first batch of 1024; its whole memory counts,
with Python and NumPy in it. The index of torch's DistributedSampler alone takes 33 bytes a sample.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from mtl_ray.samples import Vocabulary
from mtl_ray.shards.manifest import MANIFEST, ShardEntry, manifest_bytes

TARGET_S, TARGET_MB = 1.0, 100.0

READER = """
import json, sys, time
started = time.process_time()
from mtl_ray.shards.sequence import Sequence
from mtl_ray.shards.split import open_split
imported = time.process_time()
split = open_split(sys.argv[1])
opened = time.process_time()
sequence = Sequence([split], batch=1024, seed=0)
first = sequence.addresses(0, 0, 8, 1024)
found = time.process_time()
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
memory = int(status["VmHWM"].split()[0]) * 1024 / 1e6
far = time.process_time()
sequence.addresses(10**12 // 64 * 64, 7, 8, 1024)
sought = time.process_time()
for step in range(1, 101):
    sequence.addresses(step * 1024, 0, 8, 1024)
run = time.process_time()
print(json.dumps({"samples": split.num_samples, "import": imported - started, "open": opened - imported, "first": found - opened,
                  "memory": memory, "seek": sought - far, "batch": (run - sought) / 100, "rows": len(first)}))
"""  # noqa: E501


def write_manifest(folder: Path, shards: int) -> int:
    """A manifest without its shards; its size in bytes."""
    entries = [
        ShardEntry(
            name=f"train-{index:06d}.arrow",
            rows=1000,
            bytes=32_001_720 + index % 1000,
            sha256=hashlib.sha256(str(index).encode()).hexdigest(),
            block_offsets=(1720, 8_001_720, 16_001_720, 24_001_720),
            block_bytes=(8_000_000,) * 4,
            block_rows=(250,) * 4,
            block_crc32c=tuple((index * 4 + block) * 2_654_435_761 % 2**32 for block in range(4)),
        )
        for index in range(shards)
    ]
    vocabulary = Vocabulary(classes={"instances": tuple(f"class {index}" for index in range(80))})
    content = manifest_bytes(
        entries, name="train", encoding="arrow", shuffled=True, provenance={}, vocabulary=vocabulary
    )
    (folder / MANIFEST).write_bytes(content)
    return len(content)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shards", type=int, default=100_000, help="of 1,000 samples each (default %(default)s)"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        size = write_manifest(Path(folder), args.shards)
        # the disk's cache is warm
        subprocess.run([sys.executable, "-c", "import mtl_ray.shards.sequence"], check=True)
        output = subprocess.run(
            [sys.executable, "-c", READER, folder], check=True, capture_output=True, text=True
        ).stdout
    found = json.loads(output)
    total = found["open"] + found["first"]
    print(f"{found['samples']:,} samples, manifest of {size / 1e6:.1f} MB")
    print(f"{'import mtl_ray.shards':34} {found['import']:9.3f} s")
    print(f"{'open the manifest':34} {found['open']:9.3f} s")
    print(f"{'lay out an epoch, first indices':34} {found['first']:9.3f} s")
    print(f"{'both':34} {total:9.3f} s    {verdict(total, TARGET_S)} s")
    print(
        f"{'peak memory of the whole process':34} {found['memory']:9.1f} MB   "
        f"{verdict(found['memory'], TARGET_MB)} MB"
    )
    print(f"{'go to sample 10^12':34} {found['seek'] * 1e3:9.1f} ms")
    print(f"{'indices of a batch, rank 0 of 8':34} {found['batch'] * 1e3:9.3f} ms")
    return 0 if total < TARGET_S and found["memory"] < TARGET_MB else 1


def verdict(found: float, target: float) -> str:
    return f"{'<' if found < target else 'MISSED'} {target}"


if __name__ == "__main__":
    raise SystemExit(main())
