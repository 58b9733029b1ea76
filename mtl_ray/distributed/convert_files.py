"""Converts datasets to files of other programs: COCO, YOLO, VOC, index PNGs. Ray tasks write the
images.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from mtl_ray import storage
from mtl_ray.annotations.boxes_3d import BOXES_3D
from mtl_ray.annotations.instances import INSTANCES
from mtl_ray.config.validate import read_record
from mtl_ray.distributed.convert import (
    check_findings,
    check_listed,
    item_json,
    left_out,
    open_any,
    order_of,
    provenance_differences,
    provenance_of,
)
from mtl_ray.distributed.executor import map_tasks
from mtl_ray.distributed.outputs import absolute_output
from mtl_ray.inputs.image import IMAGE
from mtl_ray.inputs.image_header import MAX_PIXELS
from mtl_ray.layout import Layout
from mtl_ray.samples import Annotation, Sample
from mtl_ray.shards.write import classes_of
from mtl_ray.sources.config import ConvertConfig, Shards
from mtl_ray.sources.findings import Findings, remarks, sentence_of
from mtl_ray.sources.image_reading import ImageRule
from mtl_ray.sources.source import SkippedItem, Source, UnreadableError
from mtl_ray.sources.writers.coco import COCO_FILE
from mtl_ray.sources.writers.open import FileFormat, open_writer
from mtl_ray.sources.writers.writer import Target, Writer, flush_to_disk

_ROWS_OF_A_TASK = 200
_SHOWN = 20
_OBJECTS = {kind.name: kind for kind in (INSTANCES, BOXES_3D)}
"""Kinds of annotation of which each object is counted; a sample has one of them."""


@dataclass(frozen=True, kw_only=True)
class ConvertedFiles:
    """A split that was written as files.

    Attributes:
        uri: the split's own file: COCO's JSON, YOLO's data.yaml, VOC's list, the list of pairs or
            the names of classes.
        note: the file with the provenance and the skipped items.
        images: number of images.
        objects: number of objects of each class, by class name; empty for semantic maps.
        annotated: number of images with annotations of any kind.
        annotations: number of annotations.
        noun: what a sample is called in messages.
        skipped: items that were skipped or written with a change.
        fresh: False if the split existed already.
    """

    uri: str
    note: str
    images: int
    objects: dict[str, int]
    skipped: tuple[SkippedItem, ...]
    fresh: bool
    annotated: int = 0
    annotations: int = 0
    noun: str = IMAGE.noun

    @property
    def findings(self) -> Findings:
        """Counts of items that were skipped or written with a change."""
        findings = Findings(
            images=self.images,
            annotated=self.annotated,
            annotations=self.annotations,
            noun=self.noun,
        )
        findings.add(self.skipped)
        return findings


@dataclass(frozen=True, slots=True)
class _Share:
    """Consecutive samples of a split, for one task."""

    source: Source
    writer: Writer


@dataclass(slots=True)
class _Done:
    """What was written of a share or of a whole split.

    Attributes:
        records: of its samples, for the writer; empty for a whole split.
        skipped: items that were skipped or written with a change.
        images_with: number of images with each class, by kind of annotation.
        objects: number of objects of each class.
        images: number of images.
        annotated: number of those with annotations of any kind.
    """

    records: list[Any] = field(default_factory=list)
    skipped: list[SkippedItem] = field(default_factory=list)
    images_with: dict[Annotation, Counter[int]] = field(default_factory=dict)
    objects: Counter[int] = field(default_factory=Counter)
    images: int = 0
    annotated: int = 0

    def merge(self, other: "_Done") -> None:
        """Adds the counts of another share."""
        self.skipped += other.skipped
        self.objects += other.objects
        self.images += other.images
        self.annotated += other.annotated
        for kind, counts in other.images_with.items():
            self.images_with.setdefault(kind, Counter()).update(counts)

    @property
    def annotations(self) -> int:
        """Objects, labels and classes in semantic maps."""
        return self.objects.total() + sum(
            counts.total() for kind, counts in self.images_with.items() if kind not in _OBJECTS
        )


def convert_files(config: ConvertConfig) -> ConvertedFiles:
    """Writes the split that a config describes; if it exists already, nothing is done.

    An interrupted conversion leaves images, but no list or annotation file that names them.

    Raises:
        FileNotFoundError: if the dataset has no such split.
        ValueError: if the folder holds another split of this name, the format lacks a kind of
            annotation, or no image can be read.
    """
    uri = absolute_output("--to", config.to)
    form = cast(FileFormat, config.format)
    alone = uri.endswith(COCO_FILE)
    if alone and form != "coco":
        raise ValueError(f"--to {config.to}: only coco is a single file; {form} is a folder")
    rule = ImageRule(
        max_pixels=config.max_pixels or MAX_PIXELS, needed=config.pictures and not alone
    )
    source = open_any(config.source, rule, config.plugins)
    split = re.sub(r"[^A-Za-z0-9._-]+", "-", config.source.split).strip("-.") or "split"
    masks = config.masks or ("rle" if form == "coco" and config.source.pixel_masks else None)
    target = Target(
        uri=uri,
        split=split,
        vocabulary=source.vocabulary,
        images=config.pictures and not alone,
        masks=masks,
        annotated=config.source.annotated,
    )
    note = (
        uri.removesuffix(COCO_FILE) + ".conversion.json"
        if alone
        else storage.join(uri, f"conversion_{split}.json")
    )
    provenance = provenance_of(config, source)
    if storage.exists(note):
        return _finished(note, provenance)
    return _write(config, source, open_writer(form, target), note, provenance)


def _finished(note: str, provenance: dict[str, Any]) -> ConvertedFiles:
    content = read_record(storage.read(note), dict[str, Any], note)
    if missing := {"uri", "pictures", "objects", "rejects", "provenance"} - content.keys():
        raise ValueError(f"{note} is damaged: it has no {min(missing)}; remove it")
    if differing := provenance_differences(content["provenance"], provenance):
        what = ", ".join(differing).replace("inputs", "the dataset itself")
        raise ValueError(
            f"{note} describes another conversion to the same folder (different: {what}); remove "
            "it or choose another with --to"
        )
    skipped = tuple(SkippedItem(**item) for item in content.pop("rejects"))
    del content["provenance"]
    return ConvertedFiles(
        note=note, images=content.pop("pictures"), skipped=skipped, fresh=False, **content
    )


def _write(
    config: ConvertConfig, source: Source, writer: Writer, note: str, provenance: dict[str, Any]
) -> ConvertedFiles:
    check_listed(config, source)
    order = order_of(config, source, shuffle=bool(config.shuffle))
    shares = [
        _Share(source.take(part), writer)
        for part in np.array_split(order, -(-len(order) // _ROWS_OF_A_TASK))
    ]
    whole = _Done(skipped=list(source.skipped))

    def records() -> Iterator[Any]:
        for done in map_tasks(
            _write_share,
            shares,
            description=f"convert {config.source.split}",
            workers=config.workers,
        ):
            whole.merge(done)
            yield from done.records
        if not whole.images:
            raise ValueError(
                f"none of the {len(source)} {source.layout.noun}s can be written; the first: "
                f"{sentence_of(whole.skipped[0])}"
            )
        _check(config, source, whole, note)

    uri = writer.finish(records())
    files = ConvertedFiles(
        uri=uri,
        note=note,
        images=whole.images,
        objects=_objects_by_name(source, whole.objects),
        skipped=tuple(whole.skipped),
        fresh=True,
        annotated=whole.annotated,
        annotations=whole.annotations,
        noun=source.layout.noun,
    )
    content = {
        "uri": uri,
        "pictures": files.images,
        "objects": files.objects,
        "rejects": [item_json(each) for each in files.skipped],
        "annotated": files.annotated,
        "annotations": files.annotations,
        "noun": files.noun,
        "provenance": provenance,
    }
    storage.write(note, json.dumps(content, indent=1).encode())
    return files


def _check(config: ConvertConfig, source: Source, whole: _Done, note: str) -> None:
    """Raises a ValueError if the files must not be finished; the skipped items are written
    beside the note.
    """
    if isinstance(config.source, Shards):
        return
    findings = Findings(
        images=whole.images,
        annotated=whole.annotated,
        annotations=whole.annotations,
        noun=source.layout.noun,
    )
    findings.add(whole.skipped)
    counts = {
        str(kind): _by_name(source, kind, whole.images_with.get(kind, Counter()))
        for kind in source.vocabulary.classes
    }
    details = note.removesuffix(".json") + "_rejects.json"

    def write_details() -> None:
        storage.write(
            details, json.dumps([item_json(each) for each in whole.skipped], indent=1).encode()
        )

    check_findings(findings, counts, details, allow_empty=config.allow_empty, abandon=write_details)


def _by_name(source: Source, kind: Annotation, counts: Counter[int]) -> dict[str, int]:
    return {
        name: counts[index] for index, name in enumerate(source.vocabulary.classes.get(kind, ()))
    }


def _objects_by_name(source: Source, counts: Counter[int]) -> dict[str, int]:
    kinds = [kind for kind in source.vocabulary.classes if kind in _OBJECTS]
    return _by_name(source, kinds[0], counts) if kinds and counts else {}


def _write_share(share: _Share) -> _Done:
    done = _Done()
    for index in range(len(share.source)):
        sample, skipped = share.source.read(index)
        done.skipped.extend(skipped)
        if sample is not None:
            _write_sample(sample, share.source.layout, share.writer, done)
    flush_to_disk(share.writer.target.uri)
    return done


def _write_sample(sample: Sample, layout: Layout, writer: Writer, done: _Done) -> None:
    try:
        record, skipped = writer.write(sample)
    except UnreadableError as error:
        done.skipped.append(error.item)
        return
    done.records.append(record)
    done.skipped.extend(skipped)
    done.images += 1
    done.annotated += sample.annotated
    for kind, classes in classes_of(sample, layout).items():
        done.images_with.setdefault(kind, Counter()).update(classes)
    for name, value in sample.annotations.items():
        if name in _OBJECTS:
            done.objects.update(_OBJECTS[name].classes(value).tolist())


def files_summary(files: ConvertedFiles) -> str:
    """The summary of a conversion to files, as text."""
    facts = [
        ("written", files.uri + ("" if files.fresh else " (exists already: nothing done)")),
        ("samples", f"{files.images:,}"),
        left_out(files.findings, files.note),
    ]
    lines = [*(f"{name:<10} {fact}" for name, fact in facts), *remarks(files.findings)]
    if files.objects:
        lines += ["", f"{'objects':<24}{sum(files.objects.values()):>14,}"]
        lines += [
            f"  {name:<22}{count:>14,}" for name, count in list(files.objects.items())[:_SHOWN]
        ]
        lines += (
            [f"  ... {len(files.objects) - _SHOWN} more classes"]
            if len(files.objects) > _SHOWN
            else []
        )
    return "\n".join(lines)
