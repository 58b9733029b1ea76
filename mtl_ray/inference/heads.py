"""Heads of which only the name of the type is known, as it comes over the wire and in predictions files."""

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from mtl_ray.experiment import HEADS
from mtl_ray.tasks.task import HeadKind, KnownHead


def _known(head: HeadKind) -> KnownHead:
    return KnownHead(type=head.type, task=head.task, annotation=head.annotation, exclusive=head.exclusive)


KNOWN: Mapping[str, KnownHead] = {head.type: head for head in (_known(cast(HeadKind, each)) for each in HEADS)}
"""By the name of the type."""


def head_of(head_type: str, classes: tuple[str, ...] | None = None) -> HeadKind:
    """What is known of every head of a type, or of one with a list of classes of its own.

    Raises:
        ValueError: if there is no such type.
    """
    if head_type not in KNOWN:
        raise ValueError(f"there is no head of the type {head_type!r} in this version; there is {', '.join(KNOWN)}")
    return replace(KNOWN[head_type], classes=classes)
