"""The ResNet of detectors against torchvision's, timm's and OpenMMLab's, and what of it learns."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from pydantic import TypeAdapter
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel, RTDetrResNetBackbone, RTDetrResNetConfig

from mtl_ray.models.config import BackboneConfig, TimmBackbone
from mtl_ray.models.resnet_config import ResNetBackbone

REFERENCES = Path(__file__).parents[2].parent / "shared" / "data" / "heads_reference"
ALL = ("C1", "C2", "C3", "C4", "C5")


def scattered(module: nn.Module) -> nn.Module:
    """Statistics and scales that are not what they start as."""
    torch.manual_seed(0)
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.dim() == 1:
                value.copy_(torch.rand(value.shape) + 0.5)
    return module.eval()


@pytest.mark.parametrize("depth", [18, 50])
def test_it_is_the_network_of_torchvision(depth: Any) -> None:
    theirs = scattered(torchvision.models.get_model(f"resnet{depth}"))
    ours = ResNetBackbone(depth=depth, levels=ALL).build().eval()
    missing, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert not missing
    assert unexpected == ["fc.weight", "fc.bias"]
    image = torch.rand(1, 3, 70, 96)
    with torch.no_grad():
        maps = ours(image)
        x = theirs.relu(theirs.bn1(theirs.conv1(image)))
        torch.testing.assert_close(maps["C1"], x)
        x = theirs.maxpool(x)
        for i in range(1, 5):
            x = getattr(theirs, f"layer{i}")(x)
            torch.testing.assert_close(maps[f"C{i + 1}"], x)
    assert {name: tuple(value.shape[1:2]) for name, value in maps.items()} == {
        name: (channels,) for name, channels in ours.channels.items()
    }


def test_parameters_are_counted_as_published() -> None:
    counts = {18: 11_176_512, 34: 21_284_672, 50: 23_508_032, 101: 42_500_160, 152: 58_143_808}
    for depth, count in counts.items():
        with torch.device("meta"):
            net = ResNetBackbone(depth=depth).build()  # type: ignore[arg-type]
        assert sum(each.numel() for each in net.parameters()) == count


def test_caffe_has_its_strides_in_the_first_convolution() -> None:
    theirs = scattered(torchvision.models.resnet50())
    for layer in (theirs.layer2, theirs.layer3, theirs.layer4):
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    ours = ResNetBackbone(depth=50, style="caffe", levels=("C3",)).build().eval()
    ours.load_state_dict(theirs.state_dict(), strict=False)
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
        torch.testing.assert_close(ours(image)["C3"], theirs.layer2(theirs.layer1(x)))


@pytest.mark.parametrize(("depth", "stride"), [(50, 8), (50, 16), (18, 16)])
def test_dilated_stages_are_those_of_torchvision(depth: Any, stride: Any) -> None:
    ours = ResNetBackbone(depth=depth, output_stride=stride, levels=("C4", "C5")).build().eval()
    assert ours.strides == {"C4": min(16, stride), "C5": stride}
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        maps = scattered(ours)(image)
    assert maps["C5"].shape[2:] == (64 // stride, 96 // stride)
    if depth == 50:
        dilated = [False, stride == 8, True]
        theirs = torchvision.models.resnet50(replace_stride_with_dilation=dilated)
        theirs.load_state_dict(ours.state_dict(), strict=False)
        with torch.no_grad():
            x = theirs.eval().maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
            x = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(x))))
        torch.testing.assert_close(maps["C5"], x)


@pytest.mark.skipif(not REFERENCES.exists(), reason="the reference networks are not here")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fcos", {"style": "caffe"}),
        ("faster_rcnn", {}),
        ("deeplabv3", {"stem": "deep", "output_stride": 8}),
    ],
)
def test_it_is_the_network_of_openmmlab(name: str, options: dict[str, Any]) -> None:
    net = ResNetBackbone(depth=18, base_channels=8, levels=ALL[1:], **options).build().eval()
    tensors = torch.load(REFERENCES / f"{name}.pth", weights_only=True)
    load_imported(net, "openmmlab", tensors)
    arrays = np.load(REFERENCES / f"{name}.npz", allow_pickle=False)
    with torch.no_grad():
        maps = net(torch.from_numpy(arrays["image"]))
    for i, found in enumerate(maps.values()):
        np.testing.assert_allclose(found, arrays[f"c{i}"], rtol=1e-4, atol=1e-5)


def load_imported(net: Any, program: str, tensors: dict[str, Tensor]) -> None:
    found = net.imported(program, tensors)
    net.load_state_dict({name: each.value for name, each in found.items()})


@pytest.mark.parametrize("prefix", ["model.backbone.model.", "backbone.conv_encoder.model."])
def test_it_is_the_network_of_transformers(prefix: str) -> None:
    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[32, 64, 128, 256], depths=[3, 4, 6, 3], num_labels=2
    )
    theirs = scattered(ResNetModel(config))
    net: Any = ResNetBackbone(depth=50, base_channels=8, levels=("C5",)).build().eval()
    load_imported(
        net, "huggingface", {prefix + key: value for key, value in theirs.state_dict().items()}
    )
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(net(image)["C5"], theirs(image).last_hidden_state)


@pytest.mark.parametrize("depth", [18, 50])
def test_it_is_the_network_of_rt_detr(depth: Any) -> None:
    torch.manual_seed(0)
    wide = depth == 50
    config = RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[(32 if wide else 8) * 2**i for i in range(4)],
        depths=[3, 4, 6, 3] if wide else [2, 2, 2, 2],
        layer_type="bottleneck" if wide else "basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    theirs = scattered(RTDetrResNetBackbone(config))
    net: Any = ResNetBackbone(
        depth=depth, base_channels=8, stem="deep", shortcut="presnet", levels=ALL[2:]
    ).build()
    tensors = {f"model.backbone.model.{key}": value for key, value in theirs.state_dict().items()}
    load_imported(net, "huggingface", tensors)
    image = torch.rand(1, 3, 70, 64)
    with torch.no_grad():
        wanted = theirs(image).feature_maps
        for found, other in zip(net.eval()(image).values(), wanted, strict=True):
            torch.testing.assert_close(found, other)


def test_pooled_shortcuts_are_those_of_timm() -> None:
    theirs = scattered(timm.create_model("resnet50d", features_only=True, out_indices=(4,)))
    net: Any = ResNetBackbone(depth=50, stem="deep", shortcut="pool", levels=("C5",)).build().eval()
    net.load_state_dict(theirs.state_dict())
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(net(image)["C5"], theirs(image)[0])
    names = {f"backbone.{key}": value for key, value in net.state_dict().items()}
    for i in (1, 2):  # OpenMMLab counts no pooling where there is none
        for key in [key for key in names if f"layer1.0.downsample.{i}." in key]:
            names[key.replace(f"sample.{i}", f"sample.{i - 1}")] = names.pop(key)
    found = net.imported("openmmlab", names)
    assert found.keys() == net.state_dict().keys()
    assert all(torch.equal(each.value, net.state_dict()[key]) for key, each in found.items())


def learning(net: nn.Module) -> set[str]:
    return {name.split(".")[0] for name, each in net.named_parameters() if each.requires_grad}


BACKBONES: dict[str, Any] = {
    "resnet": ResNetBackbone(depth=18, base_channels=8, levels=("C4",), frozen_stages=1),
    "timm": TimmBackbone(
        name="resnet18",
        levels=("C4",),
        frozen_stages=1,
        options={"channels": [8, 8, 8, 8], "stem_width": 8},
    ),
}


@pytest.mark.parametrize("kind", BACKBONES)
def test_frozen_stages_keep_weights_and_statistics(kind: str) -> None:
    net = BACKBONES[kind].build()
    inner = net.net if kind == "timm" else net
    assert learning(inner) == {"layer2", "layer3"}
    before = {name: value.clone() for name, value in inner.state_dict().items()}
    net.train()
    net(torch.rand(2, 3, 64, 64))["C4"].sum().backward()
    changed = {
        name.split(".")[0]
        for name, value in inner.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == {"layer2", "layer3"}
    synced = nn.SyncBatchNorm.convert_sync_batchnorm(net).train()
    assert not any(module.training for module in synced._frozen() for module in module.modules())


@pytest.mark.parametrize(
    ("stages", "wanted"),
    [(-1, {"conv1", "bn1", "layer1", "layer2"}), (0, {"layer1", "layer2"}), (2, set()), (4, set())],
)
def test_what_a_number_of_frozen_stages_means(stages: int, wanted: set[str]) -> None:
    ours = ResNetBackbone(depth=18, base_channels=8, levels=("C3",), frozen_stages=stages).build()
    options = {"channels": [8, 8, 8, 8], "stem_width": 8}
    timm_net: Any = TimmBackbone(
        name="resnet18", levels=("C3",), frozen_stages=stages, options=options
    ).build()
    assert learning(ours) == learning(timm_net.net) == wanted


@pytest.mark.parametrize("kind", ["resnet", "timm"])
def test_normalisation_in_evaluation_mode_keeps_its_statistics_and_learns(kind: str) -> None:
    config = (
        ResNetBackbone(depth=18, base_channels=8, levels=("C3",), norm_eval=True)
        if kind == "resnet"
        else TimmBackbone(name="resnet18", levels=("C3",), norm_eval=True)
    )
    net = config.build().train()
    before = {name: value.clone() for name, value in net.named_buffers()}
    net(torch.rand(2, 3, 64, 64))["C3"].sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in net.named_buffers())
    assert all(each.requires_grad for each in net.parameters())


def test_a_backbone_without_a_type_is_of_timm() -> None:
    read = TypeAdapter(BackboneConfig).validate_python
    assert isinstance(read({"name": "resnet18"}), TimmBackbone)
    assert isinstance(read({"type": "resnet", "depth": 18}), ResNetBackbone)


def test_mistakes_are_told_in_words() -> None:
    with pytest.raises(ValueError, match="levels: P3 is none of C1, C2"):
        ResNetBackbone(levels=("P3",)).build()
    with pytest.raises(ValueError, match="the stages of efficientnet_b0 cannot be told apart"):
        TimmBackbone(name="efficientnet_b0", levels=("C3",), frozen_stages=1).build()
