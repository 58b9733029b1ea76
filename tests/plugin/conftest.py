"""A user's folder: raw signals, a config, and the package pulse_counting on PYTHONPATH."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / "tests" / "plugin"
CONFIG = """\
plugins: [pulse_counting]
model:
  backbone: {type: conv1d, width: 16}
  heads:
    pulses: {type: count}
method: {type: noise}
data:
  canvas: {type: signal, length: 128}
  train: {uri: shards/train}
  val: {uri: shards/val}
  batch: 16
schedule:
  steps: 200
  evaluate_every_steps: 100
  optimizer: {type: adamw, lr: 0.003}
runtime: {name: pulses, storage: runs, log_every_steps: 5, wandb: disabled}
export: {engine: {type: reference}, samples: 4}
"""


@dataclass(frozen=True)
class Workplace:
    """A folder in which a user runs jobs."""

    folder: Path
    path: tuple[Path, ...] = field(default=(PACKAGES,))

    def command(self, module: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", module, *arguments]

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("RAY_") or name == "RAY_TMPDIR"
        }
        return {**kept, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *self.path)))}

    def run(self, module: str, *arguments: str, status: int = 0) -> str:
        """What a job prints."""
        done = subprocess.run(
            self.command(module, *arguments),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == status, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout + done.stderr


def write_signals(folder: Path, count: int, seed: int) -> None:
    """Files of noise with up to seven pulses, and their counts."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    lines = []
    for index in range(count):
        length, pulses = int(rng.integers(60, 140)), int(rng.integers(0, 8))
        signal = rng.normal(0, 0.05, length)
        for place in rng.choice(np.arange(2, length - 2, 4), pulses, replace=False):
            signal[place - 1 : place + 2] += [0.5, 1, 0.5]
        signal.astype("<f4").tofile(folder / f"{index:04d}.f32")
        lines.append(f"{index:04d}.f32,{pulses}")
    (folder / "counts.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    place = Workplace(tmp_path_factory.mktemp("signals"))
    write_signals(place.folder / "raw" / "train", 240, 1)
    write_signals(place.folder / "raw" / "val", 40, 2)
    (place.folder / "raw" / "train" / "bad.f32").write_bytes(b"odd")
    (place.folder / "config.yaml").write_text(CONFIG)
    return place
