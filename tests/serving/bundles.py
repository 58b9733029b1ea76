"""A bundle made by hand: two boxes that are always there, each pixel's strongest channel as its
class, channel means as labels.
"""

import json
from pathlib import Path

import cv2
import numpy as np
import onnx

from mtl_ray.artifact import publish
from mtl_ray.inference.signature import read_signature

CONSTANTS = {
    "fixed": ("float[1,2,4]", "8,8,24,40, 32,8,56,24"),
    "sure": ("float[1,2]", "0.9, 0.2"),
    "kinds": ("int64[1,2]", "1, 0"),
    "plane": ("int64[2]", "2, 3"),
    "white": ("float", "255"),
}
GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
made (uint8[batch,3,height,width] image)
  => (float[batch,2,4] boxes, float[batch,2] scores, int64[batch,2] classes,
      uint8[batch,height,width] strongest, float[batch,3] labels)
<CONSTANTS>
{
  pixels = Cast<to = 1>(image)
  means = ReduceMean<keepdims = 0>(pixels, plane)
  labels = Div(means, white)
  index = ArgMax<axis = 1, keepdims = 0>(pixels)
  strongest = Cast<to = 2>(index)
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
    "classes": {
        "instances": ["cat", "dog"],
        "semantic": ["red", "green", "blue"],
        "labels": ["reddish", "greenish", "bluish"],
    },
    "colours": {"semantic": [[200, 40, 40], [40, 160, 60], [40, 80, 200]]},
}


def make_bundle(uri: Path, *heads: str, **constants: str) -> str:
    """Writes a bundle with some of the heads; its canvas is 64 x 64, stretched. ``constants``
    make it say something else.
    """
    values = [
        f"{kind} {name} = {{{constants.get(name, value)}}}"
        for name, (kind, value) in CONSTANTS.items()
    ]
    graph = onnx.parser.parse_model(GRAPH.replace("CONSTANTS", ", ".join(values)))
    wanted = {name for head in heads for name, _ in OUTPUTS[head]}
    kept = [output for output in graph.graph.output if output.name in wanted]
    del graph.graph.output[:]
    graph.graph.output.extend(kept)
    content = {
        "input": {"name": "image", "dtype": "uint8"},
        "outputs": [
            {"name": name, "head": head, "field": field}
            for head in heads
            for name, field in OUTPUTS[head]
        ],
        "layout": "end2end",
        "canvas": {"kind": "stretch", "height": 64, "width": 64},
        "mean": [0, 0, 0],
        "std": [1, 1, 1],
        "heads": {head: HEADS[head] for head in heads},
        "vocabulary": VOCABULARY,
    }
    signature = read_signature(json.dumps(content).encode())
    publish(
        str(uri),
        {"model.onnx": graph.SerializeToString(), "signature.json": signature.to_json()},
        kind="bundle",
    )
    return str(uri)


def two_halves() -> bytes:
    """A PNG of 128 x 64 pixels, red on the left, blue on the right."""
    image = np.zeros((64, 128, 3), np.uint8)
    image[:, :64] = (250, 20, 20)
    image[:, 64:] = (20, 20, 200)
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()
