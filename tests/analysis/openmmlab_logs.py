"""Small logs in the forms of the OpenMMLab generations, made line by line."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Line = Mapping[str, Any]


def write_log(path: Path, lines: Iterable[Line], cut: int = 0) -> str:
    """A log of JSON lines, without its last ``cut`` characters."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text[: len(text) - cut])
    return str(path)


def mmcv1(
    epochs: Iterable[int] = (1, 2, 3), logged: int = 4, every: int = 50, *, header: bool = True
) -> list[Line]:
    """mmcv 1.x: ``mode``, iterations within the epoch, an evaluation after each epoch, whose
    ``iter`` is the number of its own batches.
    """
    lines: list[Line] = [
        {
            "env_info": "...",
            "config": "model = dict()",
            "seed": 0,
            "epoch": 0,
            "time": "2024-01-01",
            "exp_name": "x.py",
        }
    ]
    lines = lines if header else []
    for epoch in epochs:
        for number in range(1, logged + 1):
            loss = round(1 / (epoch + number / 10), 5)
            time = 0.9 if number == 1 else 0.2 + epoch / 100
            more = {
                "memory": 900,
                "data_time": 0.01,
                "loss_cls": loss / 2,
                "loss": loss,
                "time": time,
            }
            lines.append(
                {"mode": "train", "epoch": epoch, "iter": number * every, "lr": 0.01, **more}
            )
        value = {"bbox_mAP": epoch / 10, "bbox_mAP_50": epoch / 8, "bbox_mAP_copypaste": "0.1 0.2"}
        lines.append({"mode": "val", "epoch": epoch, "iter": 17, "lr": 0.01, **value})
    return lines


def mmengine(
    epochs: Iterable[int] = (1, 2, 3),
    logged: int = 4,
    every: int = 50,
    tail: int = 7,
    evaluate: int = 1,
) -> list[Line]:
    """mmengine: no mode, the step of the whole training, evaluations under the number of their
    epoch.
    """
    lines: list[Line] = []
    length = logged * every + tail
    for epoch in epochs:
        for number in range(1, logged + 1):
            step = (epoch - 1) * length + number * every
            time = 0.9 if number == 1 else 0.2 + epoch / 100
            lines.append(
                {
                    "lr": 0.01,
                    "data_time": 0.01,
                    "loss": 1 / epoch,
                    "time": time,
                    "epoch": epoch,
                    "memory": 900,
                    "step": step,
                }
            )
        if epoch % evaluate == 0:
            lines.append(
                {
                    "coco/bbox_mAP": epoch / 10,
                    "coco/AP (L)": -1.0,
                    "data_time": 0.3,
                    "time": 5.0,
                    "step": epoch,
                }
            )
    return lines


def by_iteration(steps: int = 6, every: int = 50, evaluate: int = 2) -> list[Line]:
    """mmengine without epochs: evaluations under the number of the step, the last one under 0,
    as mmsegmentation writes it.
    """
    lines: list[Line] = []
    for number in range(1, steps + 1):
        lines.append(
            {
                "lr": 0.01,
                "data_time": 0.01,
                "decode.loss_ce": 1 / number,
                "loss": 1 / number,
                "time": 0.5,
                "step": number * every,
            }
        )
        if number % evaluate == 0:
            lines.append(
                {
                    "mIoU": 10.0 * number,
                    "aAcc": 50.0,
                    "time": 3.0,
                    "step": 0 if number == steps else number * every,
                }
            )
    return lines


def ours(steps: int = 6) -> list[Line]:
    """This project's ``scalars.jsonl``."""
    lines: list[Line] = []
    for step in range(1, steps + 1):
        epoch = (step + 1) // 2
        times = {"data_time": 0.01, "time": 0.1}
        lines.append(
            {
                "mode": "train",
                "epoch": epoch,
                "iter": step,
                "step": step,
                "boxes/loss_box": 1 / step,
                "loss": 2 / step,
                **times,
            }
        )
        if step % 2 == 0:
            lines.append(
                {"mode": "val", "epoch": epoch, "step": step, "boxes/mAP": step / 10, "time": 7.0}
            )
    return lines
