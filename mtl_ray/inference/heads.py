"""Heads of which only the name of the type is known, as it comes over the wire and in predictions files."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from mtl_ray.experiment import head_types
from mtl_ray.tasks.task import HeadKind, KnownHead


def known_heads(plugins: Sequence[str] = ()) -> dict[str, KnownHead]:
    """What the type of each head says, by its name: the built-in ones and those of plugins.

    Raises:
        ValueError: if a plugin cannot be loaded.
    """
    kinds = (cast(HeadKind, each) for each in head_types(tuple(plugins)))
    return {kind.type: KnownHead(type=kind.type, task=kind.task, annotation=kind.annotation, exclusive=kind.exclusive) for kind in kinds}


def head_of(head_type: str, plugins: Sequence[str] = (), *, classes: tuple[str, ...] | None = None) -> HeadKind:
    """What is known of every head of a type, or of one with a list of classes of its own.

    Raises:
        ValueError: if there is no such type, or a plugin cannot be loaded.
    """
    known = known_heads(plugins)
    if head_type not in known:
        raise ValueError(f"there is no head of the type {head_type!r} in this version; there is {', '.join(known)}")
    return replace(known[head_type], classes=classes)
