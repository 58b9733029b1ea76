"""Detectors of MMDetection 1.x: the background class moves to the end, of biases as of weights."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mtl_ray.weights.edit import upgrade_file
from mtl_ray.weights.foreign import recognise
from mtl_ray.weights.upgrade import describe_detector, upgrade, upgrade_ssd
from mtl_ray.weights.weights import Weights

CLASSES = 4  # with the background
import_main: Callable[[list[str]], int] = import_module("jobs.weights.import").main


def _rows(count: int, *more: int) -> Tensor:
    """A tensor whose row i is filled with i."""
    return torch.arange(float(count)).view(-1, *[1] * len(more)).expand(count, *more).clone()


def _upgraded(
    tensors: dict[str, Tensor], version: str = "1.2.0", config: str = "", compat: bool = False
) -> dict[str, list[float]]:
    old = describe_detector(tensors, version, config, CLASSES, compat)
    return {
        name: value.flatten(1)[:, 0].tolist() if value.ndim > 1 else value.tolist()
        for name, value in upgrade(tensors, old).items()
    }


TWO_STAGE = {
    "rpn_head.rpn_cls.weight": _rows(3, 8, 1, 1),
    "rpn_head.rpn_cls.bias": _rows(3),
    "rpn_head.rpn_reg.weight": _rows(12, 8, 1, 1),
    "rpn_head.rpn_reg.bias": _rows(12),
    "bbox_head.fc_cls.weight": _rows(4, 8),
    "bbox_head.fc_cls.bias": _rows(4),
    "bbox_head.fc_reg.weight": _rows(16, 8),
    "bbox_head.fc_reg.bias": _rows(16),
    "mask_head.conv_logits.weight": _rows(4, 8, 1, 1),
    "mask_head.conv_logits.bias": _rows(4),
    "backbone.conv1.weight": _rows(4, 3, 7, 7),
}


def test_two_stage() -> None:
    got = _upgraded(TWO_STAGE)
    for leaf in ("weight", "bias"):
        assert got[f"roi_head.bbox_head.fc_cls.{leaf}"] == [1, 2, 3, 0]
        assert got[f"roi_head.bbox_head.fc_reg.{leaf}"] == list(range(4, 16))
        assert got[f"roi_head.mask_head.conv_logits.{leaf}"] == [1, 2, 3]
        assert got[f"rpn_head.rpn_cls.{leaf}"] == [0, 1, 2]
        assert got[f"rpn_head.rpn_reg.{leaf}"] == list(range(12))
    assert got["backbone.conv1.weight"] == [0, 1, 2, 3]


def test_two_stage_as_the_original_does_it() -> None:
    got = _upgraded(TWO_STAGE, compat=True)
    assert got["roi_head.bbox_head.fc_cls.bias"] == [1, 2, 3, 0]
    assert got["roi_head.bbox_head.fc_reg.weight"] == list(range(4, 16))
    # the last class is lost instead of the background
    assert got["roi_head.bbox_head.fc_reg.bias"] == list(range(12))
    assert got["roi_head.mask_head.conv_logits.bias"] == [0, 1, 2]
    assert got["rpn_head.rpn_cls.weight"] == [0, 1, 2]
    assert got["rpn_head.rpn_cls.bias"] == [1, 2, 0]  # rotated though its weight is not


def test_two_classes_an_anchor_in_the_rpn() -> None:
    tensors = {
        **TWO_STAGE,
        "rpn_head.rpn_cls.weight": _rows(6, 8, 1, 1),
        "rpn_head.rpn_cls.bias": _rows(6),
    }
    got = _upgraded(tensors)
    assert got["rpn_head.rpn_cls.weight"] == got["rpn_head.rpn_cls.bias"] == [1, 0, 3, 2, 5, 4]


def test_boxes_for_all_classes_at_once_stay() -> None:
    tensors = {
        **TWO_STAGE,
        "bbox_head.fc_reg.weight": _rows(4, 8),
        "bbox_head.fc_reg.bias": _rows(4),
    }
    for config in ("", "bbox_head=dict(reg_class_agnostic = True)"):
        got = _upgraded(tensors, config=config)
        assert (
            got["roi_head.bbox_head.fc_reg.weight"]
            == got["roi_head.bbox_head.fc_reg.bias"]
            == [0, 1, 2, 3]
        )


def test_retinanet() -> None:
    sigmoid = {
        "bbox_head.cls_convs.0.weight": _rows(8, 8, 3, 3),
        "bbox_head.retina_cls.weight": _rows(6, 8, 3, 3),
        "bbox_head.retina_cls.bias": _rows(6),
        "bbox_head.retina_reg.weight": _rows(8, 8, 3, 3),
    }
    got = _upgraded(sigmoid, version="0.5.3")
    assert got["bbox_head.retina_cls.weight"] == got["bbox_head.retina_cls.bias"] == list(range(6))
    assert "bbox_head.cls_convs.0.conv.weight" in got
    assert "bbox_head.cls_convs.0.weight" in _upgraded(sigmoid, version="0.6.0")
    softmax = {
        **sigmoid,
        "bbox_head.retina_cls.weight": _rows(8, 8, 3, 3),
        "bbox_head.retina_cls.bias": _rows(8),
    }
    got = _upgraded(softmax)
    assert (
        got["bbox_head.retina_cls.weight"]
        == got["bbox_head.retina_cls.bias"]
        == [1, 2, 3, 0, 5, 6, 7, 4]
    )


def test_versions_are_compared_as_numbers() -> None:
    tensors = {"rpn_head.rpn_cls.weight": _rows(6, 8), "rpn_head.rpn_reg.weight": _rows(12, 8)}
    assert _upgraded(tensors, version="2.10.0")["rpn_head.rpn_cls.weight"] == [0, 1, 2, 3, 4, 5]
    assert _upgraded(tensors, version="2.4.0")["rpn_head.rpn_cls.weight"] == [1, 0, 3, 2, 5, 4]
    with pytest.raises(ValueError, match="'new' is not a version"):
        _upgraded(tensors, version="new")


def test_ssd() -> None:
    tensors = {
        "backbone.extra.3.weight": _rows(2, 2, 3, 3),
        "backbone.l2_norm.weight": _rows(2),
        "bbox_head.cls_convs.0.weight": _rows(8, 2, 3, 3),
        "bbox_head.cls_convs.0.bias": _rows(8),
        "bbox_head.reg_convs.0.weight": _rows(8, 2, 3, 3),
    }
    got = _upgraded(tensors)
    assert (
        got["bbox_head.cls_convs.0.weight"]
        == got["bbox_head.cls_convs.0.bias"]
        == [1, 2, 3, 0, 5, 6, 7, 4]
    )
    assert list(upgrade_ssd(tensors)) == [
        "neck.extra_layers.1.1.conv.weight",
        "neck.l2_norm.weight",
        "bbox_head.cls_convs.0.0.weight",
        "bbox_head.cls_convs.0.0.bias",
        "bbox_head.reg_convs.0.0.weight",
    ]


def test_an_import_upgrades_what_is_old_and_leaves_what_is_not() -> None:
    stage = {f"backbone.layer{i}.0.conv1.weight": torch.zeros(1) for i in range(1, 5)}
    tensors = {"backbone.conv1.weight": torch.zeros(64, 3, 7, 7), **stage, **TWO_STAGE}
    for meta, moved in (
        ({"mmdet_version": "1.1.0"}, True),
        ({"mmdet_version": "2.11.0"}, False),
        ({}, False),
    ):
        foreign = recognise(Weights(tensors, "state_dict", {"meta": meta}), classes=CLASSES)
        assert ("roi_head.bbox_head.fc_cls.bias" in foreign.beside) == moved
        assert bool(foreign.notes) == moved
    assert (
        "roi_head.bbox_head.fc_cls.bias"
        in recognise(Weights(tensors), classes=CLASSES, version="1.0").beside
    )


def test_the_command_line_writes_the_upgraded_model_in_its_own_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = str(tmp_path / "old.pth"), str(tmp_path / "new.pth")
    torch.save(
        {
            "meta": {"mmdet_version": "1.2.0+abc", "config": "import os"},
            "state_dict": TWO_STAGE,
            "optimizer": {"lr": 1},
        },
        source,
    )
    assert import_main([source, out, "--upgrade-only", "--num-classes", "4"]) == 0
    assert "the background class of 4 moved to the end" in capsys.readouterr().out
    content = torch.load(out, weights_only=True)
    assert content["optimizer"] == {"lr": 1}
    assert content["state_dict"]["roi_head.bbox_head.fc_cls.bias"].tolist() == [1, 2, 3, 0]
    assert import_main([source, out, "--upgrade-only", "--num-classes", "4", "--compat"]) == 0
    assert torch.load(out, weights_only=True)["state_dict"]["rpn_head.rpn_cls.bias"].tolist() == [
        1,
        2,
        0,
    ]
    assert upgrade_file(source, out, CLASSES, "2.3.0") == ()
    torch.save({"state_dict": TWO_STAGE}, source)
    assert import_main([source, out, "--upgrade-only"]) == 1
    assert "nothing was upgraded" in capsys.readouterr().out


def test_an_old_detector_whose_backbone_nobody_knows_is_upgraded_all_the_same(
    tmp_path: Path,
) -> None:
    source, out = str(tmp_path / "old.pth"), str(tmp_path / "new.pth")
    torch.save({"meta": {"mmdet_version": "1.2.0"}, "state_dict": TWO_STAGE}, source)
    assert import_main([source, out, "--num-classes", "4"]) == 1
    assert torch.load(out, weights_only=True)["state_dict"][
        "roi_head.bbox_head.fc_cls.bias"
    ].tolist() == [1, 2, 3, 0]
