"""The protocol of a task whose predictions on windows of a large image can be joined."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class WindowTask(Protocol):
    """A task with a class for each pixel. Its heads predict ``logits`` float32 (B, C, H, W) where
    ``Context.logits`` is set.
    """

    def of_windows(self, classes: NDArray[np.uint8]) -> Any:
        """The prediction of an image.

        Args:
            classes: (height, width) of the image, the best class of each pixel.
        """
        ...
