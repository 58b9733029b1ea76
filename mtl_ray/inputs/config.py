"""The type of ``data.canvas``: the inputs that a network may take."""

from typing import TYPE_CHECKING, Annotated

from mtl_ray.config.extend import Slot, union_of
from mtl_ray.inputs.image import Canvas
from mtl_ray.inputs.input import AnyCanvas
from mtl_ray.inputs.points import PointCanvas

if TYPE_CHECKING:
    CanvasConfig = AnyCanvas
else:
    CanvasConfig = Annotated[
        union_of(Canvas, PointCanvas, default="image"), Slot("inputs", ("input",))
    ]
    """Of images, of point clouds, or of an input that a plugin adds."""
