"""int8 graphs: what stays fp32 in them, and weights that are the same but for their scales."""

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mtl_ray.backends.backend import Calibration
from mtl_ray.backends.onnx_int8 import quantised, share_weights
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


def two_convolutions(*after: onnx.NodeProto, output: str) -> bytes:
    """Convolution, ReLU, convolution; of the last, one channel is a thousand times the other."""
    rng = np.random.default_rng(1)
    last = rng.normal(size=(2, 8, 1, 1)).astype(np.float32)
    last[1] *= 1000
    weights = {"first": rng.normal(size=(8, 3, 3, 3)).astype(np.float32), "last": last}
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["a"], "first conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "last"], ["logits"], "last conv"),
        *after,
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 16, 16])
    given = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    stored = [numpy_helper.from_array(each, name) for name, each in weights.items()]
    graph = helper.make_graph(nodes, "convolutions", [image], [given], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("result", ["the convolution", "after it"])
def test_what_the_last_convolution_gives_is_not_rounded(result: str, tmp_path: Path) -> None:
    import onnxruntime

    data = (
        two_convolutions(output="logits")
        if result == "the convolution"
        else two_convolutions(helper.make_node("Neg", ["logits"], ["negated"]), output="negated")
    )
    images = np.random.default_rng(2).normal(size=(8, 3, 16, 16)).astype(np.float32)
    batches = [{"image": each[None]} for each in images]
    small = quantised(data, Calibration(batches=batches), tmp_path)
    first, second = (
        onnxruntime.InferenceSession(each).run(None, {"image": images})[0][:, 0]
        for each in (data, small)
    )
    # with 256 steps over both channels every value of the first would be 0
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.99
    kinds = [node.op_type for node in onnx.load_from_string(small).graph.node]
    assert kinds.count("QuantizeLinear") == 2  # the image, and the map between the two


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
