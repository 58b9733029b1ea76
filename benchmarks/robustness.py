"""Robustness with one worker and with two, by turns; and what a corruption costs an image.

    python -m benchmarks.robustness TARGET --data D [--images DIR] [--corruptions NAME ...]

Both runs are whole commands, so that the second one's time holds the start of Ray; the figures of
both must be the same. Worth its name on a machine that does nothing else and has at least two
cores.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from mtl_ray.analysis.corruptions import ALL, BENCHMARK, SEVERITIES, corrupt

TARGET = 1.7
SIZE = (375, 500)


def wall(arguments: Sequence[str], workers: int, out: Path) -> float:
    """Seconds of one command."""
    started = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "jobs.analyze",
        "robustness",
        *arguments,
        "--workers",
        str(workers),
        "--out",
        str(out),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - started


def compare(arguments: Sequence[str], rounds: int) -> float:
    times: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        reports = set()
        for turn in range(rounds):
            for workers in times:
                out = Path(folder) / f"{turn}-{workers}"
                times[workers].append(wall(arguments, workers, out))
                content = json.loads((out / "robustness.json").read_text())
                reports.add(json.dumps(content["figures"]))
                print(f"{workers} worker(s): {times[workers][-1]:6.1f} s", flush=True)
    assert len(reports) == 1, "the figures depend on the number of workers"
    ratio = median(times[1]) / median(times[2])
    print(f"one worker / two workers: {ratio:.2f} (target {TARGET})")
    return ratio


def costs(rounds: int = 3) -> None:
    """CPU milliseconds of each corruption, the mean over its severities."""
    cv2.setNumThreads(1)
    noise = (
        np.random.default_rng(0).integers(0, 255, (SIZE[0] // 8, SIZE[1] // 8, 3)).astype(np.uint8)
    )
    image = np.asarray(cv2.resize(noise, SIZE[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)
    found = {}
    for name in ALL:
        times = []
        for turn in range(rounds):
            started = time.process_time()
            for severity in SEVERITIES:
                corrupt(image, name, severity, np.random.default_rng(turn))
            times.append((time.process_time() - started) / len(SEVERITIES))
        found[name] = 1000 * median(times)
    print("  ".join(f"{name} {cost:.1f}" for name, cost in found.items()))
    print(
        f"the 15 of the benchmark: {sum(found[name] for name in BENCHMARK):.0f} ms an image of "
        f"{SIZE[1]} x {SIZE[0]}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", help="run folder, checkpoint or bundle")
    parser.add_argument("--data", required=True)
    parser.add_argument("--images")
    parser.add_argument("--corruptions", nargs="+", default=["benchmark"])
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    costs()
    images = ["--images", args.images] if args.images else []
    ratio = compare(
        [args.target, "--data", args.data, *images, "--corruptions", *args.corruptions], args.rounds
    )
    return 0 if ratio >= TARGET else 1


if __name__ == "__main__":
    raise SystemExit(main())
