"""Pyramids and channel mappers with the levels, names and numbers of other programs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from mtl_ray.models.config import NeckConfig

REFERENCES = Path(__file__).parents[2].parent / "shared" / "data" / "heads_reference"
R50 = {"C2": 256, "C3": 512, "C4": 1024, "C5": 2048}
SMALL = {"C2": 8, "C3": 16, "C4": 32, "C5": 64}


def neck_of(widths: dict[str, int], **options: Any) -> Any:
    strides = {name: 2 ** int(name[1]) for name in widths}
    return TypeAdapter(NeckConfig).validate_python(options).build(widths, strides).eval()


def load_imported(neck: Any, program: str, tensors: dict[str, Tensor]) -> None:
    found = neck.imported(program, tensors)
    neck.load_state_dict({name: each.value for name, each in found.items()})


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"type": "fpn", "extra": 2}, 3_868_672),  # FCOS, ATSS, GFL
        ({"type": "fpn", "extra": 2, "extra_input": "input"}, 7_997_440),  # RetinaNet
        ({"type": "fpn", "extra": 1, "pool_extra": True, "inputs": list(R50)}, 3_344_384),
        ({"type": "channel_mapper", "inputs": ["C5"], "groups": 0}, 524_544),  # DETR
        ({"type": "channel_mapper", "extra": 1}, 5_638_144),  # Deformable DETR
    ],
)
def test_parameters_are_counted_as_published(options: dict[str, Any], count: int) -> None:
    more = {"norm": False} if options["type"] == "fpn" else {}
    neck = neck_of(R50, channels=256, **more, **options)
    assert sum(each.numel() for each in neck.parameters()) == count


@pytest.mark.skipif(not REFERENCES.exists(), reason="the reference networks are not here")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fcos", {"extra": 2, "relu_before_extra": True, "channels": 64}),
        ("faster_rcnn", {"inputs": list(SMALL), "extra": 1, "pool_extra": True, "channels": 32}),
    ],
)
def test_it_is_the_pyramid_of_openmmlab(name: str, options: dict[str, Any]) -> None:
    neck = neck_of(SMALL, type="fpn", norm=False, **options)
    load_imported(neck, "openmmlab", torch.load(REFERENCES / f"{name}.pth", weights_only=True))
    arrays = np.load(REFERENCES / f"{name}.npz", allow_pickle=False)
    features = {f"C{i + 2}": torch.from_numpy(arrays[f"c{i}"]) for i in range(4)}
    with torch.no_grad():
        maps = neck(features)
    assert list(maps) == [f"P{i + (2 if name == 'faster_rcnn' else 3)}" for i in range(5)]
    for i, found in enumerate(maps.values()):
        np.testing.assert_allclose(found, arrays[f"p{i}"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("levels", "blocks", "options"),
    [
        ([1, 2, 3, 4], LastLevelMaxPool(), {"extra": 1, "pool_extra": True}),
        ([2, 3, 4], LastLevelP6P7(256, 256), {"extra": 2, "relu_before_extra": True}),
        (
            [2, 3, 4],
            LastLevelP6P7(512, 256),
            {"extra": 2, "extra_input": "input", "relu_before_extra": True},
        ),
    ],
)
def test_it_is_the_pyramid_of_torchvision(
    levels: list[int], blocks: Any, options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    theirs = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, returned_layers=levels, extra_blocks=blocks
    ).eval()
    channels = {f"C{i + 1}": 32 * 2**i for i in levels}
    neck = neck_of(channels, type="fpn", inputs=list(channels), channels=256, norm=False, **options)
    load_imported(
        neck, "torchvision", {f"backbone.{name}": v for name, v in theirs.state_dict().items()}
    )
    image = torch.rand(1, 3, 96, 128)
    with torch.no_grad():
        body = dict(zip(channels, theirs.body(image).values(), strict=True))
        wanted, found = theirs(image), neck(body)
    for one, other in zip(found.values(), wanted.values(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_channel_mapper_maps_each_level_by_itself() -> None:
    torch.manual_seed(0)
    neck = neck_of(SMALL, type="channel_mapper", channels=64, extra=2)
    features = {
        name: torch.rand(2, width, 96 // 2 ** int(name[1]), 64 // 2 ** int(name[1]))
        for name, width in SMALL.items()
    }
    with torch.no_grad():
        maps = neck(features)
    assert {name: tuple(each.shape) for name, each in maps.items()} == {
        "P3": (2, 64, 12, 8),
        "P4": (2, 64, 6, 4),
        "P5": (2, 64, 3, 2),
        "P6": (2, 64, 2, 1),
        "P7": (2, 64, 1, 1),
    }
    assert neck.strides["P7"] == 128
    for value in maps.values():  # normalised in 32 groups of two channels
        assert value.unflatten(1, (32, 2)).mean(dim=(2, 3, 4)).abs().max() < 1e-4
    assert {name.partition(".")[0] for name in neck.state_dict()} == {"convs", "extra_convs"}
    assert "convs.2.gn.weight" in neck.state_dict()
    assert "convs.0.conv.bias" not in neck.state_dict()


def test_a_channel_mapper_takes_over_what_others_call_it() -> None:
    torch.manual_seed(0)
    hugging = neck_of(SMALL, type="channel_mapper", channels=64, extra=1, bias=True)
    state = hugging.state_dict()
    renamed = {}
    for name, value in state.items():
        kind, number, part, leaf = name.split(".")
        level = int(number) + (3 if kind == "extra_convs" else 0)
        renamed[f"model.input_proj.{level}.{0 if part == 'conv' else 1}.{leaf}"] = value
    other = neck_of(SMALL, type="channel_mapper", channels=64, extra=1, bias=True)
    load_imported(other, "huggingface", renamed)
    load_imported(other, "openmmlab", {f"neck.{name}": value for name, value in state.items()})
    assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())


def test_options_without_effect_are_refused() -> None:
    with pytest.raises(ValueError, match="pool_extra makes levels without convolutions"):
        neck_of(SMALL, type="fpn", extra=1, pool_extra=True, extra_input="input")
    with pytest.raises(ValueError, match="cannot divide 48 channels in 32 groups"):
        neck_of(SMALL, type="channel_mapper", channels=48)
