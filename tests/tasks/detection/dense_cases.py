"""Dense heads of the published five levels, and targets for them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtl_ray.models.head import Context
from mtl_ray.models.imports import Importing, Program
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.task import AnyHead

LEVELS = ("P3", "P4", "P5", "P6", "P7")
STRIDES = (8, 16, 32, 64, 128)


def build(config: AnyHead, width: int, classes: int) -> Any:
    """The head of a config on features of ``width`` channels."""
    names = tuple(f"c{i}" for i in range(classes))
    return config.build(
        Vocabulary(classes={"instances": names}),
        dict.fromkeys(LEVELS, width),
        dict(zip(LEVELS, STRIDES, strict=True)),
    )


def fill(head: Any, program: Program, tensors: dict[str, Tensor]) -> None:
    """Loads the tensors of another program, all of which the head must know."""
    assert isinstance(head, Importing)
    found = head.imported(program, tensors)
    assert {name for each in found.values() for name in each.sources} == set(tensors)
    head.load_state_dict({name: each.value for name, each in found.items()})
    head.eval()


def features_of(width: int, canvas_hw: tuple[int, int], seed: int = 0) -> dict[str, Tensor]:
    """Random features of two images."""
    draw = torch.Generator().manual_seed(seed)
    return {
        level: torch.randn(
            2, width, -(-canvas_hw[0] // stride), -(-canvas_hw[1] // stride), generator=draw
        )
        for level, stride in zip(LEVELS, STRIDES, strict=True)
    }


def context_of(canvas_hw: tuple[int, int], valid: Sequence[tuple[int, int]]) -> Context:
    """Of empty images whose valid parts are given."""
    return Context(
        inputs={
            "image": torch.zeros(len(valid), 3, *canvas_hw),
            "valid_hw": torch.tensor(valid, dtype=torch.int32),
        }
    )


def targets_of(boxes: list[Tensor], labels: list[Tensor], classes: int) -> dict[str, Tensor]:
    """The targets of images with these objects; all classes are known."""
    count = max(len(each) for each in labels)
    target = {
        "boxes": torch.zeros(len(boxes), count, 4),
        "classes": torch.zeros(len(boxes), count, dtype=torch.int64),
        "present": torch.zeros(len(boxes), count, dtype=torch.bool),
        "annotated": torch.ones(len(boxes), dtype=torch.bool),
        "known_classes": torch.ones(len(boxes), classes, dtype=torch.bool),
    }
    for row, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        target["boxes"][row, : len(box)] = box
        target["classes"][row, : len(box)] = label
        target["present"][row, : len(box)] = True
    return {**target, "crowd": torch.zeros_like(target["present"])}


def objects(seed: int, canvas_hw: tuple[int, int] = (128, 160)) -> dict[str, Tensor]:
    """Two images with four and three objects of five classes."""
    draw = torch.Generator().manual_seed(seed)
    limit = torch.tensor([canvas_hw[1], canvas_hw[0]])
    boxes, labels = [], []
    for count in (4, 3):
        corner = torch.rand(count, 2, generator=draw) * limit * 0.6
        side = 8 + torch.rand(count, 2, generator=draw) * limit * 0.4
        boxes.append(torch.cat([corner, torch.minimum(corner + side, limit.float())], dim=1))
        labels.append(torch.randint(0, 5, (count,), generator=draw))
    return targets_of(boxes, labels, 5)


def scatter(head: nn.Module, seed: int = 0) -> None:
    """Weights far from their start, so that scores and boxes vary."""
    torch.manual_seed(seed)
    for name, each in head.named_parameters():
        if each.dim() > 1:
            nn.init.kaiming_normal_(each, nonlinearity="linear")
        elif "scale" in name:
            nn.init.uniform_(each, 0.8, 1.2)
    head.eval()
