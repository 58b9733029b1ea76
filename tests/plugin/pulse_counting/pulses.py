"""The number of pulses as a kind of annotation, and the files that it is read from."""

import csv
import io
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from mtl_ray import storage
from mtl_ray.annotations.annotation import AnnotationKind, ClassMapper
from mtl_ray.columns import ColumnType
from mtl_ray.config.strict import STRICT
from mtl_ray.layout import Layout
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.sources.image_reading import ImageRule
from mtl_ray.sources.source import (
    RawSource,
    Reading,
    SkippedItem,
    Source,
    UnreadableError,
    fingerprint_of,
)
from pulse_counting.signal import SIGNAL


class PulsesKind(AnnotationKind[int, int]):
    """The number of pulses of a signal. A batch has ``count`` float32 (B,)."""

    name = "pulses"
    columns: ClassVar[Mapping[str, ColumnType]] = {"num_pulses": "int32"}

    def to_row(self, value: int) -> Mapping[str, Any]:
        return {"num_pulses": value}

    def from_row(self, row: Mapping[str, Any]) -> int | None:
        found: int | None = row["num_pulses"]
        return found

    def load(
        self, value: int, mapper: ClassMapper, raw: Any, limit: int, fields: frozenset[str]
    ) -> int:
        return value

    def collate(
        self, parts: Sequence[int | None], classes: Sequence[str], rule: Any, fields: frozenset[str]
    ) -> dict[str, NDArray[Any]]:
        return {"count": np.array([part or 0 for part in parts], np.float32)}


PULSES = PulsesKind()
COUNTS = "counts.csv"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PulseFiles(RawSource):
    """Signals as files of float32 values, and counts.csv with a line NAME,COUNT for each."""

    type: Literal["pulse_files"] = "pulse_files"
    root: str
    """The folder of the dataset (a path or s3://...)."""
    split: str
    """The folder below ROOT with the signals and counts.csv."""

    def open(self, rule: ImageRule) -> Source:
        """Lists the signals of the split."""
        folder = storage.join(storage.absolute(self.root), self.split)
        names = [name for name in storage.names(folder) if name.endswith(".f32")]
        if not names:
            raise FileNotFoundError(f"there are no files *.f32 in {folder}")
        counts = storage.read(storage.join(folder, COUNTS)).decode()
        known, skipped = {}, []
        for line in csv.reader(io.StringIO(counts)):
            if len(line) == 2 and line[1].strip().isdecimal():
                known[line[0]] = int(line[1])
            else:
                skipped.append(SkippedItem(COUNTS, ",".join(line), "not NAME,COUNT"))
        return Source(
            vocabulary=Vocabulary(classes={"pulses": ()}),
            records=[(name, known.get(name)) for name in names],
            reader=partial(_read, folder),
            skipped=tuple(skipped),
            fingerprint=fingerprint_of([counts, *names]),
            layout=Layout(inputs=(SIGNAL,), annotations=(PULSES,)),
        )


def _read(folder: str, record: tuple[str, int | None]) -> Reading:
    name, count = record
    data = storage.read(storage.join(folder, name))
    try:
        SIGNAL.decode(data, 10**6)
    except ValueError as error:
        raise UnreadableError(name, str(error)) from None
    return Sample(key=name, inputs={"signal": data}).with_annotations(pulses=count), []
