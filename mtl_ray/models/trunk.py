"""A trunk: a backbone and the necks on it. It computes features by name, which heads read."""

from collections.abc import Iterable, Mapping

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mtl_ray.models.config import BackboneConfig, NeckConfig
from mtl_ray.models.head import Context, Features


class Backbone(nn.Module):
    """The part of a trunk that reads the input. A subclass sets the attributes and defines
    ``forward``.

    Attributes:
        input: the array of the input that it reads (``Input.arrays``).
        channels: channels of each of its features by name: (B, channels, ...).
        strides: canvas pixels per cell of each feature, sizes rounded up; 0 for a pooled one.
    """

    input: str = "image"
    channels: Mapping[str, int]
    strides: Mapping[str, int]

    def forward(self, values: Tensor) -> dict[str, Tensor]:
        """The input float (B, ...), normalised if it was uint8 -> features by name."""
        raise NotImplementedError

    def read(self, values: Tensor, context: Context) -> dict[str, Tensor]:
        """The features of a batch. A backbone that reads further arrays, or the voxel grid, takes
        them from the context.
        """
        features: dict[str, Tensor] = self(values)
        return features


def check_names(what: str, names: Iterable[str]) -> None:
    """Raises a ValueError if ``nn.ModuleDict`` uses one of some names itself, such as ``type``."""
    taken = [name for name in names if name in dir(nn.ModuleDict())]
    if taken:
        raise ValueError(f"a {what} cannot be called {taken[0]!r}: torch uses this name; rename it")


def freeze_modes(root: nn.Module, frozen: Iterable[nn.Module], *, norms: bool) -> None:
    """Puts parts of a module that is in training mode back into evaluation mode.

    Args:
        root: the module.
        frozen: its parts that are not trained.
        norms: also all batch normalisation, whose scale and shift may still learn.
    """
    for part in frozen:
        part.eval()
    if norms:
        for module in root.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


class Neck(nn.Module):
    """Adds features. A subclass sets ``channels`` and ``strides`` of the added features."""

    channels: Mapping[str, int]
    strides: Mapping[str, int]

    def forward(self, features: Features) -> dict[str, Tensor]:
        """All features so far -> the added features."""
        raise NotImplementedError


class Trunk(nn.Module):
    """A backbone and the necks on it.

    Attributes:
        input: the array of the input that it reads.
        channels: channels of each feature by name.
        strides: canvas pixels per cell of each feature; 0 for a pooled one.
    """

    def __init__(self, backbone: Backbone, necks: Mapping[str, NeckConfig]) -> None:
        super().__init__()
        self.backbone = backbone
        self.input = backbone.input
        self.channels = dict(backbone.channels)
        self.strides = dict(backbone.strides)
        check_names("neck", necks)
        self.necks = nn.ModuleDict()
        sources = dict.fromkeys(self.channels, "the backbone")
        for name, config in necks.items():
            neck = self._neck(name, config)
            _add_features(sources, name, neck.channels)
            self.necks[name] = neck
            self.channels |= neck.channels
            self.strides |= neck.strides

    def _neck(self, name: str, config: NeckConfig) -> Neck:
        missing = [level for level in config.reads if level not in self.channels]
        if missing:
            known = ", ".join(self.channels)
            raise ValueError(
                f"neck {name!r} reads {', '.join(missing)}, but only {known} exist "
                "(model.backbone.levels)"
            )
        try:
            return config.build(self.channels, self.strides)
        except ValueError as error:
            raise ValueError(f"neck {name!r} {error}") from error

    def forward(self, values: Tensor, context: Context | None = None) -> Features:
        """The features by name.

        Args:
            values: the array ``input``, float (B, ...), normalised if it was uint8.
            context: of the batch; not needed where the backbone reads ``values`` alone.
        """
        features: dict[str, Tensor] = (
            self.backbone(values) if context is None else self.backbone.read(values, context)
        )
        for neck in self.necks.values():
            features = features | neck(features)
        return features


def _add_features(sources: dict[str, str], neck: str, names: Iterable[str]) -> None:
    """Records the features of a neck.

    Raises:
        ValueError: if the backbone or an earlier neck has a feature of the same name.
    """
    for name in names:
        if name in sources:
            raise ValueError(
                f"{sources[name]} and neck {neck!r} both define the feature {name}. Fix: a prefix "
                f"(model.necks.{neck}.prefix=NAME_)"
            )
        sources[name] = f"neck {neck!r}"


def build_trunk(backbone: BackboneConfig, necks: Mapping[str, NeckConfig]) -> Trunk:
    """The trunk of a config, with random or the configured weights.

    Raises:
        ValueError: if the backbone is unknown, a neck reads a feature that does not exist, or two
            features have the same name.
    """
    return Trunk(backbone.build(), necks)
