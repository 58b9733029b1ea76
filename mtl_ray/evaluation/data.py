"""The data of an evaluation: a split, or a COCO annotation file; and its class indices in another
vocabulary.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.annotations.annotation import AnnotationKind, ClassMapper
from mtl_ray.annotations.instances import INSTANCES
from mtl_ray.evaluation.coco_file import CocoFile, read_coco_file
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.shards.split import Split, open_split


class EvaluationData(Protocol):
    """Samples by row."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The meaning of the class indices of the samples."""
        ...

    @property
    def annotations(self) -> Mapping[str, AnnotationKind[Any, Any]]:
        """The kinds of annotation of the vocabulary, by name."""
        ...

    def __len__(self) -> int: ...

    def samples(self, start: int, stop: int, *, images: bool) -> Iterator[Sample]:
        """The samples of the rows [start, stop); if ``images`` is False, their images may be
        missing.
        """
        ...

    def other_name(self, key: str) -> str:
        """Another name of a sample in prediction files."""
        ...

    def where(self, key: str) -> str:
        """The reason why a sample has no image."""
        ...


@dataclass(frozen=True)
class SplitData:
    """The rows of a split in stored order."""

    split: Split

    @property
    def vocabulary(self) -> Vocabulary:
        """See ``EvaluationData``."""
        return self.split.vocabulary

    @property
    def annotations(self) -> Mapping[str, AnnotationKind[Any, Any]]:
        """See ``EvaluationData``."""
        return self.split.annotations

    def __len__(self) -> int:
        return self.split.num_samples

    def samples(self, start: int, stop: int, *, images: bool) -> Iterator[Sample]:
        """See ``EvaluationData``."""
        return self.split.read(start, stop)

    def other_name(self, key: str) -> str:
        """The number in a file name such as 000000000139.jpg, by which COCO results name the image;
        else the key itself.
        """
        number = image_number(key)
        return key if number is None else str(number)

    def where(self, key: str) -> str:
        """See ``EvaluationData``."""
        return "its record in the split has no image"


@dataclass(frozen=True)
class CocoData:
    """The images of an annotation file by id.

    Attributes:
        file: its content.
        folders: where images may be; the first folder that has an image is used.
    """

    file: CocoFile
    folders: tuple[str, ...] = field(default=())

    @property
    def vocabulary(self) -> Vocabulary:
        """See ``EvaluationData``."""
        return self.file.vocabulary

    @property
    def annotations(self) -> Mapping[str, AnnotationKind[Any, Any]]:
        """See ``EvaluationData``."""
        return {INSTANCES.name: INSTANCES}

    def __len__(self) -> int:
        return len(self.file.samples)

    def samples(self, start: int, stop: int, *, images: bool) -> Iterator[Sample]:
        """See ``EvaluationData``; a missing image is empty, so that it counts as an invalid
        sample.
        """
        for sample in self.file.samples[start:stop]:
            yield self._with_image(sample) if images else sample

    def other_name(self, key: str) -> str:
        """The image's file name."""
        return self.file.file_names[key]

    def _with_image(self, sample: Sample) -> Sample:
        return sample.with_image(data=self._read_image(self.file.file_names[sample.key]))

    def _read_image(self, name: str) -> bytes:
        inside = inner_path(name)
        for folder in self.folders if inside else ():
            try:
                return storage.read(storage.join(folder, inside))
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                continue
        return b""

    def where(self, key: str) -> str:
        """See ``EvaluationData``."""
        name = self.file.file_names[key]
        if not inner_path(name):
            return f"its file_name {name!r} leads out of the folder of the images"
        return (
            f"its image {name} is in none of {', '.join(self.folders)}; name its folder with "
            "--images"
        )


def open_data(uri: str, images: str | None = None) -> EvaluationData:
    """The data at a URI: a COCO annotation file if the URI ends in .json, else a split.

    Args:
        uri: of the data.
        images: folder of the images of an annotation file; by default its own, ``images`` or
            ``val2017`` (of ``instances_val2017.json``) in it, and the same one level up.

    Raises:
        FileNotFoundError, ValueError: if there is no such data.
    """
    if not uri.endswith(".json"):
        return SplitData(open_split(uri))
    own = storage.absolute(uri).rpartition("/")[0]
    above = own.rpartition("/")[0]
    # val2017 of instances_val2017.json
    split = uri.rpartition("/")[2].removesuffix(".json").rpartition("_")[2]
    folders = [
        storage.join(folder, name) if name else folder
        for folder in (own, above)
        for name in ("", "images", split)
    ]
    return CocoData(read_coco_file(uri), (images,) if images is not None else tuple(folders))


def inner_path(name: str) -> str:
    """A file name relative to a folder, with forward slashes and without ``.``; empty if it leads
    out of the folder.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    return "" if ".." in parts else "/".join(parts)


def image_number(key: str) -> int | None:
    """The number that is a key's file name, without folder and extension; None if it is no
    number.
    """
    stem = key.rpartition("/")[2].partition(".")[0]
    return int(stem) if stem.isascii() and stem.isdigit() else None


def image_ids(keys: list[str]) -> list[int]:
    """A number for each key, for COCO results: the number in its file name, or its place from 1 if
    these are not all different.
    """
    numbers = [image_number(key) for key in keys]
    if None in numbers or len(set(numbers)) < len(numbers):
        return list(range(1, len(keys) + 1))
    return [number for number in numbers if number is not None]


class Annotated(Protocol):
    """Data with annotations, such as a split."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The meaning of the class indices of its samples."""
        ...

    @property
    def annotations(self) -> Mapping[str, AnnotationKind[Any, Any]]:
        """The kinds of annotation of its vocabulary, by name."""
        ...


def class_converter(
    data: Annotated, wanted: Vocabulary
) -> tuple[Callable[[Sample], Sample], list[str]]:
    """A function that converts the class indices of a sample to those of ``wanted``, and the
    classes unknown to ``wanted``.

    Labels and objects of an unknown class are left out, pixels of it are ignored. A kind of
    annotation that ``wanted`` does not have stays unchanged: no head is measured on it.
    ``Sample.known_classes`` says which classes of ``wanted`` the data has.
    """
    mappers: dict[AnnotationKind[Any, Any], ClassMapper] = {}
    known: dict[str, NDArray[np.bool_]] = {}
    unknown: list[str] = []
    for name, kind in data.annotations.items():
        own = data.vocabulary.classes[name]
        other = wanted.classes.get(name, own)
        if own == other:
            continue
        mappers[kind] = ClassMapper.between(own, other)
        unknown += [f"{name}: {each}" for each in own if each not in other]
        if not (annotated := np.isin(other, own)).all():
            known[name] = annotated
    return (lambda sample: _convert(sample, mappers, known)) if mappers else _same, unknown


def _same(sample: Sample) -> Sample:
    return sample


def _convert(
    sample: Sample,
    mappers: Mapping[AnnotationKind[Any, Any], ClassMapper],
    known: Mapping[str, NDArray[np.bool_]],
) -> Sample:
    annotations = dict(sample.annotations)
    for kind, mapper in mappers.items():
        if kind.name in annotations:
            try:
                annotations[kind.name] = kind.with_classes(annotations[kind.name], mapper)
            except ValueError:
                continue  # a damaged value stays: the metric reports the sample
    return replace(sample, annotations=annotations, known_classes=known)
