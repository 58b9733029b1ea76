"""The addresses of the Open Inference Protocol v2 in the OpenAPI document."""

from typing import Any

from mtl_ray.serving.v2_http import HEADER
from mtl_ray.serving.v2_tensors import DATATYPES

ERRORS = {
    "400": "A name, datatype, shape, size or value does not fit the model.",
    "401": "The key is missing or wrong.",
    "404": "The model or version does not exist.",
    "413": "The body is too large.",
    "503": "Too many requests are waiting; Retry-After says when to try again.",
    "504": "There was no answer in time.",
}
_TEXT = {"type": "string"}


def v2_paths() -> dict[str, Any]:
    """The paths of raw tensors; each address of a model may have ``/versions/{version}``."""
    infer = {
        "summary": "Raw tensors in and out (Open Inference Protocol v2).",
        "description": "The inputs and outputs of the model's own graph, as tritonclient sends "
        f"them. Binary tensors follow the JSON, whose bytes the header {HEADER} counts. "
        "/v2/models/{model}/versions/{version}/infer is the same.",
        "parameters": [_MODEL],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _schema("TensorRequest")}},
        },
        "responses": {
            "200": {
                "description": "The outputs.",
                "content": {"application/json": {"schema": _schema("TensorAnswer")}},
            },
            **{
                status: {
                    "description": text,
                    "content": {"application/json": {"schema": _schema("TensorError")}},
                }
                for status, text in ERRORS.items()
            },
        },
        "security": [{}, {"key": []}],
    }
    return {
        "/v2": {"get": _get("Name, version and extensions of the server.")},
        "/v2/health/live": {"get": _get("200 while the server runs.")},
        "/v2/health/ready": {"get": _get("200 while the server answers.")},
        "/v2/models/{model}": {
            "get": _get("The names, datatypes and shapes of a model's tensors.", _MODEL)
        },
        "/v2/models/{model}/ready": {"get": _get("200 if the model answers.", _MODEL)},
        "/v2/models/{model}/infer": {"post": infer},
    }


def v2_schemas() -> dict[str, Any]:
    """The schemas that ``v2_paths`` refers to."""
    tensor = {
        "name": _TEXT,
        "datatype": {"type": "string", "enum": list(DATATYPES)},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "data": {
            "type": "array",
            "items": {"anyOf": [{"type": "number"}, {"type": "boolean"}]},
            "description": "in C order, flat; a request may nest lists, or send binary tensors",
        },
        "parameters": {"type": "object", "properties": {"binary_data_size": {"type": "integer"}}},
    }
    chosen = {
        "name": _TEXT,
        "parameters": {"type": "object", "properties": {"binary_data": {"type": "boolean"}}},
    }
    return {
        "Tensor": {
            "type": "object",
            "properties": tensor,
            "required": ["name", "datatype", "shape"],
        },
        "TensorRequest": {
            "type": "object",
            "properties": {
                "id": _TEXT,
                "inputs": {"type": "array", "items": _schema("Tensor")},
                "outputs": {"type": "array", "items": {"type": "object", "properties": chosen}},
                "parameters": {
                    "type": "object",
                    "properties": {"binary_data_output": {"type": "boolean"}},
                },
            },
            "required": ["inputs"],
        },
        "TensorAnswer": {
            "type": "object",
            "properties": {
                "model_name": _TEXT,
                "model_version": _TEXT,
                "id": _TEXT,
                "outputs": {"type": "array", "items": _schema("Tensor")},
            },
            "required": ["model_name", "model_version", "outputs"],
        },
        "TensorError": {"type": "object", "properties": {"error": _TEXT}, "required": ["error"]},
    }


_MODEL = {
    "name": "model",
    "in": "path",
    "required": True,
    "description": "A name that /models gives.",
    "schema": _TEXT,
}


def _schema(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _get(summary: str, *parameters: Any) -> dict[str, Any]:
    return {
        "summary": summary,
        **({"parameters": list(parameters)} if parameters else {}),
        "responses": {"200": {"description": "OK", "content": {"application/json": {}}}},
    }
