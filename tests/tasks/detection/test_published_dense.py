"""The configs of the published dense detectors: parameters and operations of each part."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mtl_ray.experiment import build_model, load_experiment
from mtl_ray.models.head import InspectedHead
from mtl_ray.samples import Vocabulary
from tests.tasks.detection.dense_cases import context_of

CONFIGS = Path(__file__).parents[3] / "configs" / "detection"
TRICKS = [
    f"model.heads.boxes.{option}"
    for option in ("norm_on_bbox=true", "centerness_on_reg=true", "conv_bias=true")
]
PUBLISHED = {
    "retinanet": ("retinanet_r50_coco", [], 7_997_440, 6_463_220, 238.54),
    "fcos": ("fcos_r50_coco", [], 3_868_672, 4_918_618, 199.77),
    "fcos_tricks": ("fcos_r50_coco", TRICKS, 3_868_672, 4_920_666, 199.77),
    "atss": ("atss_r50_coco", [], 3_868_672, 4_918_618, 204.49),
    "gfl": ("gfl_r50_coco", [], 3_868_672, 5_063_833, 207.58),
}
"""Config, options, parameters of neck and head, 10^9 multiplications and additions at 800x1280."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_operations_are_the_published_ones(name: str) -> None:
    file, options, neck, head, operations = PUBLISHED[name]
    config = load_experiment(CONFIGS / f"{file}.yaml", options).model
    config = replace(config, backbone=config.backbone.without_pretrained())
    vocabulary = Vocabulary(classes={"instances": tuple(f"c{i}" for i in range(80))})
    with torch.device("meta"):
        model = build_model(config, vocabulary).eval()
        image = torch.zeros(1, 3, 800, 1280)
    counts = [
        sum(each.numel() for each in part.parameters())
        for part in (model.trunk.backbone, model.trunk.necks, model.heads)
    ]
    assert counts == [23_508_032, neck, head]
    found = model.heads["boxes"]
    assert isinstance(found, InspectedHead)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        found.raw_outputs(model.trunk(image), context_of((800, 1280), [(800, 1280)]))
    assert counter.get_total_flops() / 2e9 == pytest.approx(operations, abs=0.01)


def test_the_recipe_for_blood_cells_is_read() -> None:
    config = load_experiment(CONFIGS / "fcos_bccd.yaml")
    assert config.model.heads["boxes"].type == "fcos"
