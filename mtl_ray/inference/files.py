"""Predictions on files, such as images: drawn, and written as JSON."""

import glob
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.geometry.panels import grid, jpeg
from mtl_ray.inference.predictor import Predictions, Predictor
from mtl_ray.inputs.image import IMAGE
from mtl_ray.inputs.image_header import MAX_PIXELS
from mtl_ray.inputs.input import Input, TooLargeError
from mtl_ray.tasks.head_classes import head_vocabulary
from mtl_ray.tasks.response import MaskForm, head_response

BATCH = 16


def find_files(places: Iterable[str], kind: Input[Any, Any, Any, Any] = IMAGE) -> list[str]:
    """The URIs of the files of an input, each once, in the order of ``places``.

    Args:
        places: each a file, a folder (all files of the input in and below it) or a pattern such as
            ``photos/*.jpg`` (``**`` for any depth).
        kind: the input.

    Raises:
        FileNotFoundError: if a file does not exist, or a folder or pattern has no such file.
    """
    uris: dict[str, None] = {}
    for place in places:
        files = list(_files(place, kind.suffixes))
        if not files:
            raise FileNotFoundError(f"there is no {kind.name} at {place}")
        uris |= dict.fromkeys(files)
    return list(uris)


def _files(place: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    if not storage.is_remote(place) and not Path(place).exists():
        yield from (
            str(path) for path in sorted(glob.glob(place, recursive=True)) if Path(path).is_file()
        )
        return
    below = [uri for uri in storage.files(place) if not suffixes or uri.lower().endswith(suffixes)]
    yield from below if storage.is_remote(place) or Path(place).is_dir() else [place]


def predict_files(
    predictor: Predictor,
    uris: Sequence[str],
    out: str,
    score_threshold: float,
    max_pixels: int = MAX_PIXELS,
    masks: MaskForm = "rle",
) -> list[tuple[str, str]]:
    """Draws the predictions of each file and writes ``predictions.json``.

    Args:
        predictor: anything that predicts.
        uris: of files of its input.
        out: folder or URI; drawings are named after their files, with a number if two would have
            the same name.
        score_threshold: boxes and labels with a lower score are neither drawn nor written.
        max_pixels: larger data is not read (pixels of an image, values of another input).
        masks: their form in ``predictions.json``; they are drawn in any case.

    Returns:
        URI and reason of each file that could not be read.

    Raises:
        ValueError: if a file is in ``out`` itself, where a drawing could replace it.
    """
    kind = predictor.canvas.input
    _refuse_own_folder(uris, out)
    names = dict(zip(uris, unique_names(uris), strict=True))
    entries: list[dict[str, Any]] = []
    unreadable: list[tuple[str, str]] = []
    waiting = iter(uris)
    while group := list(islice(waiting, BATCH)):
        raws: dict[str, Any] = {}
        for uri in group:
            try:
                raws[uri] = kind.decode_file(storage.read(uri), max_pixels)
            except TooLargeError as error:
                unreadable.append((uri, f"{error}; --max-pixels allows more"))
            except ValueError as error:
                unreadable.append((uri, str(error)))
            except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
                unreadable.append((uri, error.strerror or str(error)))
        for (uri, raw), predictions in zip(
            raws.items(), predictor.predict(list(raws.values())), strict=True
        ):
            name = names[uri]
            storage.write(
                storage.join(out, name),
                jpeg(draw_predictions(predictor, raw, predictions, score_threshold)),
            )
            size, stem = kind.size(raw), storage.join(out, name.removesuffix(".jpg"))
            respond = partial(
                head_response, score_threshold=score_threshold, masks=masks, size=size
            )
            answers = _answers(predictor, predictions, stem, respond)
            entries.append({"file": uri, "drawing": name, **size, "heads": answers})
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


def _answers(
    predictor: Predictor, predictions: Predictions, stem: str, respond: Callable[..., Any]
) -> dict[str, Any]:
    """By head, what a server would answer; a class map is in its own file STEM.HEAD.png instead of
    in the JSON.
    """
    answers: dict[str, Any] = {}
    for name, head in predictor.heads.items():
        plain, file = head.task.plain_image(predictions[name]), None
        if plain is not None:
            storage.write(f"{stem}.{name}.png", plain)
            file = f"{stem}.{name}.png".rpartition("/")[2]
        answers[name] = respond(head, predictions[name], predictor.vocabulary, image_file=file)
    return answers


def draw_predictions(
    predictor: Predictor, raw: Any, predictions: Predictions, score_threshold: float
) -> NDArray[np.uint8]:
    """The image with its predictions; side by side if there are several heads."""
    image = predictor.canvas.input.show(raw)
    drawn = [
        head.task.draw_prediction(
            image, predictions[name], head_vocabulary(head, predictor.vocabulary), score_threshold
        )
        for name, head in predictor.heads.items()
    ]
    return (
        drawn[0]
        if len(drawn) == 1
        else grid(drawn, columns=len(drawn), titles=list(predictor.heads))
    )


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
