"""Nodes of an ONNX graph, added one after the other."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

INT32, INT64 = TensorProto.INT32, TensorProto.INT64
FLOAT, DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE


@dataclass
class Nodes:
    """Nodes of a graph as they are added; a call adds one and returns the name of its output."""

    prefix: str
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def __call__(self, kind: str, *inputs: Any, name: str | None = None, **attributes: Any) -> str:
        """Inputs are names, or numpy values that become constants."""
        names = [each if isinstance(each, str) else self.constant(each) for each in inputs]
        output = name or f"{self.prefix}/{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [output], **attributes))
        return output

    def constant(self, value: Any) -> str:
        """A constant with the type of a numpy value."""
        name = f"{self.prefix}/constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def cast(self, value: str, kind: int) -> str:
        """``value`` in another type."""
        return self("Cast", value, to=kind)

    def vector(self, *values: Any) -> str:
        """Scalars as one int64 vector."""
        rows = [
            self("Reshape", each, np.array([1])) if isinstance(each, str) else np.array([each])
            for each in values
        ]
        return self("Concat", *rows, axis=0)


@dataclass(frozen=True, kw_only=True)
class AxisScalars:
    """Names of the scalars of one axis, as in ``Frame``: int64, the last two double. ``side`` is
    that of the canvas.
    """

    side: str
    length: str
    shown: str
    first: str
    valid: str
    scale: str
    offset: str
