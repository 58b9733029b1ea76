"""The trunks of YOLOX and RTMDet."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter
from torch import nn

from mtl_ray.experiment import ModelConfig, build_model
from mtl_ray.models.csp import RTMDET_NORM, YOLOX_NORM, ChannelAttention, Focus, SppBottleneck
from mtl_ray.models.csp_config import CspDarknetBackbone, CspNextBackbone, CspPafpnNeck
from mtl_ray.samples import Vocabulary

REFERENCES = Path(__file__).parents[2].parent / "shared" / "data" / "heads_reference"
COCO = Vocabulary(classes={"instances": tuple(f"class {i}" for i in range(80))})


def published(head: str, deepen: float, widen: float, blocks: int, **more: Any) -> nn.Module:
    """A published model by its factors."""
    channels, depthwise = int(256 * widen), more.get("depthwise", False)
    kinds = ("cspdarknet", "darknet") if head == "yolox" else ("cspnext", "cspnext")
    config = {
        "backbone": {
            "type": kinds[0],
            "deepen_factor": deepen,
            "widen_factor": widen,
            "depthwise": depthwise,
        },
        "necks": {
            "pyramid": {
                "type": "csp_pafpn",
                "block": kinds[1],
                "channels": channels,
                "blocks": blocks,
                "depthwise": depthwise,
            }
        },
        "heads": {"boxes": {"type": head, "channels": channels, **more}},
    }
    return build_model(TypeAdapter(ModelConfig).validate_python(config), COCO)


def count(module: nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())


@pytest.mark.parametrize(
    ("head", "deepen", "widen", "blocks", "more", "parts"),
    [
        ("yolox", 0.33, 0.25, 1, {"depthwise": True}, (459_968, 376_480, 75_711)),
        ("yolox", 0.33, 0.375, 1, {}, (2_372_304, 1_661_184, 1_022_367)),
        ("yolox", 0.33, 0.5, 1, {}, (4_212_672, 2_950_144, 1_805_439)),
        ("rtmdet", 0.167, 0.375, 1, {}, (2_348_700, 2_188_944, 358_524)),
        ("rtmdet_ins", 0.167, 0.375, 1, {}, (2_348_700, 2_188_944, 1_100_543)),
    ],
)
def test_the_parts_of_published_models_have_their_parameters(
    head: str, deepen: float, widen: float, blocks: int, more: Any, parts: tuple[int, ...]
) -> None:
    model: Any = published(head, deepen, widen, blocks, **more)
    modules = (model.trunk.backbone, model.trunk.necks, model.heads)
    assert tuple(count(each) for each in modules) == parts


@pytest.mark.parametrize(
    ("head", "deepen", "widen", "blocks", "total"),
    [
        ("yolox", 0.67, 0.75, 2, 25_326_495),
        ("rtmdet", 0.33, 0.5, 1, 8_886_924),
        ("rtmdet", 0.67, 0.75, 2, 24_709_188),
        ("rtmdet_ins", 0.33, 0.5, 1, 10_183_311),
    ],
)
def test_published_models_have_their_parameters(
    head: str, deepen: float, widen: float, blocks: int, total: int
) -> None:
    with torch.device("meta"):
        assert count(published(head, deepen, widen, blocks)) == total


@pytest.mark.skipif(not REFERENCES.exists(), reason="the reference outputs are not here")
def test_features_are_those_of_the_original() -> None:
    tensors = torch.load(REFERENCES / "rtmdet.pth", weights_only=True)
    wanted = np.load(REFERENCES / "rtmdet.npz")
    backbone = CspNextBackbone(deepen_factor=0.167, widen_factor=0.125).build()
    neck = CspPafpnNeck(channels=32, blocks=1).build(backbone.channels, backbone.strides)
    for module in (backbone, neck):
        found = module.imported("openmmlab", tensors)
        module.load_state_dict({name: each.value for name, each in found.items()})
        assert module.imported("torchvision", tensors) == {}
    with torch.no_grad():
        maps = backbone.eval()(torch.from_numpy(wanted["image"]))
        maps |= neck.eval()(maps)
    for i, level in enumerate((3, 4, 5)):
        for letter in "CP":
            expected = wanted[f"{letter.lower()}{i}"]
            np.testing.assert_allclose(maps[f"{letter}{level}"], expected, rtol=1e-4, atol=1e-6)


def test_focus_takes_the_pixels_of_a_cell_column_by_column() -> None:
    image = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    focus = Focus(12, YOLOX_NORM)
    nn.init.dirac_(focus.conv.conv.weight)
    with torch.no_grad():
        out = focus.eval()(image)
    expected = torch.stack([image[:, :, y::2, x::2] for x in (0, 1) for y in (0, 1)], dim=1)
    expected = F.silu(expected.flatten(1, 2) / (1 + YOLOX_NORM.eps) ** 0.5)
    torch.testing.assert_close(out, expected)


def test_focus_pads_odd_sides() -> None:
    focus = Focus(4, YOLOX_NORM).eval()
    image = torch.randn(2, 3, 7, 5)
    padded = torch.zeros(2, 3, 8, 6)
    padded[..., :7, :5] = image
    assert torch.equal(focus(image), focus(padded))


def test_pooling_is_over_5_9_and_13_cells() -> None:
    spp, values = SppBottleneck(8, RTMDET_NORM).eval(), torch.randn(2, 8, 9, 17)
    with torch.no_grad():
        narrow = spp.conv1(values)
        pooled = [F.max_pool2d(narrow, size, 1, size // 2) for size in (5, 9, 13)]
        torch.testing.assert_close(spp(values), spp.conv2(torch.cat([narrow, *pooled], dim=1)))


def test_attention_multiplies_channels() -> None:
    attention, values = ChannelAttention(4), torch.randn(2, 4, 3, 5)
    with torch.no_grad():
        attention.fc.weight.zero_()
        attention.fc.bias.copy_(torch.tensor([-4.0, 0.0, 1.5, 4.0]))
        factors = torch.tensor([0.0, 0.5, 0.75, 1.0])[:, None, None]
        torch.testing.assert_close(attention(values), values * factors)


@pytest.mark.parametrize("size", [(64, 96), (70, 98)])
def test_levels_have_their_strides(size: tuple[int, int]) -> None:
    """Also where a stride does not divide the size."""
    for backbone in (
        CspDarknetBackbone(
            deepen_factor=0.1, widen_factor=0.125, levels=("C2", "C3", "C5")
        ).build(),
        CspNextBackbone(deepen_factor=0.1, widen_factor=0.125, levels=("C2", "C3", "C5")).build(),
    ):
        neck = CspPafpnNeck(channels=8, blocks=1, inputs=("C2", "C3", "C5"), prefix="a_")
        features = backbone(torch.randn(2, 3, *size))
        if size == (64, 96):
            assert backbone.strides == {"C2": 4, "C3": 8, "C5": 32}
        for name, values in features.items():
            stride = backbone.strides[name]
            expected = [-(-side // stride) for side in size]
            assert values.shape == (2, backbone.channels[name], *expected)
        built = neck.build(backbone.channels, backbone.strides)
        assert built.strides == {"a_P2": 4, "a_P3": 8, "a_P5": 32}
        assert [each.shape[1] for each in built.eval()(_halved(features)).values()] == [8, 8, 8]


def _halved(features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each feature at half the size of the one before."""
    height, width = features["C2"].shape[2:]
    sizes = {name: (-(-height // 2**i), -(-width // 2**i)) for i, name in enumerate(features)}
    return {name: F.interpolate(each, sizes[name]) for name, each in features.items()}


def test_pooled_features_and_models_without_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="not pooled features \\(G5\\)"):
        CspPafpnNeck(inputs=("C4", "G5")).build({"C4": 8, "G5": 8}, {"C4": 16, "G5": 0})
    with pytest.raises(ValueError, match="widen_factor is too small"):
        CspNextBackbone(widen_factor=0.02).build()
