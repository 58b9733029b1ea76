"""Backbones of all families give maps channels first, and a ResNet may have its strides where
Caffe had them.
"""

import pytest
import torch
import torchvision

from mtl_ray.models.config import TimmBackbone

SWIN = {
    "embed_dim": 24,
    "depths": [1, 1, 1, 1],
    "num_heads": [2, 2, 4, 4],
    "strict_img_size": False,
}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {}),
        ("mobilenetv3_small_050", {}),
        ("swin_tiny_patch4_window7_224", SWIN),
        ("convnext_atto", {}),
        ("pvt_v2_b0", {}),
    ],
)
def test_maps_are_channels_first(name: str, options: dict[str, object]) -> None:
    backbone = TimmBackbone(name=name, options=options, levels=("C3", "C4")).build().eval()
    with torch.no_grad():
        maps = backbone(torch.rand(2, 3, 64, 96))
    assert {level: tuple(each.shape) for level, each in maps.items()} == {
        "C3": (2, backbone.channels["C3"], 8, 12),
        "C4": (2, backbone.channels["C4"], 4, 6),
    }


def test_strides_in_the_first_convolution() -> None:
    backbone = TimmBackbone(name="resnet50", levels=("C4",), stride_in_1x1=True).build().eval()
    net = torchvision.models.resnet50().eval()
    net.load_state_dict(backbone.net.state_dict(), strict=False)
    for layer in (net.layer2, net.layer3, net.layer4):
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    image = torch.rand(1, 3, 70, 96)
    with torch.no_grad():
        wanted = net.layer3(
            net.layer2(net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(image))))))
        )
        torch.testing.assert_close(backbone(image)["C4"], wanted)


def test_strides_of_networks_without_bottlenecks_cannot_be_moved() -> None:
    with pytest.raises(ValueError, match="resnet18 has no strided bottlenecks"):
        TimmBackbone(name="resnet18", levels=("C4",), stride_in_1x1=True).build()
