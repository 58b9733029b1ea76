"""The trunk of the real-time DETRs; that it equals transformers' is tested with the heads."""

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from mtl_ray.models.config import BackboneConfig
from mtl_ray.models.hybrid_config import HgNetV2Backbone, HybridEncoderNeck
from mtl_ray.models.hybrid_encoder import HybridEncoder, cell_positions
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.detection.realtime.config import DFineHead


def neck_of(**options: Any) -> HybridEncoder:
    config = HybridEncoderNeck(channels=16, heads=2, feedforward=16, **options)
    channels, strides = {"C3": 4, "C4": 8, "C5": 12}, {"C3": 8, "C4": 16, "C5": 32}
    neck = config.build(channels, strides)
    assert isinstance(neck, HybridEncoder)
    return neck


@pytest.mark.parametrize("fusion", ["elan", "csp"])
@pytest.mark.parametrize("hw", [(64, 96), (240, 320), (100, 60)])
def test_maps_of_any_size_keep_their_size(fusion: str, hw: tuple[int, int]) -> None:
    neck = neck_of(fusion=fusion, depth=0.34, expansion=0.5, prefix="det_")
    maps = {
        f"C{n}": torch.randn(2, 4 * (n - 2), -(-hw[0] // 2**n), -(-hw[1] // 2**n))
        for n in (3, 4, 5)
    }
    found = neck(maps)
    assert list(found) == ["det_P3", "det_P4", "det_P5"] == list(neck.channels)
    for n in (3, 4, 5):
        assert found[f"det_P{n}"].shape == (2, 16, *maps[f"C{n}"].shape[2:])
        assert neck.strides[f"det_P{n}"] == 2**n


def test_positions_are_sines_of_rows_then_of_columns() -> None:
    found = cell_positions(3, 5, 8, 100.0, torch.device("cpu"))
    assert found.shape == (1, 15, 8)
    token = found[0, 2 * 5 + 4]  # row 2, column 4; rates 1 and 1 / 10
    y, x = torch.tensor([2.0, 0.2]), torch.tensor([4.0, 0.4])
    torch.testing.assert_close(token, torch.cat([y.sin(), y.cos(), x.sin(), x.cos()]))


def test_mistakes_are_explained() -> None:
    with pytest.raises(ValueError, match="16 channels do not divide by 3"):
        HybridEncoderNeck(channels=16, heads=3)
    with pytest.raises(ValueError, match="pooled"):
        HybridEncoderNeck(inputs=("G5",)).build({"G5": 4}, {"G5": 0})
    with pytest.raises(ValueError, match="C1"):
        HgNetV2Backbone(name="b0", levels=("C1", "C5")).build()
    with pytest.raises(ValueError, match="go together"):
        HgNetV2Backbone(stem=(8, 8)).build()


def test_published_backbone_has_the_features_of_timm() -> None:
    """With the same weights: names of parameters are timm's but for the list of stages."""
    ours = TypeAdapter(BackboneConfig).validate_python({"type": "hgnetv2", "name": "b0"}).build()
    timm = TypeAdapter(BackboneConfig).validate_python({"name": "hgnetv2_b0"}).build()
    state = {name.replace("stages.", "stages_"): value for name, value in ours.state_dict().items()}
    timm.load_state_dict(state)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        found, expected = ours.eval()(image), timm.eval()(image)
    assert found.keys() == expected.keys() == {"C3", "C4", "C5"}
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name])
        assert value.shape[1] == ours.channels[name]


def test_what_is_frozen_does_not_learn_and_keeps_its_statistics() -> None:
    config = HgNetV2Backbone(name="b0", frozen_stem=True, frozen_norm=True)
    backbone = config.build().train()
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training or norm.weight.requires_grad for norm in norms)
    learnt = {name for name, value in backbone.named_parameters() if value.requires_grad}
    assert learnt
    assert not any(name.startswith("net.stem") for name in learnt)
    assert not any("bn" in name for name in learnt)


def test_the_published_size_of_d_fine_l() -> None:
    """31,083,862 parameters in transformers for its default of two classes: there normalisation of
    the backbone is frozen and not counted, but two constants of the decoder are.
    """
    vocabulary = Vocabulary(classes={"instances": ("a", "b")})
    with torch.device("meta"):
        backbone = HgNetV2Backbone(name="b4").build()
        neck = HybridEncoderNeck().build(backbone.channels, backbone.strides)
        head = DFineHead().build(vocabulary, neck.channels, neck.strides)
    assert isinstance(head, nn.Module)
    norms = sum(p.numel() for name, p in backbone.named_parameters() if ".bn." in name)
    counts = [sum(p.numel() for p in part.parameters()) for part in (backbone, neck, head)]
    assert (counts, norms) == ([13_553_376, 9_343_232, 8_232_948], 45_696)
    assert sum(counts) - norms + 2 == 31_083_862
