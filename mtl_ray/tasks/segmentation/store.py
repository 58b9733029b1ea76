"""Class maps in the predictions file."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from mtl_ray.tasks.segmentation.answer import picture, read_picture
from mtl_ray.tasks.segmentation.decode import SemanticMap

TYPE = pa.struct([("png", pa.binary())])
"""The Arrow type of one image's class map: an index PNG of the image's size."""


def to_row(prediction: SemanticMap) -> dict[str, Any]:
    """A value of ``TYPE``."""
    return {"png": picture(prediction)}


def from_row(row: Mapping[str, Any]) -> SemanticMap:
    """The way back of ``to_row``."""
    return read_picture(row["png"])
