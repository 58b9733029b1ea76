"""What is to be seen of an evaluation."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Shown(NamedTuple):
    """Pictures and charts.

    Attributes:
        pictures: sample predictions beside their truth: name and (H, W, 3) RGB of each.
        charts: PNG files by HEAD/CHART: ``boxes/confusion``, ``boxes/pr_curves``.
    """

    pictures: Sequence[tuple[str, NDArray[np.uint8]]]
    charts: Mapping[str, bytes]
