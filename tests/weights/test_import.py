"""Files of other programs fill this project's backbones, which then compute the same as the
original network.
"""

import importlib
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from jobs.run import run
from mtl_ray.models.config import TimmBackbone
from mtl_ray.weights.convert import ConvertedWeights, convert_weights
from mtl_ray.weights.read import read_weights
from mtl_ray.weights.weights import find_weights
from mtl_ray.weights.write import write_weights
from tests.weights.foreign_files import (
    Tensors,
    caffe2,
    detectron2,
    jax_vit,
    lukemelas,
    mm_regnet,
    mm_swin,
    pycls,
    randomised,
    renamed,
    swin,
)

IMAGE = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
import_main: Callable[[list[str]], int] = importlib.import_module("jobs.weights.import").main


def _taken(content: Any, kind: str | None = None, **options: Any) -> ConvertedWeights:
    return convert_weights(find_weights(content, "a file"), kind, **options)


def _maps(taken: ConvertedWeights, folder: Path, image: Tensor, level: str = "C5") -> Tensor:
    """The output of this project's backbone after it has read the file."""
    assert taken.backbone is not None
    path = folder / "weights.safetensors"
    write_weights(str(path), taken.tensors)
    backbone = TimmBackbone(**taken.backbone, levels=(level,), weights=str(path)).build().eval()
    with torch.no_grad():
        return backbone(image)[level]


def _same(found: Tensor, wanted: Tensor) -> None:
    wanted = wanted.detach()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    assert float(wanted.std()) > 0


def _resnet_maps(net: Any, image: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = net.layer4(
            net.layer3(net.layer2(net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(image)))))))
        )
        return out


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d"])
def test_torchvision_resnet(name: str, tmp_path: Path) -> None:
    net = randomised(getattr(torchvision.models, name)())
    taken = _taken(net.state_dict())
    assert (taken.kind, taken.unused, taken.missing) == (
        "torchvision",
        ("fc.weight", "fc.bias"),
        (),
    )
    assert taken.backbone == {"name": name}
    _same(_maps(taken, tmp_path, IMAGE), _resnet_maps(net, IMAGE))


def test_torchvision_regnet(tmp_path: Path) -> None:
    net = randomised(torchvision.models.regnet_y_400mf())
    taken = _taken(net.state_dict())
    assert taken.backbone == {"name": "regnety_004"}
    with torch.no_grad():
        _same(_maps(taken, tmp_path, IMAGE), net.trunk_output(net.stem(IMAGE)))


def test_torchvision_swin(tmp_path: Path) -> None:
    net = torchvision.models.swin_transformer.SwinTransformer(
        [4, 4], 24, [2, 2, 2, 2], [3, 3, 6, 6], [7, 7]
    ).eval()
    image = torch.rand(1, 3, 224, 224)
    taken = _taken(net.state_dict())
    assert taken.backbone is not None
    assert taken.backbone["options"]["num_heads"] == [3, 3, 6, 6]
    with torch.no_grad():
        _same(_maps(taken, tmp_path, image), net.features(image).permute(0, 3, 1, 2))


def test_torchvision_vit(tmp_path: Path) -> None:
    net = torchvision.models.VisionTransformer(32, 16, 4, 3, 192, 384).eval()
    nn.init.normal_(net.heads.head.weight)
    taken = _taken(net.state_dict())
    assert taken.backbone is not None
    image = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        tokens = (
            torch.cat([net.class_token.expand(2, -1, -1), net._process_input(image)], dim=1)
            + net.encoder.pos_embedding
        )
        wanted = net.encoder.layers(tokens)[:, 1:].transpose(1, 2).reshape(2, 192, 2, 2)
    _same(_maps(taken, tmp_path, image, "C4"), wanted)


def test_timm_vit(tmp_path: Path) -> None:
    net = timm.create_model("vit_tiny_patch16_224", img_size=64).eval()
    taken = _taken({"model": net.state_dict()})
    assert taken.kind == "timm"
    assert "head.weight" in taken.unused
    _same(
        _maps(taken, tmp_path, IMAGE[:, :, :, :64], "C4"),
        net.forward_intermediates(IMAGE[:, :, :, :64], intermediates_only=True, norm=False)[-1],
    )


def test_vit_of_jax_as_timm_reads_it(tmp_path: Path) -> None:
    made = randomised(timm.create_model("vit_tiny_patch16_224", img_size=32))
    np.savez(tmp_path / "vit.npz", **jax_vit(made.state_dict(), heads=3))
    read = timm.create_model("vit_tiny_patch16_224", img_size=32)
    read.load_pretrained(str(tmp_path / "vit.npz"))
    taken = convert_weights(read_weights(str(tmp_path / "vit.npz")))
    assert (taken.kind, taken.missing) == ("timm", ())
    for name, value in taken.tensors.items():
        assert torch.equal(value, made.state_dict()[name.removeprefix("model.")])
        assert torch.equal(value, read.state_dict()[name.removeprefix("model.")])


@pytest.mark.parametrize(
    ("name", "stage"), [("convnext_atto", "stages"), ("swinv2_tiny_window8_256", "layers")]
)
def test_any_model_of_timm_by_its_name(name: str, stage: str) -> None:
    state = timm.create_model(name).state_dict()
    taken = _taken(state, "timm", model=name)
    assert "head.fc.bias" in taken.unused
    assert any(each.startswith(f"{stage}_0.") for each in taken.tensors)
    if stage == "layers":
        official = _taken({"model": swin(state)}, model=name)
        assert official.kind == "swin"
        assert official.tensors.keys() == taken.tensors.keys()


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_efficientnet_b0"])
def test_efficientnet(name: str) -> None:
    net = randomised(timm.create_model(name))
    taken = _taken(lukemelas(net.state_dict()))
    assert (taken.kind, taken.backbone) == ("efficientnet", {"name": name})
    assert taken.unused[-1] == "classifier.bias"
    assert all(torch.equal(value, net.state_dict()[part]) for part, value in taken.tensors.items())


@pytest.mark.parametrize("name", ["regnetx_002", "regnety_002"])
def test_pycls_regnet(name: str, tmp_path: Path) -> None:
    net = randomised(timm.create_model(name))
    taken = _taken(
        {
            "epoch": 99,
            "model_state": pycls(net.state_dict()),
            "optimizer_state": {},
            "cfg": "MODEL: {}",
        }
    )
    assert (taken.kind, taken.backbone, taken.missing) == ("pycls", {"name": name}, ())
    assert taken.unused == ("head.fc.weight", "head.fc.bias")
    _same(_maps(taken, tmp_path, IMAGE), net.forward_features(IMAGE))


def test_a_regnet_of_no_known_size_keeps_its_values_and_is_not_called_checked() -> None:
    net = timm.create_model("regnetx_002")
    state = {
        name: value
        for name, value in net.state_dict().items()
        if name.startswith(("stem", "s1", "s2.b1", "s2.b2", "head"))
    }
    taken = _taken({"model_state": pycls(state)})
    assert taken.backbone is None
    assert {name: value.tolist() for name, value in taken.tensors.items()} == {
        name: value.tolist() for name, value in state.items()
    }
    assert "unchecked" in taken.notes[-1]


def _caffe(net: Any) -> Any:
    """A torchvision ResNet whose stride is in the first convolution of a block."""
    for module in net.modules():
        if hasattr(module, "conv3") and module.conv2.stride == (2, 2):
            module.conv1.stride, module.conv2.stride = (2, 2), (1, 1)
    return net


def _affine(net: Any) -> Any:
    """A ResNet whose normalisation is a scale and a shift."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()
            module.running_var.fill_(1)
    return net


def test_detectron_resnet(tmp_path: Path) -> None:
    net = _caffe(_affine(randomised(torchvision.models.resnet50())))
    blobs = caffe2(net.state_dict()) | {
        "fc1000_w": np.ones((3, 4), "f4"),
        "conv1_w_momentum": np.ones(3, "f4"),
    }
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    taken = convert_weights(read_weights(str(path)))
    assert (taken.kind, taken.backbone) == (
        "detectron",
        {"name": "resnet50", "stride_in_1x1": True},
    )
    assert taken.unused == ("fc1000_w", "conv1_w_momentum")
    assert len(taken.tensors) == 265  # 53 convolutions, and four tensors of each normalisation
    rgb = torch.rand(1, 3, 70, 96)  # 35 rows after the first stride: an odd number
    _same(_maps(taken, tmp_path, rgb), _resnet_maps(net, rgb.flip(1)))
    compat = convert_weights(read_weights(str(path)), compat=True)
    assert np.array_equal(compat.tensors["conv1.weight"].numpy(), blobs["conv1_w"])
    assert torch.equal(compat.tensors["layer1.0.bn1.running_var"], torch.ones(64))


def test_detectron2_resnet(tmp_path: Path) -> None:
    net = randomised(torchvision.models.resnet50())
    state = detectron2(net.state_dict())
    taken = _taken({"model": state, "__author__": "torchvision", "matching_heuristics": True})
    assert (taken.kind, taken.backbone) == ("detectron2", {"name": "resnet50"})
    _same(_maps(taken, tmp_path, IMAGE), _resnet_maps(net, IMAGE))
    detector = {"backbone.bottom_up." + name: value for name, value in state.items()} | {
        "proposal_generator.rpn_head.conv.weight": np.ones(3)
    }
    taken = _taken({"model": detector, "__author__": "Detectron2 Model Zoo"})
    assert taken.backbone == {"name": "resnet50", "stride_in_1x1": True}
    assert "proposal_generator.rpn_head.conv.weight" in taken.unused
    assert torch.equal(taken.tensors["conv1.weight"], net.conv1.weight.detach().flip(1))


def test_official_swin_against_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip(
        "transformers", reason="transformers holds the network to compare with"
    )
    sizes = {"image_size": 224, "embed_dim": 24, "depths": [2, 2, 2, 2], "num_heads": [2, 2, 4, 4]}
    net = transformers.SwinModel(transformers.SwinConfig(**sizes)).eval()
    taken = _taken({"model": _official_swin(net.state_dict())})
    assert taken.kind == "swin"
    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        wanted = (
            net(image, output_hidden_states=True)
            .hidden_states[-1]
            .transpose(1, 2)
            .reshape(1, 192, 7, 7)
        )
    _same(_maps(taken, tmp_path, image), wanted)


def _official_swin(state: Tensors) -> Tensors:
    """Transformers' Swin (of its version 5) as its authors name it: query, key and value in one."""
    plain = renamed(
        state,
        (r"^embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
        (r"^embeddings\.norm", "patch_embed.norm"),
        (r"^encoder\.", ""),
        (r"layernorm_before", "norm1"),
        (r"layernorm_after", "norm2"),
        (r"attention\.o_proj", "attn.proj"),
        (r"attention\.relative_position_bias\.", "attn."),
        (r"^layernorm", "norm"),
    )
    return _joined(plain, "attention.q_proj", "attn.qkv", ("q_proj", "k_proj", "v_proj"))


def _joined(state: Tensors, first: str, name: str, parts: tuple[str, ...]) -> Tensors:
    """Joins separate layers."""
    found = {}
    for old, value in state.items():
        if first in old:
            found[old.replace(first, name)] = torch.cat(
                [state[old.replace(parts[0], part)] for part in parts]
            )
        elif not any(f".{part}." in old for part in parts):
            found[old] = value
    return found


@pytest.mark.parametrize("form", ["official", "openmmlab"])
def test_mit_against_transformers(form: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip(
        "transformers", reason="transformers holds the network to compare with"
    )
    net = transformers.SegformerModel(transformers.SegformerConfig()).eval()
    official = _official_mit(net.state_dict())
    taken = _taken(official if form == "official" else {"state_dict": _mm_mit(official)})
    assert taken.kind == ("mit" if form == "official" else "openmmlab")
    assert taken.backbone is not None
    assert taken.backbone["options"]["mlp_ratios"] == [4, 4, 4, 4]
    with torch.no_grad():
        _same(_maps(taken, tmp_path, IMAGE), net(IMAGE).last_hidden_state)


def _official_mit(state: Tensors) -> Tensors:
    """Transformers' encoder of SegFormer (of its version 5) as its authors name it: key and
    value in one.
    """
    rules = []
    for i in range(4):
        rules += [
            (rf"^stages\.{i}\.patch_embeddings\.proj", f"patch_embed{i + 1}.proj"),
            (rf"^stages\.{i}\.patch_embeddings\.layer_norm", f"patch_embed{i + 1}.norm"),
            (rf"^stages\.{i}\.blocks", f"block{i + 1}"),
            (rf"^stages\.{i}\.layer_norm", f"norm{i + 1}"),
        ]
    rules += [
        (r"layernorm_before", "norm1"),
        (r"layernorm_after", "norm2"),
        (r"attention\.q_proj", "attn.q"),
        (r"attention\.sequence_reduction\.sequence_reduction", "attn.sr"),
        (r"attention\.sequence_reduction\.layer_norm", "attn.norm"),
        (r"attention\.o_proj", "attn.proj"),
    ]
    return _joined(renamed(state, *rules), "attention.k_proj", "attn.kv", ("k_proj", "v_proj"))


def _mm_mit(official: Tensors) -> Tensors:
    """As OpenMMLab names it: query, key and value in one, linear layers as 1x1 convolutions."""
    found = {}
    for name, value in official.items():
        if ".attn.kv." in name:
            continue
        if ".attn.q." in name:
            value = torch.cat([value, official[name.replace(".q.", ".kv.")]])
        if name.endswith(("mlp.fc1.weight", "mlp.fc2.weight")):
            value = value[:, :, None, None]
        found[name] = value
    rules = [(rf"^patch_embed{i + 1}\.proj", f"layers.{i}.0.projection") for i in range(4)]
    rules += [(rf"^patch_embed{i + 1}\.norm", f"layers.{i}.0.norm") for i in range(4)]
    rules += [(rf"^block{i + 1}\.", f"layers.{i}.1.") for i in range(4)] + [
        (rf"^norm{i + 1}\.", f"layers.{i}.2.") for i in range(4)
    ]
    rules += [
        (r"attn\.q\.", "attn.attn.in_proj_"),
        (r"attn\.proj\.", "attn.attn.out_proj."),
        (r"mlp\.fc1", "ffn.layers.0"),
    ]
    rules += [
        (r"mlp\.dwconv\.dwconv", "ffn.layers.1"),
        (r"mlp\.fc2", "ffn.layers.4"),
        (r"^", "backbone."),
    ]
    return renamed(found, *rules) | {"decode_head.conv_seg.weight": torch.ones(2, 2, 1, 1)}


def test_openmmlab_regnet_and_resnet(tmp_path: Path) -> None:
    net = randomised(timm.create_model("regnetx_002"))
    taken = _taken({"meta": {"mmdet_version": "2.28.0"}, "state_dict": mm_regnet(net.state_dict())})
    assert (taken.kind, taken.backbone) == ("openmmlab", {"name": "regnetx_002"})
    _same(_maps(taken, tmp_path, IMAGE), net.forward_features(IMAGE))
    deep = timm.create_model("resnet50c")
    names = renamed(
        deep.state_dict(), (r"^conv1\.", "stem."), (r"^bn1\.", "stem.7."), (r"^", "backbone.")
    )
    assert _taken({"state_dict": names}).backbone == {"name": "resnet50c"}


class _PatchMerging(nn.Module):
    """OpenMMLab's: neighbours joined by ``nn.Unfold``."""

    def __init__(self, norm: nn.Module, reduction: nn.Linear) -> None:
        super().__init__()
        self.norm, self.reduction = norm, reduction

    def forward(self, image: Tensor) -> Tensor:
        joined = nn.functional.unfold(image.permute(0, 3, 1, 2), 2, stride=2).transpose(1, 2)
        out: Tensor = self.reduction(
            self.norm(joined.reshape(len(image), image.shape[1] // 2, image.shape[2] // 2, -1))
        )
        return out


def test_openmmlab_swin_joins_neighbours_as_unfold_does(tmp_path: Path) -> None:
    options = {
        "embed_dim": 24,
        "depths": (1, 1, 1, 1),
        "num_heads": (2, 2, 4, 4),
        "strict_img_size": False,
    }
    net = randomised(timm.create_model("swin_tiny_patch4_window7_224", **options))
    state = mm_swin(net.state_dict())
    for i in range(1, 4):
        place = net.layers[i]
        for part in ("norm", "reduction"):
            for leaf, value in getattr(place.downsample, part).state_dict().items():
                value.copy_(state[f"backbone.stages.{i - 1}.downsample.{part}.{leaf}"])
        place.downsample = _PatchMerging(place.downsample.norm, place.downsample.reduction)
    taken = _taken({"state_dict": state})
    assert taken.kind == "openmmlab"
    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        wanted = net.layers(net.patch_embed(image)).permute(0, 3, 1, 2)
    _same(_maps(taken, tmp_path, image), wanted)


def test_bgr_of_a_config_is_turned_round() -> None:
    net = torchvision.models.resnet18()
    state = {
        "backbone." + name: value
        for name, value in net.state_dict().items()
        if not name.startswith("fc")
    }
    text = "img_norm_cfg = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)"
    taken = _taken({"meta": {"mmdet_version": "2.0.0", "config": text}, "state_dict": state})
    assert torch.equal(taken.tensors["conv1.weight"], net.conv1.weight.detach().flip(1))
    assert any("123.675" in note for note in taken.notes)


def test_what_does_not_fit_is_refused_with_names() -> None:
    state = dict(torchvision.models.resnet18().state_dict())
    del state["layer4.1.conv2.weight"]
    state["layer1.0.conv1.weight"] = torch.zeros(8, 64, 3, 3)
    with pytest.raises(
        ValueError,
        match=r"1 tensors are missing \(layer4.1.conv2.weight\); 1 have another shape \(layer1.0.conv1.weight",  # noqa: E501
    ):
        _taken(state, model="resnet18")
    with pytest.raises(ValueError, match="belong to no network that is known"):
        _taken({"first_conv.0.weight": torch.zeros(3)})
    with pytest.raises(ValueError, match="no blob res2_0_branch2a_w"):
        _taken(state, "detectron")


CONFIG = """
model:
  backbone: {name: resnet18, levels: [C3, C4, C5]}
  necks:
    pyramid: {type: fpn, channels: 16, norm: false}
    pool: {type: pool, input: C5}
  heads:
    labels: {type: linear, levels: [G5]}
data:
  train: {uri: nowhere}
  val: {uri: nowhere}
  canvas: {kind: letterbox, height: 64, width: 64}
schedule: {epochs: 1}
runtime: {name: a, storage: runs}
"""


def test_a_config_takes_neck_and_classifier_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = torchvision.models.resnet18()
    state = {
        "backbone." + name: value
        for name, value in net.state_dict().items()
        if not name.startswith("fc")
    }
    state |= {
        "head.fc.weight": torch.ones(7, 512),
        "head.fc.bias": torch.ones(7),
        "bbox_head.odd.weight": torch.ones(1),
    }
    for i, width in enumerate((128, 256, 512)):
        state[f"neck.lateral_convs.{i}.conv.weight"], state[f"neck.lateral_convs.{i}.conv.bias"] = (
            torch.ones(16, width, 1, 1),
            torch.ones(16),
        )
        state[f"neck.fpn_convs.{i}.conv.weight"], state[f"neck.fpn_convs.{i}.conv.bias"] = (
            torch.ones(16, 16, 3, 3),
            torch.ones(16),
        )
    torch.save({"meta": {}, "state_dict": OrderedDict(state)}, tmp_path / "in.pth")
    (tmp_path / "config.yaml").write_text(CONFIG)
    arguments = [
        str(tmp_path / "in.pth"),
        str(tmp_path / "out.safetensors"),
        "--config",
        str(tmp_path / "config.yaml"),
        "--classes",
        "7",
    ]
    assert import_main(arguments) == 0
    said = capsys.readouterr().out
    assert "1 without a place in the network:\n  bbox_head.odd.weight" in said
    assert "0 of the network not in the file" in said
    tensors = read_weights(str(tmp_path / "out.safetensors")).tensors
    assert tensors["trunk.necks.pyramid.smooth.2.0.weight"].shape == (16, 16, 3, 3)
    assert tensors["heads.labels.linear.bias"].tolist() == [1] * 7


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "in.pth")
    assert import_main([str(tmp_path / "in.pth"), str(tmp_path / "out.pth")]) == 0
    assert "backbone: {name: resnet18}" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        run(lambda: import_main([str(tmp_path / "in.pth"), str(tmp_path / "out.onnx")]))
    assert stop.value.code == 2
    assert "the ending of the name sets the format" in capsys.readouterr().err
