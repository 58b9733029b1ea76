"""The report of a dataset check: counts, duplicate images, and findings."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray.analysis.health import SHAPE_OCTAVES, SIDE_OCTAVES, Health, bin_edges
from mtl_ray.analysis.health_cloud_report import cloud_facts, cloud_findings
from mtl_ray.analysis.health_clouds import CloudNetwork
from mtl_ray.analysis.health_json import colour_of, set_json
from mtl_ray.analysis.health_same import Same, find_same
from mtl_ray.analysis.short_names import short_names
from mtl_ray.annotations.boxes_3d import BOXES_3D
from mtl_ray.annotations.instances import INSTANCES
from mtl_ray.samples import Annotation
from mtl_ray.sources.findings import refusal, remarks

UNBALANCED = 100
"""Ratio of the examples of two classes from which the imbalance is reported."""


@dataclass(frozen=True, kw_only=True, eq=False)
class HealthReport:
    """The result of a check.

    Attributes:
        names: of the datasets.
        sets: the counts of each dataset.
        same: pairs of duplicate samples, within a dataset and across datasets.
        same_counts: number of samples of ``b`` that are also in ``a``, by (a, b, how); if a equals
            b, samples that occur repeatedly.
        findings: sentences, the most important first.
    """

    names: tuple[str, ...]
    sets: tuple[Health, ...]
    same: tuple[Same, ...]
    same_counts: Mapping[tuple[int, int, str], int]
    findings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything except the hashes."""
        sets = [
            {"name": name, **set_json(health)}
            for name, health in zip(self.names, self.sets, strict=True)
        ]
        counts = [
            {"a": self.names[a], "b": self.names[b], "how": how, "samples": n}
            for (a, b, how), n in self.same_counts.items()
        ]
        pairs = [
            {**asdict(each), "a": self.names[each.a], "b": self.names[each.b]} for each in self.same
        ]
        return {"findings": list(self.findings), "data": sets, "same_counts": counts, "same": pairs}

    def to_text(self) -> str:
        """A text for the terminal."""
        lines = []
        for name, health in zip(self.names, self.sets, strict=True):
            lines += [
                f"{name}: {health.samples:,} samples",
                *(f"  {line}" for line in _facts(health)),
                "",
            ]
        lines.append("what to look at:" if self.findings else "nothing odd was found")
        return "\n".join([*lines, *(f"  - {finding}" for finding in self.findings)])


def health_report(
    names: Sequence[str], sets: Sequence[Health], network: CloudNetwork | None = None
) -> HealthReport:
    """Compares the counts of the datasets, and those of clouds with a network."""
    same, counts = find_same(sets)
    short = short_names(names)
    findings = [
        *_conversions(short, sets),
        *_overlaps(short, sets, counts),
        *_problems(short, sets),
        *_clouds(short, sets, network),
        *_repeats(short, sets, counts),
        *_classes(short, sets),
    ]
    return HealthReport(
        names=tuple(names),
        sets=tuple(sets),
        same=tuple(same),
        same_counts=counts,
        findings=tuple(findings),
    )


def median_of(histogram: NDArray[np.int64], octaves: tuple[int, int]) -> float:
    """The centre of the bin of the median; NaN for an empty histogram."""
    if not histogram.sum():
        return float("nan")
    bin_ = int(np.searchsorted(np.cumsum(histogram), histogram.sum() / 2))
    edges = bin_edges(octaves)
    return float(np.sqrt(edges[bin_] * edges[bin_ + 1]))


def _conversions(names: Sequence[str], sets: Sequence[Health]) -> Iterator[str]:
    """The remarks of ``jobs.convert`` about each dataset."""
    for name, health in zip(names, sets, strict=True):
        classes = health.vocabulary.classes
        counts: dict[str, dict[str, int]] = {
            kind: dict(zip(classes[kind], column.tolist(), strict=True))
            for kind, column in health.images.items()
        }
        if reason := refusal(health.findings, counts):
            yield f"{name}: {reason}"
        yield from (f"{name}: {remark}" for remark in remarks(health.findings))


def _overlaps(
    names: Sequence[str], sets: Sequence[Health], counts: Mapping[tuple[int, int, str], int]
) -> Iterator[str]:
    words = {"same file": "are in {a} too", "looks alike": "look like one of {a}"}
    for (a, b, how), count in counts.items():
        if a != b:
            yield f"{count:,} {sets[b].unit} of {names[b]} {words[how].format(a=names[a])}"


def _repeats(
    names: Sequence[str], sets: Sequence[Health], counts: Mapping[tuple[int, int, str], int]
) -> Iterator[str]:
    words = {"same file": "are there more than once", "looks alike": "look like another one"}
    for (a, b, how), count in counts.items():
        if a == b:
            yield f"{names[a]}: {count:,} {sets[a].unit} {words[how]}"


def _clouds(
    names: Sequence[str], sets: Sequence[Health], network: CloudNetwork | None
) -> Iterator[str]:
    for name, health in zip(names, sets, strict=True):
        for finding in cloud_findings(health.clouds, health.vocabulary, network):
            yield f"{name}: {finding}"


def _problems(names: Sequence[str], sets: Sequence[Health]) -> Iterator[str]:
    for name, health in zip(names, sets, strict=True):
        if not health.samples:
            yield f"{name} has no samples"
        if health.samples and health.counted["missing image"] == health.samples:
            yield (
                f"{name}: none of its images is there, so only annotations were looked at "
                "(--images says where they are)"
            )
        for kind, count in health.counted.most_common():
            if kind == "missing image" and count == health.samples:
                continue
            first = next(problem for problem in health.problems if problem.kind == kind)
            example = ", ".join(filter(None, (first.key, first.text)))
            yield f"{name}: {count:,} x {kind}, such as {example}"


def _classes(names: Sequence[str], sets: Sequence[Health]) -> Iterator[str]:
    for name, health in zip(names, sets, strict=True):
        for kind, counts in examples(health).items():
            known = health.vocabulary.classes[kind]
            absent = [known[index] for index in np.flatnonzero(counts == 0)]
            if absent and counts.any():
                more = f" and {len(absent) - 8} more" if len(absent) > 8 else ""
                yield (
                    f"{name}: no example of {len(absent)} of {len(known)} classes of {kind}: "
                    f"{', '.join(absent[:8])}{more}"
                )
            if counts.any() and counts.max() > UNBALANCED * (least := counts[counts > 0].min()):
                most, rarest = (
                    known[int(counts.argmax())],
                    known[int(np.flatnonzero(counts == least)[0])],
                )
                yield (
                    f"{name}: {most!r} has {counts.max() / least:,.0f} times the examples of "
                    f"{rarest!r}"
                )
    for (a, one), (b, other) in combinations(enumerate(sets), 2):
        for kind in sorted(one.vocabulary.classes.keys() & other.vocabulary.classes.keys()):
            if one.vocabulary.classes[kind] != other.vocabulary.classes[kind]:
                yield (
                    f"{names[a]} and {names[b]} have different classes of {kind}, or in another "
                    "order"
                )


def tables(report: HealthReport) -> dict[str, bytes]:
    """``classes.csv`` (data, kind, class, images, examples) and ``problems.csv`` (data, problem,
    key, text).
    """
    classes = [
        (name, kind, known, int(health.images[kind][place]), int(counts[place]))
        for name, health in zip(report.names, report.sets, strict=True)
        for kind, counts in examples(health).items()
        for place, known in enumerate(health.vocabulary.classes[kind])
    ]
    problems = [
        (name, each.kind, each.key, each.text)
        for name, health in zip(report.names, report.sets, strict=True)
        for each in health.problems
    ]
    return {
        "classes.csv": _csv(("data", "kind", "class", "images", "examples"), classes),
        "problems.csv": _csv(("data", "problem", "key", "text"), problems),
    }


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    table.writerows(rows)
    return text.getvalue().encode()


def examples(health: Health) -> dict[Annotation, NDArray[np.int64]]:
    """Examples of each class: objects, else samples."""
    return {
        kind: {
            INSTANCES.name: health.objects,
            BOXES_3D.name: health.clouds.counts(len(counts)),
        }.get(kind, counts)
        for kind, counts in health.images.items()
    }


def _facts(health: Health) -> Iterator[str]:
    for kind, names in health.vocabulary.classes.items():
        yield (
            f"{kind}: {len(names)} classes, {health.annotated[kind]:,} samples annotated, "
            f"{health.empty[kind]:,} of them with nothing"
        )
    if health.objects.any():
        small, medium, large = (int(count) for count in health.coco_sizes)
        side, shape = median_of(health.sides, SIDE_OCTAVES), median_of(health.shapes, SHAPE_OCTAVES)
        yield (
            f"{int(health.objects.sum()):,} objects ({health.crowd:,} crowds, {health.difficult:,} "
            f"difficult), side about {side:.0f} px, "
            f"width/height about {shape:.2f}; {small:,} small, {medium:,} medium, {large:,} large "
            "(COCO)"
        )
    yield from cloud_facts(health.clouds, health.vocabulary)
    if health.unit == "images":
        (width, height), count = health.sizes.most_common(1)[0] if health.sizes else ((0, 0), 0)
        yield f"images of {len(health.sizes):,} sizes, {count:,} of {width} x {height}"
    if health.colour[2, 0]:
        mean, std = colour_of(health)
        yield (
            f"channels (RGB): mean {', '.join(f'{v:.1f}' for v in mean)}; standard deviation "
            f"{', '.join(f'{v:.1f}' for v in std)}"
        )
