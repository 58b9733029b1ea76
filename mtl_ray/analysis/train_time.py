"""The time of the steps of a training, by epoch. This module imports no torch."""

from dataclasses import dataclass

import numpy as np

from mtl_ray.analysis.logs import Log


@dataclass(frozen=True, kw_only=True)
class EpochTime:
    """The steps of one epoch.

    Attributes:
        epoch: its number in the log; 1 for a training without epochs.
        records: number of logged times that count.
        seconds: their mean, in seconds per step.
    """

    epoch: int
    records: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TrainTime:
    """The time of the steps of a training.

    Attributes:
        log: address of the log.
        epochs: by number.
        slowest, fastest: the first of them with the greatest and the least mean.
        std: standard deviation of the epochs' means (of the population), seconds.
        average: mean of the epochs' means, in seconds per step; all epochs have the same weight.
    """

    log: str
    epochs: tuple[EpochTime, ...]
    slowest: EpochTime
    fastest: EpochTime
    std: float
    average: float

    def to_text(self) -> str:
        """The lines that ``cal_train_time`` prints."""
        return "\n".join(
            [
                f"-----Analyze train time of {self.log}-----",
                f"slowest epoch {self.slowest.epoch}, average time is {self.slowest.seconds:.4f} "
                "s/iter",
                f"fastest epoch {self.fastest.epoch}, average time is {self.fastest.seconds:.4f} "
                "s/iter",
                f"time std over epochs is {self.std:.4f}",
                f"average iter time: {self.average:.4f} s/iter",
            ]
        )


def train_time(log: Log, *, include_outliers: bool = False) -> TrainTime:
    """The time of the steps of each epoch.

    Args:
        log: all its records count, including those of repeated steps.
        include_outliers: include the first record of each epoch, which contains the start-up time;
            it always counts if an epoch has no other record.

    Raises:
        ValueError: if no training line contains a time.
    """
    by_epoch: dict[int, list[float]] = {}
    for record in log.records:
        if record.kind == "train" and "time" in record.values:
            by_epoch.setdefault(record.epoch or 1, []).append(record.values["time"])
    if not by_epoch:
        raise ValueError(f"no training line of {log.uri} says a time")
    epochs = tuple(
        _epoch(number, by_epoch[number], include_outliers) for number in sorted(by_epoch)
    )
    means = [each.seconds for each in epochs]
    return TrainTime(
        log=log.uri,
        epochs=epochs,
        slowest=epochs[int(np.argmax(means))],
        fastest=epochs[int(np.argmin(means))],
        std=float(np.std(means)),
        average=float(np.mean(means)),
    )


def _epoch(number: int, times: list[float], include_outliers: bool) -> EpochTime:
    kept = times if include_outliers or len(times) == 1 else times[1:]
    return EpochTime(epoch=number, records=len(kept), seconds=float(np.mean(kept)))
