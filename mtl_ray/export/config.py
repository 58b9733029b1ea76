"""The ``export`` section of a config: the form of the bundle, and its largest difference from
torch.
"""

import re
from typing import Literal

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from mtl_ray.backends.config import EngineConfig
from mtl_ray.backends.onnxruntime import OnnxRuntimeEngine
from mtl_ray.config.strict import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CalibrationConfig:
    """How int8 engines are calibrated: on samples of the training split, never of validation."""

    samples: int = Field(default=64, ge=1)
    """Samples, chosen by the seed."""
    seed: int = 0
    exclude: tuple[str, ...] = ()
    """Regular expressions; nodes of the graph with such a name stay fp32. One that matches none of
    the convolutions and matrix products is refused with their names.
    """

    @field_validator("exclude")
    @classmethod
    def _expressions(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return patterns


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExportConfig:
    """How a checkpoint becomes a bundle."""

    engine: EngineConfig = Field(
        default_factory=OnnxRuntimeEngine, exclude_if=lambda engine: engine == OnnxRuntimeEngine()
    )
    """The engine that runs the bundle. ONNX Runtime is not written, so that older programs can read
    the config.
    """
    engines: tuple[EngineConfig, ...] = Field(default=(), exclude_if=lambda engines: not engines)
    """Further engines in the same bundle, each checked by itself."""
    calibration: CalibrationConfig = Field(
        default_factory=CalibrationConfig, exclude_if=lambda value: value == CalibrationConfig()
    )
    """Of engines with int8."""
    max_metric_drop: float = Field(default=0.01, gt=0, le=1, exclude_if=lambda value: value == 0.01)
    """Largest loss of the metric of a head by fp16 or int8; an engine that loses more is refused.
    """
    metric_samples: int = Field(default=200, ge=1, exclude_if=lambda value: value == 200)
    """Samples of the validation split on which that loss is measured, and whose statistics a server
    compares its requests with.
    """
    layout: Literal["end2end", "raw"] = "end2end"
    """end2end: non-maximum suppression inside the graph. raw: all candidates as (batch, anchors, 5
    + classes), and class maps as logits.
    """
    maps: Literal["classes", "logits"] = Field(
        default="classes", exclude_if=lambda maps: maps == "classes"
    )
    """classes: the best class of each pixel, uint8 (batch, height, width). logits: float32 (batch,
    classes, height, width), as ``evaluate.slide`` needs them.
    """
    names: Literal["readable", "triton"] = "readable"
    """readable: image, boxes.scores, ...; triton: INPUT__0, OUTPUT__0, ..."""
    input: Literal["uint8", "float32"] = "uint8"
    """uint8: bytes are normalised inside the graph. float32: the caller normalises (the
    signature has mean and std).
    """
    size: Literal["dynamic", "fixed"] = "dynamic"
    """dynamic: height and width may differ from the canvas by multiples of 32. fixed: the canvas of
    the training.
    """
    opset: int = Field(default=20, ge=18)
    dump_info: bool = Field(default=False, exclude_if=lambda value: not value)
    """Adds the files with which MMDeploy's runtime loads the bundle's folder."""
    dump_head: str | None = Field(default=None, exclude_if=lambda name: name is None)
    """The head that it answers with; None where there is only one."""
    samples: int = Field(default=12, ge=1)
    """Samples of the validation split that the bundle is compared with torch on."""
    max_abs: float = Field(default=1e-2, gt=0)
    """Largest difference of a box coordinate in canvas pixels."""
    max_score: float = Field(default=1e-4, gt=0)
    """Largest difference of a score."""
    min_agree: float = Field(default=0.999, gt=0, le=1)
    """Least share of matched boxes, of equal pixels in a class map, and of images with the same
    best label.
    """
    max_metric: float = Field(default=1e-3, gt=0)
    """Largest difference of a metric over the samples."""
