"""The real-time heads against transformers' own networks with random weights."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torch import Tensor, nn

from mtl_ray.experiment import ModelConfig, build_model
from mtl_ray.inputs.frame import frame_of
from mtl_ray.inputs.image import Canvas
from mtl_ray.loading.batch import Batch
from mtl_ray.models.head import Context
from mtl_ray.models.hgnet import HgNetV2
from mtl_ray.models.hybrid_config import HgNetStage, HgNetV2Backbone, HybridEncoderNeck
from mtl_ray.models.hybrid_encoder import HybridEncoder
from mtl_ray.models.imports import Importing
from mtl_ray.samples import Vocabulary, image_sample
from mtl_ray.tasks.detection.query.matcher import SetTargets, match_queries, matching_costs, to_xyxy
from mtl_ray.tasks.detection.realtime.boxes import (
    canvas_targets,
    distribution_loss,
    expected_shifts,
    shift_steps,
    shift_targets,
    shifted_boxes,
)
from mtl_ray.tasks.detection.realtime.config import Denoising, DFineHead, RtDetrV2Head
from mtl_ray.tasks.detection.realtime.denoising import noisy_queries, visible_queries
from mtl_ray.tasks.detection.realtime.head import RealTimeDetr
from mtl_ray.tasks.detection.realtime.losses import class_loss, union_of_matches
from tests.tasks.head_cases import inputs_of, total
from tests.tasks.random_objects import instances

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
            to_xyxy = expected.intermediate_predicted_corners[:, layer]
            torch.testing.assert_close(raw[f"corners{layer}"], to_xyxy, rtol=1e-4, atol=1e-4)
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


def small_head(kind: str = "dfine", **options: Any) -> RealTimeDetr:
    types: Any = {"dfine": DFineHead, "rtdetr_v2": RtDetrV2Head}[kind]
    config = types(
        channels=32,
        heads=2,
        layers=2,
        queries=12,
        feedforward=32,
        points=2,
        levels=("P3", "P4"),
        **options,
    )
    vocabulary = Vocabulary(classes={"instances": tuple("abcde")})
    head = config.build(vocabulary, {"P3": 32, "P4": 32}, {"P3": 8, "P4": 16})
    assert isinstance(head, RealTimeDetr)
    return head


def small_features(count: int, seed: int = 3) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "P3": torch.randn(count, 32, 16, 20, generator=draw),
        "P4": torch.randn(count, 32, 8, 10, generator=draw),
    }


def part(values: dict[str, Tensor], rows: list[int]) -> dict[str, Tensor]:
    return {name: value[rows] for name, value in values.items()}


@pytest.mark.parametrize("weights", ["dfine", "rtdetr_v2"])
def test_denoising_is_the_same_wherever_an_image_is(weights: str) -> None:
    """Terms of training add up over any split of a batch, with the noise of the same step."""
    head = small_head(weights, denoising=Denoising(queries=7))
    varied(head).train()
    head.decoder_input_proj.eval()  # batch normalisation would mix images
    image, _, targets = batch()
    features = small_features(2)
    whole = head.losses(features, targets, context_of(image, step=5))
    other = head.losses(features, targets, context_of(image, step=6))
    parts = [
        head.losses(part(features, [i]), part(targets, [i]), context_of(image[[i]], step=5))
        for i in (1, 0)
    ]
    assert any(name.startswith("dn_") for name in whole)
    for name, (value, count) in whole.items():
        summed = sum(each[name][0] for each in parts)
        torch.testing.assert_close(value, summed, rtol=1e-4, atol=1e-4, msg=name)
        assert count == sum(each[name][1] for each in parts)
        if name.startswith("dn_") and "class" in name:
            assert value != other[name][0]


def objects_of(counts: list[int], seed: int = 0) -> SetTargets:
    draw = torch.Generator().manual_seed(seed)
    room = max(counts) + 1
    present = torch.zeros(len(counts), room, dtype=torch.bool)
    for row, count in enumerate(counts):
        present[row, torch.randperm(room, generator=draw)[:count]] = True
    boxes = torch.rand(len(counts), room, 4, generator=draw) * 0.5 + 0.2
    classes = torch.randint(0, CLASSES, (len(counts), room), generator=draw)
    return SetTargets(classes, boxes, present, torch.full((len(counts), 4), 100.0))


@given(
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=3),
    queries=st.integers(1, 9),
    step=st.integers(0, 2**31),
    label_noise=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_noisy_queries_are_objects_with_as_much_noise_as_configured(
    counts: list[int], queries: int, step: int, label_noise: float
) -> None:
    objects = objects_of(counts)
    config = Denoising(queries=queries, label_noise=label_noise, box_noise=0.6)
    noisy = noisy_queries(config, objects, CLASSES, step)
    half = max(queries, objects.present.shape[1])
    assert noisy.classes.shape == (len(counts), 2 * half)
    for row, count in enumerate(counts):
        groups = max(queries // count, 1) if count else 0
        assert noisy.positive[row].sum() == groups * count
        assert noisy.real[row].sum() == 2 * groups * count
        real = noisy.real[row]
        assert objects.present[row][noisy.object[row][real]].all()
        assert (noisy.classes[row][~real] == CLASSES).all()
        for group in range(groups):
            members = noisy.object[row][noisy.positive[row] & (noisy.group[row] == group)]
            assert sorted(members.tolist()) == objects.present[row].nonzero().flatten().tolist()
        box = objects.boxes[row][noisy.object[row]]
        edges, true = to_xyxy(noisy.boxes[row]), to_xyxy(box)
        shift = (edges - true).abs() / (box[:, 2:].repeat(1, 2) / 2)
        inside = ((edges > 2e-5) & (edges < 1 - 2e-5)).all(dim=1)
        restored, rejected = noisy.positive[row] & inside, ~noisy.positive[row] & real & inside
        assert (shift[restored] <= 0.6 + 1e-4).all()
        assert (shift[rejected] >= 0.6 - 1e-4).all()
        assert (shift[rejected] <= 1.2 + 1e-4).all()
        if label_noise == 0:
            assert (noisy.classes[row] == objects.classes[row][noisy.object[row]])[real].all()
    again = noisy_queries(config, objects, CLASSES, step)
    assert all(torch.equal(a, b) for a, b in zip(noisy, again, strict=True))


def test_noise_is_spread_evenly() -> None:
    objects = objects_of([40] * 20)
    noisy = noisy_queries(Denoising(queries=400), objects, CLASSES, 1)
    box = objects.boxes.gather(1, noisy.object[..., None].expand(-1, -1, 4))
    shift = (to_xyxy(noisy.boxes) - to_xyxy(box)) / (box[..., 2:].repeat(1, 1, 2) / 2)
    edges = to_xyxy(noisy.boxes)
    inside = noisy.positive[..., None] & (edges > 1e-3) & (edges < 1 - 1e-3)
    inside &= (to_xyxy(box) > 0.3) & (to_xyxy(box) < 0.7)
    parts = torch.histc(shift[inside], 10, -1, 1) / inside.sum()
    assert inside.sum() > 5000
    assert (parts - 0.1).abs().max() < 0.02
    true = objects.classes.gather(1, noisy.object)
    changed = (noisy.classes != true).float().mean()
    assert changed == pytest.approx(0.25 * 0.8, abs=0.02), "a random class may be the true one"


def test_queries_see_their_own_group_and_nobody_sees_noise_from_outside() -> None:
    noisy = noisy_queries(Denoising(queries=4), objects_of([2, 1]), CLASSES, 0)
    visible = visible_queries(noisy, 3)[:, 0]
    count = noisy.group.shape[1]
    assert not visible[:, count:, :count].any()
    assert visible[:, :, count:].all()
    same = noisy.group[:, :, None] == noisy.group[:, None]
    assert (visible[:, :count, :count] == same).all()


def test_the_union_of_matches_is_what_most_sets_say() -> None:
    matched = torch.tensor([[[0, -1, 1, -1]], [[1, -1, 0, -1]], [[1, 2, -1, -1]]])
    assert union_of_matches(matched, 3).tolist() == [[1, 2, 0, -1]]


@given(anchor=st.tuples(*[st.floats(0.2, 0.8)] * 4), shift=st.tuples(*[st.floats(-3.9, 3.9)] * 4))
def test_shift_targets_are_the_inverse_of_shifted_boxes(
    anchor: tuple[float, ...], shift: tuple[float, ...]
) -> None:
    curvature = torch.tensor([4.0])
    steps = shift_steps(32, torch.tensor([0.5]), curvature)
    anchors, shifts = torch.tensor([anchor]), torch.tensor([shift])
    boxes = to_xyxy(shifted_boxes(anchors, shifts, curvature))
    places = shift_targets(anchors, boxes, steps, curvature)
    left = places.long().clamp(max=31)
    found = steps[left] + (places - left) * (steps[left + 1] - steps[left])
    torch.testing.assert_close(found, shifts, atol=1e-4, rtol=0)
    # the loss is least at the distribution of the two bins
    wanted = torch.zeros(1, 4, 33).scatter_(2, left[..., None], (1 - places + left)[..., None])
    wanted = wanted.scatter_add(2, left[..., None] + 1, (places - left)[..., None])
    logits = (wanted + 1e-6).log()
    torch.testing.assert_close(expected_shifts(logits, steps), shifts, atol=1e-3, rtol=0)
    loss = distribution_loss(logits, places)
    assert (loss <= distribution_loss(logits + torch.randn(1, 4, 33), places) + 1e-3).all()


def test_shifts_beyond_the_bins_are_the_last_ones() -> None:
    curvature = torch.tensor([4.0])
    steps = shift_steps(32, torch.tensor([0.5]), curvature)
    anchors = torch.tensor([[0.5, 0.5, 0.01, 0.01], [0.5, 0.5, 0.0, 0.0]])
    places = shift_targets(anchors, torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2), steps, curvature)
    assert (places == 32).all()
    places = shift_targets(anchors[:1], torch.tensor([[0.9, 0.9, 0.1, 0.1]]), steps, curvature)
    assert (places == 0).all()


@pytest.mark.parametrize("kind", ["dfine", "rtdetr_v2"])
def test_degenerate_boxes_tiny_maps_and_empty_images_have_finite_losses(kind: str) -> None:
    head = varied(small_head(kind)).train()
    features = {"P3": torch.randn(2, 32, 2, 2), "P4": torch.randn(2, 32, 1, 1)}
    image, _, targets = batch()
    targets["boxes"][0, 0] = torch.tensor([50.0, 50.0, 50.0, 50.0])
    for present in (targets["present"], torch.zeros_like(targets["present"])):
        terms = head.losses(features, targets | {"present": present}, context_of(image))
        loss = sum(value for value, _ in terms.values())
        loss.backward()
        assert loss.isfinite()
        assert all(p.grad.isfinite().all() for p in head.parameters())
        head.zero_grad()
    empty = {
        name: value[:, :0] if value.dim() > 1 and name != "known_classes" else value
        for name, value in targets.items()
    }
    assert all(v.isfinite() for v, _ in head.losses(features, empty, context_of(image)).values())


def test_the_class_losses_are_those_of_the_papers() -> None:
    logits, iou = torch.tensor([[0.3, -1.0]]), torch.tensor([[0.64]])
    wanted = torch.tensor([[1.0, 0.0]])
    p = logits.sigmoid()
    head = small_head(class_loss="mal")
    mal = class_loss(head.config, logits, wanted, iou)
    target = 0.64**1.5
    expected = [
        -(target * p[0, 0].log() + (1 - target) * (1 - p[0, 0]).log()),
        -(p[0, 1] ** 1.5) * (1 - p[0, 1]).log(),
    ]
    torch.testing.assert_close(mal[0], torch.stack(expected))
    vfl = class_loss(small_head(class_loss="vfl").config, logits, wanted, iou)
    expected = [
        -0.64 * (0.64 * p[0, 0].log() + 0.36 * (1 - p[0, 0]).log()),
        -0.75 * (p[0, 1] ** 2) * (1 - p[0, 1]).log(),
    ]
    torch.testing.assert_close(vfl[0], torch.stack(expected))


def test_the_published_criterion_gives_boxes_of_all_layers_the_same_objects() -> None:
    """Without noise, by hand: the last layer's box loss with the union of all matches."""
    head = varied(small_head(denoising=Denoising(queries=0)))
    image, _, targets = batch()
    decoded = head.decode(small_features(2))
    terms = head.losses(small_features(2), targets, context_of(image))
    assert set(terms) == {
        *(f"{p}{t}" for p in ("", "d0_", "pre_", "enc_") for t in ("class", "box", "iou")),
        "fgl", "d0_fgl", "d0_ddf",
    }  # fmt: skip
    objects = canvas_targets(targets, context_of(image))
    sets = [*decoded.layers, decoded.encoder]
    outputs = [each._replace(boxes=each.boxes.clamp(0, 1)) for each in sets]
    costs = matching_costs(
        torch.stack([o.logits for o in outputs]),
        torch.stack([o.boxes for o in outputs]),
        objects,
        head.costs,
    )
    (matched,) = match_queries([costs], objects.present)
    total, count = torch.zeros(()), 0
    for row in range(2):
        for query in range(12):
            votes = [int(each) for each in matched[:, row, query] if each >= 0]
            if votes:
                best = max(sorted(set(votes)), key=votes.count)
                box = outputs[-2].boxes[row, query]
                total = total + (box - objects.boxes[row, best]).abs().sum()
                count += 1
    value, number = terms["box"]
    torch.testing.assert_close(value, 5 * total)
    assert number == count


def coloured_rectangles(count: int) -> Batch:
    """Dark canvases of 96 x 128 with one to four rectangles, whose class is their colour."""
    draw = torch.Generator().manual_seed(1)
    image = torch.randint(0, 60, (count, 3, 96, 128), dtype=torch.uint8, generator=draw)
    boxes, present = torch.zeros(count, 4, 4), torch.zeros(count, 4, dtype=torch.bool)
    classes = torch.zeros(count, 4, dtype=torch.int64)
    for row in range(count):
        for place in range(int(torch.randint(1, 5, (), generator=draw))):
            x, y, w, h, kind = (
                int(torch.randint(low, high, (), generator=draw))
                for low, high in ((0, 88), (0, 56), (14, 40), (14, 40), (0, 3))
            )
            image[row, :, y : y + h, x : x + w] = 40
            image[row, kind, y : y + h, x : x + w] = 200 + 10 * place
            boxes[row, place] = torch.tensor([x, y, x + w, y + h])
            classes[row, place], present[row, place] = kind, True
    instances = {
        "boxes": boxes,
        "classes": classes,
        "present": present,
        "crowd": torch.zeros_like(present),
        "annotated": torch.ones(count, dtype=torch.bool),
        "known_classes": torch.ones(count, 3, dtype=torch.bool),
    }
    return Batch(inputs=inputs_of(image, (96, 128)), targets={"instances": instances}, keys=())


@pytest.mark.slow
def test_eight_images_are_learnt_by_heart() -> None:
    """AP50 of at least .9 in half a minute of one core."""
    config = TypeAdapter(ModelConfig).validate_python(
        {
            "backbone": {
                "name": "resnet18",
                "options": {
                    "layers": [1, 1, 1, 1],
                    "channels": [16, 32, 64, 64],
                    "stem_type": "deep",
                    "stem_width": 8,
                },
            },
            "necks": {
                "encoder": {
                    "type": "hybrid_encoder",
                    "channels": 64,
                    "heads": 4,
                    "feedforward": 128,
                    "depth": 0.34,
                    "expansion": 0.5,
                }
            },
            "heads": {
                "boxes": {
                    "type": "dfine",
                    "channels": 64,
                    "heads": 4,
                    "feedforward": 128,
                    "queries": 50,
                    "layers": 3,
                    "points": [2, 4, 2],
                    "denoising": {"queries": 40},
                }
            },
        }
    )
    torch.manual_seed(0)
    vocabulary = Vocabulary(classes={"instances": ("a", "b", "c")})
    model, seen = build_model(config, vocabulary), coloured_rectangles(8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    for step in range(150):
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1, (step + 1) / 20, (150 - step) / 50)
        optimizer.zero_grad()
        total(model.losses(seen, step)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    with torch.no_grad():
        found = model.predict(seen.inputs)["boxes"]
    head = config.heads["boxes"]
    metric = head.task.metric(head, vocabulary)
    frame = frame_of(96, 128, Canvas(kind="stretch", height=96, width=128))
    for row in range(8):
        arrays = {name: value[row].numpy() for name, value in found.items()}
        target = {name: value[row] for name, value in seen.targets["instances"].items()}
        gt = instances(
            target["boxes"][target["present"]].tolist(),
            target["classes"][target["present"]].tolist(),
        )
        sample = image_sample(key=str(row), image=b"", height=96, width=128, instances=gt)
        metric.update(sample, head.task.decode(arrays, frame, head))
    assert metric.result()["mAP50"] >= 0.9
