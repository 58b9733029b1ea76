"""The exported graph of every head agrees with torch; batch, height, width and padding are open."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from mtl_ray.models.model import Model
from tests.tasks.head_cases import HEADS, images, model_of, scattered

SIZES = ((2, (64, 96), (64, 96)), (1, (64, 96), (40, 96)), (3, (96, 128), (96, 70)))
"""Images, canvas and its valid part, (height, width) each."""


class Exporting(nn.Module):
    """A model as it is exported."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, valid_hw: Tensor) -> dict[str, Tensor]:
        (arrays,) = self.model.predict(
            {"image": image, "valid_hw": valid_hw}, exporting=True
        ).values()
        return arrays


def exported(model: Model, names: list[str]) -> onnxruntime.InferenceSession:
    """The graph of a model with one head."""
    batch = torch.export.Dim("batch")
    rows, columns = (32 * torch.export.Dim(name, min=1) for name in ("rows", "columns"))
    program = torch.onnx.export(
        Exporting(model).eval(),
        inputs(2, (64, 96), (64, 96)),
        dynamo=True,
        dynamic_shapes=({0: batch, 2: rows, 3: columns}, {0: batch}),
        input_names=["image", "valid_hw"],
        output_names=names,
        verbose=False,
    )
    assert program is not None
    # As export.graph.to_onnx does: onnxruntime shares a buffer of two arrays by its declared shape.
    graph = program.model_proto
    del graph.graph.value_info[:]
    return onnxruntime.InferenceSession(graph.SerializeToString())


def inputs(count: int, hw: tuple[int, int], valid_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Images and the valid part of their canvases."""
    return images(count, hw, seed=5), torch.tensor([valid_hw] * count, dtype=torch.int32)


@pytest.mark.parametrize("name", [name for name in HEADS if name != "auxiliary"])
def test_the_exported_graph_agrees_with_torch(name: str) -> None:
    model = scattered(model_of(name))
    session = None
    for count, hw, valid_hw in SIZES:
        image, valid = inputs(count, hw, valid_hw)
        with torch.no_grad():
            eager = model.predict({"image": image, "valid_hw": valid})[name]
        session = session or exported(model, list(eager))
        feeds: dict[str, Any] = {"image": image.numpy(), "valid_hw": valid.numpy()}
        taken = {each.name: feeds[each.name] for each in session.get_inputs()}
        outputs = dict(zip(eager, session.run(None, taken), strict=True))
        for key, value in eager.items():
            assert outputs[key].dtype == value.numpy().dtype
            np.testing.assert_allclose(
                outputs[key], value.numpy(), rtol=1e-5, atol=1e-3 if key == "boxes" else 1e-5
            )
        if "boxes" in eager:
            assert (eager["scores"] > 0).sum() > 10 * count
