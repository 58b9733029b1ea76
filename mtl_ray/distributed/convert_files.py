"""Data sets become folders of files that other programs read: COCO, YOLO, VOC, index PNGs. Pictures are written by Ray tasks."""

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from mtl_ray import storage
from mtl_ray.distributed.convert import (
    check_findings,
    check_listed,
    differences,
    item_json,
    left_out,
    open_any,
    order_of,
    provenance_of,
)
from mtl_ray.distributed.executor import map_tasks
from mtl_ray.distributed.outputs import absolute_output
from mtl_ray.inputs.image_header import MAX_PIXELS
from mtl_ray.samples import Annotation, Sample
from mtl_ray.shards.write import classes_of
from mtl_ray.sources.config import ConvertConfig, Shards
from mtl_ray.sources.findings import Findings, remarks, sentence_of
from mtl_ray.sources.picture import ImageRule
from mtl_ray.sources.source import Reject, Source, UnreadableError
from mtl_ray.sources.writers.coco import COCO_FILE
from mtl_ray.sources.writers.open import FileFormat, open_writer
from mtl_ray.sources.writers.writer import Target, Writer, settle

_ROWS_OF_A_TASK = 200
_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Files:
    """A split as files.

    Attributes:
        uri: the split's own file: COCO's JSON, YOLO's data.yaml, VOC's list, the list of pairs or the names of classes.
        note: the file that says what was converted, and names the rejects.
        pictures: how many there are.
        objects: how many objects of each class the source has in them, by its name; empty for semantic maps.
        annotated, annotations: images with annotations of any kind, and how many annotations there are.
        rejects: what was left out or written with a change.
        fresh: False if the split was there already.
    """

    uri: str
    note: str
    pictures: int
    objects: dict[str, int]
    rejects: tuple[Reject, ...]
    fresh: bool
    annotated: int = 0
    annotations: int = 0

    @property
    def findings(self) -> Findings:
        """What was left out or written with a change, counted."""
        findings = Findings(images=self.pictures, annotated=self.annotated, annotations=self.annotations)
        findings.add(self.rejects)
        return findings


@dataclass(frozen=True, slots=True)
class _Share:
    """Consecutive pictures of a split, for one task."""

    source: Source
    writer: Writer


@dataclass(slots=True)
class _Done:
    """What was written of a share, or of a whole split.

    Attributes:
        records: of its images, for the writer; none of a whole split.
        rejects: what was left out or written with a change.
        images: how many of each class, by kind of annotation.
        objects: of each class.
        pictures, annotated: images, and those of them with annotations of any kind.
    """

    records: list[Any] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    images: dict[Annotation, Counter[int]] = field(default_factory=dict)
    objects: Counter[int] = field(default_factory=Counter)
    pictures: int = 0
    annotated: int = 0

    def merge(self, other: "_Done") -> None:
        """Adds what was counted of another share."""
        self.rejects += other.rejects
        self.objects += other.objects
        self.pictures += other.pictures
        self.annotated += other.annotated
        for kind, counts in other.images.items():
            self.images.setdefault(kind, Counter()).update(counts)

    @property
    def annotations(self) -> int:
        """Objects, labels and classes in semantic maps."""
        return self.objects.total() + sum(counts.total() for kind, counts in self.images.items() if kind != "instances")


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
    rule = ImageRule(max_pixels=config.max_pixels or MAX_PIXELS, needed=config.pictures and not alone)
    source = open_any(config.source, rule, config.plugins)
    split = re.sub(r"[^A-Za-z0-9._-]+", "-", config.source.split).strip("-.") or "split"
    masks = config.masks or ("rle" if form == "coco" and config.source.pixel_masks else None)
    target = Target(
        uri=uri,
        split=split,
        vocabulary=source.vocabulary,
        pictures=config.pictures and not alone,
        masks=masks,
        annotated=config.source.annotated,
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
    check_listed(config, source)
    order = order_of(config, source, shuffle=bool(config.shuffle))
    shares = [_Share(source.take(part), writer) for part in np.array_split(order, -(-len(order) // _ROWS_OF_A_TASK))]
    whole = _Done(rejects=list(source.rejects))

    def records() -> Iterator[Any]:
        for done in map_tasks(_write_share, shares, description=f"convert {config.source.split}", workers=config.workers):
            whole.merge(done)
            yield from done.records
        if not whole.pictures:
            raise ValueError(f"none of the {len(source)} images can be written; the first: {sentence_of(whole.rejects[0])}")
        _check(config, source, whole, note)

    uri = writer.finish(records())
    files = Files(
        uri=uri,
        note=note,
        pictures=whole.pictures,
        objects=_by_name(source, "instances", whole.objects) if whole.objects else {},
        rejects=tuple(whole.rejects),
        fresh=True,
        annotated=whole.annotated,
        annotations=whole.annotations,
    )
    content = dataclasses.asdict(files) | {"rejects": [item_json(each) for each in files.rejects], "provenance": provenance}
    storage.write(note, json.dumps({key: value for key, value in content.items() if key not in ("note", "fresh")}, indent=1).encode())
    return files


def _check(config: ConvertConfig, source: Source, whole: _Done, note: str) -> None:
    """Raises a ValueError if the files must not be finished; what was skipped then stands beside the place of the note."""
    if isinstance(config.source, Shards):
        return
    findings = Findings(images=whole.pictures, annotated=whole.annotated, annotations=whole.annotations)
    findings.add(whole.rejects)
    counts = {str(kind): _by_name(source, kind, whole.images.get(kind, Counter())) for kind in source.vocabulary.classes}
    details = note.removesuffix(".json") + "_rejects.json"

    def write_details() -> None:
        storage.write(details, json.dumps([item_json(each) for each in whole.rejects], indent=1).encode())

    check_findings(findings, counts, details, allow_empty=config.allow_empty, abandon=write_details)


def _by_name(source: Source, kind: Annotation, counts: Counter[int]) -> dict[str, int]:
    return {name: counts[index] for index, name in enumerate(source.vocabulary.classes.get(kind, ()))}


def _write_share(share: _Share) -> _Done:
    done = _Done()
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
    done.pictures += 1
    done.annotated += sample.annotated
    for kind, classes in classes_of(sample).items():
        done.images.setdefault(kind, Counter()).update(classes)
    if sample.instances is not None:
        done.objects.update(sample.instances.classes.tolist())


def files_summary(files: Files) -> str:
    """What came of a conversion to files, as a table for the screen."""
    facts = [
        ("written", files.uri + ("" if files.fresh else " (was there already: nothing done)")),
        ("pictures", f"{files.pictures:,}"),
        left_out(files.findings, files.note),
    ]
    lines = [*(f"{name:<10} {fact}" for name, fact in facts), *remarks(files.findings)]
    if files.objects:
        lines += ["", f"{'objects':<24}{sum(files.objects.values()):>14,}"]
        lines += [f"  {name:<22}{count:>14,}" for name, count in list(files.objects.items())[:_SHOWN]]
        lines += [f"  ... {len(files.objects) - _SHOWN} more classes"] if len(files.objects) > _SHOWN else []
    return "\n".join(lines)
