"""The task: the number of pulses of a signal."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.tasks.charts import Charts
from mtl_ray.tasks.difference import Comparison, Difference, Fields, field_faults, fields_of
from mtl_ray.tasks.task import HeadKind, PlainTask
from pulse_counting.pulses import PULSES


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Count:
    count: float


class CountMetric:
    """The mean absolute error."""

    main = "mae"
    lower_is_better = frozenset({"mae"})

    def __init__(self) -> None:
        self.errors: list[float] = []

    def update(self, sample: Sample, prediction: Count) -> None:
        if "pulses" in sample.annotations:
            self.errors.append(abs(sample.annotations["pulses"] - prediction.count))

    def merge(self, other: "CountMetric") -> None:
        self.errors += other.errors

    def result(self) -> Mapping[str, float]:
        return {"mae": float(np.mean(self.errors)) if self.errors else float("nan")}

    def per_class(self) -> Mapping[str, Mapping[str, float]]:
        return {}

    def charts(self) -> Charts:
        return Charts()


class CountTask(PlainTask):
    name, kind, schema_name = "counting", PULSES, "Count"

    def decode(self, arrays: Fields, frame: int, head: Any) -> Count:
        return Count(count=float(arrays["count"][0]))

    def metric(self, head: HeadKind, vocabulary: Vocabulary) -> CountMetric:
        return CountMetric()

    def to_response(
        self,
        prediction: Count,
        vocabulary: Vocabulary,
        score_threshold: float,
        image_file: str | None = None,
    ) -> Any:
        return {"count": prediction.count}

    def from_response(
        self,
        content: Any,
        vocabulary: Vocabulary,
        head: HeadKind,
        size: Mapping[str, int] | None = None,
    ) -> Count:
        return Count(count=float(content["count"]))

    def response_schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {"count": {"type": "number"}},
            "required": ["count"],
        }

    def row_type(self) -> Any:
        import pyarrow as pa

        return pa.struct([("count", pa.float64())])

    def to_row(self, prediction: Count) -> dict[str, Any]:
        return {"count": prediction.count}

    def from_row(self, row: Mapping[str, Any]) -> Count:
        return Count(count=row["count"])

    def difference(self, first: Count, second: Count, how: Comparison) -> Difference:
        return self.array_difference(fields_of(first), fields_of(second), how)

    def array_difference(self, first: Fields, second: Fields, how: Comparison) -> Difference:
        if faults := field_faults(first, second, ("count",), how.sides):
            return Difference(unit="counts", incomparable=faults)
        return (
            Difference(unit="counts", compared=1)
            .with_scores(first["count"], second["count"])
            .with_agreeing(1, 1)
        )


COUNTING = CountTask()
