"""A padded batch for the heads that predict sets, in the forms of this project and of Hugging
Face.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torchvision.ops import box_iou

from mtl_ray.experiment import ModelConfig, build_model
from mtl_ray.export.config import ExportConfig
from mtl_ray.export.graph import ExportGraph, output_names, to_onnx
from mtl_ray.inputs.image import Canvas
from mtl_ray.models.head import Context, Features, Head, Term
from mtl_ray.models.imports import Importing, Program
from mtl_ray.samples import Vocabulary
from tests.tasks import head_cases

CANVAS_HW = (96, 128)
VALID_HW = ((96, 128), (70, 90))
CLASSES = ("a", "b", "c")
VOCABULARY = Vocabulary(classes={"instances": CLASSES})


def context() -> Context:
    """Two images on one canvas, the second with padding below and to the right."""
    image = torch.randn(2, 3, *CANVAS_HW, generator=torch.Generator().manual_seed(5))
    return Context(inputs={"image": image, "valid_hw": torch.tensor(VALID_HW, dtype=torch.int32)})


def targets() -> dict[str, Tensor]:
    """Three objects and one."""
    boxes = torch.zeros(2, 3, 4)
    boxes[0] = torch.tensor([[10.0, 20, 60, 90], [50, 5, 120, 70], [5, 5, 25, 30]])
    boxes[1, 0] = torch.tensor([20.0, 10, 80, 65])
    return {
        "boxes": boxes,
        "classes": torch.tensor([[0, 2, 1], [1, 0, 0]]),
        "present": torch.tensor([[True, True, True], [True, False, False]]),
        "crowd": torch.zeros(2, 3, dtype=torch.bool),
        "annotated": torch.ones(2, dtype=torch.bool),
        "known_classes": torch.ones(2, len(CLASSES), dtype=torch.bool),
    }


def huggingface_inputs() -> dict[str, Any]:
    """The same batch as transformers takes it; boxes are relative to the image without padding."""
    mask = torch.zeros(2, *CANVAS_HW, dtype=torch.long)
    wanted, labels = targets(), []
    for row, (height, width) in enumerate(VALID_HW):
        mask[row, :height, :width] = 1
        there = wanted["present"][row]
        left, top, right, bottom = wanted["boxes"][row][there].unbind(dim=1)
        boxes = torch.stack(
            [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], dim=1
        ) / torch.tensor([width, height, width, height])
        labels.append({"class_labels": wanted["classes"][row][there], "boxes": boxes})
    return {
        "pixel_values": context().inputs["image"],
        "pixel_mask": mask,
        "labels": labels,
    }


def tiny_resnet() -> Any:
    """Config of a backbone of transformers that gives stages of 8, 16 and 24 channels."""
    from transformers import ResNetConfig

    return ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 24],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )


def scatter(module: nn.Module, seed: int = 0) -> None:
    """Moves all parameters off their start, where some layers are zero or equal."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=draw)


def fill(head: Head, program: Program, tensors: Mapping[str, Tensor]) -> set[str]:
    """Fills the head from tensors of another program, all of its parameters.

    Returns:
        The names that were used.
    """
    assert isinstance(head, nn.Module)
    assert isinstance(head, Importing)
    found = head.imported(program, tensors)
    head.load_state_dict({name: each.value for name, each in found.items()}, strict=True)
    return {source for each in found.values() for source in each.sources}


def means(terms: Mapping[str, Term]) -> dict[str, float]:
    """The terms as the trainer divides them."""
    return {name: float(total / count.clamp(min=1)) for name, (total, count) in terms.items()}


def with_other_padding(features: Features) -> Features:
    """The features with other values where the second canvas shows padding."""
    changed = {}
    for name, level in features.items():
        cells_y, cells_x = level.shape[2:]
        rows = torch.arange(cells_y) * CANVAS_HW[0] // cells_y >= VALID_HW[1][0]
        columns = torch.arange(cells_x) * CANVAS_HW[1] // cells_x >= VALID_HW[1][1]
        padding = rows[:, None] | columns
        changed[name] = torch.stack([level[0], level[1].masked_fill(padding, 7.0)])
    return changed


def overfitted(head: dict[str, Any], steps: int) -> list[tuple[float, float]]:
    """Trains a head and a small trunk on four images, each with one bright square.

    Returns:
        Of each image the IoU of the best detection with the object, 0 if it has another class, and
        how much its score is above the next one's.
    """
    torch.manual_seed(0)
    config = {
        "backbone": {
            "name": "resnet18",
            "levels": ["C3", "C4"],
            "options": {
                "layers": [1, 1, 1],
                "channels": [16, 32, 32],
                "stem_type": "deep",
                "stem_width": 8,
            },
        },
        "necks": {"pyramid": {"type": "fpn", "inputs": ["C3", "C4"], "channels": 64}},
        "heads": {"boxes": head},
    }
    model = build_model(TypeAdapter(ModelConfig).validate_python(config), head_cases.VOCABULARY)
    batch = head_cases.batch_of(4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    for _ in range(steps):
        optimizer.zero_grad()
        head_cases.total(model.losses(batch)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        found = model.eval().predict(batch.inputs)["boxes"]
    wanted = batch.targets["instances"]
    overlaps = box_iou(found["boxes"][:, 0], wanted["boxes"][:, 0]).diagonal()
    right = found["classes"][:, 0] == wanted["classes"][:, 0]
    margins = found["scores"][:, 0] - found["scores"][:, 1]
    return list(zip((overlaps * right).tolist(), margins.tolist(), strict=True))


def check_export_with_padding(name: str) -> None:
    """The exported graph of a head of ``head_cases`` agrees with torch on padded canvases of other
    sizes than it was traced with.
    """
    model = head_cases.scattered(head_cases.model_of(name))
    graph = ExportGraph(
        model, Canvas(kind="letterbox", height=64, width=96), ExportConfig(size="dynamic")
    )
    names = [array for _, array in output_names(graph)]
    traced = to_onnx(graph, {"image": "image", "valid_hw": "valid_hw"}, names, ExportConfig())
    assert traced.inputs == ("image", "valid_hw")
    session = onnxruntime.InferenceSession(traced.model.SerializeToString())
    for valid, canvas in (
        ([[64, 96], [40, 60]], (64, 96)),
        ([[90, 70], [3, 128], [96, 1]], (96, 128)),
    ):
        inputs = {
            "image": head_cases.images(len(valid), canvas, seed=5),
            "valid_hw": torch.tensor(valid, dtype=torch.int32),
        }
        with torch.no_grad():
            eager = model.predict(inputs)[name]
        outputs = session.run(None, {key: value.numpy() for key, value in inputs.items()})
        for array, output in zip(names, outputs, strict=True):
            np.testing.assert_allclose(
                output, eager[array].numpy(), rtol=1e-4, atol=1e-3 if array == "boxes" else 1e-5
            )
