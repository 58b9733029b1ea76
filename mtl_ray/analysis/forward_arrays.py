"""The arrays of ``jobs.analyze forward``: reading a batch from a file, and what losses are called
there.
"""

import io
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtl_ray import storage

Arrays = Mapping[str, NDArray[Any]]
MAX_BYTES = 2 << 30
"""Most bytes of an input when unpacked."""
_TERMS = {"class": "cls", "box": "bbox", "objectness": "obj"}
_PREFIX = r"((?:(?:s\d+|d\d+|pre|enc|dn)_)*)((?:rpn_)?)"


@dataclass(frozen=True, slots=True)
class ForwardBatch:
    """A batch of images, and their objects where the file has some.

    Attributes:
        image: (B, 3, H, W) float32, normalised, or uint8.
        valid_hw: int32 (B, 2), height and width of the image on each canvas.
        objects: targets of the kind ``instances``, as a loader gives them, but for
            ``known_classes``; None if the file has none.
    """

    image: Tensor
    valid_hw: Tensor
    objects: dict[str, Tensor] | None


def read_arrays(uri: str) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file; no code in it is run.

    Raises:
        ValueError: if it is no such file, too large, or holds more than plain arrays.
    """
    data = storage.read(uri)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_BYTES:
            raise ValueError(f"{uri} would unpack to {size} bytes; {MAX_BYTES} are allowed")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (zipfile.BadZipFile, EOFError, KeyError, SyntaxError, TypeError, OSError) as error:
        raise ValueError(f"{uri} is no .npz file of plain arrays: {error}") from error
    except ValueError as error:
        raise ValueError(str(error) if uri in str(error) else f"{uri}: {error}") from error


def batch_of(arrays: Arrays) -> ForwardBatch:
    """The batch in the arrays of a file.

    Raises:
        ValueError: naming the array that is missing or has another shape.
    """
    if "image" not in arrays:
        raise ValueError(f"the input has no array 'image', only {', '.join(arrays) or 'nothing'}")
    image = arrays["image"]
    if image.ndim != 4 or 0 in image.shape or image.dtype.kind not in "fu":
        raise ValueError(f"image is {image.dtype} {image.shape}, not float32 or uint8 (B, 3, H, W)")
    if image.dtype != np.uint8:
        image = image.astype(np.float32)
    count, _, height, width = image.shape
    sizes = next((arrays[name] for name in ("valid_hw", "img_shape") if name in arrays), None)
    if sizes is None:
        sizes = np.tile([height, width], (count, 1))
    if sizes.shape != (count, 2) or sizes.dtype.kind not in "iu":
        raise ValueError(f"img_shape is {sizes.dtype} {sizes.shape}, not integers ({count}, 2)")
    if (sizes < 1).any() or (sizes > [height, width]).any():
        raise ValueError(f"img_shape has sizes beyond the canvas of {height} x {width}")
    return ForwardBatch(
        torch.from_numpy(np.ascontiguousarray(image)),
        torch.from_numpy(sizes.astype(np.int32)),
        _objects(arrays, count, (height, width)),
    )


def _objects(arrays: Arrays, count: int, canvas_hw: tuple[int, int]) -> dict[str, Tensor] | None:
    if not any(re.fullmatch(r"gt\d+_boxes", name) for name in arrays):
        others = [name for name in arrays if re.match(r"gt\w*(box|label)", name)]
        if others:
            raise ValueError(
                f"the input has {', '.join(others)}; the objects of the first image are gt0_boxes "
                "and gt0_labels, those of the next gt1_boxes, ..."
            )
        return None
    boxes = [_array(arrays, f"gt{row}_boxes", "fiu", (-1, 4)) for row in range(count)]
    classes = [_array(arrays, f"gt{row}_labels", "iu", (len(boxes[row]),)) for row in range(count)]
    most = max([1, *map(len, boxes)])
    found: dict[str, NDArray[Any]] = {
        "boxes": np.zeros((count, most, 4), np.float32),
        "classes": np.zeros((count, most), np.int64),
        "crowd": np.zeros((count, most), np.bool_),
        "present": np.zeros((count, most), np.bool_),
        "masks": np.zeros((count, most, *canvas_hw), np.uint8),
        "has_mask": np.zeros((count, most), np.bool_),
        "annotated": np.ones(count, np.bool_),
    }
    for row in range(count):
        objects = len(boxes[row])
        found["boxes"][row, :objects], found["classes"][row, :objects] = boxes[row], classes[row]
        found["present"][row, :objects] = True
        if f"gt{row}_masks" in arrays:
            masks = _array(arrays, f"gt{row}_masks", "biu", (objects, *canvas_hw))
            found["masks"][row, :objects] = masks != 0
            found["has_mask"][row, :objects] = True
    return {name: torch.from_numpy(value) for name, value in found.items()}


def _array(arrays: Arrays, name: str, kinds: str, shape: tuple[int, ...]) -> NDArray[Any]:
    value = arrays.get(name)
    if value is None:
        raise ValueError(f"the input has objects, but no array {name}")
    sizes = (len(value) if size < 0 and value.ndim else size for size in shape)
    if value.shape != tuple(sizes) or value.dtype.kind not in kinds:
        kind = "numbers" if "f" in kinds else "integers"
        wanted = ", ".join("M" if size < 0 else str(size) for size in shape)
        raise ValueError(f"{name} is {value.dtype} {value.shape}, not {kind} ({wanted})")
    if not np.isfinite(value).all():
        raise ValueError(f"{name} has values that are not finite")
    return value


def loss_name(term: str) -> str:
    """A term by the name that OpenMMLab's heads give its loss: ``rpn_class`` is ``loss_rpn_cls``,
    ``d0_box`` is ``d0_loss_bbox``.
    """
    match = re.fullmatch(_PREFIX + r"(\w+)", term)
    assert match is not None
    return f"{match[1]}loss_{match[2]}{_TERMS.get(match[3], match[3])}"
