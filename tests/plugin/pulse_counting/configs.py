"""What a config may say: a backbone, a head and a method. No torch here."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT
from mtl_ray.methods.method import MethodSetup
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.task import HeadOptions
from pulse_counting.counting import COUNTING, CountTask

if TYPE_CHECKING:
    from pulse_counting.network import Conv, CountModule, Noise


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ConvBackbone:
    type: Literal["conv1d"] = "conv1d"
    width: int = 8

    def build(self) -> "Conv":
        from pulse_counting.network import Conv

        return Conv(self.width)

    def without_pretrained(self) -> "ConvBackbone":
        return self

    def paths(self) -> Mapping[str, str]:
        return {}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CountHead(HeadOptions):
    """Counts the pulses."""

    type: Literal["count"] = "count"
    task: ClassVar[CountTask] = COUNTING
    annotation: ClassVar[str] = "pulses"
    levels: tuple[str, ...] = ("S2",)

    def build(
        self, vocabulary: Vocabulary, channels: Mapping[str, int], strides: Mapping[str, int]
    ) -> "CountModule":
        from pulse_counting.network import CountModule

        return CountModule(self, channels[self.levels[0]])


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NoiseMethod:
    """Learns from the signals and from noisy copies of them; the noise fades."""

    type: Literal["noise"] = "noise"
    needs_heads: ClassVar[bool] = True
    level: float = Field(default=0.1, ge=0)
    """Standard deviation of the noise in the first step."""
    fade: float = Field(default=0.98, gt=0, le=1)
    """What it is multiplied by after each step."""

    def build(self, setup: MethodSetup) -> "Noise":
        from pulse_counting.network import Noise

        return Noise(self, setup.model)
