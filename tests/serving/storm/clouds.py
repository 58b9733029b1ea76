"""A bundle for point clouds made by hand: three boxes that are always there."""

import json
from pathlib import Path

import onnx

from mtl_ray.artifact import publish
from mtl_ray.inference.signature import read_signature

GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
made (float[batch,voxels,points,4] voxels) => (float[batch,3,7] boxes, float[batch,3,2] scores)
<
  float[1,3,7] fixed = {
    10,0,-1,4,2,1.5,0, 20,5,-1,4,2,1.5,1, 15,-8,-1,0.8,0.6,1.7,0
  },
  float[1,3,2] sure = {0.1,0.9, 0.2,0.8, 0.7,0.1},
  int64[2] of_boxes = {3,7},
  int64[2] of_scores = {3,2}
>
{
  many = Shape<start = 0, end = 1>(voxels)
  first = Concat<axis = 0>(many, of_boxes)
  second = Concat<axis = 0>(many, of_scores)
  boxes = Expand(fixed, first)
  scores = Expand(sure, second)
}
"""
HEAD = {
    "type": "anchor_3d",
    "anchors": [
        {"classes": ["Pedestrian"], "size": [0.8, 0.6, 1.73], "bottom": -1.7},
        {"classes": ["Car"], "size": [3.9, 1.6, 1.56], "bottom": -1.7},
    ],
}
CANVAS = {
    "type": "points",
    "max_voxels": 2000,
    "max_points": 8,
    "voxel": [0.5, 0.5, 4.0],
    "minimum": [0, -20, -3],
    "maximum": [40, 20, 1],
}


def cloud_bundle(uri: Path) -> str:
    """Writes the bundle."""
    content = {
        "version": 3,
        "inputs": [{"name": "voxels", "field": "voxels", "dtype": "float32"}],
        "outputs": [
            {"name": name, "head": "objects", "field": name} for name in ("boxes", "scores")
        ],
        "layout": "end2end",
        "canvas": CANVAS,
        "mean": [0],
        "std": [1],
        "heads": {"objects": HEAD},
        "vocabulary": {"classes": {"boxes_3d": ["Pedestrian", "Car"]}},
    }
    signature = read_signature(json.dumps(content).encode())
    graph = onnx.parser.parse_model(GRAPH)
    publish(
        str(uri),
        {"model.onnx": graph.SerializeToString(), "signature.json": signature.to_json()},
        kind="bundle",
    )
    return str(uri)
