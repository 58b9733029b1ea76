"""Label scores in the predictions file."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from mtl_ray.tasks.classification.decode import LabelScores

TYPE = pa.struct([("scores", pa.list_(pa.float32())), ("exclusive", pa.bool_())])
"""The Arrow type of one image's label scores, one for each class."""


def to_row(prediction: LabelScores) -> dict[str, Any]:
    """A value of ``TYPE``."""
    return {"scores": prediction.scores, "exclusive": prediction.exclusive}


def from_row(row: Mapping[str, Any]) -> LabelScores:
    """The way back of ``to_row``."""
    return LabelScores(scores=np.array(row["scores"], np.float32), exclusive=row["exclusive"])
