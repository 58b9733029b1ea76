"""The engines that a bundle may have: the type of ``export.engine``, and their short names on
command lines.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, get_args, get_type_hints

from mtl_ray.backends.backend import AnyEngine
from mtl_ray.backends.executorch import ExecuTorchEngine
from mtl_ray.backends.ncnn import NcnnEngine
from mtl_ray.backends.onnxruntime import OnnxRuntimeEngine
from mtl_ray.backends.openvino import OpenVinoEngine
from mtl_ray.backends.tensorrt import TensorRtEngine
from mtl_ray.backends.torchscript import TorchScriptEngine
from mtl_ray.config.extend import Slot, union_of

ENGINES = (
    OnnxRuntimeEngine,
    OpenVinoEngine,
    NcnnEngine,
    TorchScriptEngine,
    TensorRtEngine,
    ExecuTorchEngine,
)
if TYPE_CHECKING:
    EngineConfig = AnyEngine
else:
    EngineConfig = Annotated[
        union_of(*ENGINES, default="onnxruntime"),
        Slot("engines", ("precision", "unavailable", "limits", "build", "open")),
    ]
    """The type of ``export.engine``; engines of plugins are added to it."""

WITHOUT_PACKAGE = {
    "pplnn": "there is no package of PPLNN that could be installed",
    "litert": "its converter does not support the versions of torch that this project needs",
}
"""Engines that people ask for, and why there are none here."""


def engine_name(engine: AnyEngine) -> str:
    """The short name: ``openvino``, or ``openvino:int8`` of another precision than fp32."""
    return engine.type if engine.precision == "fp32" else f"{engine.type}:{engine.precision}"


def short_name(name: str) -> str:
    """The name that ``engine_name`` gives to an engine of a command line: ``openvino`` for
    ``openvino:fp32``.
    """
    kind, _, precision = name.partition(":")
    return kind if precision in ("", "fp32") else name


def engine_overrides(names: Sequence[str]) -> list[str]:
    """The overrides of a config for engines that a command line names; none for none.

    The first engine is the default of the bundle. It must be exact: if it is not, ONNX Runtime is
    put before it. An engine that is named twice is there once.

    Raises:
        ValueError: if there can be no such engine.
    """
    if not names:
        return []
    wanted = [short_name(name) for name in names]
    if ":" in wanted[0]:
        wanted = ["onnxruntime", *wanted]
    first, *further = (_options(name) for name in dict.fromkeys(wanted))
    return [f"export.engine={json.dumps(first)}", f"export.engines={json.dumps(further)}"]


def _options(name: str) -> dict[str, str]:
    """The config of an engine by its short name."""
    kind, _, precision = name.partition(":")
    if kind in WITHOUT_PACKAGE:
        raise ValueError(f"the engine {kind} is not available: {WITHOUT_PACKAGE[kind]}")
    for types in map(get_type_hints, ENGINES):
        known = get_args(types["precision"])
        if kind in get_args(types["type"]) and precision and precision not in known:
            raise ValueError(f"the engine {kind} has {' and '.join(known)}, not {precision}")
    return {"type": kind, **({"precision": precision} if precision else {})}
