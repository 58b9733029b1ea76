"""A request for a prediction becomes a reply: its data is decoded, predicted on, and answered in the form that was asked for.

No HTTP server and no Ray in here: ``app.py`` speaks HTTP, ``distributed/serve.py`` puts it behind Ray Serve.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtl_ray.config.validate import values_of
from mtl_ray.inference.predictor import Predictions, Predictor
from mtl_ray.inputs.input import Input, TooLargeError
from mtl_ray.serving.config import ServeConfig
from mtl_ray.serving.reply import Reply, RequestError, as_json
from mtl_ray.tasks.head_classes import head_vocabulary


@dataclass(frozen=True, kw_only=True)
class PredictionRequest:
    """A request that was found to be in order.

    Attributes:
        score_threshold: boxes and labels below are left out.
        head: the one head that is to answer in its plain form; None for one object with an entry a head.
        accept: the Accept header.
        file: the data, encoded as a file of the model's input.
    """

    score_threshold: float
    head: str | None
    accept: str
    file: bytes = b""


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
        """What ``GET /models`` says: of each model its input, heads, class names and canvas."""
        return {"models": [describe_model(name, predictor) for name, predictor in self.predictors.items()]}

    def ask(self, model: str, query: Mapping[str, str], accept: str) -> PredictionRequest:
        """Checks everything about a request but its body.

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
        return PredictionRequest(score_threshold=threshold, head=head or (next(iter(heads)) if len(heads) == 1 else None), accept=accept)

    def replies(self, model: str, asks: Sequence[PredictionRequest]) -> list[Reply]:
        """Answers requests to one model together; a file that cannot be read spoils only its own reply."""
        kind = self.predictors[model].canvas.input
        raws = [self._decode(kind, ask.file) for ask in asks]
        readable = [raw for raw in raws if not isinstance(raw, RequestError)]
        found = iter(self.predictors[model].predict(readable)) if readable else iter(())
        return [
            raw.reply if isinstance(raw, RequestError) else self._answer(model, ask, next(found))
            for ask, raw in zip(asks, raws, strict=True)
        ]

    def _decode(self, kind: Input[Any, Any, Any, Any], data: bytes) -> Any:
        """The data of a file, or the error that is its reply."""
        try:
            return kind.decode_file(data, self.config.max_pixels)
        except TooLargeError as error:
            return RequestError(422, f"{error} (serve.max_pixels of this server)")
        except ValueError as error:
            return RequestError(400, f"this is no {kind.name} that can be read: {error}")

    def _answer(self, model: str, ask: PredictionRequest, predictions: Predictions) -> Reply:
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


def describe_model(name: str, predictor: Predictor) -> dict[str, Any]:
    """One entry of ``GET /models``."""
    vocabularies = {head: head_vocabulary(config, predictor.vocabulary) for head, config in predictor.heads.items()}
    kind = predictor.canvas.input
    return {
        "name": name,
        **({"plugins": list(predictor.plugins)} if predictor.plugins else {}),
        "input": {"name": kind.name, "media_type": kind.media_type, "formats": list(kind.formats)},
        "heads": {
            head: {
                "type": config.type,
                "task": config.task.name,
                "view": config.task.view,
                "classes": list(vocabularies[head].classes.get(config.annotation, ())),
                "colours": [list(colour) for colour in vocabularies[head].colours.get(config.annotation, ())],
            }
            for head, config in predictor.heads.items()
        },
        "canvas": values_of(predictor.canvas),
    }


def _threshold(text: str | None, default: float) -> float:
    try:
        threshold = default if text is None else float(text)
    except ValueError:
        raise RequestError(400, f"score_thr is {text!r}, which is no number") from None
    if not 0 <= threshold <= 1:
        raise RequestError(400, f"score_thr is {text}, it must lie between 0 and 1")
    return threshold
