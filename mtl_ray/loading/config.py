"""The ``data`` section of a config: which splits, how samples are changed for training, how
batches are made. Transforms of point clouds are in ``cloud_config.py``.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.fields import tag
from mtl_ray.config.strict import STRICT, Retired
from mtl_ray.inputs.config import CanvasConfig
from mtl_ray.inputs.image import IMAGE, Canvas, ImageInput
from mtl_ray.loading.cloud_config import CloudTransform, PasteObjects
from mtl_ray.loading.sizes import MultiScale, Resize, ScaleJitter

_Positive = Annotated[float, Field(gt=0)]
_Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Flip:
    """Mirrors the image."""

    input: ClassVar[ImageInput] = IMAGE
    type: Literal["flip"] = "flip"
    p: float = Field(default=0.5, ge=0, le=1)
    """Probability."""
    direction: Literal["horizontal", "vertical"] = "horizontal"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RandomCrop:
    """Cuts out a rectangle of random area and aspect ratio (the Inception crop; Szegedy et al.
    2015, section 6).
    """

    input: ClassVar[ImageInput] = IMAGE
    type: Literal["crop"] = "crop"
    p: float = Field(default=1.0, ge=0, le=1)
    area: tuple[_Share, _Share] = (0.3, 1.0)
    """Least and greatest share of the image's area."""
    aspect: tuple[_Positive, _Positive] = (0.75, 1.3333)
    """Least and greatest width/height of the rectangle relative to the image's."""
    min_visible: float = Field(default=0.3, ge=0, le=1)
    """Boxes of which a smaller share is left are dropped."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Zoom:
    """Scales the image within its frame by a random factor; what is uncovered is padded, what
    hangs over is cut off.
    """

    input: ClassVar[ImageInput] = IMAGE
    type: Literal["zoom"] = "zoom"
    p: float = Field(default=1.0, ge=0, le=1)
    scale: tuple[_Positive, _Positive] = (0.5, 1.5)
    min_visible: float = Field(default=0.3, ge=0, le=1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Colour:
    """Changes brightness, contrast, saturation and hue by random amounts."""

    input: ClassVar[ImageInput] = IMAGE
    type: Literal["colour"] = "colour"
    p: float = Field(default=1.0, ge=0, le=1)
    brightness: float = Field(default=0.3, ge=0)
    contrast: float = Field(default=0.3, ge=0)
    saturation: float = Field(default=0.3, ge=0)
    hue: float = Field(default=0.02, ge=0, le=0.5)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Mosaic:
    """Puts four images of one window together (Bochkovskiy et al. 2020, YOLOv4, figure 3)."""

    input: ClassVar[ImageInput] = IMAGE
    type: Literal["mosaic"] = "mosaic"
    p: float = Field(default=0.5, ge=0, le=1)
    centre: tuple[_Share, _Share] = (0.3, 0.7)
    """Where the four images meet: least and greatest share of the canvas's height and width."""
    scale: tuple[_Positive, _Positive] = (0.5, 1.0)
    """Size of each image relative to the largest that the canvas holds."""
    min_visible: float = Field(default=0.3, ge=0, le=1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class _WithPartner:
    """What a transform has that puts another image of the same window onto the image: it is scaled,
    mirrored, and cropped or padded to the size of the image at a random place.
    """

    input: ClassVar[ImageInput] = IMAGE
    p: float = Field(default=0.5, ge=0, le=1)
    scale: tuple[_Positive, _Positive] = (0.5, 1.5)
    """Least and greatest size of the other image relative to the largest that fits into the
    image."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability that the other image is mirrored from left to right."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Mixup(_WithPartner):
    """Shows another image through the image, with the objects of both at full weight (YOLOX, Ge et
    al. 2021, section 2.1; mixup, Zhang et al. 2018).
    """

    type: Literal["mixup"] = "mixup"
    share: float = Field(default=0.5, gt=0, lt=1)
    """Of the image in each pixel; the rest is the other image's."""
    min_visible: float = Field(default=0.3, ge=0, le=1)
    """Boxes of the other image of which a smaller share is left are dropped."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CopyPaste(_WithPartner):
    """Pastes objects of another image by their masks (Ghiasi et al. 2021, Simple Copy-Paste). What
    they hide leaves the masks and boxes of the objects behind them. Objects without a mask are not
    pasted; no head needs to learn masks.
    """

    type: Literal["copy_paste"] = "copy_paste"
    max_objects: int = Field(default=100, ge=1)
    """Most objects that are pasted; a random number of them is."""
    min_visible: float = Field(default=0.1, ge=0, le=1)
    """Objects of which a smaller share of the pixels is left are dropped, and those of which none
    is."""


ImageTransform = (
    Flip | RandomCrop | Zoom | Colour | Mosaic | Resize | ScaleJitter | Mixup | CopyPaste
)
Augmentation = Annotated[ImageTransform | CloudTransform, Field(discriminator="type")]
"""A change that is made in training; ``input`` says to which input."""
JOINING = (Mosaic, Mixup, CopyPaste)
"""The transforms that join images."""
CLOSED = (*JOINING, PasteObjects)
"""The transforms that ``close_mosaic`` switches off."""


_ONCE = "validation visits every sample of a split once"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ValSplitConfig:
    """One split, or several joined: classes are mapped by name."""

    uri: str | tuple[str, ...]
    """Where the split lies (a path or s3://...); several URIs are joined."""

    @property
    def uris(self) -> tuple[str, ...]:
        """The URIs, one or several."""
        return (self.uri,) if isinstance(self.uri, str) else self.uri

    retired: ClassVar[Mapping[str, Retired]] = {
        "repeat": Retired(1, _ONCE),
        "balanced": Retired(None, _ONCE),
        "weights": Retired(None, _ONCE),
    }


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OwnRules:
    """What one of several joined splits has for itself."""

    augment: tuple[Augmentation, ...] | None = None
    """Instead of ``data.augment``."""
    canvas: CanvasConfig | None = None
    """Another way to fit its images to the canvas, which has the same size; in training only."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SplitConfig(ValSplitConfig):
    """One split, or several joined, and how often their samples are trained on."""

    retired: ClassVar[Mapping[str, Retired]] = {}
    repeat: int = Field(default=1, ge=1)
    """How often the whole is visited in one epoch."""
    balanced: float | None = Field(default=None, gt=0, le=1)
    """Oversamples samples with rare classes: the threshold t of LVIS (Gupta et al. 2019, section
    4.2).
    """
    weights: tuple[float, ...] | None = None
    """Shares of the samples drawn from each URI (and so of each batch); by default in proportion
    to their sizes.
    """
    own: tuple[OwnRules, ...] | None = None
    """For each URI, in their order, transforms and canvas of its own (``{}`` for none)."""

    def __post_init__(self) -> None:
        if self.own is not None and len(self.own) != len(self.uris):
            raise ValueError(
                f"own has {len(self.own)} entries for {len(self.uris)} URIs; give one for each, "
                f"{{}} for one without"
            )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DataConfig:
    """Where samples come from and how they become batches."""

    train: SplitConfig
    val: ValSplitConfig
    canvas: CanvasConfig
    """How samples are put on the network's canvas, in training, evaluation, export and serving
    alike.
    """
    augment: tuple[Augmentation, ...] = ()
    """Changes made in training, in this order, before the sample is put on the canvas."""
    multi_scale: MultiScale | None = None
    """Canvases of several sizes in training."""
    close_mosaic: float = Field(default=0.0, ge=0)
    """The last part of the run without mosaic, mixup, copy_paste and paste_objects: a share of the
    run below 1, else a number of epochs (YOLOX: 15). With ``schedule.seconds`` also by the share of
    the time.
    """
    batch: int = Field(default=16, ge=1)
    """Samples of one optimiser step, over all workers."""
    threads: int = Field(default=2, ge=1)
    """Decoding threads of each worker."""
    cache_mb: int = Field(default=256, ge=0)
    """Decoded images that each worker keeps: a small split is decoded once, and the partners of
    a mosaic are not decoded again.
    """
    max_bad: int = Field(default=0, ge=0)
    """How many samples may fail to decode before the run ends."""
    max_pixels: int = Field(default=50_000_000, gt=0)
    """Images whose header says more are refused before they are decoded, and clouds of more
    numbers (points times features)."""
    lanes: int | None = Field(default=None, ge=1)
    """Parallel streams of the order of samples; by default the largest divisor of the batch up
    to 64.
    """
    window: int | None = Field(default=None, ge=1)
    """Blocks shuffled together; by default by the size of the split."""

    def __post_init__(self) -> None:
        if self.multi_scale is not None:
            if not isinstance(self.canvas, Canvas):
                raise ValueError("multi_scale changes the size of images; the input is another one")
            self.multi_scale.sizes_for(self.canvas.height, self.canvas.width)
        for place in range(len(self.train.uris)):
            _check_input(self.augment_of(place), self.canvas)
        wanted = self.canvas.input.arrays(self.canvas)
        for place, rules in enumerate(self.train.own or ()):
            if rules.canvas is not None and rules.canvas.input.arrays(rules.canvas) != wanted:
                raise ValueError(
                    f"train.own[{place}].canvas must have the size of data.canvas; it may fit "
                    "images to it in another way"
                )

    def training_on(self, uri: str) -> Self:
        """The same config with another split for training, which has the default options."""
        # type(...), since plugins may have extended the class
        return replace(self, train=type(self.train)(uri=uri))

    def augment_of(self, source: int) -> tuple[Augmentation, ...]:
        """The transforms of the split at a place in ``train.uris``."""
        own = self.train.own[source].augment if self.train.own is not None else None
        return self.augment if own is None else own

    def canvas_of(self, source: int) -> CanvasConfig:
        """How the samples of the split at a place in ``train.uris`` are fit to the canvas."""
        own = self.train.own[source].canvas if self.train.own is not None else None
        return self.canvas if own is None else own


def _check_input(transforms: tuple[Augmentation, ...], canvas: CanvasConfig) -> None:
    """Refuses transforms of another input than that of the canvas."""
    strange = [each for each in transforms if each.input != canvas.input]
    if strange:
        kinds = get_args(get_args(Augmentation)[0])
        fitting = [str(tag(kind)) for kind in kinds if kind.input == canvas.input]
        instead = f"use {', '.join(fitting)}" if fitting else "leave it empty"
        raise ValueError(
            f"augment: {strange[0].type} changes the input {strange[0].input.name}, but the "
            f"network takes {canvas.input.name} (data.canvas.type); {instead}"
        )
