"""A bundle made by hand: two boxes that are always there, each pixel's strongest channel as its class, channel means as labels."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from pydantic import TypeAdapter

from mtl_ray.artifact import publish
from mtl_ray.inference.signature import Signature

GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
made (uint8[batch,3,height,width] image)
  => (float[batch,2,4] boxes, float[batch,2] scores, int64[batch,2] classes,
      uint8[batch,height,width] strongest, float[batch,3] labels)
<float[1,2,4] fixed = {8,8,24,40, 32,8,56,24}, float[1,2] sure = {0.9,0.2}, int64[1,2] kinds = {1,0},
 int64[2] plane = {2,3}, float white = {255}>
{
  pixels = Cast<to = 1>(image)
  means = ReduceMean<keepdims = 0>(pixels, plane)
  labels = Div(means, white)
  index = ArgMax<axis = 1, keepdims = 0>(pixels)
  strongest = Cast<to = 2>(index)
  one = ReduceMax<keepdims = 1>(means)
  none = Sub(means, means)
  axis = Constant<value_ints = [1]>()
  zero = ReduceMax<keepdims = 1>(none, axis)
  scores = Add(zero, sure)
  whole = Cast<to = 7>(zero)
  classes = Add(whole, kinds)
  cube = Unsqueeze(zero, axis)
  boxes = Add(cube, fixed)
}
"""
OUTPUTS = {
    "boxes": [("boxes", "boxes"), ("scores", "scores"), ("classes", "classes")],
    "semantic": [("strongest", "classes")],
    "labels": [("labels", "scores")],
}
HEADS = {
    "boxes": {"type": "yolov3", "anchors": [[[10, 13]]], "levels": ["P3"]},
    "semantic": {"type": "fcn"},
    "labels": {"type": "multilabel"},
}
VOCABULARY = {
    "classes": {"instances": ["cat", "dog"], "semantic": ["red", "green", "blue"], "labels": ["reddish", "greenish", "bluish"]},
    "colours": {"semantic": [[200, 40, 40], [40, 160, 60], [40, 80, 200]]},
}


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Makes a bundle with some of the heads; its canvas is 64 x 64, stretched."""

    def make(*heads: str) -> str:
        uri = tmp_path_factory.getbasetemp() / f"bundle-{'-'.join(heads)}"
        graph = onnx.parser.parse_model(GRAPH)
        wanted = {name for head in heads for name, _ in OUTPUTS[head]}
        kept = [output for output in graph.graph.output if output.name in wanted]
        del graph.graph.output[:]
        graph.graph.output.extend(kept)
        values = {
            "input": {"name": "image", "dtype": "uint8"},
            "outputs": [{"name": name, "head": head, "field": field} for head in heads for name, field in OUTPUTS[head]],
            "layout": "end2end",
            "canvas": {"kind": "stretch", "height": 64, "width": 64},
            "mean": [0, 0, 0],
            "std": [1, 1, 1],
            "heads": {head: HEADS[head] for head in heads},
            "vocabulary": VOCABULARY,
        }
        signature = TypeAdapter(Signature).validate_python(values)
        publish(str(uri), {"model.onnx": graph.SerializeToString(), "signature.json": signature.to_json()}, kind="bundle")
        return str(uri)

    return make


@pytest.fixture(scope="session")
def picture() -> bytes:
    """A PNG of 128 x 64 pixels, red on the left, blue on the right."""
    image = np.zeros((64, 128, 3), np.uint8)
    image[:, :64] = (250, 20, 20)
    image[:, 64:] = (20, 20, 200)
    return encoded(image)


def encoded(image: np.ndarray, kind: str = ".png") -> bytes:
    done, data = cv2.imencode(kind, image[..., ::-1])
    assert done
    return data.tobytes()


@pytest.fixture
def picture_file(picture: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    path.write_bytes(picture)
    return path
