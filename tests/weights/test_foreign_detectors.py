"""Detectors of torchvision and Hugging Face through ``jobs.weights import`` and ``jobs.analyze
forward``: what comes out is what the original network gives for the same image.
"""

import importlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from jobs.analyze.forward import main as forward_main
from mtl_ray.analysis.forward_arrays import read_arrays
from mtl_ray.weights.read import read_weights

CONFIGS = Path(__file__).parents[1] / "heads_reference"
import_main: Callable[[list[str]], int] = importlib.import_module("jobs.weights.import").main
Arrays = dict[str, NDArray[Any]]
CLASSES, HW = 4, (128, 160)
BOXES = np.array([[20, 16, 90, 100], [60, 8, 158, 66]], np.float32)
LABELS = np.array([3, 1])
RESNET = {"type": "resnet", "depth": 18, "levels": ["C3", "C4", "C5"]}
NARROW = RESNET | {"base_channels": 8}
PYRAMID = {"type": "fpn", "norm": False, "channels": 256}


class Case(NamedTuple):
    """A network of another program and the model section that it fills; ``ending`` of its file."""

    original: Callable[[], Any]
    model: dict[str, Any]
    ending: str


def varied(net: nn.Module) -> nn.Module:
    """Random weights without zeros, and statistics other than at the start."""
    torch.manual_seed(0)
    for name, value in net.state_dict().items():
        if not value.is_floating_point() or name.endswith(("points_scale", "up", "reg_scale")):
            continue
        if value.dim() == 1 and name.endswith((".running_var", ".weight", "lab.scale")):
            value.uniform_(0.5, 1.5)
        elif name.endswith("sampling_offsets.bias"):
            value.uniform_(-3, 3)
        elif value.dim() == 4:
            nn.init.kaiming_normal_(value)
        elif value.dim() > 1:
            nn.init.xavier_normal_(value)
        else:
            value.uniform_(-0.3, 0.3)
    return net.eval()


def written(case: Case, net: nn.Module, folder: Path) -> Path:
    """The file of a network."""
    tensors = {name: value.clone() for name, value in net.state_dict().items()}
    path = folder / f"in.{case.ending}"
    if case.ending == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


def forwarded(
    case: Case,
    net: nn.Module,
    folder: Path,
    image: NDArray[np.uint8],
    names: str = "",
    source: Path | None = None,
) -> Arrays:
    """What the jobs give for the image of bytes with the weights of a network, or of ``source``;
    ``names`` are those of the classes, where they are given.
    """
    tree = {
        "model": case.model,
        "data": {
            "train": {"uri": "nowhere"},
            "val": {"uri": "nowhere"},
            "canvas": {"kind": "letterbox", "height": HW[0], "width": HW[1]},
        },
        "schedule": {"steps": 1},
        "runtime": {"name": "a", "storage": "runs"},
    }
    (folder / "config.yaml").write_text(json.dumps(tree))
    objects = {f"gt{row}_boxes": BOXES for row in range(len(image))}
    objects |= {f"gt{row}_labels": LABELS for row in range(len(image))}
    np.savez(folder / "in.npz", image=image, **objects)  # type: ignore[arg-type]
    out, report = folder / "network", folder / "report.json"
    source = source or written(case, net, folder)
    arguments = [str(source), str(out), "--report", str(report)]
    if names:
        (folder / "names.txt").write_text(names)
        arguments += ["--classes", str(folder / "names.txt")]
    assert import_main([*arguments, "--config", str(folder / "config.yaml")]) == 0
    said = json.loads(report.read_text())
    assert len(said["classes"]["instances"]) == CLASSES
    assert said["unused"] == []
    arrays = folder / "out.npz"
    forward = [str(out), "--input", str(folder / "in.npz"), "--out", str(arrays)]
    assert forward_main(forward) == 0
    found = read_arrays(str(arrays))
    assert found["gradnorm"].max() > 0
    sources = {name for each in found["gradnorm_sources"] for name in each.split(" + ")}
    # not all: torchvision's FCOS has no factors of levels, and safetensors has shared layers once
    of_file = sources & read_weights(str(source)).tensors.keys()
    assert len(of_file) > len(found["gradnorm_names"]) / 2
    return found


def same_detections(found: Arrays, wanted: dict[str, Tensor], least: int) -> None:
    """The detections of the original are there, and no others; of those with equal scores the limit
    of their number may cut off others.
    """
    assert len(wanted["scores"]) >= least
    assert len(found["b0_scores"]) == len(wanted["scores"])
    np.testing.assert_allclose(found["b0_scores"], wanted["scores"].numpy(), rtol=2e-3)
    there = 0
    for box, score, label in zip(*(wanted[n] for n in ("boxes", "scores", "labels")), strict=True):
        near = np.abs(found["b0_boxes"] - box.numpy()).max(axis=1) < 1e-2
        near &= np.abs(found["b0_scores"] - float(score)) < 1e-3
        there += int((found["b0_labels"][near] == int(label)).any())
    assert there >= 0.95 * len(wanted["scores"])


# torchvision: class 0 is the background


def extractor(*levels: int, extra: Any = None, norm: Any = None) -> Any:
    return _resnet_fpn_extractor(
        resnet18(weights=None),
        trainable_layers=5,
        returned_layers=list(levels),
        extra_blocks=extra,
        norm_layer=norm,
    )


SIZES: dict[str, Any] = {"num_classes": CLASSES + 1, "min_size": HW[0], "max_size": HW[1]}
REGIONS: dict[str, Any] = {
    "levels": ["P2", "P3", "P4", "P5", "P6"],
    "rpn": {"rounded_anchors": True, "min_box_px": 0.001},
    "roi": {"sampling": 2, "aligned": False, "min_box_px": 0.01},
}
POOLED = PYRAMID | {"inputs": ["C2", "C3", "C4", "C5"], "extra": 1, "pool_extra": True}
FURTHER = PYRAMID | {
    "inputs": ["C3", "C4", "C5"],
    "extra": 2,
    "extra_input": "output",
    "relu_before_extra": True,
}


def torchvision_model(head: dict[str, Any], neck: dict[str, Any]) -> dict[str, Any]:
    backbone = RESNET | {"levels": neck["inputs"]}
    return {"backbone": backbone, "necks": {"pyramid": neck}, "heads": {"boxes": head}}


TORCHVISION = {
    "faster_rcnn": Case(
        lambda: FasterRCNN(extractor(1, 2, 3, 4), **SIZES),
        torchvision_model({"type": "faster_rcnn", **REGIONS}, POOLED),
        "pth",
    ),
    "mask_rcnn": Case(
        lambda: MaskRCNN(extractor(1, 2, 3, 4), **SIZES),
        torchvision_model({"type": "mask_rcnn", **REGIONS}, POOLED),
        "safetensors",
    ),
    "mask_rcnn_v2": Case(
        lambda: MaskRCNN(
            extractor(1, 2, 3, 4, norm=nn.BatchNorm2d),
            rpn_head=RPNHead(256, 3, conv_depth=2),
            box_head=FastRCNNConvFCHead((256, 7, 7), [256] * 4, [1024], nn.BatchNorm2d),
            mask_head=MaskRCNNHeads(256, [256] * 4, 1, nn.BatchNorm2d),
            **SIZES,
        ),
        torchvision_model(
            {
                "type": "mask_rcnn",
                "levels": REGIONS["levels"],
                "rpn": REGIONS["rpn"] | {"convs": 2},
                "roi": REGIONS["roi"] | {"convs": 4, "norm": "batch", "fcs": 1},
                "mask": {"norm": "batch"},
            },
            POOLED | {"norm": True},
        ),
        "pth",
    ),
    "retinanet": Case(
        lambda: RetinaNet(
            extractor(2, 3, 4, extra=LastLevelP6P7(256, 256)),
            anchor_generator=AnchorGenerator(
                tuple(
                    (size, int(size * 2 ** (1 / 3)), int(size * 2 ** (2 / 3)))
                    for size in (32, 64, 128, 256, 512)
                ),
                ((0.5, 1.0, 2.0),) * 5,
            ),
            **SIZES,
        ),
        torchvision_model(
            {
                "type": "retinanet",
                "levels": ["P3", "P4", "P5", "P6", "P7"],
                "channels": 256,
                "convs": 4,
                "norm": "none",
                "anchor_order": "ratio",
                "anchor_offset": 0.0,
                "anchor_rule": "torchvision",
                "forced_to": "own",
                "select": {"score_threshold": 0.05, "rank": "pair", "max_detections": 300},
            },
            FURTHER,
        ),
        "pth",
    ),
    "fcos": Case(
        lambda: FCOS(extractor(2, 3, 4, extra=LastLevelP6P7(256, 256)), **SIZES),
        torchvision_model(
            {
                "type": "fcos",
                "points": "torchvision",
                "norm_on_bbox": True,
                "centerness_on_reg": True,
                "conv_bias": True,
                "select": {
                    "score_threshold": 0.2,
                    "iou_threshold": 0.6,
                    "threshold_on": "score",
                    "score": "geometric_mean",
                },
            },
            FURTHER,
        ),
        "safetensors",
    ),
}


SPREAD = {"cls_logits": 1.0, "cls_score": 1.0, "bbox_pred": 0.2, "bbox_reg": 0.2}
"""Standard deviations of what the last layers give."""


def spread(net: Any, image: Tensor) -> Any:
    """Random statistics, and last layers of such a scale that not all scores are 0 or 1. Dense
    heads have learnt that nothing is background, and that no box is empty.
    """

    scaled = set()

    def scale(module: Any, _inputs: object, output: Tensor, wanted: float) -> None:
        if module not in scaled:  # levels share it: by the first one
            module.weight.data.mul_(wanted / output.std())
            scaled.add(module)

    net.eval()
    hooks = []
    for name, module in net.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
        if (wanted := SPREAD.get(name.rpartition(".")[2])) is not None:
            call = partial(scale, wanted=wanted)
            hooks.append(module.register_forward_hook(call))
        if name == "head.classification_head.cls_logits":
            module.bias.data.zero_()
        if isinstance(net, FCOS) and name.endswith("bbox_reg"):
            module.bias.data.fill_(1)
    with torch.no_grad():
        net([image])
    for hook in hooks:
        hook.remove()
    if isinstance(net, FCOS | RetinaNet):
        bias = net.head.classification_head.cls_logits.bias.data
        bias.view(-1, CLASSES + 1)[:, 0] = -1000  # the background
    return net


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name: str, tmp_path: Path) -> None:
    case = TORCHVISION[name]
    image = np.random.default_rng(0).integers(0, 256, (1, 3, *HW)).astype(np.uint8)
    torch.manual_seed(0)
    net = spread(case.original(), torch.from_numpy(image[0]) / 255)
    names = "__background__\na\nb\nc\nd" if name in ("faster_rcnn", "fcos") else ""
    found = forwarded(case, net, tmp_path, image, names)
    with torch.no_grad():
        wanted = net([torch.from_numpy(image[0]) / 255])[0]
    wanted["labels"] = wanted["labels"] - 1
    same_detections(found, wanted, 20)
    if name in ("mask_rcnn", "mask_rcnn_v2"):
        masks = (wanted["masks"][:, 0] >= 0.5).numpy()
        assert masks.shape == found["b0_masks"].shape
        # torchvision pastes into boxes of whole pixels
        assert (masks != found["b0_masks"]).mean() < 0.02 < masks.mean()


# Hugging Face


HEADS: dict[str, Any] = {"channels": 32, "feedforward": 40, "heads": 4}


def transformers_net(kind: str, **options: Any) -> Any:
    """A small network of transformers."""
    transformers = pytest.importorskip("transformers")
    shared = {
        "d_model": 32,
        "decoder_attention_heads": 4,
        "encoder_attention_heads": 4,
        "decoder_ffn_dim": 40,
        "encoder_ffn_dim": 40,
        "decoder_layers": 3,
        "num_labels": CLASSES,
    }
    if kind in ("DFine", "RTDetrV2"):
        shared |= {
            "encoder_hidden_dim": 32,
            "encoder_in_channels": [16, 32, 64],
            "decoder_in_channels": [32] * 3,
            "num_queries": 30,
            "num_denoising": 0 if kind == "RTDetrV2" else 100,
            "hidden_expansion": 0.5,
        }
    config = getattr(transformers, f"{kind}Config")(**(shared | options))
    return getattr(transformers, f"{kind}ForObjectDetection")(config)


def d_fine() -> Any:
    transformers = pytest.importorskip("transformers")
    backbone = transformers.HGNetV2Config(
        stem_channels=[3, 8, 8],
        stage_in_channels=[8, 12, 16, 32],
        stage_mid_channels=[8] * 4,
        stage_out_channels=[12, 16, 32, 64],
        stage_num_blocks=[1, 1, 2, 1],
        stage_light_block=[False, False, True, True],
        stage_kernel_size=[3, 3, 5, 5],
        stage_numb_of_layers=[2, 2, 2, 2],
        hidden_sizes=[12, 16, 32, 64],
        depths=[1, 1, 2, 1],
        embedding_size=8,
        use_learnable_affine_block=True,
        out_features=["stage2", "stage3", "stage4"],
    )
    return transformers_net(
        "DFine", backbone_config=backbone, decoder_n_points=[2, 3, 4], depth_mult=0.34
    )


def rt_detr_v2() -> Any:
    transformers = pytest.importorskip("transformers")
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 32, 64],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    return transformers_net("RTDetrV2", backbone_config=backbone, decoder_n_points=3)


def a_resnet(*stages: str) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 32, 64],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        out_features=list(stages),
    )


def plain_detr(kind: str, *stages: str, **options: Any) -> Any:
    common = {
        "use_timm_backbone": False,
        "use_pretrained_backbone": False,
        "backbone": None,
        "backbone_config": a_resnet(*stages),
        "encoder_layers": 2,
        "num_queries": 12,
    }
    return transformers_net(kind, **common, **options)


def model_of(name: str) -> dict[str, Any]:
    """The model section of a reference network."""
    model: dict[str, Any] = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["model"]
    return model


LAYERS = HEADS | {
    "queries": 12,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "max_detections": 12,
}
HUGGINGFACE = {
    "dfine": Case(d_fine, model_of("dfine"), "safetensors"),
    "rtdetr_v2": Case(rt_detr_v2, model_of("rtdetr_v2"), "pth"),
    "detr": Case(
        lambda: plain_detr("Detr", "stage4"),
        {
            "backbone": NARROW | {"levels": ["C5"]},
            "necks": {
                "projection": {
                    "type": "channel_mapper",
                    "inputs": ["C5"],
                    "channels": 32,
                    "groups": 0,
                }
            },
            "heads": {"boxes": {"type": "detr", **LAYERS}},
        },
        "safetensors",
    ),
    "deformable_detr": Case(
        lambda: plain_detr("DeformableDetr", "stage2", "stage3", "stage4", with_box_refine=True),
        {
            "backbone": NARROW,
            "necks": {
                "projection": {
                    "type": "channel_mapper",
                    "channels": 32,
                    "groups": 32,
                    "extra": 1,
                    "bias": True,
                }
            },
            "heads": {"boxes": {"type": "deformable_detr", **LAYERS, "refine": True}},
        },
        "pth",
    ),
}


@pytest.mark.parametrize("name", HUGGINGFACE)
@pytest.mark.parametrize("saved", [False, True])
def test_huggingface(name: str, saved: bool, tmp_path: Path) -> None:
    """``saved``: the folder that transformers writes, whose rule of normalisation counts."""
    case = HUGGINGFACE[name]
    net: Any = varied(case.original())
    # two: in a batch of one, torch's BatchNorm (2.15, CPU) sums up wrong values where the gradient
    # of its output is a view such as torch.randn(1, 80, 32).transpose(1, 2).view(1, 32, 8, 10), as
    # that of transformers' decoder_input_proj is, and ours is not
    image = np.random.default_rng(0).integers(0, 256, (2, 3, *HW)).astype(np.uint8)
    plain = case._replace(model={k: v for k, v in case.model.items() if k not in ("mean", "std")})
    if saved:
        net.config.id2label = dict(enumerate(("N/A", "cat", "N/A", "traffic light")))
        net.save_pretrained(tmp_path / "model")
        kind = "RTDetrImageProcessor" if name in ("dfine", "rtdetr_v2") else "DetrImageProcessor"
        getattr(importlib.import_module("transformers"), kind)().save_pretrained(tmp_path / "model")
        found = forwarded(plain, net, tmp_path, image, source=tmp_path / "model")
        said = json.loads((tmp_path / "report.json").read_text())
        assert said["classes"]["instances"] == ["N/A", "cat", "N/A (2)", "traffic light"]
    else:
        found = forwarded(case, net, tmp_path, image)
    default = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    mean, std = (
        torch.tensor(case.model.get(key, value)).view(3, 1, 1)
        for key, value in zip(("mean", "std"), default, strict=True)
    )
    with torch.no_grad():
        outputs = net((torch.from_numpy(image) - mean) / std)
    wanted, count = detections_of(name, outputs), len(found["b0_scores"])
    same_detections(found, {key: value[:count] for key, value in wanted.items()}, 12)
    if name in ("dfine", "rtdetr_v2"):
        same_losses(found, net, (torch.from_numpy(image) - mean) / std)


def same_losses(found: Arrays, net: Any, image: Tensor) -> None:
    """Losses and gradients of a real-time network without noisy queries."""
    net.train()
    net.config.num_denoising = 0
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    boxes = torch.from_numpy(BOXES) / torch.tensor([HW[1], HW[0]] * 2)
    edges = torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], dim=1)
    labels = {"boxes": edges, "class_labels": torch.from_numpy(LABELS)}
    outputs = net(image, labels=[labels] * len(image))
    outputs.loss.backward()
    terms = {"vfl": "cls", "bbox": "bbox", "giou": "iou", "fgl": "fgl", "ddf": "ddf"}
    places = {"": "", "0": "d0_", "1": "d1_", "2": "enc_"}
    for key, value in outputs.loss_dict.items():
        term, _, layer = key.removeprefix("loss_").partition("_aux_")
        ours = found[f"{places[layer]}loss_{terms[term]}"]
        np.testing.assert_allclose(ours, value.detach(), rtol=1e-3, err_msg=key)
    lengths = dict(zip(found["gradnorm_sources"].tolist(), found["gradnorm"], strict=True))
    compared = [key for key, _ in net.named_parameters() if key in lengths]
    assert len(compared) > 80
    for key in compared:
        wanted = net.get_parameter(key).grad
        wanted = 0.0 if wanted is None else wanted.norm()
        np.testing.assert_allclose(lengths[key], wanted, rtol=1e-2, atol=1e-5, err_msg=key)


def detections_of(name: str, outputs: Any) -> dict[str, Tensor]:
    """The detections in the outputs of one image, best first, as the papers select them."""
    boxes, logits = outputs.pred_boxes[0], outputs.logits[0]
    size = torch.tensor([HW[1], HW[0]] * 2)
    edges = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1) * size
    if name in ("detr", "deformable_detr"):  # the others' boxes may end outside of the image
        edges = torch.minimum(edges.clamp(min=0), size)
    if name == "detr":
        scores, labels = logits.softmax(-1)[:, :-1].max(-1)
        order = scores.argsort(descending=True)
        return {"boxes": edges[order], "scores": scores[order], "labels": labels[order]}
    scores, order = logits.sigmoid().flatten().sort(descending=True)
    queries, labels = order // CLASSES, order % CLASSES
    return {"boxes": edges[queries], "scores": scores, "labels": labels}
