"""int8 graphs: what stays fp32 in them, and weights that are the same but for their scales."""

import logging
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from pydantic import TypeAdapter

from mtl_ray.backends.backend import AnyEngine, Calibration, Exported
from mtl_ray.backends.config import EngineConfig
from mtl_ray.backends.onnx_int8 import COMPUTING, _before, quantised, share_weights
from mtl_ray.backends.openvino import _after_computing
from mtl_ray.terminal import errors_only
from tests.export.test_engine_faults import Files

NNCF = find_spec("nncf") is not None
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


def parsed(nodes: str) -> onnx.ModelProto:
    """A graph whose first convolution is ``w``, with its constants as initializers."""
    text = (
        '<ir_version: 10, opset_import: ["" : 20]> g (float[batch,3,8,8] image) => '
        f"(float out) {{ {nodes} }}"
    )
    model = onnx.parser.parse_model(text)
    for node in [each for each in model.graph.node if each.op_type == "Constant"]:
        value = node.attribute[0].t
        value.name = node.output[0]
        model.graph.initializer.append(value)
        model.graph.node.remove(node)
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"
    return model


POINTS = """
    turn = Constant<value = float[3,3] {1,0,0,-1,0,0,0,0,0}>()
    w = Constant<value = float[2,3,1,1] {1,0,0,1,0,0}>()
    last = Constant<value = float[1,2,1,1] {1,1}>()
    rows = Transpose<perm = [0,2,3,1]>(image)
    encoded = MatMul(rows, turn)
    map = Transpose<perm = [0,3,1,2]>(encoded)
    a = Conv(map, w)
    b = Relu(a)
    out = Conv(b, last)
"""
"""The product is the difference of two coordinates, which is small."""


@pytest.mark.parametrize("kind", ["onnxruntime", "openvino"])
def test_coordinates_of_points_are_not_rounded(kind: str, tmp_path: Path) -> None:
    engine: AnyEngine = TypeAdapter(EngineConfig).validate_python(
        {"type": kind, "precision": "int8"}
    )
    if (reason := engine.unavailable()) is not None or (kind == "openvino" and not NNCF):
        pytest.skip(reason or "nncf is not installed")
    rng = np.random.default_rng(3)
    clouds = rng.uniform(0, 70, (8, 3, 8, 8)).astype(np.float32)
    clouds[:, 0] = clouds[:, 1] + rng.uniform(0, 0.2, (8, 8, 8))
    exported = Exported(
        onnx=parsed(POINTS).SerializeToString(),
        program=None,
        example={"image": clouds[:2]},
        inputs=("image",),
        outputs=("out",),
        calibration=Calibration(batches=[{"image": each[None]} for each in clouds]),
    )
    built = engine.build(exported, tmp_path)
    files = {n: each if isinstance(each, bytes) else each.read_bytes() for n, each in built.items()}
    session = engine.open(Files(files), tuple(files), 1)
    found = session.run({"image": clouds})["out"][:, 0]
    expected = 2 * (clouds[:, 0] - clouds[:, 1])
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99


PLACES = """
    w = Constant<value = float[3,3,1,1] {1,0,0,0,1,0,0,0,1}>()
    axes = Constant<value = int64[2] {2,3}>()
    grow = Constant<value = float {4}>()
    fourth = Constant<value = float[1,1] {8}>()
    index = Constant<value = int64[1] {0}>()
    first = Constant<value = int64[1] {1}>()
    zero = Constant<value = int64[1] {0}>()
    features = Conv(image, w)
    guess = Conv(image, w)
    corner = ReduceMean<keepdims = 0>(guess, axes)
    one = Slice(corner, zero, first, zero)
    scaled = Mul(one, grow)
    rois = Concat<axis = 1>(scaled, fourth)
    crops = RoiAlign<output_height = 2, output_width = 2>(features, rois, index)
    out = Conv(crops, w)
"""


def test_boxes_at_which_features_are_read_are_no_feature_map(tmp_path: Path) -> None:
    model = parsed(PLACES)
    before = _before(model.graph, COMPUTING)
    kinds = {node.op_type for node in model.graph.node if node.name in before}
    assert kinds == {"Conv", "RoiAlign"}
    openvino = pytest.importorskip("openvino")
    (tmp_path / "places.onnx").write_bytes(model.SerializeToString())
    read = openvino.convert_model(tmp_path / "places.onnx")
    after = _after_computing(read)
    scaled = [each for each in read.get_ordered_ops() if each.get_type_name() == "Multiply"]
    assert scaled
    assert all(each.get_friendly_name() in after for each in scaled)
