"""int8 graphs: weights that are the same but for their scales are stored once."""

import logging

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mtl_ray.backends.onnx_int8 import share_weights
from mtl_ray.terminal import errors_only

WEIGHT = np.random.default_rng(0).integers(-127, 128, (8, 16, 3, 3)).astype(np.int8)


def graph_of(*weights: NDArray[np.int8]) -> onnx.GraphProto:
    """Each weight read by its own DequantizeLinear with its own scale."""
    stored = [numpy_helper.from_array(each, f"weight{index}") for index, each in enumerate(weights)]
    scales = [
        numpy_helper.from_array(np.float32(index + 1), f"scale{index}")
        for index in range(len(weights))
    ]
    nodes = [
        helper.make_node("DequantizeLinear", [f"weight{index}", f"scale{index}"], [f"out{index}"])
        for index in range(len(weights))
    ]
    outputs = [
        helper.make_tensor_value_info(f"out{index}", TensorProto.FLOAT, each.shape)
        for index, each in enumerate(weights)
    ]
    return helper.make_graph(nodes, "weights", [], outputs, [*stored, *scales])


def changed(count: int, steps: int) -> NDArray[np.int8]:
    """The weight with some values moved towards 0."""
    moved = WEIGHT.reshape(-1).astype(int)
    places = np.flatnonzero(np.abs(moved) > steps)[:count]
    moved[places] -= steps * np.sign(moved[places])
    return moved.astype(np.int8).reshape(WEIGHT.shape)


def test_equal_weights_are_stored_once_with_their_own_scales() -> None:
    import onnxruntime

    graph = graph_of(WEIGHT, WEIGHT.copy(), changed(1, 1))
    share_weights(graph)
    assert [each.name for each in graph.initializer] == ["weight0", "scale0", "scale1", "scale2"]
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    outputs = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {})
    for index, output in enumerate(outputs):
        np.testing.assert_array_equal(output, WEIGHT.astype(np.float32) * (index + 1))


@pytest.mark.parametrize(
    "other",
    [changed(20, 1), changed(1, 2), -WEIGHT, WEIGHT[::-1], WEIGHT.reshape(16, 8, 3, 3)],
    ids=["many values", "two steps", "signs", "order", "shape"],
)
def test_others_are_kept(other: NDArray[np.int8]) -> None:
    graph = graph_of(WEIGHT, np.ascontiguousarray(other))
    share_weights(graph)
    assert len(graph.initializer) == 4


def test_small_weights_are_kept() -> None:
    graph = graph_of(WEIGHT[:1, :1], WEIGHT[:1, :1])
    share_weights(graph)
    assert len(graph.initializer) == 4


def test_a_logger_gets_its_level_back() -> None:
    logger = logging.getLogger("mtl_ray.tests")
    logger.setLevel(logging.INFO)
    with errors_only(logger):
        assert not logger.isEnabledFor(logging.WARNING)
    assert logger.level == logging.INFO
    with errors_only(logger):
        logger.addFilter(lambda _: False)
        logger.setLevel(logging.CRITICAL)
    assert (logger.level, logger.filters) == (logging.INFO, [])
    with pytest.raises(ValueError, match="inside"), errors_only(logger):
        raise ValueError("inside")
    assert logger.level == logging.INFO
