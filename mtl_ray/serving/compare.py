"""Compares an endpoint with another predictor on the same files, such as images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mtl_ray import storage
from mtl_ray.inference.endpoint import EndpointPredictor
from mtl_ray.inference.predictor import Predictor
from mtl_ray.inputs.image_header import MAX_PIXELS
from mtl_ray.tasks.difference import Comparison, Difference
from mtl_ray.tasks.head_classes import head_vocabulary

MAX_PX = 0.1
"""Largest difference of a box coordinate, in image pixels or metres."""
MAX_SCORE = 1e-3
MIN_AGREE = 0.999
"""Least share of pixels with the same class."""
SIDES = ("the target", "the endpoint")


@dataclass(frozen=True, kw_only=True)
class FileComparison:
    """The comparison of one head on one file.

    Attributes:
        file: its path or URI.
        head: its name.
        compared: number of boxes, pixels or labels.
        figures: the largest differences, in words.
        mismatches: a sentence for each difference above its tolerance.
    """

    file: str
    head: str
    compared: int
    figures: str
    mismatches: tuple[str, ...]


def compare_files(
    endpoint: EndpointPredictor,
    predictor: Predictor,
    files: Sequence[str],
    score_threshold: float = 0.05,
) -> Iterator[FileComparison]:
    """Compares file by file; the endpoint gets the files unchanged.

    Args:
        endpoint: of the server.
        predictor: the model that it should serve.
        files: paths or URIs.
        score_threshold: boxes with a lower score need no partner.

    Raises:
        ValueError: if the two have different heads or classes, or a file cannot be read.
    """
    kinds = [
        {name: head.type for name, head in each.heads.items()} for each in (endpoint, predictor)
    ]
    if kinds[0] != kinds[1]:
        raise ValueError(f"the endpoint has the heads {kinds[0]}, the target {kinds[1]}")
    for name, head in predictor.heads.items():
        served_classes, classes = (
            head_vocabulary(each.heads[name], each.vocabulary).classes.get(head.annotation, ())
            for each in (endpoint, predictor)
        )
        if served_classes != classes:
            both = (
                f"{', '.join(served_classes)} at the endpoint, {', '.join(classes)} at the target"
            )
            raise ValueError(f"the head {name} has the classes {both}")
    kind = predictor.canvas.input
    for file in files:
        data = storage.read(file)
        raw = kind.decode_file(data, MAX_PIXELS)
        served = endpoint.read(endpoint.answer(data, score_threshold=0.0))
        (expected,) = predictor.predict([raw])
        how = Comparison(frame=kind.own_frame(raw), sides=SIDES, score_threshold=score_threshold)
        for name, head in predictor.heads.items():
            apart = head.task.difference(expected[name], served[name], how)
            figures, mismatches = _judged(apart)
            yield FileComparison(
                file=file,
                head=name,
                compared=apart.compared,
                figures=figures,
                mismatches=mismatches,
            )


def _judged(apart: Difference) -> tuple[str, tuple[str, ...]]:
    """The figures in words, and the differences above a tolerance; without numbers, the share that
    agrees.
    """
    if apart.incomparable:
        return "", apart.incomparable
    figures, mismatches = [], []
    if apart.max_px is not None:
        figures.append(f"{apart.unit} within {apart.max_px:.1e} {apart.position_unit}")
        mismatches += (
            []
            if apart.max_px <= MAX_PX
            else [f"{apart.unit} differ by {apart.max_px:.2g} {apart.position_unit}"]
        )
    if apart.max_score is not None:
        figures.append(f"scores within {apart.max_score:.1e}")
        mismatches += (
            [] if apart.max_score <= MAX_SCORE else [f"scores differ by {apart.max_score:.2g}"]
        )
    if not figures:
        share = apart.agreeing / apart.count if apart.count else 1.0
        figures.append(f"{share:.3%} of {apart.unit} agree")
        mismatches += [] if share >= MIN_AGREE else [f"only {share:.3%} of {apart.unit} agree"]
    return ", ".join(figures), (*mismatches, *apart.alone)
