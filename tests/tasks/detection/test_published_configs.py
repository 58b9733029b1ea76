"""The published models under ``configs/detection`` have the published size and cost.

Networks are built on the device meta, without values. The figures are those of MMDetection 3.3's
models with 80 classes; multiply-adds are of convolutions and matrix products. Of a two-stage model
they are counted for 1000 regions, and 100 with masks.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from mtl_ray.analysis.complexity import complexity
from mtl_ray.experiment import build_model, load_experiment
from mtl_ray.models.head import Context
from mtl_ray.models.model import Model
from mtl_ray.samples import Vocabulary

CONFIGS = Path(__file__).parents[3] / "configs" / "detection"
VOCABULARY = Vocabulary(classes={"instances": tuple(f"class {i}" for i in range(80))})
LARGE, SQUARE = (800, 1280), (640, 640)
PUBLISHED: dict[str, tuple[int, float | None, tuple[int, int]]] = {
    "retinanet_r50_coco": (37_968_692, 238.54, LARGE),
    "fcos_r50_coco": (32_295_322, 199.77, LARGE),
    "atss_r50_coco": (32_295_322, 204.49, LARGE),
    "gfl_r50_coco": (32_440_537, 207.58, LARGE),
    "yolox_s_coco": (8_968_255, 13.34, SQUARE),
    "rtmdet_tiny_coco": (4_896_168, 8.04, SQUARE),
    # the masks of the kept objects cost another 1.4
    "rtmdet_ins_tiny_coco": (5_638_187, None, SQUARE),
    "faster_rcnn_r50_coco": (41_753_056, 206.33, LARGE),
    "cascade_rcnn_r50_coco": (69_394_766, 233.97, LARGE),
    "mask_rcnn_r50_coco": (44_396_336, 259.32, LARGE),
    "detr_r50_coco": (41_575_061, 96.95, LARGE),
    # the published count is of the two-stage variant
    "deformable_detr_r50_coco": (40_118_934, None, LARGE),
    "dfine_s_coco": (10_321_875, None, SQUARE),
    "rtdetr_v2_r18_coco": (20_184_464, 29.69, SQUARE),
    "rtdetr_v2_r50_coco": (42_944_620, 67.85, SQUARE),
}
"""Of each config parameters, 10^9 multiply-adds, height and width."""


def test_every_published_config_is_here() -> None:
    assert {path.stem for path in CONFIGS.glob("*_coco.yaml")} == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_multiply_adds(name: str) -> None:
    parameters, giga_macs, hw = PUBLISHED[name]
    model = network(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    if giga_macs is not None:
        assert complexity(model, run(model, hw)).macs == pytest.approx(giga_macs * 1e9, rel=1e-3)
    text = (CONFIGS / f"{name}.yaml").read_text()
    assert "not reproduced here" in text
    assert f"{parameters:,}" in text


@pytest.mark.parametrize(
    ("changes", "parameters"),
    [({"refine": True}, 40_884_794), ({"refine": True, "two_stage": True}, 41_213_836)],
)
def test_variants_of_deformable_detr(changes: dict[str, bool], parameters: int) -> None:
    overrides = [f"model.heads.boxes.{name}={str(on).lower()}" for name, on in changes.items()]
    model = network("deformable_detr_r50_coco", *overrides)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    if "two_stage" in changes:
        found = complexity(model, run(model, LARGE)).macs
        assert found == pytest.approx(200.02e9, rel=2e-3)  # 199.78e9


@pytest.mark.parametrize(
    ("name", "parameters", "giga_macs"),
    [("rtdetr_v2_r18_coco", 20_074_456, 30.57), ("rtdetr_v2_r50_coco", 42_731_082, 68.72)],
)
def test_rtdetr_v2_as_transformers_counts_it(name: str, parameters: int, giga_macs: float) -> None:
    """By default it has two classes, and its frozen normalisation no parameters; it computes the
    boxes of all 8400 tokens, of which 300 are used.
    """
    model = network(name, vocabulary=Vocabulary(classes={"instances": ("a", "b")}))
    norms = [each for each in model.trunk.backbone.modules() if isinstance(each, nn.BatchNorm2d)]
    affine = sum(parameter.numel() for norm in norms for parameter in norm.parameters())
    assert sum(parameter.numel() for parameter in model.parameters()) - affine == parameters
    further = (8400 - 300) * (2 * 256 * 256 + 256 * 4)
    found = complexity(model, run(model, SQUARE)).macs + further
    assert found == pytest.approx(giga_macs * 1e9, rel=1e-3)


def network(name: str, *overrides: str, vocabulary: Vocabulary = VOCABULARY) -> Model:
    config = load_experiment(CONFIGS / f"{name}.yaml", overrides)
    with torch.device("meta"):
        return build_model(config.model.without_pretrained(), vocabulary).eval()


def run(model: Model, hw: tuple[int, int]) -> Callable[[], None]:
    """One forward of the network without what depends on values, such as suppression."""
    (head,) = cast(Any, model.heads.values())

    def forward() -> None:
        inputs = {
            "image": torch.empty(1, 3, *hw, device="meta"),
            "valid_hw": torch.empty(1, 2, dtype=torch.int32, device="meta"),
        }
        with torch.no_grad():
            features = model.trunk(inputs["image"])
            if not hasattr(head, "roi_head"):
                head.raw_outputs(features, Context(inputs=inputs))
                return
            head.rpn_head([features[level] for level in head.levels])
            stages = head.roi_head.bbox_head
            for stage in stages if isinstance(stages, torch.nn.ModuleList) else [stages]:
                stage(torch.empty(1000, 256, 7, 7, device="meta"))
            if hasattr(head.roi_head, "mask_head"):
                head.roi_head.mask_head(torch.empty(100, 256, 14, 14, device="meta"))

    return forward
