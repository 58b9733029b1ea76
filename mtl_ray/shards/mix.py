"""How often each sample counts, and from which of several splits the next one comes."""

from collections import Counter
from collections.abc import Sequence as Items

import numpy as np

from mtl_ray.samples import Annotation
from mtl_ray.shards.order import Ints
from mtl_ray.shards.split import Split

PATTERN_SLOTS = 1024
"""The period of a mix: weights are kept to about a thousandth."""
_PARTS = 256


def balanced_copies(splits: Items[Split], threshold: float) -> Ints:
    """How often each row counts so that images with rare classes are seen more often; (N,) int64, at least 1, in stored order.

    The repeat factor of LVIS (Gupta et al. 2019, section 4.2): a class in a share f of the images has r = max(1, sqrt(t / f)), an
    image the greatest r of its classes. The fractions of r are carried over from row to row, so that the copies of a run of rows
    add up to the sum of their factors. Classes are known by name over all splits; only labels are read.

    Raises:
        ValueError: if no kind of annotation is known to all splits.
    """
    annotation = _shared_annotation(splits)
    images: Counter[str] = Counter()
    for split in splits:
        names = split.vocabulary.classes[annotation]
        for classes in split.scan_classes(annotation):
            images.update({names[index] for index in classes.tolist()})
    num_rows = sum(split.num_samples for split in splits)
    factor = {name: max(1.0, float(np.sqrt(threshold * num_rows / count))) for name, count in images.items()}
    ends = np.cumsum(np.concatenate([_row_parts(split, annotation, factor) for split in splits]))
    return np.diff(ends // _PARTS, prepend=0)


def _row_parts(split: Split, annotation: Annotation, factor: dict[str, float]) -> Ints:
    """The factor of each row in whole parts of 1 / _PARTS, so that sums are exact on every machine."""
    of_class = np.array([round(factor.get(name, 1.0) * _PARTS) for name in split.vocabulary.classes[annotation]], np.int64)
    rows = (of_class[classes].max(initial=_PARTS) for classes in split.scan_classes(annotation))
    return np.fromiter(rows, np.int64, count=split.num_samples)


def _shared_annotation(splits: Items[Split]) -> Annotation:
    shared = [kind for name, kind in splits[0].annotations.items() if all(split.vocabulary.classes.get(name) for split in splits)]
    if shared:
        return min(shared, key=lambda kind: kind.balance_order).name
    raise ValueError("balancing needs a kind of annotation that all splits have; these have none in common")


class Mix:
    """A fixed, evenly spaced pattern of sources, for each lane begun at another place."""

    def __init__(self, weights: Items[float], lanes: int) -> None:
        """Rounds the weights to slots of the pattern, at least one each.

        Raises:
            ValueError: if a weight is not positive, or there are more sources than slots.
        """
        if any(not weight > 0 for weight in weights) or len(weights) > PATTERN_SLOTS:
            raise ValueError(f"weights must be positive numbers, at most {PATTERN_SLOTS}; these are {list(weights)}")
        slots = _shares(np.asarray(weights, np.float64), PATTERN_SLOTS)
        place = np.concatenate([(np.arange(count) + 0.5) / count for count in slots])
        self.pattern = np.repeat(np.arange(len(slots)), slots)[np.argsort(place, kind="stable")]
        taken = self.pattern[:, None] == np.arange(len(slots))
        self._before = np.concatenate([np.zeros((1, len(slots)), np.int64), np.cumsum(taken, axis=0)])
        self._phase = np.arange(lanes) * PATTERN_SLOTS // lanes

    def sources(self, lane: Ints, position: Ints) -> tuple[Ints, Ints]:
        """Which source each position of a lane reads, and how many of that source the lane has read before; (n,) each."""
        start, slot = self._phase[lane], position + self._phase[lane]
        source = self.pattern[slot % PATTERN_SLOTS]
        before = slot // PATTERN_SLOTS * self._before[-1][source] + self._before[slot % PATTERN_SLOTS, source]
        return source, before - self._before[start, source]


def _shares(weights: np.ndarray[tuple[int], np.dtype[np.float64]], total: int) -> Ints:
    """Whole numbers that add up to ``total`` in the proportion of the weights, at least 1 each (largest remainders)."""
    spare = total - len(weights)
    exact = weights / weights.sum() * spare
    shares: Ints = np.floor(exact).astype(np.int64)
    order = np.argsort(shares - exact, kind="stable")
    shares[order[: spare - int(shares.sum())]] += 1
    return shares + 1
