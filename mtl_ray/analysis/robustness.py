"""Measures the robustness of a model to corrupted images: cells of one corruption and severity, and
their files.

Cells, and parts of their rows, are independent. They can be measured on any machine in any order,
and an interrupted benchmark resumes with the missing cells (Michaelis et al. 2019,
https://arxiv.org/abs/1907.07484).
"""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.analysis.corruptions import SEVERITIES, corrupt, corruption_generator
from mtl_ray.artifact import MANIFEST
from mtl_ray.evaluation.data import class_converter, open_data
from mtl_ray.evaluation.evaluate import metrics_of
from mtl_ray.evaluation.measure import MeasuredSamples
from mtl_ray.evaluation.report import figures
from mtl_ray.inference.predictor import Predictor, artifact_kind, open_predictor
from mtl_ray.inputs.decode import decode_image
from mtl_ray.inputs.image_header import MAX_PIXELS
from mtl_ray.samples import Sample
from mtl_ray.tasks.task import Metric


class Cell(NamedTuple):
    """One corruption at one severity from 1 to 5, or ``CLEAN``."""

    corruption: str
    severity: int

    @property
    def name(self) -> str:
        """``snow-3``; that of ``CLEAN`` is ``clean-0``."""
        return f"{self.corruption}-{self.severity}"


CLEAN = Cell("clean", 0)


@dataclass(frozen=True, kw_only=True)
class RobustnessRequest:
    """The model and the data of a benchmark.

    Attributes:
        target: a run folder, checkpoint, bundle or endpoint URL.
        data: the URI of a split, or of a COCO annotation file (.json).
        images: folder of the images of an annotation file.
        seed: of the corruptions.
        batch: images that go through the network together.
        max_pixels: images with more pixels in their header are invalid.
        api_key: for an endpoint that requires one.
        engine: one of the engines of a bundle; None for its first.
    """

    target: str
    data: str
    images: str | None = None
    seed: int = 0
    batch: int = 16
    max_pixels: int = MAX_PIXELS
    api_key: str | None = None
    engine: str | None = None

    def about(self) -> dict[str, Any]:
        """What the results depend on, as JSON, with hashes of the manifests of the model and the
        data.
        """
        data = (
            self.data if self.data.endswith(".json") else storage.join(self.data, "manifest.json")
        )
        model = (
            ""
            if self.target.startswith(("http://", "https://"))
            else _digest(storage.join(self.target, MANIFEST))
        )
        return {
            "target": self.target,
            "target_sha256": model,
            "data": self.data,
            "data_sha256": _digest(data),
            "seed": self.seed,
            **({} if self.engine is None else {"engine": self.engine}),
        }


@dataclass(kw_only=True)
class CellMeasurement:
    """Measurements on some rows of a cell."""

    metrics: dict[str, Metric[Any]]
    measured: MeasuredSamples

    def merge(self, other: "CellMeasurement") -> None:
        """Adds the measurements on other rows."""
        for name, metric in self.metrics.items():
            metric.merge(other.metrics[name])
        self.measured.samples += other.measured.samples
        self.measured.invalid += other.measured.invalid


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """The result of a cell.

    Attributes:
        figures: metrics by HEAD/METRIC; NaN if nothing was annotated.
        main: the main metric.
        samples: number of images.
        bad: key and reason of images that do not decode.
    """

    figures: Mapping[str, float]
    main: str
    samples: int
    bad: tuple[tuple[str, str], ...]


def resolved(request: RobustnessRequest) -> RobustnessRequest:
    """The request with absolute paths, and with the current best checkpoint instead of a run, so
    that all cells use the same one.

    Raises:
        FileNotFoundError, ValueError: if there is no model at the target.
    """
    if request.target.endswith((".json", ".arrow")):
        raise ValueError(
            f"{request.target} holds predictions; to see how it bears other images a model itself "
            "is needed"
        )
    data, images = (
        storage.absolute(request.data),
        request.images and storage.absolute(request.images),
    )
    return replace(
        request, target=_model(storage.absolute(request.target)), data=data, images=images
    )


def _model(target: str) -> str:
    if target.startswith(("http://", "https://")) or artifact_kind(target) is not None:
        return target
    if storage.names(storage.join(target, "checkpoints")):
        from mtl_ray.inference.checkpoint import find_checkpoint

        return find_checkpoint(target)
    open_predictor(target)  # which says what is wrong
    return target


def measure_cell(request: RobustnessRequest, cell: Cell, start: int, stop: int) -> CellMeasurement:
    """Corrupts, predicts and measures the rows [start, stop), on one core.

    Raises:
        ValueError, FileNotFoundError: if the target or the data cannot be read, or no head can be
            measured on the data.
    """
    predictor = open_predictor(
        request.target, threads=1, api_key=request.api_key, engine=request.engine
    )
    with one_thread():
        data = open_data(request.data, request.images)
        convert, _ = class_converter(data, predictor.vocabulary)
        part = CellMeasurement(
            metrics=metrics_of(predictor, data.vocabulary), measured=MeasuredSamples()
        )
        waiting: list[tuple[Sample, NDArray[np.uint8]]] = []
        for sample in data.samples(start, stop, images=True):
            try:
                image = decode_image(sample.image, max_pixels=request.max_pixels)
            except ValueError as error:
                part.measured.invalid.append((sample.key, str(error)))
                continue
            waiting.append((convert(sample), _seen(image, sample.key, cell, request.seed)))
            if len(waiting) == request.batch:
                _count(predictor, waiting, part)
        _count(predictor, waiting, part)
    return part


def _seen(image: NDArray[np.uint8], key: str, cell: Cell, seed: int) -> NDArray[np.uint8]:
    if cell == CLEAN:
        return image
    return corrupt(image, *cell, corruption_generator(seed, key, *cell))


def _count(
    predictor: Predictor, waiting: list[tuple[Sample, NDArray[np.uint8]]], part: CellMeasurement
) -> None:
    for (sample, _), predictions in zip(
        waiting, predictor.predict([image for _, image in waiting]), strict=True
    ):
        part.measured.samples += 1
        for name, metric in part.metrics.items():
            metric.update(sample, predictions[name])
    waiting.clear()


@contextmanager
def one_thread() -> Iterator[None]:
    """Limits OpenCV, and torch if it was imported, to one core, so that one worker per core is
    fast.
    """
    torch = sys.modules.get("torch")
    before = cv2.getNumThreads(), torch.get_num_threads() if torch else 1
    cv2.setNumThreads(1)
    if torch:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before[0])
        if torch:
            torch.set_num_threads(before[1])


def cell_result(part: CellMeasurement) -> CellResult:
    """The metrics of a cell from the measurements of all its rows."""
    head, metric = next(iter(part.metrics.items()))
    return CellResult(
        figures=figures(part.metrics),
        main=f"{head}/{metric.main}",
        samples=part.measured.samples,
        bad=tuple(sorted(part.measured.invalid)),
    )


def benchmark_cells(corruptions: Sequence[str], severities: Sequence[int]) -> list[Cell]:
    """The cells of a benchmark. The clean one comes first, since others are compared with it.

    Raises:
        ValueError: for a severity that is not 0 to 5.
    """
    unknown = set(severities) - {0, *SEVERITIES}
    if unknown:
        raise ValueError(f"there is no severity {min(unknown)}; severities are 0 (clean) to 5")
    return [
        CLEAN,
        *(
            Cell(name, severity)
            for name in corruptions
            for severity in SEVERITIES
            if severity in severities
        ),
    ]


def write_cell(out: str, cell: Cell, outcome: CellResult, about: Mapping[str, Any]) -> None:
    """Writes ``cells/NAME.json``."""
    known = {name: value if np.isfinite(value) else None for name, value in outcome.figures.items()}
    content = {
        "version": 1,
        "about": about,
        "main": outcome.main,
        "samples": outcome.samples,
        "bad": outcome.bad,
        "figures": known,
    }
    storage.write(_uri(out, cell), (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def read_cells(out: str, cells: Sequence[Cell], about: Mapping[str, Any]) -> dict[Cell, CellResult]:
    """The results of cells that were measured before.

    Raises:
        ValueError: if they belong to another model, other data or another seed, or are damaged.
    """
    present = set(storage.names(storage.join(out, "cells")))
    return {cell: _read(_uri(out, cell), about) for cell in cells if f"{cell.name}.json" in present}


def _read(uri: str, about: Mapping[str, Any]) -> CellResult:
    try:
        content = json.loads(storage.read(uri))
        before = content["about"]
        values = {
            str(name): float("nan") if value is None else float(value)
            for name, value in content["figures"].items()
        }
        bad = tuple((str(key), str(reason)) for key, reason in content["bad"])
        found = CellResult(
            figures=values, main=str(content["main"]), samples=int(content["samples"]), bad=bad
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{uri} is damaged ({error!r}): remove it, and it is measured anew"
        ) from error
    changed = [key for key, value in about.items() if before.get(key) != value]
    if changed:
        raise ValueError(
            f"{uri} was measured with another {', '.join(changed)}: give another --out, or remove "
            "that folder"
        )
    return found


def _uri(out: str, cell: Cell) -> str:
    return storage.join(out, "cells", f"{cell.name}.json")


def _digest(uri: str) -> str:
    return hashlib.sha256(storage.read(uri)).hexdigest()
