"""How long until the first optimiser step, by part: ``python -m benchmarks.start_up [--rounds 3]
[--workers 2]``.

The same tiny model is started in turn (A B A B) by ``torchrun -m mtl_ray.training`` and on Ray,
each in processes of its own. The moments come from what the run itself leaves: its attempt is
written down when the ranks have met, its config when the network is built, the first line of its
ledger after the first step. Those of the driver on Ray are noted by this file, which is then the
driver.
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
from typing import Any

import yaml

LONGEST_S = 300.0
PARTS = {
    "torchrun": ("ranks have met", "network is built", "first step"),
    "Ray": (
        "driver: imports",
        "Ray is up",
        "group is sized",
        "workers are there",
        "ranks have met",
        "network is built",
        "first step",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start_up", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--driver", nargs=2, metavar=("CONFIG", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.driver:
        return _drive(Path(args.driver[0]), Path(args.driver[1]), args.workers)
    with tempfile.TemporaryDirectory() as folder:
        config = _config(Path(folder))
        seen: dict[str, list[dict[str, float]]] = {way: [] for way in PARTS}
        for number in range(args.rounds):
            for way in PARTS:
                seen[way].append(
                    _moments(way, config, Path(folder) / f"{way}-{number}", args.workers)
                )
                print(
                    f"round {number + 1}: {way:<9} {seen[way][-1]['first step']:6.1f} s", flush=True
                )
    print(_table(seen))
    return 0


def _table(seen: Mapping[str, list[dict[str, float]]]) -> str:
    lines = ["", "seconds from the command (median) and since the line above"]
    for way, parts in PARTS.items():
        before = 0.0
        for part in parts:
            at = statistics.median(moments[part] for moments in seen[way])
            lines.append(f"{way:<9} {part:<18} {at:6.1f} {at - before:+6.1f}")
            before = at
    torchrun, ray = (
        statistics.median(moments["first step"] for moments in seen[way]) for way in PARTS
    )
    return "\n".join([*lines, f"first step on Ray / under torchrun: {ray / torchrun:.2f}"])


def _config(folder: Path) -> Path:
    from tests.training.tiny import values, write_split

    write_split(str(folder / "train"), 50, 1)
    write_split(str(folder / "val"), 13, 2)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(values(folder, folder / "runs")))
    return path


def _moments(way: str, config: Path, folder: Path, workers: int) -> dict[str, float]:
    """Seconds from the command to each part's end."""
    folder.mkdir()
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={workers}",
        "-m",
        "mtl_ray.training",
    ]
    driver = [
        sys.executable,
        "-m",
        "benchmarks.start_up",
        f"--workers={workers}",
        "--driver",
        str(config),
        str(folder),
    ]
    command = [*torchrun, str(config), *_options(folder)] if way == "torchrun" else driver
    started = time.time()
    with open(folder / "log", "wb") as log:
        done = subprocess.run(
            command,
            stdout=log,
            stderr=log,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            check=False,
            timeout=LONGEST_S,
        )
    if done.returncode:
        raise RuntimeError((folder / "log").read_text(errors="replace")[-3000:])
    run = folder / "runs" / "run"
    moments: dict[str, float] = (
        json.loads((folder / "driver.json").read_text()) if way == "Ray" else {}
    )
    moments["ranks have met"] = json.loads((run / "attempts" / "00000001.json").read_text())[
        "started"
    ]
    moments["network is built"] = (run / "config.yaml").stat().st_mtime
    moments["first step"] = _first(folder / "ledger")
    return {part: moment - started for part, moment in moments.items()}


def _options(folder: Path) -> list[str]:
    return [
        f"runtime.ledger={folder / 'ledger'}",
        f"runtime.storage={folder / 'runs'}",
        "schedule.steps=1",
    ]


def _first(ledger: Path) -> float:
    """When the first step was done: with one step a run, when the ledger was last written."""
    return min(path.stat().st_mtime for path in ledger.glob("*.jsonl"))


def _drive(config: Path, folder: Path, workers: int) -> int:
    """What ``jobs.train`` does, noting when."""
    from mtl_ray.config.load import load_tree
    from mtl_ray.config.validate import validate
    from mtl_ray.distributed import train as module
    from mtl_ray.experiment import ExperimentConfig

    moments = {"driver: imports": time.time()}
    made, watch = module._Driver.__init__, module._Driver._watch

    def make(driver: Any, *given: Any) -> None:
        moments["Ray is up"] = time.time()
        made(driver, *given)

    def look(driver: Any) -> None:
        import ray

        group = ray.get(driver._run_state.group_state.remote())
        if group.size:
            moments.setdefault("group is sized", time.time())
        if group.nodes:
            moments.setdefault("workers are there", time.time())
        watch(driver)

    module._Driver.__init__, module._Driver._watch = make, look  # type: ignore[method-assign]
    module.train(
        validate(
            load_tree(str(config), [*_options(folder), f"runtime.workers={workers}"]),
            ExperimentConfig,
        )
    )
    (folder / "driver.json").write_text(json.dumps(moments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
