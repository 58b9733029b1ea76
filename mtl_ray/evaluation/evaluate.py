"""Measures a target on data: a report and a file of predictions. Parts of the rows can be measured
apart and merged.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mtl_ray import storage
from mtl_ray.evaluation.coco_results import (
    NOTHING,
    categories_of,
    read_coco_results,
    write_coco_results,
)
from mtl_ray.evaluation.data import EvaluationData, SplitData, class_converter, open_data
from mtl_ray.evaluation.measure import (
    NO_INPUT,
    Keep,
    MeasuredSamples,
    kinds_of,
    measure,
    measure_stored,
)
from mtl_ray.evaluation.metrics import head_metrics
from mtl_ray.evaluation.predictions_file import Spool, StoredPredictions, read_arrow, write_arrow
from mtl_ray.evaluation.preflight import log_counted_objects
from mtl_ray.evaluation.report import Report, report
from mtl_ray.inference.predictor import Predictions, Predictor
from mtl_ray.inference.tta import AugmentedPredictor, open_with_tta
from mtl_ray.inputs.image_header import MAX_PIXELS
from mtl_ray.samples import Annotation, Sample, Vocabulary
from mtl_ray.tasks.charts import chart_file
from mtl_ray.tasks.head_classes import head_vocabulary
from mtl_ray.tasks.task import Metric

MAX_NAMED = 20
"""Most invalid samples that a report names; all are counted."""


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """What an evaluation measures.

    Attributes:
        target: a run folder, checkpoint, bundle, endpoint URL, or a predictions file (.arrow, or
            .json in COCO's results format).
        data: the URI of a split, or of a COCO annotation file (.json).
        images: folder of the images of an annotation file.
        batch: samples that go through the network together.
        max_pixels: images whose header states more are invalid.
        threads: of the engine, for a bundle; 0 takes all cores.
        api_key: for an endpoint that requires one.
        tta: test-time augmentation as ``parse_tta`` reads it; None for ``evaluate.tta`` of the
            target's config.
        engine: one of the engines of a bundle; None for its first.
        class_agnostic: objects of all classes count as of one.
    """

    target: str
    data: str
    images: str | None = None
    batch: int = 16
    max_pixels: int = MAX_PIXELS
    threads: int = 0
    api_key: str | None = None
    tta: str | None = None
    engine: str | None = None
    class_agnostic: bool = False

    @property
    def stored(self) -> bool:
        """True if the target is a file of predictions, for which no network runs."""
        return self.target.endswith((".json", ".arrow"))


@dataclass(kw_only=True)
class EvaluationPart:
    """The result of some of the rows.

    Attributes:
        metrics: by head.
        table: the predictions (``predictions_file.to_table``), mapped from a deleted temporary
            file, not in memory.
        heads, vocabulary, plugins: of the predictor.
        categories: by kind of annotation and class, its COCO category number in the data.
        measured: number of samples, and the invalid ones.
        notes: remarks for the reader of the metrics.
    """

    metrics: dict[str, Metric[Any]]
    table: pa.Table
    heads: Mapping[str, Any]
    plugins: tuple[str, ...]
    vocabulary: Vocabulary
    categories: Mapping[Annotation, Mapping[str, int]]
    measured: MeasuredSamples
    notes: list[str]

    def merge(self, other: "EvaluationPart") -> None:
        """Adds the result of other rows."""
        for name, metric in self.metrics.items():
            metric.merge(other.metrics[name])
        self.table = pa.concat_tables([self.table, other.table])
        self.measured.samples += other.measured.samples
        self.measured.invalid += other.measured.invalid


SampleProgress = Callable[[Iterable[Sample], int], Iterable[Sample]]
"""Passes samples on and shows progress; the number is their total."""


def measure_rows(
    request: EvaluationRequest,
    start: int = 0,
    stop: int | None = None,
    watch: SampleProgress | None = None,
) -> EvaluationPart:
    """Measures the rows [start, stop) of the data, by default all of them.

    Raises:
        ValueError, FileNotFoundError: if the target or the data cannot be read, or no head predicts
            what the data annotates.
    """
    data = open_data(request.data, request.images)
    stop = len(data) if stop is None else stop
    target = _open_target(request, data)
    convert, unknown = class_converter(data, target.vocabulary)
    metrics = metrics_of(target, data.vocabulary, class_agnostic=request.class_agnostic)
    if start == 0 and isinstance(data, SplitData) and not request.stored:
        heads = {name: target.heads[name] for name in metrics}
        log_counted_objects(heads, target.vocabulary, [(data.split, convert)])
    samples: Iterable[Sample] = map(convert, data.samples(start, stop, images=not request.stored))
    if watch is not None:
        samples = watch(samples, stop - start)
    without_input = NO_INPUT.format(
        name="image" if isinstance(target, StoredPredictions) else target.canvas.input.name
    )
    with Spool(target.heads) as spool:
        if isinstance(target, StoredPredictions):
            measured = _measure_stored(request.target, target, data, samples, metrics, spool.add)
        else:
            measured = measure(
                target,
                samples,
                metrics,
                spool.add,
                batch=request.batch,
                max_pixels=request.max_pixels,
            )
        table = spool.table()
    measured.invalid = [
        (key, data.where(key) if reason == without_input else reason)
        for key, reason in measured.invalid
    ]
    return EvaluationPart(
        metrics=metrics,
        table=table,
        heads=target.heads,
        plugins=target.plugins,
        vocabulary=target.vocabulary,
        categories=categories_of(target.vocabulary, data.vocabulary),
        measured=measured,
        notes=_notes(target, unknown, metrics, class_agnostic=request.class_agnostic),
    )


def _open_target(request: EvaluationRequest, data: EvaluationData) -> StoredPredictions | Predictor:
    """Stored predictions, or what predicts."""
    if request.stored:
        if request.tta is not None:
            raise ValueError(f"{request.target} holds predictions; leave out --tta")
        return open_stored(request.target, data)
    return open_with_tta(
        request.target,
        request.tta,
        threads=request.threads,
        api_key=request.api_key,
        engine=request.engine,
    )


def evaluate(
    request: EvaluationRequest, watch: SampleProgress | None = None
) -> tuple[Report, EvaluationPart]:
    """Measures all rows in this process."""
    started = time.monotonic()
    part = measure_rows(request, watch=watch)
    return make_report(request, part, time.monotonic() - started), part


def make_report(request: EvaluationRequest, part: EvaluationPart, seconds: float) -> Report:
    """The report of all rows.

    Raises:
        FileNotFoundError: if there are rows, but none has an image.
    """
    reasons = [reason for _, reason in part.measured.invalid]
    if (
        reasons
        and not part.measured.samples
        and all("name its folder with --images" in reason for reason in reasons)
    ):
        raise FileNotFoundError(
            f"none of the {len(reasons)} images of {request.data} was found: {reasons[0]}"
        )
    facts = {
        "target": request.target,
        "data": request.data,
        "samples": part.measured.samples,
        "bad_samples": len(part.measured.invalid),
        "bad": [f"{key}: {reason}" for key, reason in part.measured.invalid[:MAX_NAMED]],
        "notes": part.notes,
        "seconds": round(seconds, 3),
    }
    return report(part.metrics, facts)


def write_results(out: str, made: Report, part: EvaluationPart) -> list[str]:
    """Writes report.json, predictions.arrow and, for each detection head, HEAD.coco.json; the
    charts too. Returns their URIs.
    """
    # importing matplotlib takes a second; errors of arguments should come first
    from mtl_ray.evaluation.charts import (
        draw_charts,
    )

    storage.write(storage.join(out, "report.json"), made.to_json())
    write_arrow(
        storage.join(out, "predictions.arrow"),
        part.table,
        part.heads,
        part.vocabulary,
        part.plugins,
    )
    names = ["report.json", "predictions.arrow"]
    for name, head in part.heads.items():
        if head.task.to_coco is not None:
            own = head_vocabulary(head, part.vocabulary).classes[head.annotation]
            of_head = [part.categories[head.annotation][each] for each in own]
            write_coco_results(
                storage.join(out, f"{name}.coco.json"), part.table, name, head.task, of_head
            )
            names.append(f"{name}.coco.json")
    for name, image in draw_charts(
        {head: metric.charts() for head, metric in part.metrics.items()}
    ).items():
        names.append(chart_file(name))
        storage.write(storage.join(out, names[-1]), image)
    return [storage.join(out, name) for name in names]


def open_stored(uri: str, data: EvaluationData) -> StoredPredictions:
    """The predictions of a file, .arrow, or .json in COCO's results format, with the category
    numbers of the data.
    """
    if uri.endswith(".arrow"):
        return read_arrow(uri)

    def sizes() -> dict[str, tuple[int, int]]:
        samples = data.samples(0, len(data), images=False)
        return {
            name: (sample.height, sample.width)
            for sample in samples
            for name in (sample.key, data.other_name(sample.key))
        }

    return read_coco_results(uri, data.vocabulary, sizes)


def _measure_stored(
    uri: str,
    stored: StoredPredictions,
    data: EvaluationData,
    samples: Iterable[Sample],
    metrics: Mapping[str, Metric[Any]],
    keep: Keep,
) -> MeasuredSamples:
    finder = Finder(stored, data)
    measured = measure_stored(finder, samples, metrics, keep, kinds_of(stored.heads))
    if strange := finder.unused():
        raise ValueError(
            f"{uri} has predictions of {len(strange)} images that are not in the data, such as "
            f"{strange[0]}"
        )
    return measured


def _notes(
    target: StoredPredictions | Predictor,
    unknown: Iterable[str],
    measured: Mapping[str, Metric[Any]],
    *,
    class_agnostic: bool,
) -> list[str]:
    notes = [*target.notes] if isinstance(target, StoredPredictions) else []
    if isinstance(target, AugmentedPredictor):
        notes.append(f"test-time augmentation: {target.config}")
    if class_agnostic:
        notes.append("objects of all classes were counted as of one class")
    notes += [
        f"the target does not know {name}: it was left out of the ground truth" for name in unknown
    ]
    return notes + [
        f"the data has no {head.annotation}: {name} was not measured"
        for name, head in target.heads.items()
        if name not in measured
    ]


def metrics_of(
    target: StoredPredictions | Predictor, vocabulary: Vocabulary, *, class_agnostic: bool = False
) -> dict[str, Metric[Any]]:
    """A metric for each head that predicts what the vocabulary annotates; ``class_agnostic`` as in
    ``EvaluationRequest``.

    Raises:
        ValueError: if no head does.
    """
    measurable = {
        name: head for name, head in target.heads.items() if head.annotation in vocabulary.classes
    }
    if not measurable:
        wanted = ", ".join(sorted({head.annotation for head in target.heads.values()}))
        known = ", ".join(vocabulary.classes) or "no classes"
        raise ValueError(
            f"nothing can be measured: the target predicts {wanted}, the data has {known}"
        )
    return head_metrics(measurable, target.vocabulary, class_agnostic=class_agnostic)


class Finder:
    """Finds the stored predictions of a sample by its key or other name, and records which were
    used.
    """

    def __init__(self, stored: StoredPredictions, data: EvaluationData) -> None:
        self.stored = stored
        self.data = data
        self.used: set[str] = set()

    def __call__(self, sample: Sample) -> Predictions | None:
        """See ``measure.Find``."""
        for name in (sample.key, self.data.other_name(sample.key)):
            if name in self.stored.by_name:
                self.used.add(name)
                return self.stored.by_name[name]
        return None if self.stored.complete else {"boxes": NOTHING}

    def unused(self) -> list[str]:
        """The names of stored predictions that belong to no sample."""
        return sorted(self.stored.by_name.keys() - self.used)
