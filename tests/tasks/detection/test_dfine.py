"""The real-time heads against transformers' own networks with random weights."""

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from mtl_ray.models.head import Context
from mtl_ray.models.hgnet import HgNetV2
from mtl_ray.models.hybrid_config import HgNetStage, HgNetV2Backbone, HybridEncoderNeck
from mtl_ray.models.hybrid_encoder import HybridEncoder
from mtl_ray.models.imports import Importing
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.detection.query.dfine_config import DFineHead, RtDetrV2Head
from mtl_ray.tasks.detection.query.dfine_head import RealTimeDetr

transformers = pytest.importorskip("transformers")

CLASSES, CHANNELS, HW = 5, (16, 24, 32), (128, 160)
SHARED = {
    "encoder_hidden_dim": 32,
    "encoder_in_channels": list(CHANNELS),
    "encoder_ffn_dim": 48,
    "encoder_attention_heads": 4,
    "d_model": 32,
    "decoder_in_channels": [32] * 3,
    "decoder_ffn_dim": 40,
    "decoder_attention_heads": 4,
    "decoder_layers": 3,
    "num_queries": 30,
    "num_labels": CLASSES,
    "num_denoising": 0,
}
OPTIONS = {
    "channels": 32,
    "feedforward": 40,
    "heads": 4,
    "layers": 3,
    "queries": 30,
    "denoising": {"queries": 0},
    "class_loss": "vfl",
}
STAGES = ((8, 12, False), (8, 16, False), (8, 24, True), (8, 32, True))


def hgnet_config() -> Any:
    inner, outer = [s[0] for s in STAGES], [s[1] for s in STAGES]
    return transformers.HGNetV2Config(
        stem_channels=[3, 8, 8],
        stage_in_channels=[8, *outer[:-1]],
        stage_mid_channels=inner,
        stage_out_channels=outer,
        stage_num_blocks=[1, 1, 2, 1],
        stage_light_block=[s[2] for s in STAGES],
        stage_kernel_size=[3, 3, 5, 5],
        stage_numb_of_layers=[2, 2, 2, 2],
        hidden_sizes=outer,
        depths=[1, 1, 2, 1],
        embedding_size=8,
        use_learnable_affine_block=True,
        out_features=["stage2", "stage3", "stage4"],
    )


def varied(net: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights without zeros, and statistics other than at the start."""
    torch.manual_seed(seed)
    for name, value in net.state_dict().items():
        if value.dim() == 1 and name.endswith((".running_var", ".weight", "lab.scale")):
            value.uniform_(0.5, 1.5)
        elif name.endswith(("points_scale", "decoder.up", "reg_scale", "num_batches_tracked")):
            continue
        elif name.endswith("sampling_offsets.bias"):
            value.uniform_(-4, 4)
        elif value.dim() == 4:
            nn.init.kaiming_normal_(value)
        elif value.dim() > 1:
            nn.init.xavier_normal_(value)
        else:
            value.uniform_(-0.3, 0.3)
    return net


def original(kind: str, **options: Any) -> nn.Module:
    """The network of transformers, in training mode but for its normalisation: it predicts with
    all layers only then.
    """
    if kind == "dfine":
        config = transformers.DFineConfig(
            backbone_config=hgnet_config(),
            decoder_n_points=[2, 3, 4],
            depth_mult=0.34,
            hidden_expansion=0.5,
            **(SHARED | options),
        )
        net = transformers.DFineForObjectDetection(config)
    else:
        config = transformers.RTDetrV2Config(
            backbone_config=hgnet_config(),
            decoder_n_points=3,
            hidden_expansion=0.5,
            activation_function="relu",
            **(SHARED | options),
        )
        net = transformers.RTDetrV2ForObjectDetection(config)
    varied(net).train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return net


class Ours(nn.Module):
    """Backbone, neck and head, filled from the original."""

    def __init__(self, kind: str, state: dict[str, Tensor], **options: Any) -> None:
        super().__init__()
        stages = tuple(
            HgNetStage(
                inner=inner,
                channels=outer,
                blocks=2 if i == 2 else 1,
                layers=2,
                light=light,
                kernel=3 if i < 2 else 5,
                downsample=i > 0,
            )
            for i, (inner, outer, light) in enumerate(STAGES)
        )
        self.backbone = HgNetV2(HgNetV2Backbone(stem=(8, 8), stages=stages, affine=True))
        neck = HybridEncoderNeck(
            channels=32,
            heads=4,
            feedforward=48,
            expansion=0.5,
            **({"depth": 0.34} if kind == "dfine" else {"fusion": "csp", "activation": "relu"}),
        )
        self.neck = HybridEncoder(neck, self.backbone.channels, self.backbone.strides)
        types: Any = {"dfine": DFineHead, "rtdetr_v2": RtDetrV2Head}[kind]
        more = {"points": [2, 3, 4]} if kind == "dfine" else {"points": 3}
        config = TypeAdapter(types).validate_python(OPTIONS | more | options)
        vocabulary = Vocabulary(classes={"instances": tuple("abcde")})
        head = config.build(vocabulary, self.neck.channels, self.neck.strides)
        assert isinstance(head, RealTimeDetr)
        self.head = head
        self.used: set[str] = set()
        for part in (self.backbone, self.neck, self.head):
            assert isinstance(part, Importing)
            found = part.imported("huggingface", state)
            self.used |= {name for each in found.values() for name in each.sources}
            part.load_state_dict({name: each.value for name, each in found.items()}, strict=False)
            missing = set(part.state_dict()) - set(found)
            assert all(name.endswith("num_batches_tracked") for name in missing), missing
        self.eval()

    def features(self, image: Tensor) -> dict[str, Tensor]:
        return self.neck(self.backbone(image))


def batch(seed: int = 1) -> tuple[Tensor, list[dict[str, Tensor]], dict[str, Tensor]]:
    """Images, the labels of transformers, and our targets of the same objects."""
    draw = torch.Generator().manual_seed(seed)
    image = torch.randn(2, 3, *HW, generator=draw)
    labels, boxes = [], torch.zeros(2, 4, 4)
    present, classes = torch.zeros(2, 4, dtype=torch.bool), torch.zeros(2, 4, dtype=torch.int64)
    height, width = HW
    for row, count in enumerate((3, 1)):
        centre = 0.3 + 0.4 * torch.rand(count, 2, generator=draw)
        size = 0.1 + 0.3 * torch.rand(count, 2, generator=draw)
        kinds = torch.randint(0, CLASSES, (count,), generator=draw)
        labels.append({"class_labels": kinds, "boxes": torch.cat([centre, size], 1)})
        edges = torch.cat([centre - size / 2, centre + size / 2], 1)
        boxes[row, :count] = edges * torch.tensor([width, height, width, height])
        present[row, :count], classes[row, :count] = True, kinds
    targets = {
        "boxes": boxes,
        "classes": classes,
        "present": present,
        "crowd": torch.zeros_like(present),
        "annotated": torch.ones(2, dtype=torch.bool),
        "known_classes": torch.ones(2, CLASSES, dtype=torch.bool),
    }
    return image, labels, targets


def context_of(image: Tensor, step: int = 0) -> Context:
    valid = torch.tensor([image.shape[2:]] * len(image), dtype=torch.int32)
    return Context(inputs={"image": image, "valid_hw": valid}, step=step)


@pytest.mark.parametrize("kind", ["dfine", "rtdetr_v2"])
@pytest.mark.parametrize("method", ["default", "discrete"])
def test_all_layers_equal_those_of_transformers(kind: str, method: str) -> None:
    theirs = original(kind, decoder_method=method)
    state = theirs.state_dict()
    sampling = "bilinear" if method == "default" else "discrete"
    ours = Ours(kind, state, sampling=sampling)
    assert ours.used == set(state)
    image, labels, _ = batch()
    with torch.no_grad():
        expected = theirs(image, labels=labels)
        raw = ours.head.raw_outputs(ours.features(image), context_of(image))
    assert (raw["logits2"][0] - raw["logits2"][1]).abs().amax() > 0.1, "the image matters"
    first = int(kind == "dfine")
    for layer in range(3):
        logits, boxes = expected.intermediate_logits, expected.intermediate_reference_points
        torch.testing.assert_close(
            raw[f"logits{layer}"], logits[:, layer + first], rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(
            raw[f"boxes{layer}"], boxes[:, layer + first], rtol=1e-4, atol=1e-5
        )
        if kind == "dfine":
            corners = expected.intermediate_predicted_corners[:, layer]
            torch.testing.assert_close(raw[f"corners{layer}"], corners, rtol=1e-4, atol=1e-4)
    if kind == "dfine":
        torch.testing.assert_close(raw["pre_logits"], logits[:, 0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(raw["pre_boxes"], boxes[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(raw["enc_logits"], expected.enc_topk_logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(raw["enc_boxes"], expected.enc_topk_bboxes, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["dfine", "rtdetr_v2"])
def test_losses_and_gradients_equal_those_of_transformers(kind: str) -> None:
    theirs = original(kind)
    more = {"criterion": "transformers"} if kind == "dfine" else {}
    ours = Ours(kind, theirs.state_dict(), **more)
    image, labels, targets = batch()
    expected = theirs(image, labels=labels)
    expected.loss.backward()
    terms = ours.head.losses(ours.features(image), targets, context_of(image))
    names = {"class": "vfl", "box": "bbox", "iou": "giou", "fgl": "fgl", "ddf": "ddf"}
    found = {}
    for name, (value, count) in terms.items():
        prefix, _, term = name.rpartition("_")
        layer = {"": "", "enc": "_aux_2"}.get(prefix, f"_aux_{prefix[1:]}")
        found[f"loss_{names[term]}{layer}"] = value / count.clamp(min=1)
    assert found.keys() == expected.loss_dict.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected.loss_dict[name], rtol=1e-4, atol=1e-5, msg=name)
    sum(found.values()).backward()
    gradients = dict(theirs.named_parameters())
    norm = ours.head.enc_score_head.weight.grad.norm()
    torch.testing.assert_close(
        norm, gradients["model.enc_score_head.weight"].grad.norm(), rtol=1e-3, atol=1e-5
    )
    for layer in range(3):
        name = f"decoder.layers.{layer}.mlp.layers.0.weight"
        other = name if kind == "dfine" else name.replace("layers.0.weight", "fc1.weight")
        torch.testing.assert_close(
            dict(ours.head.named_parameters())[name].grad.norm(),
            gradients[f"model.{other}"].grad.norm(),
            rtol=1e-3,
            atol=1e-5,
        )


@pytest.mark.parametrize("kind", ["dfine", "rtdetr_v2"])
def test_detections_equal_those_of_transformers(kind: str) -> None:
    theirs = original(kind).eval()
    ours = Ours(kind, theirs.state_dict(), max_detections=30)
    image, _, _ = batch()
    with torch.no_grad():
        outputs = theirs(image)
        found = ours.head.predict(ours.features(image), context_of(image))
    processor = transformers.RTDetrImageProcessorPil
    expected = processor().post_process_object_detection(outputs, 0.0, [HW] * 2)
    for row, each in enumerate(expected):
        torch.testing.assert_close(found["scores"][row], each["scores"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["boxes"][row], each["boxes"], rtol=1e-4, atol=1e-2)
        assert (found["classes"][row] == each["labels"]).all()
