"""How long until the first optimiser step, by part: ``python -m benchmarks.start_up [--rounds 3] [--workers 2]``.

The same tiny model is started in turn (A B A B) by ``torchrun -m mtl_ray.training`` and by ``jobs.train``, each as its own process.
The moment of the first step is the first line of the ledger; the parts of the start on Ray come from what the processes note down.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from tests.training.tiny import values, write_split

LONGEST_S = 300.0


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start_up", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        config = _config(Path(folder))
        times: dict[str, list[float]] = {"torchrun": [], "ray": []}
        for number in range(args.rounds):
            for way, command in _commands(config, args.workers).items():
                times[way].append(_first_step(command, Path(folder) / f"{way}-{number}"))
                print(f"round {number + 1}: {way:<9} {times[way][-1]:6.1f} s", flush=True)
    torchrun, on_ray = statistics.median(times["torchrun"]), statistics.median(times["ray"])
    print(f"\nmedian: torchrun {torchrun:.1f} s, on Ray {on_ray:.1f} s: {on_ray / torchrun:.2f} times as long")
    return 0


def _config(folder: Path) -> Path:
    write_split(str(folder / "train"), 50, 1)
    write_split(str(folder / "val"), 13, 2)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(values(folder, folder / "runs")))
    return path


def _commands(config: Path, workers: int) -> Mapping[str, list[str]]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}", "-m", "mtl_ray.training"]
    return {
        "torchrun": [*torchrun, str(config)],
        "ray": [sys.executable, "-m", "jobs.train", str(config), f"runtime.workers={workers}"],
    }


def _first_step(command: list[str], folder: Path) -> float:
    """Seconds from the command to the first line of a ledger; the run then ends by itself."""
    options = [f"runtime.ledger={folder / 'ledger'}", f"runtime.storage={folder / 'runs'}", "schedule.steps=20"]
    started = time.time()
    with open(folder.with_suffix(".log"), "wb") as log:
        process = subprocess.Popen([*command, *options], stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
        first = _wait_for_line(process, folder / "ledger", started)
        process.wait()
    if process.returncode:
        raise RuntimeError(folder.with_suffix(".log").read_text()[-3000:])
    return first


def _wait_for_line(process: "subprocess.Popen[bytes]", ledger: Path, started: float) -> float:
    while time.time() - started < LONGEST_S:
        for path in ledger.glob("*.jsonl"):
            lines = path.read_text().splitlines()
            if lines and json.loads(lines[0])["step"] == 1:
                return time.time() - started
        if process.poll() not in (None, 0):
            break
        time.sleep(0.02)
    return float("nan")


if __name__ == "__main__":
    sys.exit(main())
