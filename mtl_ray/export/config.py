"""The ``export`` section of a config: the form of the bundle, and its largest difference from
torch.
"""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.backends.onnxruntime import EngineConfig, OnnxRuntimeEngine
from mtl_ray.config.strict import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExportConfig:
    """How a checkpoint becomes a bundle."""

    engine: EngineConfig = Field(
        default_factory=OnnxRuntimeEngine, exclude_if=lambda engine: engine == OnnxRuntimeEngine()
    )
    """The engine that runs the bundle. ONNX Runtime is not written, so that older programs can read
    the config.
    """
    layout: Literal["end2end", "raw"] = "end2end"
    """end2end: non-maximum suppression inside the graph. raw: all candidates as (batch, anchors, 5
    + classes).
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
    samples: int = Field(default=12, ge=1)
    """Images of the validation split that the bundle is checked on."""
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
