"""Heads of which only the name of the type is known, as it comes over the wire and in predictions files."""

from collections.abc import Mapping
from typing import get_args

from mtl_ray.experiment import AnyHead, HeadConfig

KNOWN: Mapping[str, AnyHead] = {kind.type: kind for kind in get_args(get_args(HeadConfig)[0])}
"""The config class of each type of head; task and annotation stand in the class."""


def head_of(head_type: str) -> AnyHead:
    """What is known of every head of a type.

    Raises:
        ValueError: if there is no such type.
    """
    if head_type not in KNOWN:
        raise ValueError(f"there is no head of the type {head_type!r} in this version; there is {', '.join(KNOWN)}")
    return KNOWN[head_type]
