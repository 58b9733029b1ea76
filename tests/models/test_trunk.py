"""Backbones and necks: what they are called, how large their features are, where their weights
come from.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import save_file
from torch import nn

from mtl_ray.models.config import NeckConfig, TimmBackbone
from mtl_ray.models.trunk import Trunk, _add_features, build_trunk

SMALL: dict[str, Any] = {
    "layers": [1, 1, 1, 1],
    "channels": [8, 16, 24, 32],
    "stem_type": "deep",
    "stem_width": 4,
}


def trunk_of(
    levels: tuple[str, ...], necks: dict[str, dict[str, Any]] | None = None, **backbone: Any
) -> Trunk:
    configs = {
        name: TypeAdapter(NeckConfig).validate_python(neck) for name, neck in (necks or {}).items()
    }
    return build_trunk(
        TimmBackbone(name="resnet18", levels=levels, options=SMALL, **backbone), configs
    )


@pytest.mark.parametrize("hw", [(64, 96), (70, 90)])
def test_features_have_the_size_that_their_stride_says(hw: tuple[int, int]) -> None:
    necks = {
        "fpn": {"type": "fpn", "inputs": ["C3", "C4", "C5"], "channels": 12, "extra": 2},
        "pool": {"type": "pool", "input": "C5"},
        "pool_p": {"type": "pool", "input": "P4"},
    }
    trunk = trunk_of(("C1", "C2", "C3", "C4", "C5"), necks)
    features = trunk(torch.rand(2, 3, *hw))
    assert (
        set(features)
        == set(trunk.channels)
        == {"C1", "C2", "C3", "C4", "C5", "P3", "P4", "P5", "P6", "P7", "G5", "G4"}
    )
    for name, feature in features.items():
        assert feature.shape[:2] == (2, trunk.channels[name])
        if trunk.strides[name]:
            assert feature.shape[2:] == tuple(-(-side // trunk.strides[name]) for side in hw)
    assert trunk.strides["P7"] == 128


def test_a_pyramid_brings_what_is_coarse_to_the_fine_and_a_path_aggregation_brings_it_back() -> (
    None
):
    """The gradient tells which inputs a level sees."""

    def seen(kind: str, level: str) -> set[str]:
        trunk = trunk_of(
            ("C3", "C4", "C5"),
            {"neck": {"type": kind, "inputs": ["C3", "C4", "C5"], "channels": 12, "norm": False}},
        )
        inputs = {
            name: torch.rand(1, trunk.channels[name], 16 // scale, 16 // scale, requires_grad=True)
            for name, scale in (("C3", 1), ("C4", 2), ("C5", 4))
        }
        trunk.necks["neck"](inputs)[level].sum().backward()
        return {
            name for name, value in inputs.items() if value.grad is not None and value.grad.any()
        }

    assert seen("fpn", "P3") == {"C3", "C4", "C5"}
    assert seen("fpn", "P5") == {"C5"}
    assert seen("pafpn", "P5") == {"C3", "C4", "C5"}


def test_pooling_takes_the_mean_or_the_strongest_place() -> None:
    trunk = trunk_of(
        ("C5",),
        {"mean": {"type": "pool"}, "max": {"type": "pool", "kind": "max", "prefix": "max_"}},
    )
    level = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    assert [
        float(trunk.necks[kind]({"C5": level})[name])
        for kind, name in (("mean", "G5"), ("max", "max_G5"))
    ] == [3.0, 6.0]


def test_a_prefix_tells_features_of_one_name_apart() -> None:
    necks = {
        "fpn": {"type": "fpn", "inputs": ["C3", "C4"], "channels": 12},
        "second": {
            "type": "pafpn",
            "inputs": ["P3", "P4"],
            "channels": 8,
            "extra": 1,
            "prefix": "b2_",
        },
        "pool": {"type": "pool", "input": "b2_P5"},
    }
    trunk = trunk_of(("C3", "C4"), necks)
    features = trunk(torch.rand(1, 3, 64, 64))
    assert {name: feature.shape[1] for name, feature in features.items()} == trunk.channels
    assert list(features) == ["C3", "C4", "P3", "P4", "b2_P3", "b2_P4", "b2_P5", "G5"]
    assert trunk.strides["b2_P5"] == 32


@pytest.mark.parametrize(
    ("necks", "said"),
    [
        (
            {"a": {"type": "fpn"}, "b": {"type": "pafpn"}},
            "neck 'a' and neck 'b' both define the feature P3\\. Fix: .*model.necks.b.prefix",
        ),
        (
            {"a": {"type": "fpn"}, "b": {"type": "fpn", "inputs": ["P3", "P4"]}},
            "neck 'a' and neck 'b' both define the feature P3",
        ),
        (
            {"a": {"type": "pool"}, "b": {"type": "pool", "kind": "max"}},
            "neck 'a' and neck 'b' both define the feature G5",
        ),
        (
            {
                "a": {"type": "fpn", "extra": 1},
                "b": {"type": "pool"},
                "c": {"type": "pool", "input": "P5"},
            },
            "neck 'b' and neck 'c'.* G5",
        ),
        (
            {
                "a": {"type": "fpn", "inputs": ["C3"], "extra": 2, "prefix": "x"},
                "b": {"type": "fpn", "prefix": "x"},
            },
            "both.* xP3",
        ),
        (
            {"a": {"type": "pool"}, "b": {"type": "pool", "input": "G5", "prefix": "x"}},
            r"'b' reads feature maps, not pooled .*\(G5\)",
        ),
        ({"training": {"type": "pool"}}, "neck cannot be called 'training': torch uses"),
    ],
)
def test_two_features_of_one_name_are_refused(necks: dict[str, dict[str, Any]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        trunk_of(("C3", "C4", "C5"), necks)


def test_a_neck_that_gives_a_name_of_the_backbone_is_refused() -> None:
    givers = {"P3": "the backbone"}
    with pytest.raises(ValueError, match="the backbone and neck 'n' both define the feature P3"):
        _add_features(givers, "n", ("P3",))


def test_a_frozen_backbone_keeps_weights_and_statistics() -> None:
    trunk = trunk_of(("C3",), frozen=True)
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    trunk.train()
    trunk(torch.rand(2, 3, 64, 64))
    assert not any(p.requires_grad for p in trunk.backbone.parameters())
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "trunk.backbone.net."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_come_from_a_file(tmp_path: Path, prefix: str, suffix: str) -> None:
    torch.manual_seed(0)
    source = trunk_of(("C3", "C4")).backbone.net
    for value in source.state_dict().values():
        value.copy_(torch.rand_like(value.float()))
    state = {prefix + name: value for name, value in source.state_dict().items()} | {
        "fc.weight": torch.zeros(3)
    }
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save({"state_dict": state}, path)
    else:
        save_file(state, path)
    loaded = trunk_of(("C3", "C4"), weights=str(path)).backbone.net
    assert all(
        torch.equal(value, source.state_dict()[name]) for name, value in loaded.state_dict().items()
    )


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    save_file({"conv1.0.weight": torch.zeros(4, 3, 3, 3)}, tmp_path / "part.safetensors")
    with pytest.raises(ValueError, match=r"has no 'conv1.1.weight' \(\d+ of \d+ entries"):
        trunk_of(("C3",), weights=str(tmp_path / "part.safetensors"))
    state = trunk_of(("C3",)).backbone.net.state_dict()
    save_file(state | {"conv1.0.weight": torch.zeros(5, 3, 3, 3)}, tmp_path / "shape.safetensors")
    with pytest.raises(ValueError, match=r"is \(5, 3, 3, 3\), but the backbone has \(4, 3, 3, 3\)"):
        trunk_of(("C3",), weights=str(tmp_path / "shape.safetensors"))


def test_mistakes_of_a_config_are_told_in_words() -> None:
    with pytest.raises(ValueError, match="resnet1x"):
        build_trunk(TimmBackbone(name="resnet1x"), {})
    with pytest.raises(ValueError, match="none for C1"):
        build_trunk(
            TimmBackbone(
                name="convnext_atto",
                levels=("C1",),
                options={"depths": [1, 1, 1, 1], "dims": [4, 8, 8, 8]},
            ),
            {},
        )
    with pytest.raises(ValueError, match="D3 is none of C1"):
        trunk_of(("D3",))
    with pytest.raises(ValueError, match="neck 'p' reads C5, but only C3 exist"):
        trunk_of(("C3",), {"p": {"type": "pool", "input": "C5"}})


def test_all_normalisation_is_of_a_kind_that_can_be_synchronised() -> None:
    trunk = trunk_of(
        ("C3", "C4"), {"neck": {"type": "pafpn", "inputs": ["C3", "C4"], "channels": 8}}
    )
    synced = nn.SyncBatchNorm.convert_sync_batchnorm(trunk)
    assert not any(type(module) is nn.BatchNorm2d for module in synced.modules())
