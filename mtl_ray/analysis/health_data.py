"""The datasets to check: a split, a COCO annotation file, or a raw dataset of any kind, with
access to single rows.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from mtl_ray import storage
from mtl_ray.analysis.health import Health
from mtl_ray.analysis.health_clouds import CloudNetwork
from mtl_ray.analysis.health_sample import look_at
from mtl_ray.config.describe import given_node
from mtl_ray.config.document import scalar
from mtl_ray.config.extend import extended
from mtl_ray.config.fields import field_kinds, members, tag
from mtl_ray.config.validate import read_record, validate
from mtl_ray.evaluation.data import CocoData, EvaluationData, SplitData, open_data
from mtl_ray.experiment import load_experiment
from mtl_ray.inputs.points import PointCanvas
from mtl_ray.layout import DEFAULT, Layout
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.sources.config import ConvertConfig, Shards
from mtl_ray.sources.image_reading import ImageRule, open_source
from mtl_ray.sources.lidar.config import CloudObjects
from mtl_ray.sources.source import RawSource, SkippedItem, Source
from mtl_ray.tasks.lidar.config import anchors_in_space

LEFT_OUT = "left out by the reader"
_RAW = re.compile(r"([a-z0-9_]+):(\w+=.*)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Some rows of a dataset.

    Attributes:
        uri, images: see ``open_health_dataset``; None for rows of a raw dataset.
        source: a raw dataset with only these rows.
        start, stop: the rows.
        network: what clouds are compared with.
    """

    uri: str | None
    images: str | None
    source: Source | None
    start: int
    stop: int
    network: CloudNetwork | None = None


@dataclass(frozen=True, kw_only=True)
class HealthDataset:
    """A dataset to check.

    Attributes:
        name: its address.
        data: a split or an annotation file, or the listing of a raw dataset.
        images: folder of the images of an annotation file.
        skipped: what its reader, or the conversion that wrote it, skipped.
    """

    name: str
    data: EvaluationData | Source
    images: str | None
    skipped: tuple[SkippedItem, ...]

    @property
    def vocabulary(self) -> Vocabulary:
        """The names of the class numbers."""
        return self.data.vocabulary

    @property
    def layout(self) -> Layout:
        """Its inputs and kinds of annotation."""
        return _layout(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def pieces(self, most: int) -> list[Piece]:
        """All rows in at most ``most`` ranges."""
        ends = [len(self) * index // most for index in range(most + 1)]
        spans = [(start, stop) for start, stop in pairwise(ends) if stop > start]
        if isinstance(self.data, Source):
            return [
                Piece(
                    uri=None,
                    images=None,
                    source=self.data.take(range(start, stop)),
                    start=start,
                    stop=stop,
                )
                for start, stop in spans
            ]
        return [
            Piece(uri=self.name, images=self.images, source=None, start=start, stop=stop)
            for start, stop in spans
        ]

    def sample(self, row: int) -> Sample | None:
        """One sample; its image is empty if there is none.

        None if the reader of a raw dataset skips it.
        """
        return _read(self.data, row, Health(vocabulary=self.vocabulary))


def open_health_dataset(
    name: str, images: str | None = None, plugins: Sequence[str] = ()
) -> HealthDataset:
    """The dataset at an address.

    Args:
        name: the URI of a split, a COCO annotation file (.json), or ``KIND:key=value,...`` with the
            options of ``jobs.convert``, such as ``voc:root=data/VOC2007,split=train``.
        images: folder of the images of an annotation file.
        plugins: names of plugin modules, which may add kinds of raw datasets.

    Raises:
        ValueError, FileNotFoundError: if there is no such dataset.
    """
    config_type = extended(ConvertConfig, plugins)
    kinds = {tag(kind) for kind in members(field_kinds(config_type)["source"])}
    raw = _RAW.fullmatch(name)
    if raw and raw[1] in kinds - {Shards.type, CloudObjects.type}:
        config = _raw_config(config_type, raw[1], raw[2])
        source = open_source(config, ImageRule(needed=False))
        source = replace(source, layout=source.layout.named(plugins))
        return HealthDataset(name=name, data=source, images=None, skipped=source.skipped)
    data = open_data(name, images)
    skipped = _rejects(name) if isinstance(data, SplitData) else ()
    return HealthDataset(name=name, data=data, images=images, skipped=skipped)


def network_of(path: str) -> CloudNetwork:
    """What the network of a config reaches of clouds.

    Raises:
        ValueError, FileNotFoundError: if there is no such config, or its network takes no clouds.
    """
    config = load_experiment(path)
    canvas = config.data.canvas
    if not isinstance(canvas, PointCanvas):
        raise ValueError(
            f"{path}: its network takes {canvas.input.name}; --config is for networks of clouds"
        )
    heads = {
        name: head
        for name, each in config.model.heads.items()
        if (head := anchors_in_space(each)) is not None
    }
    return CloudNetwork(canvas=canvas, heads=heads)


def look_at_piece(piece: Piece) -> Health:
    """Counts the rows of a piece."""
    data = piece.source if piece.source is not None else open_data(str(piece.uri), piece.images)
    health, layout = Health(vocabulary=data.vocabulary), _layout(data)
    first = piece.start if piece.source is not None else 0
    for row in range(piece.start, piece.stop):
        sample = _read(data, row - first, health)
        if sample is not None:
            look_at(sample, row, health, layout, piece.network)
    return health


def report_rejects(skipped: Sequence[SkippedItem], health: Health) -> None:
    """Counts what was skipped, and what was changed on reading."""
    health.findings.add(skipped)
    for item in skipped:
        if not item.note:
            health.report(LEFT_OUT, item.file, ": ".join(filter(None, (item.object, item.reason))))


def _layout(data: EvaluationData | Source) -> Layout:
    if isinstance(data, Source):
        return data.layout
    return data.split.manifest.layout if isinstance(data, SplitData) else DEFAULT


def _read(data: EvaluationData | Source, row: int, health: Health) -> Sample | None:
    """A sample, with its image if there is one.

    What the reader of a raw dataset skips is counted.
    """
    if isinstance(data, Source):
        sample, skipped = data.read(row)
        report_rejects(skipped, health)
        return sample
    if not isinstance(data, CocoData):
        return next(iter(data.samples(row, row + 1, images=True)))
    sample = next(data.samples(row, row + 1, images=True))
    return replace(sample, key=data.file.file_names[sample.key])


def _raw_config(config_type: type[ConvertConfig], kind: str, options: str) -> RawSource:
    values: dict[str, Any] = {"type": kind}
    for option in options.split(","):
        key, equals, value = option.partition("=")
        if not equals:
            raise ValueError(f"{kind}:{options}: {option!r} is not KEY=VALUE")
        values[key.strip()] = scalar(value) if value.isdigit() else value
    return validate(given_node({"source": values, "to": "-"}), config_type).source


def _rejects(uri: str) -> tuple[SkippedItem, ...]:
    """What the conversion that wrote a split skipped."""
    rejects = storage.join(uri, "rejects.json")
    try:
        return tuple(read_record(storage.read(rejects), list[SkippedItem], rejects))
    except FileNotFoundError:
        return ()
