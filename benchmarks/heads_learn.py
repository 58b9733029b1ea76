"""Does every detection head learn? Each trains for the same time on one core, on real images.

``python -m benchmarks.heads_learn --data SHARDS [--heads fcos atss ...] [--seconds 100]``: a
ResNet-18 of half width and a pyramid of 64 channels from random weights, batches of 4 at 192 x 256,
flips and brightness; then mAP50 on val against the floor of each head, which the original network
reaches in the same time. SHARDS holds the splits ``train`` and ``val`` (BCCD). The status is 1 if a
head stays below its floor. Run it on an idle machine: seconds are those of the training loop.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

PYRAMID = {"type": "fpn", "channels": 64, "norm": False, "extra": 2, "extra_input": "output"}
BASE: Mapping[str, Any] = {
    "model": {
        "backbone": {"type": "resnet", "depth": 18, "base_channels": 32},
        "necks": {"pyramid": PYRAMID},
    },
    "data": {
        "canvas": {"kind": "letterbox", "height": 192, "width": 256},
        "augment": [
            {"type": "flip"},
            {"type": "flip", "direction": "vertical"},
            {"type": "colour", "contrast": 0.0, "saturation": 0.0, "hue": 0.0},
        ],
        "batch": 4,
        "threads": 1,
    },
    "schedule": {
        "epochs": 100,
        "optimizer": {"type": "adamw", "lr": 2e-3, "weight_decay": 0.05},
        "rate": {"type": "cosine"},
        "evaluate_every": 100,
    },
    "runtime": {"workers": 1, "device": "cpu"},
}
GRID = {"channels": 64, "convs": 2}
TRICKS = {
    "center_sampling": True,
    "norm_on_bbox": True,
    "centerness_on_reg": True,
    "conv_bias": True,
    "box_loss": "giou",
    "limits": [32, 64, 128, 256],
}
LEVELS = {"levels": ["P3", "P4", "P5"]}
PATHS = {"pyramid": {"type": "pafpn", "channels": 64}}
SLOW = {"optimizer": {"lr": 5e-4}, "clip_grad_norm": 0.1}


class Case(NamedTuple):
    """A head, the mAP50 that it must reach, and what else differs from ``BASE``."""

    floor: float
    head: Mapping[str, Any]
    backbone: Mapping[str, Any] = {}
    necks: Mapping[str, Any] = {"pyramid": PYRAMID}
    schedule: Mapping[str, Any] = {}


CASES: Mapping[str, Case] = {
    "atss": Case(0.60, GRID),
    "retinanet": Case(
        0.60,
        GRID | {"anchor_scale": 2.5},  # 20 px; a platelet has 16
        schedule={"optimizer": {"lr": 3e-3}},
    ),
    "fcos": Case(0.60, GRID | TRICKS),
    "gfl": Case(0.60, GRID, schedule={"optimizer": {"lr": 3e-3}}),
    "yolox": Case(0.60, GRID | LEVELS, necks=PATHS),
    "rtmdet": Case(0.45, GRID | LEVELS, necks=PATHS, schedule={"optimizer": {"lr": 1e-3}}),
    "faster_rcnn": Case(
        0.58,
        {"rpn": {"channels": 64}, "roi": {"channels": 256, "samples": 128}},
        backbone={"levels": ["C2", "C3", "C4", "C5"]},
        necks={
            "pyramid": {
                "type": "fpn",
                "inputs": ["C2", "C3", "C4", "C5"],
                "channels": 64,
                "norm": False,
                "extra": 1,
                "pool_extra": True,
            }
        },
    ),
    "deformable_detr": Case(
        0.33,
        {
            "channels": 128,
            "encoder_layers": 1,
            "decoder_layers": 3,
            "feedforward": 512,
            "queries": 100,
            "refine": True,
            "dropout": 0.0,
        },
        necks={"mapper": {"type": "channel_mapper", "channels": 128, "extra": 1}},
        schedule=SLOW,
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a line for each head; 1 if one stays below its floor."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder of the splits train and val")
    parser.add_argument("--heads", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--seconds", type=float, default=100.0, help="of training (default 100)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    args = parser.parse_args(argv)
    print(f"{'head':<16} {'floor':>6} {'mAP50':>6} {'mAP':>6} {'steps':>6} {'CPU s':>6}")
    below = 0
    for name in args.heads:
        with tempfile.TemporaryDirectory() as folder:
            figures = _train(name, Path(folder), args)
        below += figures["boxes/mAP50"] < CASES[name].floor
        print(
            f"{name:<16} {CASES[name].floor:6.2f} {figures['boxes/mAP50']:6.3f} "
            f"{figures['boxes/mAP']:6.3f} {figures['steps']:6.0f} {figures['cpu_s']:6.0f}",
            flush=True,
        )
    return 1 if below else 0


def _train(name: str, folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Trains one head in a process of its own; its metrics, steps and CPU seconds."""
    config = folder / f"{name}.yaml"
    config.write_text(yaml.safe_dump(_tree(name, folder, args), sort_keys=False))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "mtl_ray.training", str(config), *args.overrides],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [line.split() for line in done.stdout.splitlines()]
    figures = {line[0]: float(line[1]) for line in words if len(line) == 2 and "/" in line[0]}
    steps = next(float(line[-2]) for line in words if line and line[-1] == "steps")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return figures | {"steps": steps, "cpu_s": cpu_s}


def _tree(name: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    case = CASES[name]
    model = {
        "backbone": {**BASE["model"]["backbone"], **case.backbone},
        "necks": dict(case.necks),
        "heads": {"boxes": {"type": name, **case.head}},
    }
    optimizer = BASE["schedule"]["optimizer"] | case.schedule.get("optimizer", {})
    schedule = {**BASE["schedule"], **case.schedule, "optimizer": optimizer}
    splits = {split: {"uri": str(Path(args.data).absolute() / split)} for split in ("train", "val")}
    runtime = {**BASE["runtime"], "name": name, "storage": str(folder), "seed": args.seed}
    return {
        "model": model,
        "data": {**BASE["data"], **splits},
        "schedule": schedule | {"seconds": args.seconds},
        "runtime": runtime,
    }


if __name__ == "__main__":
    sys.exit(main())
