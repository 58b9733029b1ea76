"""Predictions on files, such as images, and on samples of splits: drawn, and written as JSON."""

import json
import os
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.geometry.panels import beneath, grid, jpeg
from mtl_ray.inference.places import FileDatum, ReadableDatum
from mtl_ray.inference.predictor import Predictions, Predictor
from mtl_ray.inputs.image_header import MAX_PIXELS
from mtl_ray.inputs.input import TooLargeError
from mtl_ray.samples import Sample
from mtl_ray.tasks.head_classes import head_vocabulary
from mtl_ray.tasks.optional import (
    DrawnView,
    ResultsForm,
    ResultsWriter,
    drawn_views,
    results_task,
)
from mtl_ray.tasks.response import MaskForm, responders

BATCH = 16


def predict_files(
    predictor: Predictor,
    uris: Sequence[str],
    out: str,
    score_threshold: float,
    max_pixels: int = MAX_PIXELS,
    masks: MaskForm = "rle",
) -> list[tuple[str, str]]:
    """``predict_data`` on the files at some URIs."""
    canvas = predictor.canvas
    data = [FileDatum(uri=uri, canvas=canvas, options={}) for uri in uris]
    return predict_data(predictor, data, out, score_threshold, max_pixels, masks)


def predict_data(
    predictor: Predictor,
    data: Sequence[ReadableDatum],
    out: str,
    score_threshold: float,
    max_pixels: int = MAX_PIXELS,
    masks: MaskForm = "rle",
    results: Mapping[str, ResultsWriter] | None = None,
) -> list[tuple[str, str]]:
    """Draws the predictions of each datum and writes ``predictions.json``.

    Args:
        predictor: anything that predicts.
        data: of its input.
        out: folder or URI; drawings are named after their files, with a number if two would have
            the same name.
        score_threshold: boxes and labels with a lower score are neither drawn nor written.
        max_pixels: larger data is not read (pixels of an image, values of another input).
        masks: their form in ``predictions.json``; they are drawn in any case.
        results: by head, further files for the samples of splits.

    Returns:
        Name and reason of each datum that could not be read.

    Raises:
        ValueError: if a file is in ``out`` itself, where a drawing could replace it.
    """
    kind = predictor.canvas.input
    _refuse_own_folder([each.uri for each in data], out)
    named = iter(zip(data, unique_names([each.name for each in data]), strict=True))
    entries: list[dict[str, Any]] = []
    unreadable: list[tuple[str, str]] = []
    answering = responders(predictor.heads, predictor.vocabulary)
    while group := list(islice(named, BATCH)):
        raws: list[tuple[ReadableDatum, str, Any]] = []
        for datum, name in group:
            try:
                raws.append((datum, name, datum.read(max_pixels)))
            except TooLargeError as error:
                unreadable.append((datum.name, f"{error}; --max-pixels allows more"))
            except ValueError as error:
                unreadable.append((datum.name, str(error)))
            except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
                unreadable.append((datum.name, error.strerror or str(error)))
        found = predictor.predict([raw for *_, raw in raws])
        for (datum, name, raw), predictions in zip(raws, found, strict=True):
            sample = datum.sample()
            drawing = draw_predictions(predictor, raw, predictions, score_threshold, sample)
            storage.write(storage.join(out, name), jpeg(drawing))
            if sample is not None:
                for head, writer in (results or {}).items():
                    writer.write(sample, predictions[head])
            size, stem = kind.size(raw), storage.join(out, name.removesuffix(".jpg"))
            plain = _write_plain(predictor, predictions, stem)
            answers = {
                head: responder.response(
                    predictions[head],
                    score_threshold,
                    masks=masks,
                    size=size,
                    image_file=plain.get(head),
                )
                for head, responder in answering.items()
            }
            entries.append({"file": datum.name, "drawing": name, **size, "heads": answers})
    content = {
        "version": 1,
        "predictions": entries,
        "unreadable": [{"file": uri, "reason": reason} for uri, reason in unreadable],
    }
    storage.write(
        storage.join(out, "predictions.json"),
        (json.dumps(content, indent=1, allow_nan=False) + "\n").encode(),
    )
    return unreadable


def open_results(
    predictor: Predictor, form: ResultsForm, out: str, score_threshold: float
) -> dict[str, ResultsWriter]:
    """Writers of results files by head, below ``out``: the folder FORM, or FORM/HEAD if several
    heads have one.

    Raises:
        ValueError: if no head predicts what the form holds.
    """
    known = {
        name: (task, head_vocabulary(head, predictor.vocabulary))
        for name, head in predictor.heads.items()
        if (task := results_task(head.task)) is not None
    }
    if not known:
        raise ValueError(f"no head of the model has results of the form {form}")
    folder = storage.join(out, form)
    return {
        name: task.results_writer(
            form,
            folder if len(known) == 1 else storage.join(folder, name),
            vocabulary,
            score_threshold,
        )
        for name, (task, vocabulary) in known.items()
    }


def _refuse_own_folder(uris: Sequence[str], out: str) -> None:
    for uri in uris:
        folder = (
            uri.rpartition("/")[0]
            if storage.is_remote(uri)
            else os.path.dirname(os.path.realpath(storage.absolute(uri)))
        )
        if folder == (
            storage.absolute(out)
            if storage.is_remote(out)
            else os.path.realpath(storage.absolute(out))
        ):
            raise ValueError(
                f"{uri} is in {out}, where a drawing could replace it. Fix: name another folder"
            )


def _write_plain(predictor: Predictor, predictions: Predictions, stem: str) -> dict[str, str]:
    """Writes class maps to files of their own, STEM.HEAD.png; gives their names by head."""
    names = {}
    for head, config in predictor.heads.items():
        plain = config.task.plain_image(predictions[head])
        if plain is not None:
            storage.write(f"{stem}.{head}.png", plain)
            names[head] = f"{stem}.{head}.png".rpartition("/")[2]
    return names


def draw_predictions(
    predictor: Predictor,
    raw: Any,
    predictions: Predictions,
    score_threshold: float,
    sample: Sample | None = None,
) -> NDArray[np.uint8]:
    """The image with its predictions; side by side if there are several heads. Below it the images
    of the sample's cameras, where it has some.
    """
    image = predictor.canvas.input.show(raw)
    drawn: list[NDArray[np.uint8]] = []
    views: list[DrawnView] = []
    for name, head in predictor.heads.items():
        own = head_vocabulary(head, predictor.vocabulary)
        drawn.append(
            head.task.draw_prediction(
                image,
                predictions[name],
                head_vocabulary(head, predictor.vocabulary),
                score_threshold,
            )
        )
        if sample is not None:
            views += drawn_views(head.task, sample, own, predictions[name], score_threshold)
    drawing = (
        drawn[0]
        if len(drawn) == 1
        else grid(drawn, columns=len(drawn), titles=list(predictor.heads))
    )
    return beneath(drawing, views)


def unique_names(uris: Sequence[str]) -> list[str]:
    """The drawing of each file: its own stem and .jpg, with -2, -3, ... for equal stems; case does
    not count.
    """
    taken: set[str] = set()
    stems = (uri.rpartition("/")[2].rpartition(".")[0] or uri.rpartition("/")[2] for uri in uris)
    return [free_name(stem, taken) for stem in stems]


def free_name(stem: str, taken: set[str]) -> str:
    """``STEM.jpg``, or with -2, -3, ... if that is taken; case does not count. The name is added to
    ``taken``.
    """
    name, number = stem, 1
    while name.lower() in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name.lower())
    return f"{name}.jpg"
