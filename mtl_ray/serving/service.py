"""A request for a prediction becomes a reply: the picture is decoded, predicted on, and answered in the form that was asked for.

No HTTP server and no Ray in here: ``app.py`` speaks HTTP, ``distributed/serve.py`` puts it behind Ray Serve.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray.inference.predictor import Predictions, Predictor
from mtl_ray.inputs.decode import decode_image
from mtl_ray.inputs.image_header import TooManyPixelsError
from mtl_ray.serving.config import ServeConfig
from mtl_ray.serving.reply import Reply, RequestError, as_json
from mtl_ray.tasks.head_classes import head_vocabulary


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A request that was found to be in order.

    Attributes:
        score_threshold: boxes and labels below are left out.
        head: the one head that is to answer in its plain form; None for one object with an entry a head.
        accept: the Accept header.
        image: the encoded picture.
    """

    score_threshold: float
    head: str | None
    accept: str
    image: bytes = b""


class Service:
    """Predictors by name, and what they answer.

    Args:
        predictors: by the name under which they answer.
        config: thresholds and limits.
    """

    def __init__(self, predictors: Mapping[str, Predictor], config: ServeConfig) -> None:
        self.predictors = predictors
        self.config = config

    def models(self) -> dict[str, Any]:
        """What ``GET /models`` says: of each model its heads, class names and canvas."""
        return {"models": [describe(name, predictor) for name, predictor in self.predictors.items()]}

    def ask(self, model: str, query: Mapping[str, str], accept: str) -> Ask:
        """Checks everything about a request but its picture.

        Raises:
            RequestError: 404 for a model or head that is not served, 400 for a query that makes no sense.
        """
        if model not in self.predictors:
            raise RequestError(404, f"there is no model {model!r} here; there is {', '.join(self.predictors)}")
        if unknown := [name for name in query if name not in ("score_thr", "head")]:
            raise RequestError(400, f"the query has an unknown parameter {unknown[0]!r}; there are score_thr and head")
        heads = self.predictors[model].heads
        head = query.get("head")
        if head is not None and head not in heads:
            raise RequestError(404, f"the model {model!r} has no head {head!r}; it has {', '.join(heads)}")
        threshold = _threshold(query.get("score_thr"), self.config.score_threshold)
        return Ask(score_threshold=threshold, head=head or (next(iter(heads)) if len(heads) == 1 else None), accept=accept)

    def replies(self, model: str, asks: Sequence[Ask]) -> list[Reply]:
        """Answers requests to one model together; a picture that cannot be read spoils only its own reply."""
        images = [self._decode(ask.image) for ask in asks]
        readable = [image for image in images if not isinstance(image, RequestError)]
        found = iter(self.predictors[model].predict(readable)) if readable else iter(())
        return [
            image.reply if isinstance(image, RequestError) else self._answer(model, ask, next(found))
            for ask, image in zip(asks, images, strict=True)
        ]

    def _decode(self, data: bytes) -> NDArray[np.uint8] | RequestError:
        try:
            return decode_image(data, max_pixels=self.config.max_pixels)
        except TooManyPixelsError as error:
            return RequestError(422, f"{error} (serve.max_pixels of this server)")
        except ValueError as error:
            return RequestError(400, f"this is no picture that can be read: {error}")

    def _answer(self, model: str, ask: Ask, predictions: Predictions) -> Reply:
        predictor = self.predictors[model]
        asked = [ask.head] if ask.head is not None else list(predictor.heads)
        heads = {name: predictor.heads[name] for name in asked}
        if ask.head is not None and "json" not in ask.accept:
            plain = heads[ask.head].task.plain_image(predictions[ask.head])
            if plain is not None:
                return Reply(body=plain, type="image/png")
        answers = {
            name: head.task.to_response(predictions[name], head_vocabulary(head, predictor.vocabulary), ask.score_threshold)
            for name, head in heads.items()
        }
        return as_json(answers if ask.head is None else answers[ask.head])


def describe(name: str, predictor: Predictor) -> dict[str, Any]:
    """One entry of ``GET /models``."""
    vocabularies = {head: head_vocabulary(config, predictor.vocabulary) for head, config in predictor.heads.items()}
    return {
        "name": name,
        "heads": {
            head: {
                "type": config.type,
                "task": config.task.name,
                "view": config.task.view,
                "classes": list(vocabularies[head].classes[config.annotation]),
                "colours": [list(colour) for colour in vocabularies[head].colours.get(config.annotation, ())],
            }
            for head, config in predictor.heads.items()
        },
        "canvas": {"height": predictor.canvas.height, "width": predictor.canvas.width, "kind": predictor.canvas.kind},
    }


def _threshold(text: str | None, default: float) -> float:
    try:
        threshold = default if text is None else float(text)
    except ValueError:
        raise RequestError(400, f"score_thr is {text!r}, which is no number") from None
    if not 0 <= threshold <= 1:
        raise RequestError(400, f"score_thr is {text}, it must lie between 0 and 1")
    return threshold
