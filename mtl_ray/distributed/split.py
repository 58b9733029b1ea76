"""Splits a dataset or a COCO file into parts: seeded, stratified by class, with groups kept
together.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.config.validate import read_record
from mtl_ray.distributed.convert import provenance_of, write_split
from mtl_ray.distributed.executor import map_tasks
from mtl_ray.distributed.outputs import absolute_output
from mtl_ray.distributed.shard_jobs import open_shards
from mtl_ray.samples import Annotation
from mtl_ray.shards.split import Split, open_split
from mtl_ray.sources.config import ConvertConfig, Shards
from mtl_ray.sources.folders import read_lines
from mtl_ray.sources.split_coco import (
    class_table,
    image_names,
    load_coco,
    name_of_part,
    write_parts,
)
from mtl_ray.sources.stratify import assign_parts, groups_of

_REPORT = "split.json"
_WORTH_TASKS = 2000
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitOptions:
    """How a dataset is split.

    Attributes:
        shares: weight of each part by name; 8, 1, 1 equals 0.8, 0.1, 0.1.
        seed: another seed gives other parts.
        group: a regular expression: images whose names match with the same text (or first group)
            stay together.
        group_field: field of a COCO file's images: those with the same value stay together.
        groups: a file with lines "name group", separated by a comma, a tab or blanks.
        stratify: whether each part gets the same share of every class.
        join_duplicates: whether images with identical bytes stay together (splits only).
    """

    shares: Mapping[str, float]
    seed: int = 0
    group: str | None = None
    group_field: str | None = None
    groups: str | None = None
    stratify: bool = True
    join_duplicates: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitPart:
    """One part of the split dataset.

    Attributes:
        name: as the options give it.
        uri: the split, or the COCO file.
        images, groups: numbers of images and groups.
        classes: number of objects (labels, images with a semantic class) by class name.
    """

    name: str
    uri: str
    images: int
    groups: int
    classes: Mapping[str, int]


def split_data(
    data: str, to: str, options: SplitOptions, *, workers: int | None = None
) -> list[SplitPart]:
    """Splits a converted split or a COCO annotation file, and writes ``TO/split.json`` and lists
    ``TO/PART.txt`` of names.

    Args:
        data: URI of a split, whose parts become splits ``TO/PART``; or of a COCO file, see
            ``name_of_part``.
        to: output folder, used for nothing else.
        options: shares, seed and grouping.
        workers: tasks at a time; 1 runs in this process.

    Raises:
        FileNotFoundError, ValueError: if the data does not exist, or the groups are invalid or too
            few.
    """
    if len(options.shares) < 2 or min(options.shares.values()) <= 0:
        raise ValueError(
            "there must be at least two parts, each with a share above 0, such as train=0.8 val=0.2"
        )
    if bad := [name for name in options.shares if not re.fullmatch(r"[A-Za-z0-9_-]+", name)]:
        raise ValueError(f"{bad[0]!r} cannot be the name of a part: letters, digits, _ and - can")
    to, data = absolute_output("--to", to), storage.absolute(data)
    parts = (
        _split_file(data, to, options)
        if data.endswith(".json")
        else _split_shards(data, to, options, workers)
    )
    report = _request(data, options) | {"parts": [_part_json(part) for part in parts]}
    storage.write(storage.join(to, _REPORT), json.dumps(report, indent=1).encode())
    return parts


def _part_json(part: SplitPart) -> dict[str, Any]:
    """A part as ``split.json`` has it."""
    return {
        "name": part.name,
        "uri": part.uri,
        "pictures": part.images,
        "groups": part.groups,
        "classes": dict(part.classes),
    }


def _request(data: str, options: SplitOptions) -> dict[str, Any]:
    """The input and options that identify a result."""
    found: dict[str, Any] = json.loads(json.dumps({"data": data} | asdict(options)))
    return found


def _check_free(to: str, data: str, options: SplitOptions) -> None:
    """Raises a ValueError if the folder holds parts with other options."""
    uri = storage.join(to, _REPORT)
    before = (
        read_record(storage.read(uri), dict[str, Any], uri)
        if storage.exists(uri)
        else _request(data, options)
    )
    if differing := [
        key for key, value in _request(data, options).items() if before.get(key) != value
    ]:
        raise ValueError(
            f"{to} holds parts of another call (different: {', '.join(differing)}); remove it or "
            "choose another"
        )


def _split_file(data: str, to: str, options: SplitOptions) -> list[SplitPart]:
    content = load_coco(data)
    keys, (classes, counts) = image_names(content, None), class_table(content)
    more = [image_names(content, options.group_field)] if options.group_field else []
    groups, parts = _assign(keys, counts, options, more)
    uris = [storage.join(to, name_of_part(data, name)) for name in options.shares]
    if data in uris:
        raise ValueError(f"--to {to} is the folder of the data, and a part would overwrite it")
    _check_free(to, data, options)
    _write_lists(keys, parts, to, options)
    write_parts(content, parts, uris)
    return _split_parts(options, uris, parts, groups, classes, counts)


def _split_shards(
    data: str, to: str, options: SplitOptions, workers: int | None
) -> list[SplitPart]:
    if options.group_field:
        raise ValueError("--group-field needs a COCO file; for a split use --group or --groups")
    split = open_split(data)
    keys, digests = _scan(split, workers, digests=options.join_duplicates)
    classes, counts = _class_counts(split)
    groups, parts = _assign(keys, counts, options, [digests] if options.join_duplicates else [])
    uris = [storage.join(to, name) for name in options.shares]
    _check_free(to, data, options)
    _write_lists(keys, parts, to, options)
    for number, (name, uri) in enumerate(zip(options.shares, uris, strict=True)):
        config = ConvertConfig(
            source=Shards(root=data, split=name),
            to=uri,
            format=split.manifest.encoding,
            workers=workers,
        )
        source = open_shards(Shards(root=data, split=name))
        chosen = asdict(options) | {"shares": dict(options.shares), "part": name}
        write_split(
            config,
            source.take(np.flatnonzero(parts == number)),
            provenance_of(config, source) | {"wish": chosen},
        )
    return _split_parts(options, uris, parts, groups, classes, counts)


def _assign(
    keys: Sequence[str], counts: Ints, options: SplitOptions, more: Sequence[Sequence[str]]
) -> tuple[Ints, Ints]:
    """The group and the part of each image, (N,) int64 each."""
    columns = [list(keys), *map(list, more)]
    columns += [_matches(keys, options.group)] if options.group else []
    columns += [_listed(keys, options.groups)] if options.groups else []
    groups = groups_of(*columns)
    return groups, assign_parts(
        counts if options.stratify else counts[:, :0],
        groups,
        list(options.shares.values()),
        options.seed,
    )


def _matches(keys: Sequence[str], pattern: str) -> list[str]:
    """The match of a regular expression in each key."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"--group {pattern} is not a regular expression: {error}") from None
    found = [compiled.search(key) for key in keys]
    if missing := [key for key, match in zip(keys, found, strict=True) if match is None]:
        raise ValueError(
            f"--group {pattern} does not match {len(missing)} names, such as {missing[0]}"
        )
    return [str(match[1 if compiled.groups else 0]) for match in found if match is not None]


def _listed(keys: Sequence[str], uri: str) -> list[str]:
    """The group of each key in a file of names and groups."""
    lines = [
        re.split(r"\s*[,\t]\s*|\s+(?=\S+$)", line, maxsplit=1)
        for line in read_lines(storage.absolute(uri))
    ]
    known = {line[0]: line[1] for line in lines if len(line) == 2}
    if missing := [key for key in keys if key not in known]:
        raise ValueError(f"{uri} has no group for {len(missing)} images, such as {missing[0]}")
    return [known[key] for key in keys]


def _class_counts(split: Split) -> tuple[tuple[str, ...], Ints]:
    """The names of the C classes of all kinds, and (N, C) int64 counts per image."""
    names: list[str] = []
    columns: list[Ints] = []
    kinds: Mapping[Annotation, tuple[str, ...]] = split.vocabulary.classes
    for kind, classes in kinds.items():
        names += [f"{kind}: {name}" if len(kinds) > 1 else name for name in classes]
        columns.append(
            np.array(
                [np.bincount(found, minlength=len(classes)) for found in split.scan_classes(kind)],
                np.int64,
            )
        )
    rows = split.num_samples
    return tuple(names), np.concatenate(
        [np.zeros((rows, 0), np.int64), *(column.reshape(rows, -1) for column in columns)], axis=1
    )


@dataclass(frozen=True, slots=True)
class _Rows:
    """Samples [start, stop) of a split, for one task."""

    split: Split
    start: int
    stop: int
    digests: bool


def _scan(split: Split, workers: int | None, *, digests: bool) -> tuple[list[str], list[str]]:
    """The key of each sample, and a digest of its image."""
    starts = range(0, split.num_samples, _WORTH_TASKS)
    shares = [
        _Rows(split, start, min(start + _WORTH_TASKS, split.num_samples), digests)
        for start in starts
    ]
    found = list(map_tasks(_look, shares, description="look for duplicates", workers=workers))
    return [key for keys, _ in found for key in keys], [
        digest for _, each in found for digest in each
    ]


def _look(rows: _Rows) -> tuple[list[str], list[str]]:
    keys, digests = [], []
    (shown, *_) = rows.split.manifest.layout.inputs
    large = list(shown.columns)[-1]
    for sample in rows.split.read(rows.start, rows.stop):
        keys.append(sample.key)
        data = shown.to_row(sample.inputs[shown.name])[large] if rows.digests else b""
        digests.append(hashlib.sha256(data).hexdigest() if rows.digests else "")
    return keys, digests


def _write_lists(keys: Sequence[str], parts: Ints, to: str, options: SplitOptions) -> None:
    for number, name in enumerate(options.shares):
        names = [key for key, part in zip(keys, parts.tolist(), strict=True) if part == number]
        storage.write(
            storage.join(to, f"{name}.txt"), "".join(f"{key}\n" for key in names).encode()
        )


def _split_parts(
    options: SplitOptions,
    uris: Sequence[str],
    parts: Ints,
    groups: Ints,
    classes: Sequence[str],
    counts: Ints,
) -> list[SplitPart]:
    return [
        SplitPart(
            name=name,
            uri=uri,
            images=int((parts == number).sum()),
            groups=len(np.unique(groups[parts == number])),
            classes=dict(zip(classes, counts[parts == number].sum(axis=0).tolist(), strict=True)),
        )
        for number, (name, uri) in enumerate(zip(options.shares, uris, strict=True))
    ]


def parts_table(parts: Sequence[SplitPart], shown: int = 20) -> str:
    """A table, as text: the share of each class in each part."""
    head = f"{'':<26}{'all':>9}" + "".join(f"{part.name:>16}" for part in parts)
    rows = [
        ("images", [part.images for part in parts]),
        ("groups", [part.groups for part in parts]),
    ]
    rows += [(name, [part.classes[name] for part in parts]) for name in parts[0].classes]
    lines = [head]
    for name, values in rows[: shown + 2]:
        whole = sum(values)
        lines.append(
            f"{name[:25]:<26}{whole:>9,}"
            + "".join(f"{value:>8,} {value / max(whole, 1):>6.1%}" for value in values)
        )
    lines += [f"... {len(rows) - shown - 2} more classes"] if len(rows) > shown + 2 else []
    return "\n".join([*lines, "", *(f"{part.name:<10} {part.uri}" for part in parts)])
