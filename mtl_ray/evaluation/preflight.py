"""What will count in the metrics of a split, said from its annotations before a network runs."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping

from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.shards.split import Split
from mtl_ray.tasks.head_classes import head_metric
from mtl_ray.tasks.optional import CountingTask, NotingMetric
from mtl_ray.tasks.task import HeadKind

MOST_SECONDS = 10.0
"""Longer than this no training waits for it; the rest of the samples is then not looked at."""
Convert = Callable[[Sample], Sample]
"""Gives a sample the class indices of the run."""
_log = logging.getLogger(__name__)


def log_counted_objects(
    heads: Mapping[str, HeadKind],
    vocabulary: Vocabulary,
    splits: Iterable[tuple[Split, Convert]],
) -> None:
    """Logs what the metric of each head notes about the objects of splits, such as how many count
    at each level and why the others do not. Heads whose task does not tell it cost nothing.

    Samples that cannot be read end nothing here: the evaluation reports them.
    """
    telling = {name: head for name, head in heads.items() if isinstance(head.task, CountingTask)}
    if not telling:
        return
    try:
        notes = counted_objects(telling, vocabulary, splits)
    except (OSError, ValueError) as error:  # of a damaged split
        _log.warning("the objects that count could not be read: %s", error)
        return
    for note in notes:
        _log.warning("%s", note)


def counted_objects(
    heads: Mapping[str, HeadKind],
    vocabulary: Vocabulary,
    splits: Iterable[tuple[Split, Convert]],
) -> list[str]:
    """The notes of the metrics of heads whose task is a ``CountingTask``, with nothing detected.

    Args:
        heads: by name.
        vocabulary: of the run.
        splits: each with what converts its samples.
    """
    metrics = {name: head_metric(head, vocabulary) for name, head in heads.items()}
    until, read, total = time.monotonic() + MOST_SECONDS, 0, 0
    for split, convert in splits:
        total += split.num_samples
        for sample in split.scan_outlines():
            if time.monotonic() > until:
                break
            read += 1
            for name, head in heads.items():
                if isinstance(head.task, CountingTask):
                    metrics[name].update(convert(sample), head.task.nothing_found())
    notes = [
        f"{name}: {note}"
        for name, metric in metrics.items()
        if isinstance(metric, NotingMetric)
        for note in metric.notes()
    ]
    if notes and read < total:
        notes.append(f"only the first {read:,} of {total:,} samples were counted, to save time")
    return notes
