"""Deformable DETR held against transformers' own network, and what it promises."""

import itertools
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from mtl_ray.tasks.detection.query.attention import DeformableAttention, sample_levels
from mtl_ray.tasks.detection.query.config import DeformableDetrHead
from mtl_ray.tasks.detection.query.deformable_detr import DeformableDetr
from tests.tasks.detection.query_cases import (
    VALID_HW,
    VOCABULARY,
    check_export_with_padding,
    context,
    fill,
    huggingface_inputs,
    means,
    overfitted,
    scatter,
    targets,
    tiny_resnet,
    with_other_padding,
)

LEVELS = {"P3": 8, "P4": 16, "P5": 32, "P6": 64}
KINDS: dict[str, dict[str, bool]] = {
    "plain": {},
    "refine": {"refine": True},
    "two_stage": {"refine": True, "two_stage": True},
}
EVERY = pytest.mark.parametrize("kind", KINDS)


def small(kind: str = "plain", **options: Any) -> DeformableDetr:
    # Proposals have 128 features for a coordinate in transformers, whatever the width.
    width = 256 if kind == "two_stage" else 32
    values = {
        "type": "deformable_detr",
        "channels": width,
        "heads": 4,
        "queries": 12,
        "points": 3,
        "encoder_layers": 2,
        "decoder_layers": 3,
        "feedforward": 40,
        "dropout": 0.0,
        "max_detections": 20,
    }
    config = TypeAdapter(DeformableDetrHead).validate_python(values | KINDS[kind] | options)
    head = config.build(VOCABULARY, dict.fromkeys(LEVELS, width), LEVELS)
    assert isinstance(head, DeformableDetr)
    return head


def original(kind: str) -> Any:
    """Transformers' network with random weights, in evaluation mode."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.DeformableDetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=tiny_resnet(),
        d_model=256 if kind == "two_stage" else 32,
        num_queries=12,
        two_stage_num_proposals=12,
        num_feature_levels=4,
        encoder_layers=2,
        decoder_layers=3,
        encoder_ffn_dim=40,
        decoder_ffn_dim=40,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_n_points=3,
        decoder_n_points=3,
        num_labels=3,
        auxiliary_loss=True,
        class_cost=2,  # as published; transformers has 1
        with_box_refine=kind != "plain",
        two_stage=kind == "two_stage",
    )
    model = transformers.DeformableDetrForObjectDetection(config).eval()
    scatter(model)
    return model


def features_of(model: Any) -> dict[str, torch.Tensor]:
    """The projected features of the padded batch."""
    kept: dict[str, torch.Tensor] = {}
    hooks = [
        layer.register_forward_hook(
            lambda _module, _inputs, output, name=name: kept.update({name: output})
        )
        for name, layer in zip(LEVELS, model.model.input_proj, strict=True)
    ]
    with torch.no_grad():
        model(**{k: v for k, v in huggingface_inputs().items() if k != "labels"})
    for hook in hooks:
        hook.remove()
    return kept


@EVERY
def test_outputs_and_losses_are_those_of_transformers(kind: str) -> None:
    model = original(kind)
    head, features = small(kind), features_of(model)
    used = fill(head, "huggingface", model.state_dict())
    rest = {name for name in model.state_dict() if name not in used}
    assert all(name.startswith(("model.backbone.", "model.input_proj.")) for name in rest)
    with torch.no_grad():
        expected = model(**huggingface_inputs())
        raw = head.raw_outputs(features, context())
        losses = means(head.losses(features, targets(), context()))
    torch.testing.assert_close(raw["cls2"], expected.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(raw["reg2"], expected.pred_boxes, rtol=1e-4, atol=1e-6)
    if kind == "two_stage":
        theirs = expected.enc_outputs_coord_logits.sigmoid()
        torch.testing.assert_close(raw["enc_reg"], theirs, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(raw["enc_cls"], expected.enc_outputs_class, rtol=1e-4, atol=1e-5)
    weights = {"class": ("loss_ce", 2), "box": ("loss_bbox", 5), "iou": ("loss_giou", 2)}
    for name, (theirs, weight) in weights.items():
        for prefix, suffix in (("", ""), ("d0_", "_0"), ("d1_", "_1")):
            wanted = weight * float(expected.loss_dict[theirs + suffix])
            assert losses[prefix + name] == pytest.approx(wanted, rel=1e-4), (prefix, name)


def test_attention_is_that_of_a_loop() -> None:
    """Eq. 3 of Zhu et al. 2021, one sample at a time."""
    sizes, points = [(3, 4), (2, 2)], (2, 1)
    values = torch.randn(1, 16, 2, 5)
    places, weights = torch.rand(1, 4, 2, 3, 2) * 1.4 - 0.2, torch.rand(1, 4, 2, 3)
    found = sample_levels(values, sizes, places, weights, points).view(1, 4, 2, 5)
    level_of = [0, 0, 1]
    maps = [values[0, :12].view(3, 4, 2, 5), values[0, 12:].view(2, 2, 2, 5)]
    for query, head in itertools.product(range(4), range(2)):
        total = torch.zeros(5)
        for point, level in enumerate(level_of):
            height, width = sizes[level]
            # in cells from the centre of the first
            x, y = (places[0, query, head, point] * torch.tensor([width, height]) - 0.5).tolist()
            for row, column in itertools.product(range(height), range(width)):
                near = max(0.0, 1 - abs(x - column)) * max(0.0, 1 - abs(y - row))
                total += weights[0, query, head, point] * near * maps[level][row, column, head]
        torch.testing.assert_close(found[0, query, head], total, rtol=1e-4, atol=1e-5)


def test_attention_starts_along_one_direction_for_each_head() -> None:
    bias = DeformableAttention(32, 8, 2, 3).sampling_offsets.bias.view(8, 2, 3, 2)
    east, north_east = bias[0, 0], bias[1, 1]
    torch.testing.assert_close(east, torch.tensor([[1.0, 0], [2, 0], [3, 0]]))
    torch.testing.assert_close(north_east, torch.tensor([[1.0, 1], [2, 2], [3, 3]]))


@EVERY
def test_predictions_are_the_best_pairs_of_query_and_class(kind: str) -> None:
    head = small(kind).eval()
    scatter(head)
    width = 256 if kind == "two_stage" else 32
    features = {name: torch.randn(2, width, 96 // s, 128 // s) for name, s in LEVELS.items()}
    features["P6"] = torch.randn(2, width, 2, 2)
    with torch.no_grad():
        found = head.predict(features, context())
        raw = head.raw_outputs(features, context())
    for row, (height, wide) in enumerate(VALID_HW):
        pairs = [
            (float(score), label, query)
            for query, scores in enumerate(raw["cls2"][row].sigmoid())
            for label, score in enumerate(scores)
        ]
        best = sorted(pairs, key=lambda pair: -pair[0])[:20]
        assert found["scores"][row].tolist() == pytest.approx([score for score, _, _ in best])
        assert found["classes"][row].tolist() == [label for _, label, _ in best]
        boxes = raw["reg2"][row][[query for _, _, query in best]]
        centre, side = boxes[:, :2], boxes[:, 2:]
        edges = torch.cat([centre - side / 2, centre + side / 2], dim=1)
        scale = torch.tensor([wide, height, wide, height])
        wanted = torch.minimum((edges * scale).clamp(min=0), scale)
        torch.testing.assert_close(found["boxes"][row], wanted, rtol=0, atol=1e-3)


@EVERY
def test_padding_changes_nothing(kind: str) -> None:
    head = small(kind).eval()
    scatter(head)
    width = 256 if kind == "two_stage" else 32
    features = {name: torch.randn(2, width, 96 // s, 128 // s) for name, s in LEVELS.items()}
    features["P6"] = torch.randn(2, width, 2, 2)
    with torch.no_grad():
        first = head.raw_outputs(features, context())
        second = head.raw_outputs(with_other_padding(features), context())
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-4, atol=1e-5, msg=name)


@EVERY
def test_it_learns_four_images_by_heart(kind: str) -> None:
    head = {
        "type": "deformable_detr",
        "levels": ["P3", "P4"],
        "channels": 64,
        "heads": 4,
        "queries": 20,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "feedforward": 128,
        "dropout": 0.0,
        "max_detections": 20,
    }
    for overlap, margin in overfitted(head | KINDS[kind], steps=120):
        assert overlap > 0.7
        assert margin > 0.3


def test_padding_is_ignored_in_the_exported_graph() -> None:
    check_export_with_padding("two_stage_detr")


def test_fewer_cells_than_queries_are_no_error() -> None:
    head = small("two_stage", queries=40, max_detections=40)
    features = {name: torch.randn(2, 256, 2, 2) for name in LEVELS}
    terms = head.losses(features, targets(), context())
    assert all(total.isfinite() for total, _ in terms.values())
    with torch.no_grad():
        assert head.eval().predict(features, context())["scores"].shape == (2, 40)


@EVERY
def test_names_of_openmmlab_are_its_own(kind: str) -> None:
    """Without refinement a file of OpenMMLab has the shared branches for each decoder layer."""
    head = small(kind)
    own = {name: torch.randn(value.shape) for name, value in head.state_dict().items()}
    published = dict(own)
    if kind == "plain":
        for name, value in own.items():
            for layer in (1, 2):
                published[name.replace("branches.0.", f"branches.{layer}.")] = value
    used = fill(head, "openmmlab", published | {"neck.convs.0.conv.weight": torch.zeros(1)})
    assert used == set(published)
    assert all(torch.equal(value, own[name]) for name, value in head.state_dict().items())


@EVERY
def test_names_of_the_original_repository(kind: str) -> None:
    """There norm1 of a decoder layer follows the attention to the image."""
    head = small(kind)
    own = {name: torch.randn(value.shape) for name, value in head.state_dict().items()}
    published = {}
    for name, value in own.items():
        parts = [
            ("decoder.layers", ".norms.0.", ".norm2."),
            ("decoder.layers", ".norms.1.", ".norm1."),
            ("decoder.layers", ".norms.2.", ".norm3."),
            ("encoder.layers", ".norms.0.", ".norm1."),
            ("encoder.layers", ".norms.1.", ".norm2."),
            ("", ".self_attn.attn.", ".self_attn."),
            ("", ".ffn.layers.0.0.", ".linear1."),
            ("", ".ffn.layers.1.", ".linear2."),
            ("", "bbox_head.cls_branches.", "class_embed."),
            ("", "reference_points_fc.", "reference_points."),
            ("", "memory_trans_fc.", "enc_output."),
            ("", "memory_trans_norm.", "enc_output_norm."),
            ("", "pos_trans_fc.", "pos_trans."),
            ("", "query_embedding.", "query_embed."),
        ]
        for part, mine, theirs in parts:
            if part in name:
                name = name.replace(mine, theirs)
        if name.startswith("bbox_head.reg_branches."):
            *_, branch, layer, kind_of = name.split(".")
            name = f"bbox_embed.{branch}.layers.{int(layer) // 2}.{kind_of}"
        if not name.startswith(("class_embed", "bbox_embed", "query_embed")):
            name = f"transformer.{name}"
        published[name] = value
    copies = {
        f"transformer.decoder.{name}": value
        for name, value in published.items()
        if kind != "plain" and name.startswith("bbox_embed")
    }
    assert fill(head, "openmmlab", published | copies) == set(published | copies)
    assert all(torch.equal(value, own[name]) for name, value in head.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "of_head", "total"),
    [
        ("plain", 153_172, 10_972_758),
        ("refine", 919_032, 11_738_618),
        ("two_stage", 1_072_204, 12_067_660),
    ],
)
def test_the_published_networks_have_the_published_sizes(
    kind: str, of_head: int, total: int
) -> None:
    with torch.device("meta"):
        head = DeformableDetr(DeformableDetrHead(**KINDS[kind]), 80)
    sizes = {
        name: sum(parameter.numel() for parameter in part.parameters())
        for name, part in head.named_children()
    }
    assert (sizes["encoder"], sizes["decoder"]) == (4_541_184, 6_123_264)
    assert sizes["bbox_head"] == of_head
    assert sum(parameter.numel() for parameter in head.parameters()) == total


def test_boxes_start_small_and_the_classes_rare() -> None:
    head = small("refine")
    features = {name: torch.randn(2, 32, 4, 4) for name in LEVELS}
    raw = head.raw_outputs(features, context())
    assert raw["cls0"].sigmoid().mean() < 0.05
    side = torch.tensor(-2.0).sigmoid()
    torch.testing.assert_close(raw["reg2"][..., 2:], side.expand(2, 12, 2))


def test_a_dataset_that_knows_some_classes_teaches_proposals_anyway() -> None:
    head = small("two_stage")
    features = {name: torch.randn(2, 256, 4, 4) for name in LEVELS}
    wanted = targets()
    wanted["known_classes"][:, 2] = False
    wanted["present"] &= wanted["classes"] != 2
    terms = head.losses(features, wanted, context())
    gradients = torch.autograd.grad(
        terms["enc_class"][0] + terms["class"][0],
        [head.bbox_head.cls_branches[layer].bias for layer in (2, 3)],
    )
    assert gradients[0][2] == 0
    assert gradients[1].all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"two_stage": True, "refine": False}, "two_stage needs refine"),
        ({"levels": []}, "at least one feature map"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        small(**options)


def test_more_detections_than_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 12 queries times 3 classes"):
        small(max_detections=37)
