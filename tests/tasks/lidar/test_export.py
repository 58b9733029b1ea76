"""Heads of clouds as exported graphs: any number of voxels and clouds, and the same boxes."""

import numpy as np
import onnxruntime
import pytest
import torch

from mtl_ray.export.config import ExportConfig
from mtl_ray.export.graph import ExportGraph, output_names, to_onnx
from tests.tasks.head_cases import CLOUD_CANVAS, CLOUD_HEADS, clouds, model_of, scattered


@pytest.mark.parametrize("name", CLOUD_HEADS)
def test_the_exported_graph_agrees_with_torch(name: str) -> None:
    model = scattered(model_of(name))
    graph = ExportGraph(model, CLOUD_CANVAS, ExportConfig())
    outputs = [array for _, array in output_names(graph)]
    traced = to_onnx(graph, {each: each for each in graph.names}, outputs, ExportConfig())
    assert set(traced.inputs) == {"voxels", "num_points", "coordinates"}
    constants = sum(np.prod(each.dims) for each in traced.model.graph.initializer)
    assert constants < 100_000, "no canvas is stored"
    session = onnxruntime.InferenceSession(traced.model.SerializeToString())
    for seeds in ([1, 2], [3], [4, 5, 6]):
        arrays = clouds(seeds)
        with torch.no_grad():
            wanted = model.predict(arrays)[name]
        found = dict(
            zip(outputs, session.run(None, {k: v.numpy() for k, v in arrays.items()}), strict=True)
        )
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            assert found[key].dtype == value.numpy().dtype
            np.testing.assert_allclose(found[key], value.numpy(), rtol=1e-4, atol=1e-4)
        assert wanted["scores"].std() > 0.01
