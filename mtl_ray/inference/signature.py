"""The signature of a bundle: how the graph is called, and what its outputs mean.

``signature.json`` has five versions. 1: the graph takes an image. 2: it also takes
``valid_hw``. 3: it names its inputs by field, and the engine and its files if these are not ONNX
Runtime and ``model.onnx``. 4: there are further engines. 5: class maps are
predicted in windows. A bundle is written in the lowest version
that can express it, so that older programs can read it.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from mtl_ray.backends.config import EngineConfig, engine_name, short_name
from mtl_ray.backends.onnxruntime import MODEL_FILE, OnnxRuntimeEngine
from mtl_ray.config.extend import extended
from mtl_ray.config.strict import STRICT
from mtl_ray.experiment import HeadConfig
from mtl_ray.inference.config import SlideConfig
from mtl_ray.inputs.config import CanvasConfig
from mtl_ray.samples import Vocabulary

VERSION = 5
_OF_IMAGES = ("image", "valid_hw")
"""The fields of the inputs that versions 1 and 2 know."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class InputSignature:
    """One input of the graph, batch first."""

    name: str
    """Its name in the graph."""
    field: str = "image"
    """The name of the array that it takes (``Input.arrays``)."""
    dtype: str = "uint8"
    """Of the graph's input. float32 for a uint8 array: the caller passes (array - mean) / std
    of each channel.
    """


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OutputSignature:
    """One output of the graph, batch first."""

    name: str
    """Its name in the graph."""
    head: str
    """The head that it belongs to."""
    field: str
    """The name of the array as ``tasks/*/decode.py`` takes it: boxes, scores, classes,
    candidates, logits.
    """


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FurtherEngine:
    """Another engine of the same bundle, with a graph of its own form."""

    engine: EngineConfig
    files: tuple[str, ...] = Field(min_length=1)
    inputs: tuple[InputSignature, ...] = Field(min_length=1)
    outputs: tuple[OutputSignature, ...]
    layout: Literal["end2end", "raw"]

    @property
    def name(self) -> str:
        """See ``engine_name``."""
        return engine_name(self.engine)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Signature:
    """The content of ``signature.json`` in its newest version."""

    plugins: tuple[str, ...] = Field(default=(), exclude_if=lambda names: not names)
    """Modules of its canvas, heads and engine."""
    engine: EngineConfig = Field(
        default_factory=OnnxRuntimeEngine, exclude_if=lambda engine: engine == OnnxRuntimeEngine()
    )
    """The engine that runs the graph."""
    files: tuple[str, ...] = Field(
        default=(MODEL_FILE,), exclude_if=lambda names: names == (MODEL_FILE,)
    )
    """The engine's files in the bundle."""
    inputs: tuple[InputSignature, ...] = Field(min_length=1)
    """In the order of the graph; only those that it reads."""
    outputs: tuple[OutputSignature, ...]
    """In the order of the graph."""
    layout: Literal["end2end", "raw"]
    """raw: detection heads give ``candidates`` float32 (batch, N, 5 + C), not yet suppressed."""
    canvas: CanvasConfig
    """How data is placed on the canvas."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Of each channel; part of the graph if the input is uint8."""
    heads: dict[str, HeadConfig]
    """The config of each head that predicts."""
    vocabulary: Vocabulary
    further: tuple[FurtherEngine, ...] = Field(default=(), exclude_if=lambda more: not more)
    """Further engines."""
    slide: SlideConfig | None = Field(default=None, exclude_if=lambda slide: slide is None)
    """Class maps are predicted in windows of the canvas."""

    @property
    def engine_names(self) -> tuple[str, ...]:
        """The engines of the bundle, the default first."""
        return (engine_name(self.engine), *(each.name for each in self.further))

    def of_engine(self, name: str) -> "Signature":
        """The signature of one of the engines; ``openvino:fp32`` is ``openvino``.

        Raises:
            ValueError: if the bundle does not have it.
        """
        name = short_name(name)
        if name == engine_name(self.engine):
            return self
        found = next((each for each in self.further if each.name == name), None)
        if found is None:
            raise ValueError(
                f"the bundle has no engine {name!r}; it has {', '.join(self.engine_names)}. Fix: "
                f"python -m jobs.export RUN --engine {name}"
            )
        return replace(
            self,
            engine=found.engine,
            files=found.files,
            inputs=found.inputs,
            outputs=found.outputs,
            layout=found.layout,
        )

    def to_json(self) -> bytes:
        """UTF-8 JSON, indented, in the lowest version that can express it."""
        content: dict[str, Any] = TypeAdapter(type(self)).dump_python(self, mode="json")
        return json.dumps(_to_lowest_version(content), indent=1, ensure_ascii=False).encode()


def _to_lowest_version(content: dict[str, Any]) -> dict[str, Any]:
    """The content in version 1 or 2 if these can express it, else in version 3."""
    by_field = {each["field"]: each for each in content["inputs"]}
    known = next(iter(by_field)) == "image" and not by_field.keys() - set(_OF_IMAGES)
    if "slide" in content:
        return {"version": VERSION, **content}
    if "further" in content:
        return {"version": 4, **content}
    if not known or {"plugins", "engine", "files"} & content.keys():
        return {"version": 3, **content}
    image = {key: by_field["image"][key] for key in ("name", "dtype")}
    second = {"valid_hw": by_field["valid_hw"]["name"]} if "valid_hw" in by_field else {}
    rest = {key: value for key, value in content.items() if key != "inputs"}
    return {"version": 1 + len(second), "input": image, **second, **rest}


def _to_newest_version(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of any version in the newest form; errors in it remain."""
    rest = {key: value for key, value in content.items() if key != "version"}
    if content.get("version", 1) >= 3:
        return rest
    image = rest.pop("input", None)
    second = rest.pop("valid_hw", None)
    if isinstance(image, Mapping):
        inputs = [{**image, "field": "image"}]
        rest["inputs"] = (
            inputs
            if second is None
            else [*inputs, {"name": second, "field": "valid_hw", "dtype": "int32"}]
        )
    return rest


def read_signature(data: bytes) -> Signature:
    """The inverse of ``to_json``.

    Raises:
        ValueError: if a field is missing, unknown or invalid, the version is newer than this
            program, or a plugin is not installed.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"signature.json is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError("signature.json is not one that this version can read: it is no object")
    version = content.get("version", 1)
    if type(version) is not int or not 1 <= version <= VERSION:
        raise ValueError(
            f"signature.json is of version {version!r}; this program reads 1 to {VERSION}"
        )
    plugins = content.get("plugins", [])
    if not isinstance(plugins, list) or not all(isinstance(name, str) for name in plugins):
        raise ValueError(
            "signature.json is not one that this version can read: its plugins are no list of names"
        )
    try:
        return TypeAdapter(extended(Signature, plugins)).validate_json(
            json.dumps(_to_newest_version(content))
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(
            f"signature.json is not one that this version can read: {where}: {first['msg']}"
        ) from error
