"""What the server answers, as an OpenAPI document (https://spec.openapis.org/oas/v3.1.0)."""

from typing import Any

from mtl_ray.experiment import TASKS
from mtl_ray.inputs.image_formats import FORMATS

ERRORS = {
    "400": "The query makes no sense, or the body is malformed or no picture that can be read.",
    "401": "The key is missing or wrong.",
    "404": "There is no such model or head.",
    "408": "The picture did not arrive in time.",
    "413": "The body is too large, or has too many images.",
    "415": "The body is compressed, or a multipart body other than multipart/form-data.",
    "422": "The picture has too many pixels.",
    "503": "Too many requests are waiting; Retry-After says when to come again.",
    "504": "There was no answer in time.",
}


def description() -> dict[str, Any]:
    """The OpenAPI document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "mtl_ray", "version": "1", "description": "Pictures in, boxes, class maps and labels out."},
        "paths": {
            "/predictions/{model}": {"post": _predict()},
            "/models": {"get": _get("The models that are served: their heads, class names, colours and canvas.", "application/json")},
            "/ping": {"get": _get('{"status": "Healthy"} as long as the server answers.', "application/json")},
            "/": {"get": _get("A page to try the models with a picture of one's own.", "text/html")},
        },
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "Only where the server was given a key."}},
            "schemas": SCHEMAS,
        },
    }


def _predict() -> dict[str, Any]:
    return {
        "summary": "Predicts on one picture or several.",
        "description": f"The body is the picture itself ({', '.join(FORMATS)}), a form with files, or JSON with base64. Boxes are in "
        "pixels of the picture. Several images give a list of answers in their order; one that cannot be read has its error there.",
        "parameters": [
            _parameter("model", "path", "A name that /models gives.", {"type": "string"}),
            _parameter(
                "score_thr", "query", "Boxes and labels with a lower score are left out.", {"type": "number", "minimum": 0, "maximum": 1}
            ),
            _parameter("head", "query", "Of several heads the one that is to answer, in its plain form.", {"type": "string"}),
        ],
        "requestBody": {"required": True, "content": BODIES},
        "responses": {
            "200": {
                "description": f"{', '.join(_OF_HEADS)}: what the head predicts; of several heads an object with an entry for each. "
                "A semantic head by itself answers a PNG whose pixel values are class indices, unless Accept asks for application/json. "
                "Of several files in a form a list of these, of instances {predictions: [...]}; both are always JSON.",
                "content": {
                    "application/json": {"schema": {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in ANSWERS]}},
                    "image/png": {"schema": {"type": "string", "format": "binary"}},
                },
            },
            **{status: _error(text) for status, text in ERRORS.items()},
        },
        "security": [{}, {"key": []}],
    }


def _parameter(name: str, where: str, text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": where, "required": where == "path", "description": text, "schema": schema}


def _get(summary: str, content: str) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": {"description": "OK", "content": {content: {}}}}}


def _error(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


_OF_HEADS = tuple(task.schema_name for task in TASKS)
_BASE64 = {"type": "string", "description": "an image in base64, or a data URI of it"}
SCHEMAS: dict[str, Any] = {
    **{task.schema_name: task.response_schema() for task in TASKS},
    "ByHead": {
        "type": "object",
        "additionalProperties": {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in _OF_HEADS]},
    },
    "Several": {
        "type": "array",
        "items": {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in (*_OF_HEADS, "ByHead", "Error")]},
    },
    "Predictions": _object(predictions={"$ref": "#/components/schemas/Several"}),
    "Base64": {"anyOf": [_BASE64, _object(b64=_BASE64)]},
    "OneImage": _object(image={"$ref": "#/components/schemas/Base64"}),
    "Instances": _object(instances={"type": "array", "items": {"$ref": "#/components/schemas/Base64"}}),
    "Error": _object(code={"type": "integer"}, message={"type": "string"}),
}
"""The forms of answers, and of JSON bodies."""
ANSWERS = (*_OF_HEADS, "ByHead", "Several", "Predictions")
BODIES: dict[str, Any] = {
    "image/*": {"schema": {"type": "string", "format": "binary"}},
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {"image": {"type": "array", "items": {"type": "string", "format": "binary"}}},
            "description": "The files of the form, whatever its fields are called.",
        }
    },
    "application/json": {"schema": {"anyOf": [{"$ref": "#/components/schemas/OneImage"}, {"$ref": "#/components/schemas/Instances"}]}},
}
"""What a body may be."""
