"""The classes of a head, of those of a vocabulary.

A head may learn some of the classes of its annotation (``HeadOptions.classes``), and two heads may
learn different ones of the same kind. Samples have the class indices of the run; predictions of a
head have the head's. A task must get the vocabulary of ``head_vocabulary``. Samples for the metric
or the drawings of a head must be narrowed with ``HeadClasses``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.annotation import AnnotationKind, ClassMapper
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.tasks.charts import Charts
from mtl_ray.tasks.optional import NotingMetric
from mtl_ray.tasks.task import HeadKind, Metric

MAX_NAMED = 10
"""Most classes that an error names."""


def head_vocabulary(head: HeadKind, vocabulary: Vocabulary, name: str = "NAME") -> Vocabulary:
    """The vocabulary with the classes of a head, in its order; the vocabulary itself if it learns
    all.

    Args:
        head: its config, or what is known of it.
        vocabulary: of the run.
        name: of the head, for the error.

    Raises:
        ValueError: if the head names a class that the vocabulary does not have.
    """
    kind, wanted = head.annotation, head.classes
    names = vocabulary.classes.get(kind)
    if wanted is None or names is None or wanted == names:
        return vocabulary
    if unknown := [each for each in wanted if each not in names]:
        near = get_close_matches(unknown[0], names) or names[:MAX_NAMED]
        problem = (
            f"model.heads.{name}.classes: {unknown[0]!r} is no class of the {kind} of this dataset"
        )
        raise ValueError(f"{problem}. Fix: name classes such as {', '.join(near)}")
    places = [names.index(each) for each in wanted]
    colours, ids = dict(vocabulary.colours), dict(vocabulary.category_ids)
    if colours.get(kind):
        colours[kind] = tuple(colours[kind][place] for place in places)
    if ids.get(kind):
        ids[kind] = tuple(ids[kind][place] for place in places)
    return replace(
        vocabulary, classes={**vocabulary.classes, kind: wanted}, colours=colours, category_ids=ids
    )


def numbered_vocabulary(heads: Iterable[HeadKind], count: int) -> Vocabulary:
    """A vocabulary for heads whose data is not known: ``count`` classes of each kind, named by
    number.

    The classes that heads name come first.

    Raises:
        ValueError: if ``count`` is below 1.
    """
    if count < 1:
        raise ValueError(f"--classes is {count}; at least 1 is needed")
    every = list(heads)
    classes: dict[str, tuple[str, ...]] = {}
    for kind in dict.fromkeys(head.annotation for head in every):
        named = dict.fromkeys(
            name for head in every if head.annotation == kind for name in head.classes or ()
        )
        classes[kind] = (*named, *map(str, range(count)))[: max(count, len(named))]
    return Vocabulary(classes=classes, exclusive_labels=any(head.exclusive for head in every))


@dataclass(frozen=True, kw_only=True)
class HeadClasses:
    """The class indices of a run for one head.

    Attributes:
        kind: of annotation of the head.
        vocabulary: of the head.
        mapper: run's index -> head's; None if the head learns all classes, in the order of the run.
    """

    kind: AnnotationKind[Any, Any]
    vocabulary: Vocabulary
    mapper: ClassMapper | None

    @staticmethod
    def of(head: HeadKind, vocabulary: Vocabulary, name: str = "NAME") -> "HeadClasses":
        """The classes of a head in a run with a vocabulary; ``name`` as for ``head_vocabulary``.

        Raises:
            ValueError: see ``head_vocabulary``.
        """
        own, kind = head_vocabulary(head, vocabulary, name), head.task.kind
        mapper = (
            None
            if own is vocabulary
            else ClassMapper.between(vocabulary.classes[kind.name], own.classes[kind.name])
        )
        return HeadClasses(kind=kind, vocabulary=own, mapper=mapper)

    @property
    def of_head(self) -> NDArray[np.int64]:
        """(K,) the index in the run of each class of the head."""
        assert self.mapper is not None
        head_index = self.mapper.indices
        return np.array(
            [
                int(np.flatnonzero(head_index == place)[0])
                for place in range(len(self.mapper.names))
            ],
            np.int64,
        )

    def sample(self, sample: Sample) -> Sample:
        """A sample of the run in the classes of the head; not annotated if its dataset knows
        none.
        """
        if self.mapper is None or self.kind.name not in sample.annotations:
            return sample
        name = self.kind.name
        narrowed = self.kind.with_classes(sample.annotations[name], self.mapper)
        known = dict(sample.known_classes)
        if name in known:
            known[name] = known[name][self.of_head]
            narrowed = narrowed if known[name].any() else None
        return replace(sample.with_annotations(**{name: narrowed}), known_classes=known)


class NarrowedMetric:
    """The metric of a head that learns some of the classes, on samples with the class indices of
    the run.
    """

    def __init__(self, metric: Metric[Any], classes: HeadClasses) -> None:
        self.main, self.lower_is_better = metric.main, metric.lower_is_better
        self._metric, self._classes = metric, classes

    def update(self, sample: Sample, prediction: Any) -> None:
        """Counts one sample of the run."""
        self._metric.update(self._classes.sample(sample), prediction)

    def merge(self, other: Self) -> None:
        """See ``Metric``."""
        self._metric.merge(other._metric)

    def result(self) -> Mapping[str, float]:
        """See ``Metric``."""
        return self._metric.result()

    def per_class(self) -> Mapping[str, Mapping[str, float]]:
        """See ``Metric``."""
        return self._metric.per_class()

    def charts(self) -> Charts:
        """See ``Metric``."""
        return self._metric.charts()

    def notes(self) -> Sequence[str]:
        """See ``NotingMetric``."""
        return self._metric.notes() if isinstance(self._metric, NotingMetric) else ()


def head_metric(head: HeadKind, vocabulary: Vocabulary) -> Metric[Any]:
    """An empty metric of a head, which takes samples with the class indices of ``vocabulary``."""
    classes = HeadClasses.of(head, vocabulary)
    metric: Metric[Any] = head.task.metric(head, classes.vocabulary)
    return metric if classes.mapper is None else NarrowedMetric(metric, classes)
