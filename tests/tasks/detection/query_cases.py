"""A padded batch for the heads that predict sets, in the forms of this project and of Hugging
Face.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mtl_ray.models.head import Context, Features, Head, Term
from mtl_ray.models.imports import Importing, Program
from mtl_ray.samples import Vocabulary

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
