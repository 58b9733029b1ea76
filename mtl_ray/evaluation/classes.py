"""Samples get the class indices of the vocabulary that they are measured with."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.annotation import AnnotationKind, ClassMapper
from mtl_ray.samples import Sample, Vocabulary


class Annotated(Protocol):
    """Data with annotations, such as a split."""

    @property
    def vocabulary(self) -> Vocabulary:
        """What the class indices of its samples mean."""
        ...

    @property
    def annotations(self) -> Mapping[str, AnnotationKind[Any, Any]]:
        """The kinds of annotation of its vocabulary, by name."""
        ...


def class_converter(data: Annotated, wanted: Vocabulary) -> tuple[Callable[[Sample], Sample], list[str]]:
    """What turns the class indices of a sample into those of ``wanted``, and the classes that ``wanted`` does not have.

    Labels and objects of such a class are left out, pixels of it are ignored. A kind of annotation that ``wanted`` does not have at all
    goes through unchanged: nobody measures it. ``Sample.known_classes`` says which classes of ``wanted`` the data has.
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
    return (lambda sample: _recode(sample, mappers, known)) if mappers else _same, unknown


def _same(sample: Sample) -> Sample:
    return sample


def _recode(sample: Sample, mappers: Mapping[AnnotationKind[Any, Any], ClassMapper], known: Mapping[str, NDArray[np.bool_]]) -> Sample:
    found = dict(sample.annotations)
    for kind, mapper in mappers.items():
        if kind.name in found:
            try:
                found[kind.name] = kind.with_classes(found[kind.name], mapper)
            except ValueError:
                continue  # a damaged value stays: whoever measures the sample names it
    return replace(sample, annotations=found, known_classes=known)
