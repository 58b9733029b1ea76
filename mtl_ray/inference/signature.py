"""What stands beside a bundle's ``model.onnx``: how to call it and what its outputs mean."""

from typing import Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT
from mtl_ray.experiment import HeadConfig
from mtl_ray.inputs.image import Canvas
from mtl_ray.samples import Vocabulary

VERSION = 2
"""1: the graph takes an image. 2: it takes ``valid_hw`` as well, which a program that knows 1 only would leave out."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class InputSignature:
    """The image that the graph takes: (batch, 3, canvas height, canvas width) RGB."""

    name: str
    dtype: Literal["uint8", "float32"]
    """uint8: the canvas as it is. float32: (canvas - mean) / std of each channel."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OutputSignature:
    """One output of the graph, batch first."""

    name: str
    """Its name in the graph."""
    head: str
    """The head that it belongs to."""
    field: str
    """The name of the array as ``tasks/*/decode.py`` takes it: boxes, scores, classes, candidates."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Signature:
    """The content of ``signature.json``."""

    version: int = Field(default=1, ge=1, le=VERSION)
    input: InputSignature
    valid_hw: str | None = Field(default=None, exclude_if=lambda name: name is None)
    """The name of the second input, int32 (batch, 2): height and width of the part of each canvas that holds image. None, and not in
    the file, where no head reads it."""
    outputs: tuple[OutputSignature, ...]
    """In the order of the graph."""
    layout: Literal["end2end", "raw"]
    """raw: detection heads give ``candidates`` float32 (batch, N, 5 + C), not yet suppressed."""
    canvas: Canvas
    """How an image is put on the input."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    """Of each channel, 0 to 255; inside the graph already where the input is uint8."""
    heads: dict[str, HeadConfig]
    """The config of each head that predicts."""
    vocabulary: Vocabulary

    def to_json(self) -> bytes:
        """UTF-8 JSON, indented."""
        return _ADAPTER.dump_json(self, indent=1)


def read_signature(data: bytes) -> Signature:
    """The way back of ``to_json``.

    Raises:
        ValueError: if a field is missing, unknown or wrong, or the version is newer than this program.
    """
    try:
        return _ADAPTER.validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"signature.json is not one that this version can read: {where}: {first['msg']}") from error


_ADAPTER = TypeAdapter(Signature)
