"""Where the images behind stored predictions lie.

Small, so that it travels to the tasks that draw.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.evaluation.data import CocoData, EvaluationData, SplitData
from mtl_ray.inputs.decode import decode_image
from mtl_ray.shards.split import open_split

PAPER = 235
"""The grey that stands for an image that is nowhere."""


@dataclass(frozen=True, kw_only=True)
class PictureSource:
    """The images of a split, or of an annotation file.

    Attributes:
        split: URI of the split; None for an annotation file.
        folders: where the images of an annotation file may lie.
    """

    split: str | None
    folders: tuple[str, ...] = ()

    def read(
        self, row: int, name: str, size: tuple[int, int], *, exact: bool = True
    ) -> tuple[NDArray[np.uint8], bool]:
        """The image (height, width, 3) uint8 RGB, and whether there is one: where it is nowhere,
        plain grey is drawn on.

        Args:
            row: of the split.
            name: of the file.
            size: height and width, of the grey too.
            exact: whether the image must have this size.

        Raises:
            ValueError: if the image cannot be read, or has another size.
        """
        data = self._data(row, name)
        if data is None:
            return np.full((*size, 3), PAPER, np.uint8), False
        image = decode_image(data)
        if exact and image.shape[:2] != size:
            raise ValueError(
                f"the image {name} has {image.shape[1]} x {image.shape[0]} pixels, its "
                f"annotations say {size[1]} x {size[0]}"
            )
        return image, True

    def _data(self, row: int, name: str) -> bytes | None:
        if self.split is not None:
            return next(open_split(self.split).read(row, row + 1)).image
        for folder in self.folders:
            try:
                return storage.read(storage.join(folder, name))
            except (FileNotFoundError, IsADirectoryError):
                continue
        return None


def pictures_of(data: EvaluationData) -> PictureSource:
    """Where the images of the data lie, by URIs that mean the same for every process of this
    machine.
    """
    if isinstance(data, SplitData):
        return PictureSource(split=storage.absolute(data.split.uri))
    assert isinstance(data, CocoData)
    return PictureSource(
        split=None, folders=tuple(storage.absolute(folder) for folder in data.folders)
    )
