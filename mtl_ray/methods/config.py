"""The section ``method`` of a config: what is optimised. The one file that lists the methods."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic.dataclasses import dataclass

from mtl_ray.config.extend import Slot
from mtl_ray.config.strict import STRICT
from mtl_ray.methods.method import AnyMethod, Method, MethodSetup


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SupervisedConfig:
    """Every head learns from the annotations of the training split."""

    type: Literal["supervised"] = "supervised"
    needs_heads: ClassVar[bool] = True

    def build(self, setup: MethodSetup) -> Method:
        """See ``AnyMethod``."""
        from mtl_ray.methods.supervised import Supervised

        return Supervised(setup.model)


if TYPE_CHECKING:
    MethodConfig = AnyMethod
else:
    MethodConfig = Annotated[SupervisedConfig, Slot("methods", ("needs_heads", "build"))]
    """The type of the section ``method``: the union of all methods, told apart by ``type``."""
