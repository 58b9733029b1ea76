"""Golden values: what small deterministic trainings, their exports and their files are, written
down once.

``python -m tests.golden.golden`` writes ``values.json`` and ``files/`` again. Do that only where a
value must change because a fault is mended, and say in the commit which value and why. Files of
earlier versions stay: they must open for ever.
"""

import contextlib
import hashlib
import json
import platform
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch

from mtl_ray.experiment import ExperimentConfig
from mtl_ray.export.bundle import export
from mtl_ray.export.config import ExportConfig
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.shards.split import open_split
from mtl_ray.shards.write import publish_manifest, shard_name, write_shard
from mtl_ray.training.context import RunContext
from mtl_ray.training.scalars import read_scalars
from mtl_ray.training.trainer import run
from tests.training.tiny import config_from, values, write_split

HERE = Path(__file__).parent
VALUES = HERE / "values.json"
FILES = HERE / "files"
STEPS = 20
SELECT = "select: {score_threshold: 0.0, max_detections: 20}"
BOXES = (
    f"{{type: yolov3, levels: [C3], channels: 8, anchors: [[[10, 10], [14, 14], [19, 19]]], "
    f"{SELECT}}}"
)
HEADS = {
    "yolov3": f"{{boxes: {BOXES}}}",
    "retinanet": f"{{boxes: {{type: retinanet, levels: [C3], channels: 8, convs: 1, {SELECT}}}}}",
    "fcn": "{semantic: {type: fcn, levels: [C3], channels: 8, convs: 1}}",
    "linear": "{labels: {type: linear, dropout: 0.1}}",
    "multilabel": "{labels: {type: multilabel}}",
    "joint": f"{{boxes: {BOXES}, semantic: {{type: fcn, levels: [C3], channels: 8, convs: 1}}, "
    f"labels: {{type: linear, dropout: 0.1}}}}",
}


def machine() -> str:
    """What equal bits need: the same processor, torch and kernels."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "",
    )
    return (
        f"{model or platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, torch "
        f"{torch.__version__}"
    )


def config(case: str, folder: Path) -> ExperimentConfig:
    """The tiny config with the heads of a case, 20 steps, and a record of each."""
    given = values(folder, folder / "runs")
    given["model"]["heads"] = {}
    return config_from(
        given,
        f"model.heads={HEADS[case]}",
        f"schedule.steps={STEPS}",
        f"schedule.evaluate_every_steps={STEPS}",
        "schedule.ema=0.9",
        "runtime.log_every_steps=1",
        "runtime.checkpoint_every_steps=null",
        f"runtime.name={case}",
    )


def content_hash(weights: Mapping[str, Any]) -> str:
    """A hash of tensors that does not depend on their names or order."""
    digests = sorted(
        hashlib.sha256(f"{each.dtype} {each.shape}".encode() + each.tobytes()).hexdigest()
        for each in weights.values()
    )
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def train(case: str, folder: Path) -> dict[str, Any]:
    """The losses of every step, the figures of the evaluation, and the hash of the final
    weights.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run(config(case, folder), RunContext())
    finally:
        torch.set_num_threads(threads)
    place = folder / "runs" / case
    rows = list(read_scalars(str(place / "scalars.jsonl")))
    checkpoint = next((place / "checkpoints").iterdir())
    return {
        "losses": [_numbers(row) for row in rows if row["mode"] == "train"],
        "metrics": [_numbers(row) for row in rows if row["mode"] != "train"],
        "weights": content_hash(
            safetensors.numpy.load((checkpoint / "model.safetensors").read_bytes())
        ),
        "ema": content_hash(safetensors.numpy.load((checkpoint / "ema.safetensors").read_bytes())),
    }


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """What a record says of the model, and not of the clock."""
    kept = {
        key: value
        for key, value in row.items()
        if isinstance(value, int | float) and ("/" in key or key == "loss")
    }
    return {
        key: float(value)
        for key, value in kept.items()
        if not key.startswith(("time", "speed", "gpu", "memory"))
    }


def answers(bundle: str) -> dict[str, list[float]]:
    """Sums over each field of what a bundle predicts for six fixed images."""
    rng = np.random.default_rng(5)
    images = [
        rng.integers(0, 255, (int(h), int(w), 3)).astype(np.uint8)
        for h, w in rng.integers(20, 60, (6, 2))
    ]
    found: dict[str, list[float]] = {}
    for predictions in BundlePredictor(bundle).predict(images):
        for head, prediction in predictions.items():
            for name in prediction.__slots__:
                if (value := getattr(prediction, name)) is not None:
                    found.setdefault(f"{head}/{name}", []).append(
                        float(np.asarray(value).astype(np.float64).sum())
                    )
    return found


def measure(folder: Path) -> dict[str, Any]:
    """Everything that is written down, measured now."""
    write_split(str(folder / "train"), 50, 1)
    write_split(str(folder / "val"), 13, 2)
    found: dict[str, Any] = {case: train(case, folder) for case in HEADS}
    export(
        str(folder / "runs" / "joint"),
        str(folder / "bundle"),
        ExportConfig(samples=2, min_agree=0.95),
    )
    return {"machine": machine(), "trainings": found, "bundle": answers(str(folder / "bundle"))}


def write_files(folder: Path) -> None:
    """One split in each encoding, one checkpoint, one bundle."""
    shutil.rmtree(FILES, ignore_errors=True)
    val = open_split(str(folder / "val"))
    samples = list(val.read(0, 6))
    for encoding in ("arrow", "tfrecord"):
        uri = str(FILES / encoding)
        entry = write_shard(uri, shard_name("golden", 0), samples, encoding=encoding)
        publish_manifest(
            uri,
            [entry],
            name="golden",
            encoding=encoding,
            vocabulary=val.vocabulary,
            shuffled=False,
            provenance={},
        )
    shutil.copytree(
        next((folder / "runs" / "joint" / "checkpoints").iterdir()), FILES / "checkpoint"
    )
    shutil.copytree(folder / "bundle", FILES / "bundle")


if __name__ == "__main__":
    # so that no path of this machine is in the files
    with (
        tempfile.TemporaryDirectory() as scratch,
        contextlib.chdir(scratch),
    ):
        VALUES.write_text(json.dumps(measure(Path()), indent=1) + "\n")
        write_files(Path())
