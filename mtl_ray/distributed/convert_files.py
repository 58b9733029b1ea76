"""Data sets become folders of files that other programs read: COCO, YOLO, VOC, index PNGs. Pictures are written by Ray tasks."""

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from mtl_ray import storage
from mtl_ray.distributed.convert import differences, open_any, order_of, provenance_of, sentence_of
from mtl_ray.distributed.outputs import absolute_output
from mtl_ray.distributed.wide import spread
from mtl_ray.samples import Sample
from mtl_ray.sources.config import ConvertConfig
from mtl_ray.sources.source import Reject, Source, UnreadableError
from mtl_ray.sources.writers.coco import COCO_FILE
from mtl_ray.sources.writers.open import FileFormat, open_writer
from mtl_ray.sources.writers.writer import Target, Writer, settle

_ROWS_OF_A_TASK = 200
_SHOWN = 20
_OF_PIXELS = ("cityscapes", "nuimages")
"""Sources whose masks were never polygons; their own programs write them as run lengths."""


@dataclass(frozen=True, kw_only=True)
class Files:
    """A split as files.

    Attributes:
        uri: the split's own file: COCO's JSON, YOLO's data.yaml, VOC's list, the list of pairs or the names of classes.
        note: the file that says what was converted, and names the rejects.
        pictures: how many there are.
        objects: how many objects of each class the source has in them, by its name; empty for semantic maps.
        rejects: what was left out.
        fresh: False if the split was there already.
    """

    uri: str
    note: str
    pictures: int
    objects: dict[str, int]
    rejects: tuple[Reject, ...]
    fresh: bool


@dataclass(frozen=True, slots=True)
class _Share:
    """Consecutive pictures of a split, for one task."""

    source: Source
    writer: Writer


@dataclass(frozen=True, slots=True)
class _Done:
    records: list[Any]
    rejects: list[Reject]
    objects: Counter[int]


def convert_files(config: ConvertConfig) -> Files:
    """Writes the split that a config describes; if it is there already, nothing is done.

    What was killed half-way leaves pictures, but no list or file of annotations that names them.

    Raises:
        FileNotFoundError: if the data set has no such split.
        ValueError: if another split of this name lies there, the format cannot say what the set has, or no picture can be read.
    """
    uri = absolute_output("--to", config.to)
    form = cast(FileFormat, config.format)
    alone = uri.endswith(COCO_FILE)
    if alone and form != "coco":
        raise ValueError(f"--to {config.to}: only coco is a single file; {form} is a folder")
    source = open_any(config.source)
    split = re.sub(r"[^A-Za-z0-9._-]+", "-", config.source.split).strip("-.") or "split"
    masks = config.masks or ("rle" if form == "coco" and config.source.type in _OF_PIXELS else None)
    target = Target(
        uri=uri,
        split=split,
        vocabulary=source.vocabulary,
        pictures=config.pictures and not alone,
        masks=masks,
        annotated=config.source.type != "pictures",
    )
    note = uri.removesuffix(COCO_FILE) + ".conversion.json" if alone else storage.join(uri, f"conversion_{split}.json")
    provenance = provenance_of(config, source)
    if storage.exists(note):
        return _finished(note, provenance)
    return _write(config, source, open_writer(form, target), note, provenance)


def _finished(note: str, provenance: dict[str, Any]) -> Files:
    content = json.loads(storage.read(note))
    if differing := differences(content["provenance"], provenance):
        what = ", ".join(differing).replace("inputs", "the data set itself")
        raise ValueError(f"{note} tells of another conversion to the same place (different: {what}); remove it or choose another with --to")
    rejects = tuple(Reject(**reject) for reject in content.pop("rejects"))
    del content["provenance"]
    return Files(note=note, rejects=rejects, fresh=False, **content)


def _write(config: ConvertConfig, source: Source, writer: Writer, note: str, provenance: dict[str, Any]) -> Files:
    if not len(source):
        why = f"; the first of {len(source.rejects)} left out: {sentence_of(source.rejects[0])}" if source.rejects else ""
        raise ValueError(f"the split {config.source.split!r} of {config.source.root} has no pictures{why}")
    order = order_of(config, source, shuffle=bool(config.shuffle))
    shares = [_Share(source.take(part), writer) for part in np.array_split(order, -(-len(order) // _ROWS_OF_A_TASK))]
    rejects, objects, pictures = list(source.rejects), Counter[int](), 0

    def records() -> Iterator[Any]:
        nonlocal pictures
        for done in spread(_write_share, shares, description=f"convert {config.source.split}", workers=config.workers):
            rejects.extend(done.rejects)
            objects.update(done.objects)
            pictures += len(done.records)
            yield from done.records
        if not pictures:
            raise ValueError(f"none of the {len(source)} pictures can be written; the first: {sentence_of(rejects[0])}")

    uri = writer.finish(records())
    names = source.vocabulary.classes.get("instances", ())
    counts = {name: objects[index] for index, name in enumerate(names)} if objects else {}
    files = Files(uri=uri, note=note, pictures=pictures, objects=counts, rejects=tuple(rejects), fresh=True)
    content = dataclasses.asdict(files) | {"provenance": provenance}
    storage.write(note, json.dumps({key: value for key, value in content.items() if key not in ("note", "fresh")}, indent=1).encode())
    return files


def _write_share(share: _Share) -> _Done:
    done = _Done([], [], Counter())
    for index in range(len(share.source)):
        sample, rejects = share.source.read(index)
        done.rejects.extend(rejects)
        if sample is not None:
            _write_sample(sample, share.writer, done)
    settle(share.writer.target.uri)
    return done


def _write_sample(sample: Sample, writer: Writer, done: _Done) -> None:
    try:
        record, rejects = writer.write(sample)
    except UnreadableError as error:
        done.rejects.append(error.reject)
        return
    done.records.append(record)
    done.rejects.extend(rejects)
    if sample.instances is not None:
        done.objects.update(sample.instances.classes.tolist())


def files_summary(files: Files) -> str:
    """What came of a conversion to files, as a table for the screen."""
    facts = [
        ("written", files.uri + ("" if files.fresh else " (was there already: nothing done)")),
        ("pictures", f"{files.pictures:,}"),
        ("left out", f"{len(files.rejects)} pictures and objects, see {files.note}" if files.rejects else "nothing"),
    ]
    lines = [f"{name:<10} {fact}" for name, fact in facts]
    if files.objects:
        lines += ["", f"{'objects':<24}{sum(files.objects.values()):>14,}"]
        lines += [f"  {name:<22}{count:>14,}" for name, count in list(files.objects.items())[:_SHOWN]]
        lines += [f"  ... {len(files.objects) - _SHOWN} more classes"] if len(files.objects) > _SHOWN else []
    return "\n".join(lines)
