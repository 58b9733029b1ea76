"""What the server answers, as an OpenAPI document (https://spec.openapis.org/oas/v3.1.0)."""

from typing import Any

ERRORS = {
    "400": "The query makes no sense, or the body is no picture that can be read.",
    "401": "The key is missing or wrong.",
    "404": "There is no such model or head.",
    "408": "The picture did not arrive in time.",
    "413": "The body is too large.",
    "415": "The body is a form.",
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
        "summary": "Predicts on one picture.",
        "description": "The body is the picture itself: JPEG, PNG or whatever else Pillow reads. Boxes are in its pixels.",
        "parameters": [
            _parameter("model", "path", "A name that /models gives.", {"type": "string"}),
            _parameter(
                "score_thr", "query", "Boxes and labels with a lower score are left out.", {"type": "number", "minimum": 0, "maximum": 1}
            ),
            _parameter("head", "query", "Of several heads the one that is to answer, in its plain form.", {"type": "string"}),
        ],
        "requestBody": {"required": True, "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}},
        "responses": {
            "200": {
                "description": "Detections, Labels or a ClassMap; of several heads an object with an entry for each. A semantic head by "
                "itself answers a PNG whose pixel values are class indices, unless Accept asks for application/json.",
                "content": {
                    "application/json": {
                        "schema": {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in SCHEMAS if name != "Error"]}
                    },
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


_LABEL = {"class_label": {"type": "integer"}, "class_name": {"type": "string"}}
SCHEMAS: dict[str, Any] = {
    "Detections": {
        "type": "array",
        "items": _object(
            **_LABEL, bbox={"type": "array", "items": {"type": "number"}, "description": "x1, y1, x2, y2"}, score={"type": "number"}
        ),
    },
    "Labels": {"type": "array", "items": _object(**_LABEL, score={"type": "number"})},
    "ClassMap": _object(
        height={"type": "integer"},
        width={"type": "integer"},
        classes={"type": "array", "items": _object(**_LABEL, share={"type": "number"})},
        png={"type": "string", "description": "base64 of the index PNG"},
    ),
    "ByHead": {
        "type": "object",
        "additionalProperties": {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("Detections", "Labels", "ClassMap")]},
    },
    "Error": _object(code={"type": "integer"}, message={"type": "string"}),
}
"""The forms of answers."""
