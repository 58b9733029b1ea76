"""What is decided for a whole batch: the size of its canvas, and the transforms that apply.

It depends on the config, the seed and the number of the batch alone, so all ranks and a resumed run
agree.
"""

from dataclasses import dataclass, replace

from mtl_ray.inputs.config import CanvasConfig
from mtl_ray.inputs.image import Canvas
from mtl_ray.loading.config import CLOSED, Augmentation, DataConfig
from mtl_ray.shards.order import key_of

_SIZES = -2
"""Tells the keys of sizes from those of other random numbers; -1 is that of partners."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchPlan:
    """How the samples of one batch are changed and put on the canvas.

    Attributes:
        canvas: of the batch.
        canvases: of the same size, by split: how its samples are fit to it.
        augment: by split.
    """

    canvas: CanvasConfig
    canvases: tuple[CanvasConfig, ...]
    augment: tuple[tuple[Augmentation, ...], ...]


def plan_batch(data: DataConfig, seed: int, number: int, *, closed: bool) -> BatchPlan:
    """The plan of a batch.

    Args:
        data: the whole section.
        seed: of the run.
        number: of the batch, counted from 0 over the whole run.
        closed: leaves out the transforms that ``data.close_mosaic`` switches off.
    """
    splits = range(len(data.train.uris))
    changes = [data.augment_of(split) for split in splits]
    if closed:
        changes = [
            tuple(each for each in change if not isinstance(each, CLOSED)) for change in changes
        ]
    size = _size(data, seed, number)
    return BatchPlan(
        canvas=_training(data.canvas, size),
        canvases=tuple(_training(data.canvas_of(split), size) for split in splits),
        augment=tuple(changes),
    )


def _size(data: DataConfig, seed: int, number: int) -> tuple[int, int] | None:
    """Height and width of the canvas of a batch; None for those of ``data.canvas``."""
    if data.multi_scale is None or not isinstance(data.canvas, Canvas):
        return None
    sizes = data.multi_scale.sizes_for(data.canvas.height, data.canvas.width)
    return sizes[key_of(seed, _SIZES, number // data.multi_scale.every) % len(sizes)]


def _training(canvas: CanvasConfig, size: tuple[int, int] | None) -> CanvasConfig:
    if size is not None and isinstance(canvas, Canvas):
        canvas = replace(canvas, height=size[0], width=size[1])
    rule: CanvasConfig = canvas.input.training_rule(canvas)
    return rule
