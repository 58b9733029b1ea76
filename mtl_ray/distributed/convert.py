"""Converts raw datasets to shards. Ray tasks read and write; the split exists once its manifest
is written.
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.config.validate import read_record
from mtl_ray.distributed.cloud_objects import open_cloud_objects
from mtl_ray.distributed.executor import map_tasks
from mtl_ray.distributed.outputs import absolute_output
from mtl_ray.distributed.shard_jobs import ShardJob, clear, conversion_hash, open_shards, write_job
from mtl_ray.inputs.image_header import MAX_PIXELS
from mtl_ray.samples import Sample
from mtl_ray.shards.manifest import MANIFEST, Encoding, Manifest, ShardEntry
from mtl_ray.shards.split import open_split
from mtl_ray.shards.write import (
    CLASS_COUNTS,
    class_counts,
    publish_manifest,
    read_class_counts,
    shard_name,
)
from mtl_ray.sources.config import ConvertConfig, Shards, SourceConfig
from mtl_ray.sources.findings import Findings, refusal, remarks, sentence_of
from mtl_ray.sources.image_reading import ImageRule, open_source
from mtl_ray.sources.lidar.config import CloudObjects
from mtl_ray.sources.source import SkippedItem, Source

REJECTS = "rejects.json"
_LOOKED_AT = 32
"""Number of records that are read to estimate the size of all."""
_ROWS_WORTH_A_TASK = 1000
_SHOWN = 20
"""Number of classes of each kind in the printed table."""
_SMALL_TASKS = 8
"""A small dataset is cut into at most this many shards of at least ``_ROWS_WORTH_A_TASK`` rows,
written in parallel.
"""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A finished split.

    Attributes:
        uri: its folder.
        manifest: its manifest.
        findings: what was skipped or read with a change; ``rejects.json`` lists each.
        fresh: False if the split existed already.
    """

    uri: str
    manifest: Manifest
    findings: Findings
    fresh: bool


def convert(config: ConvertConfig) -> Conversion:
    """Writes the split that a config describes; if it exists already, nothing is done.

    An interrupted conversion leaves shards without a manifest; readers ignore them.

    Raises:
        FileNotFoundError: if the dataset has no such split.
        ValueError: if the folder holds another split, no image can be read, or ``refusal`` gives a
            reason.
    """
    source = open_any(
        config.source, ImageRule(max_pixels=config.max_pixels or MAX_PIXELS), config.plugins
    )
    return write_split(config, source, provenance_of(config, source))


def write_split(config: ConvertConfig, source: Source, provenance: dict[str, Any]) -> Conversion:
    """Writes a split of a listed source; see ``convert``.

    Args:
        config: output and options.
        source: the samples; may be a subset of those that the config names.
        provenance: inputs and options that identify the split.
    """
    uri = absolute_output("--to", config.to)
    if config.format not in ("arrow", "tfrecord"):
        raise ValueError(f"{config.format} is not a format of shards: use arrow or tfrecord")
    if storage.exists(storage.join(uri, MANIFEST)):
        return _finished(uri, provenance)
    check_listed(config, source)
    written = list(
        map_tasks(
            write_job,
            _shard_jobs(config, uri, source, provenance),
            description=f"convert {config.source.split}",
            workers=config.workers,
        )
    )
    skipped = [*source.skipped, *(item for part in written for item in part.skipped)]
    entries = [part.entry for part in written if part.entry is not None]
    if not entries:
        raise ValueError(
            f"none of the {len(source)} {source.layout.noun}s can be read; the first: "
            f"{sentence_of(skipped[0])}"
        )
    annotated = sum(part.annotated for part in written)
    findings = findings_of(entries, skipped, annotated, source.layout.noun)
    storage.write(
        storage.join(uri, REJECTS),
        json.dumps([item_json(item) for item in skipped], indent=1).encode(),
    )
    if not isinstance(config.source, Shards):
        images = {
            kind: columns["images"]
            for kind, columns in class_counts(entries, source.vocabulary).items()
        }
        check_findings(
            findings,
            images,
            storage.join(uri, REJECTS),
            allow_empty=config.allow_empty,
            abandon=lambda: clear(uri, []),
        )
    clear(uri, entries)
    manifest = publish_manifest(
        uri,
        entries,
        name=config.source.split,
        encoding=config.format,
        vocabulary=source.vocabulary,
        shuffled=_shuffles(config)
        or (isinstance(config.source, Shards) and open_split(config.source.root).manifest.shuffled),
        provenance=provenance,
    )
    return Conversion(uri=uri, manifest=manifest, findings=findings, fresh=True)


def open_any(config: SourceConfig, rule: ImageRule, plugins: Sequence[str]) -> Source:
    """Lists a raw or converted split; see ``open_source``. ``plugins`` are the plugins in use."""
    if isinstance(config, Shards):
        return open_shards(config)
    if isinstance(config, CloudObjects):
        return open_cloud_objects(config)
    source = open_source(config, rule)
    return replace(source, layout=source.layout.named(plugins))


def check_listed(config: ConvertConfig, source: Source) -> None:
    """Raises a ValueError if a dataset lists no sample at all."""
    if not len(source):
        why = (
            f"; the first of {len(source.skipped)} left out: {sentence_of(source.skipped[0])}"
            if source.skipped
            else ""
        )
        raise ValueError(
            f"the split {config.source.split!r} of {config.source.root} has no "
            f"{source.layout.noun}s{why}"
        )


def findings_of(
    entries: Sequence[ShardEntry], skipped: Iterable[SkippedItem], annotated: int, noun: str
) -> Findings:
    """Counts of what some shards hold and of what was skipped; ``noun`` is that of a sample."""
    rows = sum(entry.rows for entry in entries)
    findings = Findings(images=rows, annotated=annotated, noun=noun)
    for entry in entries:
        findings.annotations += entry.annotations
    findings.add(skipped)
    return findings


def check_findings(
    findings: Findings,
    counts: Mapping[str, Mapping[str, int]],
    details: str,
    *,
    allow_empty: bool,
    abandon: Callable[[], None],
) -> None:
    """Raises a ValueError if a split must not be published (see ``refusal``); calls ``abandon``
    first.
    """
    if reason := refusal(findings, counts, allow_empty=allow_empty):
        abandon()
        raise ValueError(f"nothing was published: {reason}; all skipped items are in {details}")


def item_json(item: SkippedItem) -> dict[str, Any]:
    """An entry of ``rejects.json``; ``note`` is written only where it is true."""
    return {key: value for key, value in dataclasses.asdict(item).items() if key != "note" or value}


def _shuffles(config: ConvertConfig) -> bool:
    return not isinstance(config.source, Shards) if config.shuffle is None else config.shuffle


def provenance_of(config: ConvertConfig, source: Source) -> dict[str, Any]:
    """What identifies a conversion: source, options that change the result, and the fingerprint
    of the inputs.
    """
    of_files = ("pictures", "masks") if config.format in ("arrow", "tfrecord") else ()
    choices = {
        key: value
        for key, value in dataclasses.asdict(config).items()
        if key not in ("to", "workers", "allow_empty", "plugins", *of_files)
    }
    choices["source"]["root"] = storage.absolute(config.source.root)
    found: dict[str, Any] = json.loads(json.dumps({**choices, "inputs": source.fingerprint}))
    return found


def _finished(uri: str, provenance: dict[str, Any]) -> Conversion:
    manifest = open_split(uri).manifest
    if differing := provenance_differences(manifest.provenance, provenance):
        what = ", ".join(differing).replace("inputs", "the dataset itself")
        raise ValueError(
            f"{uri} already holds another split (different: {what}); remove it or choose another "
            "folder with --to"
        )
    findings = Findings(
        images=manifest.num_samples,
        annotations=annotations_in(uri),
        noun=manifest.layout.noun,
    )
    rejects = storage.join(uri, REJECTS)
    findings.add(read_record(storage.read(rejects), list[SkippedItem], rejects))
    return Conversion(uri=uri, manifest=manifest, findings=findings, fresh=False)


def annotations_in(uri: str) -> int:
    """Number of annotations of a finished split, from its ``class_counts.json``."""
    # objects, if they are counted
    return sum(
        sum((columns.get(kind) or columns.get("images", {})).values())
        for kind, columns in read_class_counts(uri).items()
    )


def provenance_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Keys in which two provenances differ. A missing option equals None, since earlier versions
    lack it.
    """
    first, second = _given(before), _given(now)
    return sorted(key for key in first.keys() | second.keys() if first.get(key) != second.get(key))


def _given(choices: Mapping[str, Any]) -> dict[str, Any]:
    said = {
        key: _given(value) if isinstance(value, Mapping) else value
        for key, value in choices.items()
    }
    return {key: value for key, value in said.items() if value is not None}


def _shard_jobs(
    config: ConvertConfig, uri: str, source: Source, provenance: dict[str, Any]
) -> list[ShardJob]:
    """The shards to write: consecutive ranges of the (shuffled) records."""
    order = order_of(config, source, shuffle=_shuffles(config))
    shares = np.array_split(order, _num_shards(source, config.shard_bytes))
    name = re.sub(r"[^A-Za-z0-9.]+", "-", config.source.split).strip("-.") or "split"
    remote, conversion = (
        storage.is_remote(config.source.root),
        conversion_hash(provenance, len(shares)),
    )
    encoding: Encoding = "tfrecord" if config.format == "tfrecord" else "arrow"
    return [
        ShardJob(
            uri=uri,
            name=shard_name(name, index),
            encoding=encoding,
            source=source.take(share),
            remote=remote,
            conversion=conversion,
        )
        for index, share in enumerate(shares)
    ]


def order_of(config: ConvertConfig, source: Source, *, shuffle: bool) -> NDArray[np.int64]:
    """The records' indices in the order in which they are written."""
    return (
        np.random.default_rng(config.seed).permutation(len(source))
        if shuffle
        else np.arange(len(source))
    )


def _num_shards(source: Source, shard_bytes: int) -> int:
    """By size; small datasets get more shards, to write them in parallel. Independent of the
    machine.
    """
    looked_at = np.linspace(0, len(source) - 1, min(_LOOKED_AT, len(source))).astype(int)
    sizes = [
        _input_bytes(sample, source)
        for index in looked_at
        if (sample := source.read(int(index))[0]) is not None
    ]
    by_size = math.ceil(len(source) * (sum(sizes) / len(sizes)) / shard_bytes) if sizes else 1
    by_rows = min(_SMALL_TASKS, math.ceil(len(source) / _ROWS_WORTH_A_TASK))
    return min(len(source), max(by_size, by_rows))


def _input_bytes(sample: Sample, source: Source) -> int:
    return sum(each.num_bytes(sample.inputs[each.name]) for each in source.layout.inputs)


def left_out(findings: Findings, details: str) -> tuple[str, str]:
    """The line of a summary on skipped items."""
    return (
        "left out",
        f"{findings.rejected:,} {findings.noun}s and annotations, see {details}"
        if findings.rejected
        else "nothing",
    )


def summary(conversion: Conversion) -> str:
    """The summary of a conversion, as text."""
    manifest = conversion.manifest
    classes = ", ".join(
        f"{len(names)} of {kind}" if names else f"none of {kind}"
        for kind, names in manifest.vocabulary.classes.items()
    )
    facts = [
        (
            "split",
            f"{manifest.name} at {conversion.uri}"
            + ("" if conversion.fresh else " (exists already: nothing done)"),
        ),
        (
            "samples",
            f"{manifest.num_samples:,} in {len(manifest.shard_names)} {manifest.encoding} shards, "
            f"{manifest.num_bytes / 1e6:,.1f} MB",
        ),
        ("classes", classes or "none"),
        left_out(conversion.findings, storage.join(conversion.uri, REJECTS)),
    ]
    lines = [*(f"{name:<10} {fact}" for name, fact in facts), *remarks(conversion.findings)]
    for kind, columns in read_class_counts(conversion.uri).items():
        own = f"{conversion.findings.noun}s"
        titles = [own if column == "images" else column for column in columns]
        lines += ["", f"{kind:<24}" + "".join(f"{title:>14}" for title in titles)]
        names = list(columns.get("images", ()))
        lines += [
            f"  {name:<22}" + "".join(f"{each.get(name, 0):>14,}" for each in columns.values())
            for name in names[:_SHOWN]
        ]
        lines += (
            [f"  ... {len(names) - _SHOWN} more in {storage.join(conversion.uri, CLASS_COUNTS)}"]
            if len(names) > _SHOWN
            else []
        )
    return "\n".join(lines)
