"""Sends pictures to an endpoint and to another predictor, and says where the two differ."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtl_ray import storage
from mtl_ray.experiment import AnyHead
from mtl_ray.export.parity import match
from mtl_ray.inference.endpoint import EndpointPredictor
from mtl_ray.inference.predictor import Predictor
from mtl_ray.loading.decode import decode_image

MAX_PX = 0.1
"""Largest difference of a box coordinate, pixels of the picture."""
MAX_SCORE = 1e-3
MIN_PIXELS = 0.999
"""Least share of pixels with the same class."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What one head says of one picture at both places.

    Attributes:
        picture: its path or URI.
        head: the head.
        compared: how many boxes, pixels or labels.
        figures: the largest differences, in words.
        mismatches: a sentence for each thing that differs too much.
    """

    picture: str
    head: str
    compared: int
    figures: str
    mismatches: tuple[str, ...]


def compare(
    endpoint: EndpointPredictor, predictor: Predictor, pictures: Sequence[str], score_threshold: float = 0.05
) -> Iterator[Difference]:
    """Compares picture by picture; the endpoint gets the files as they are.

    Args:
        endpoint: answers over HTTP.
        predictor: the model that should be behind it.
        pictures: paths or URIs of image files.
        score_threshold: boxes below need no partner.

    Raises:
        ValueError: if the two have different heads or classes, or a picture cannot be read.
    """
    kinds = [{name: head.type for name, head in each.heads.items()} for each in (endpoint, predictor)]
    if kinds[0] != kinds[1]:
        raise ValueError(f"the endpoint has the heads {kinds[0]}, the target {kinds[1]}")
    for picture in pictures:
        data = storage.read(picture)
        served = endpoint.read(endpoint.answer(data, score_threshold=0.0))
        (expected,) = predictor.predict([decode_image(data)])
        for name, head in predictor.heads.items():
            compared, figures, mismatches = _differ(head, expected[name], served[name], score_threshold)
            yield Difference(picture=picture, head=name, compared=compared, figures=figures, mismatches=tuple(mismatches))


def _differ(head: AnyHead, expected: Any, served: Any, score_threshold: float) -> tuple[int, str, list[str]]:
    if head.task == "detection":
        return _boxes(expected, served, score_threshold)
    if head.task == "segmentation":
        if expected.classes.shape != served.classes.shape:
            return 0, "", [f"the class maps have the shapes {expected.classes.shape} and {served.classes.shape}"]
        same = float((expected.classes == served.classes).mean())
        return expected.classes.size, f"{same:.3%} of pixels agree", [] if same >= MIN_PIXELS else [f"only {same:.3%} of pixels agree"]
    apart = float(np.abs(expected.scores - served.scores).max())
    return len(expected.scores), f"scores within {apart:.1e}", [] if apart <= MAX_SCORE else [f"scores differ by {apart:.2g}"]


def _boxes(expected: Any, served: Any, score_threshold: float) -> tuple[int, str, list[str]]:
    ours, theirs = ((found.boxes_xyxy, found.scores, found.classes) for found in (expected, served))
    first, second = match(ours, theirs)
    px = float(np.abs(ours[0][first] - theirs[0][second]).max(initial=0))
    score = float(np.abs(ours[1][first] - theirs[1][second]).max(initial=0))
    mismatches = [f"boxes differ by {px:.2g} pixels"] * (px > MAX_PX) + [f"scores differ by {score:.2g}"] * (score > MAX_SCORE)
    for found, matched, where in ((expected, first, "the target"), (served, second, "the endpoint")):
        for index in np.setdiff1d(np.flatnonzero(found.scores >= score_threshold), matched):
            box = ", ".join(f"{value:.1f}" for value in found.boxes_xyxy[index])
            mismatches.append(f"only {where} has class {found.classes[index]} with score {found.scores[index]:.3f} at {box}")
    return len(first), f"boxes within {px:.1e} px, scores within {score:.1e}", mismatches
