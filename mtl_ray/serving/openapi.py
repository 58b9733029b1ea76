"""The OpenAPI document of the server (https://spec.openapis.org/oas/v3.1.0)."""

from collections.abc import Iterable, Sequence
from typing import Any

from mtl_ray.experiment import tasks
from mtl_ray.inference.predictor import Predictor
from mtl_ray.inputs.image import IMAGE
from mtl_ray.inputs.input import FRAME, PREDICTION
from mtl_ray.serving.bodies import AnyInput
from mtl_ray.serving.v2_openapi import v2_paths, v2_schemas
from mtl_ray.tasks.response import MASK_FORMS
from mtl_ray.tasks.task import Task

ERRORS = {
    "400": "The query is invalid, or the body is malformed or is not a readable file of the "
    "model's input.",
    "401": "The key is missing or wrong.",
    "404": "The model or head does not exist.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large, or has too many files.",
    "415": "The body is compressed, or a multipart body other than multipart/form-data.",
    "422": "The data is too large: an image has too many pixels, a point cloud too many numbers.",
    "429": "The key has used its rate; Retry-After says when to try again.",
    "503": "Too many requests are waiting; Retry-After says when to try again.",
    "504": "There was no answer in time.",
}


METRICS = "Counts of all replicas in the text format of Prometheus."
STATISTICS = (
    "Histograms of the data and of the scores of each head since the start, those of the bundle's "
    "own validation, and how far they lie apart."
)


def openapi_document(predictors: Iterable[Predictor] = ()) -> dict[str, Any]:
    """The OpenAPI document.

    Args:
        predictors: the served models; the tasks and inputs of their plugins are described beside
            the built-in tasks and images.
    """
    served = list(predictors)
    plugins = tuple(dict.fromkeys(name for each in served for name in each.plugins))
    known = tasks(plugins)
    kinds = list(
        {kind.name: kind for kind in (IMAGE, *(each.canvas.input for each in served))}.values()
    )
    models = "The models that are served: their inputs, heads, class names, colours and canvas."
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mtl_ray",
            "version": "1",
            "description": "Images or point clouds in; boxes, class maps and labels out.",
        },
        "paths": {
            "/predictions/{model}": {"post": _predict(known, kinds)},
            "/predictions/{model}/versions/{version}": {"post": _of_version(known, kinds)},
            "/models": {"get": _get(models, "application/json")},
            "/models/{model}/statistics": {"get": _statistics()},
            "/metrics": {"get": _get(METRICS, "text/plain")},
            "/ping": {
                "get": _get('{"status": "Healthy"} while the server runs.', "application/json")
            },
            "/": {"get": _get("A page to try the models with your own files.", "text/html")},
            **v2_paths(),
        },
        "components": {
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Required if the server has a key.",
                }
            },
            "schemas": {**_schemas(known, kinds), **v2_schemas()},
        },
    }


def _of_version(known: Sequence[Task[Any, Any]], kinds: Sequence[AnyInput]) -> dict[str, Any]:
    operation = _predict(known, kinds)
    version = _parameter("version", "path", "A version that /models gives.", {"type": "string"})
    return {
        **operation,
        "summary": "The same by one version of a model, whatever the weights are.",
        "parameters": [*operation["parameters"], version],
    }


def _statistics() -> dict[str, Any]:
    name = _parameter("model", "path", "A name that /models gives.", {"type": "string"})
    return {**_get(STATISTICS, "application/json"), "parameters": [name]}


def _predict(known: Sequence[Task[Any, Any]], kinds: Sequence[AnyInput]) -> dict[str, Any]:
    files = "; ".join(
        f"{kind.name}: {', '.join(kind.formats)}" if kind.formats else kind.name for kind in kinds
    )
    names = [task.schema_name for task in known]
    named = _named(kinds)
    whose = f" Each answer about a {named[0].noun} has the id of its frame." if named else ""
    return {
        "summary": "Predicts on one file, such as an image, or several.",
        "description": f"The body is the file itself ({files}), a form with files, or JSON with "
        "base64. Boxes are in "
        "pixels of the image, boxes in space in metres of the lidar's frame. Several files give a "
        "list of answers in their order; a file that "
        f"cannot be read has its error in its place.{whose}",
        "parameters": _parameters(kinds),
        "requestBody": {"required": True, "content": _bodies(kinds)},
        "responses": {
            "200": {
                "description": f"{', '.join(names)}: the prediction of a head; for several heads "
                "an object with an entry for each. "
                "A single semantic head answers with a PNG whose pixel values are class indices, "
                "unless Accept is application/json. "
                "Several files in a form give a list of these, instances give {predictions: "
                "[...]}; both are always JSON.",
                "content": {
                    "application/json": {
                        "schema": _any_of(
                            (
                                *names,
                                "ByHead",
                                *(["OfFrame"] if named else []),
                                "Several",
                                "Predictions",
                            )
                        )
                    },
                    "image/png": {"schema": {"type": "string", "format": "binary"}},
                },
            },
            **{status: _error(text) for status, text in ERRORS.items()},
        },
        "security": [{}, {"key": []}],
    }


def _parameters(kinds: Sequence[AnyInput]) -> list[dict[str, Any]]:
    """Those of a request for predictions."""
    return [
        _parameter("model", "path", "A name that /models gives.", {"type": "string"}),
        _parameter(
            "score_thr",
            "query",
            "Boxes and labels with a lower score are left out.",
            {"type": "number", "minimum": 0, "maximum": 1},
        ),
        _parameter(
            "head",
            "query",
            "The head that answers, in its plain form, if there are several.",
            {"type": "string"},
        ),
        _parameter(
            "masks",
            "query",
            "The form of masks, if the head predicts them: COCO run lengths, polygons or none.",
            {"type": "string", "enum": list(MASK_FORMS), "default": "rle"},
        ),
        *(
            _parameter(name, "query", f"Of a {kind.noun}: {text}", {"type": "string"})
            for kind in kinds
            for name, text in kind.file_options.items()
        ),
    ]


def _bodies(kinds: Sequence[AnyInput]) -> dict[str, Any]:
    """The forms of a body."""
    files = {
        kind.name: {"type": "array", "items": {"type": "string", "format": "binary"}}
        for kind in kinds
    }
    return {
        **{kind.media_type: {"schema": {"type": "string", "format": "binary"}} for kind in kinds},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": files,
                "description": "The files of the form, with any field names.",
            }
        },
        "application/json": {
            "schema": _any_of((*(f"One{kind.name.capitalize()}" for kind in kinds), "Instances"))
        },
    }


def _schemas(known: Sequence[Task[Any, Any]], kinds: Sequence[AnyInput]) -> dict[str, Any]:
    """The schemas of answers and of JSON bodies."""
    names = [task.schema_name for task in known]
    base64 = {"type": "string", "description": "a file in base64, or a data URI of it"}
    frame = {"type": "string", "description": "the file's name in a form, else its place from 0"}
    answer = _object(**{FRAME: frame, PREDICTION: _any_of((*names, "ByHead"))})
    of_frame = {"OfFrame": answer} if _named(kinds) else {}
    return {
        **{task.schema_name: task.response_schema() for task in known},
        "ByHead": {"type": "object", "additionalProperties": _any_of(names)},
        **of_frame,
        "Several": {"type": "array", "items": _any_of((*names, "ByHead", *of_frame, "Error"))},
        "Predictions": _object(predictions=_schema("Several")),
        "Base64": {"anyOf": [base64, _object(b64=base64)]},
        **{
            f"One{kind.name.capitalize()}": _object(**{kind.name: _schema("Base64")})
            for kind in kinds
        },
        "Instances": _object(instances={"type": "array", "items": _schema("Base64")}),
        "Error": _object(code={"type": "integer"}, message={"type": "string"}),
    }


def _named(kinds: Sequence[AnyInput]) -> list[AnyInput]:
    """The inputs whose answers have the id of a frame."""
    return [kind for kind in kinds if kind.named_answers]


def _schema(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _any_of(names: Iterable[str]) -> dict[str, Any]:
    return {"anyOf": [_schema(name) for name in names]}


def _parameter(name: str, where: str, text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "description": text,
        "schema": schema,
    }


def _get(summary: str, content: str) -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {"200": {"description": "OK", "content": {content: {}}}},
    }


def _error(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": _schema("Error")}}}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}
