"""From a prediction request to its reply: the data is decoded, predicted on, and answered in the
requested form.

It knows neither HTTP servers nor Ray: ``app.py`` speaks HTTP, ``distributed/serve.py`` runs it in
Ray Serve.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtl_ray.config.validate import values_of
from mtl_ray.inference.predictor import Predictions, Predictor
from mtl_ray.inference.statistics import LiveStatistics
from mtl_ray.inputs.input import FRAME, PREDICTION, Input, TooLargeError
from mtl_ray.serving.config import ServeConfig
from mtl_ray.serving.reply import Reply, RequestError, as_json, quoted
from mtl_ray.serving.routes import Routes
from mtl_ray.tasks.head_classes import head_vocabulary
from mtl_ray.tasks.response import MASK_FORMS, MaskForm, responders

PARAMETERS = ("score_thr", "head", "masks")


@dataclass(frozen=True, kw_only=True)
class PredictionRequest:
    """A checked request.

    Attributes:
        score_threshold: boxes and labels with a lower score are left out.
        head: the one head that answers in its plain form; None for an object with an entry for each
            head.
        accept: the Accept header.
        masks: the form of masks in the answer.
        read: gives the data of a file within a limit.
        file: the data, encoded as a file of the model's input.
        id: of the file in its request; in the answer of an input with ``named_answers``.
    """

    score_threshold: float
    head: str | None
    accept: str
    masks: MaskForm = "rle"
    read: Callable[[bytes, int], Any]
    file: bytes = b""
    id: str = "0"


class Service:
    """Predictors by model name, and their answers.

    Args:
        predictors: by model name.
        config: thresholds and limits.
        statistics: of the same predictors until now, by key; these go on.
    """

    def __init__(
        self,
        predictors: Mapping[str, Predictor],
        config: ServeConfig,
        statistics: Mapping[str, LiveStatistics] | None = None,
    ) -> None:
        self.predictors = predictors
        self.config = config
        self.statistics = {
            key: (statistics or {}).get(key) or LiveStatistics() for key in predictors
        }
        self._responders = {
            key: responders(predictor.heads, predictor.vocabulary)
            for key, predictor in predictors.items()
        }

    def models(self) -> dict[str, Any]:
        """The answer to ``GET /models``: the input, heads, class names and canvas of each model."""
        routes = Routes(self.predictors, self.config.models)
        described = []
        for name in routes.names:
            model = describe_model(name, self.predictors[routes.main_key(name)])
            shares = routes.shares.get(name)
            described.append({**model, "versions": shares} if shares else model)
        return {"models": described}

    def kept_statistics(self, predictors: Mapping[str, Predictor]) -> dict[str, LiveStatistics]:
        """The statistics of those predictors that are served already."""
        return {
            key: counted
            for key, counted in self.statistics.items()
            if predictors.get(key) is self.predictors[key]
        }

    def counted(self) -> dict[str, Any]:
        """The statistics of each predictor, as plain values."""
        return {key: each.to_json() for key, each in self.statistics.items()}

    def check_request(self, model: str, query: Mapping[str, str], accept: str) -> PredictionRequest:
        """Checks a request except its body.

        Raises:
            RequestError: 404 for a model or head that is not served, 400 for an invalid query.
        """
        if model not in self.predictors:
            raise RequestError(
                404, f"there is no model {quoted(model)}; there is {', '.join(self.predictors)}"
            )
        canvas = self.predictors[model].canvas
        options = {}
        for name, value in query.items():
            if name in canvas.input.file_options:
                options[name] = value
            elif name not in PARAMETERS:
                known = ", ".join((*PARAMETERS, *canvas.input.file_options))
                raise RequestError(
                    400, f"the query has an unknown parameter {quoted(name)}; there are {known}"
                )
        try:
            read = canvas.input.file_reader(canvas, options)
        except ValueError as error:
            raise RequestError(400, str(error)) from None
        heads = self.predictors[model].heads
        head = query.get("head")
        if head is not None and head not in heads:
            raise RequestError(
                404,
                f"the model {model!r} has no head {quoted(head)}; it has {', '.join(heads)}",
            )
        threshold = _threshold(query.get("score_thr"), self.config.score_threshold)
        return PredictionRequest(
            score_threshold=threshold,
            head=head or (next(iter(heads)) if len(heads) == 1 else None),
            accept=accept,
            masks=_mask_form(query.get("masks", "rle")),
            read=read,
        )

    def replies(self, model: str, requests: Sequence[PredictionRequest]) -> list[Reply]:
        """Answers requests to one model in one batch; a file that cannot be read fails only its own
        reply. ``statistics`` has them only put aside.

        Raises:
            RequestError: if one of them needs more memory than is allowed.
        """
        kind = self.predictors[model].canvas.input
        raws = [self._decode(kind, request) for request in requests]
        readable = [raw for raw in raws if not isinstance(raw, RequestError)]
        try:
            found = self.predictors[model].predict(readable) if readable else []
        except TooLargeError as error:
            raise RequestError(422, str(error)) from None
        self.statistics[model].put_aside(self.predictors[model].canvas, readable, found)
        predictions = iter(found)
        return [
            as_json(_named(kind, request.id, raw.content), raw.status)
            if isinstance(raw, RequestError)
            else self._answer(model, request, next(predictions), kind.size(raw))
            for request, raw in zip(requests, raws, strict=True)
        ]

    def _decode(self, kind: Input[Any, Any, Any, Any], request: PredictionRequest) -> Any:
        """The data of a file, or the error to reply with."""
        try:
            kind.check_name(request.file, request.id)
            return request.read(request.file, self.config.max_pixels)
        except TooLargeError as error:
            return RequestError(422, f"{error} (serve.max_pixels of this server)")
        except ValueError as error:
            return RequestError(400, f"the file is no readable {kind.noun}: {error}")

    def _answer(
        self,
        model: str,
        request: PredictionRequest,
        predictions: Predictions,
        size: Mapping[str, int],
    ) -> Reply:
        predictor = self.predictors[model]
        if request.head is not None and "json" not in request.accept:
            plain = predictor.heads[request.head].task.plain_image(predictions[request.head])
            if plain is not None:
                return Reply(body=plain, type="image/png")
        answers = {
            name: responder.response(
                predictions[name], request.score_threshold, masks=request.masks, size=size
            )
            for name, responder in self._responders[model].items()
            if request.head in (None, name)
        }
        answer = answers if request.head is None else answers[request.head]
        named = predictor.canvas.input.named_answers
        return as_json({FRAME: request.id, PREDICTION: answer} if named else answer)


def describe_model(name: str, predictor: Predictor) -> dict[str, Any]:
    """One entry of ``GET /models``."""
    vocabularies = {
        head: head_vocabulary(config, predictor.vocabulary)
        for head, config in predictor.heads.items()
    }
    kind = predictor.canvas.input
    described: dict[str, Any] = {
        "name": kind.name,
        "media_type": kind.media_type,
        "formats": list(kind.formats),
    }
    if kind.noun != kind.name:
        described["noun"] = kind.noun
    if kind.file_options:
        described["parameters"] = dict(kind.file_options)
    return {
        "name": name,
        **({"plugins": list(predictor.plugins)} if predictor.plugins else {}),
        "input": described,
        "heads": {
            head: {
                "type": config.type,
                "task": config.task.name,
                "view": config.task.view,
                "classes": list(vocabularies[head].classes.get(config.annotation, ())),
                "colours": [
                    list(colour) for colour in vocabularies[head].colours.get(config.annotation, ())
                ],
            }
            for head, config in predictor.heads.items()
        },
        "canvas": values_of(predictor.canvas),
    }


def _named(kind: Input[Any, Any, Any, Any], name: str, content: Mapping[str, Any]) -> Any:
    """An error of one file, with the file's id if the answers of its input have it."""
    return {FRAME: name, **content} if kind.named_answers else content


def _mask_form(text: str) -> MaskForm:
    for form in MASK_FORMS:
        if text == form:
            return form
    raise RequestError(400, f"masks is {quoted(text)}; it must be {', '.join(MASK_FORMS)}")


def _threshold(text: str | None, default: float) -> float:
    try:
        threshold = default if text is None else float(text)
    except ValueError:
        raise RequestError(400, f"score_thr is {quoted(text)}, not a number") from None
    if not 0 <= threshold <= 1:
        raise RequestError(400, f"score_thr is {quoted(text)}, it must be between 0 and 1")
    return threshold
