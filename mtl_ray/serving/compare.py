"""Compares an endpoint with another predictor on the same files, such as images, or on the samples
of splits.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mtl_ray.inference.endpoint import EndpointPredictor
from mtl_ray.inference.places import find_data
from mtl_ray.inference.predictor import Predictor
from mtl_ray.inputs.image_header import MAX_PIXELS
from mtl_ray.tasks.difference import Comparison, Difference
from mtl_ray.tasks.head_classes import head_vocabulary

MAX_PX = 0.1
"""Largest difference of a box coordinate, in image pixels."""
MAX_M = 0.01
"""Largest difference of a coordinate of a box in space, in metres (radians of its heading); or
``MAX_REL`` of the number itself: sizes that a network without training predicts have no bound.
"""
MAX_REL = 1e-4
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
    options: Mapping[str, str] | None = None,
) -> Iterator[FileComparison]:
    """Compares file by file; the endpoint gets files unchanged, and samples of splits losslessly.

    Args:
        endpoint: of the server.
        predictor: the model that it should serve.
        files: paths or URIs; folders, patterns and splits stand for what is in them.
        score_threshold: boxes with a lower score need no partner.
        options: how a file is read (``Input.file_options``).

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
    for datum in find_data(files, predictor.canvas, options):
        raw = datum.read(MAX_PIXELS)
        body, how_read = datum.to_send()
        answer = endpoint.answer(body, score_threshold=0.0, options=how_read)
        served = endpoint.read(answer, kind.size(raw))
        (expected,) = predictor.predict([raw])
        how = Comparison(frame=kind.own_frame(raw), sides=SIDES, score_threshold=score_threshold)
        for name, head in predictor.heads.items():
            apart = head.task.difference(expected[name], served[name], how)
            figures, mismatches = _judged(apart)
            yield FileComparison(
                file=datum.name,
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
        if apart.length_unit == "px":
            words, close = "pixels", apart.max_px <= MAX_PX
        else:
            words, close = "metres", apart.max_px <= MAX_M or apart.max_rel <= MAX_REL
        figures.append(f"{apart.unit} within {apart.max_px:.1e} {apart.length_unit}")
        mismatches += [] if close else [f"{apart.unit} differ by {apart.max_px:.2g} {words}"]
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
