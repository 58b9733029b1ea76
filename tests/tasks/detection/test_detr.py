"""DETR held against transformers' own network, and what it promises."""

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from mtl_ray.tasks.detection.query.config import DetrHead
from mtl_ray.tasks.detection.query.detr import Decoder, Detr, Encoder, Memory
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

SMALL: dict[str, Any] = {
    "type": "detr",
    "channels": 32,
    "heads": 4,
    "queries": 12,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "feedforward": 40,
    "dropout": 0.0,
    "max_detections": 12,
}


def small(**options: Any) -> Detr:
    config = TypeAdapter(DetrHead).validate_python(SMALL | options)
    head = config.build(VOCABULARY, {"P5": 32}, {"P5": 32})
    assert isinstance(head, Detr)
    return head


@pytest.fixture(scope="module")
def original() -> Any:
    """Transformers' DETR with random weights, in evaluation mode."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=tiny_resnet(),
        d_model=32,
        num_queries=12,
        encoder_layers=2,
        decoder_layers=3,
        encoder_ffn_dim=40,
        decoder_ffn_dim=40,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        num_labels=3,
    )
    model = transformers.DetrForObjectDetection(config).eval()
    scatter(model.model.encoder)
    scatter(model.model.decoder)
    return model


@pytest.fixture(scope="module")
def features(original: Any) -> dict[str, torch.Tensor]:
    """The projected features of the padded batch."""
    kept: list[torch.Tensor] = []
    hook = original.model.input_projection.register_forward_hook(
        lambda _module, _inputs, output: kept.append(output)
    )
    with torch.no_grad():
        original(**{k: v for k, v in huggingface_inputs().items() if k != "labels"})
    hook.remove()
    return {"P5": kept[0]}


def test_outputs_and_losses_are_those_of_transformers(
    original: Any, features: dict[str, torch.Tensor]
) -> None:
    head = small()
    used = fill(head, "huggingface", original.state_dict())
    rest = {name for name in original.state_dict() if name not in used}
    assert all(name.startswith(("model.backbone.", "model.input_projection.")) for name in rest)
    with torch.no_grad():
        expected = original(**huggingface_inputs())
        raw = head.raw_outputs(features, context())
        losses = means(head.losses(features, targets(), context()))
    torch.testing.assert_close(raw["cls2"], expected.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(raw["reg2"], expected.pred_boxes, rtol=1e-4, atol=1e-6)
    for name, theirs, weight in (
        ("class", "loss_ce", 1),
        ("box", "loss_bbox", 5),
        ("iou", "loss_giou", 2),
    ):
        assert losses[name] == pytest.approx(weight * float(expected.loss_dict[theirs]), rel=1e-4)


def test_predictions_are_the_least_background_queries(features: dict[str, torch.Tensor]) -> None:
    head = small(max_detections=5).eval()
    scatter(head)
    with torch.no_grad():
        found = head.predict(features, context())
        raw = head.raw_outputs(features, context())
    for row, (height, width) in enumerate(VALID_HW):
        best = []
        for logits, box in zip(raw["cls2"][row], raw["reg2"][row], strict=True):
            score, label = logits.softmax(dim=0)[:3].max(dim=0)
            x, y, w, h = box.tolist()
            edges = [(x - w / 2) * width, (y - h / 2) * height]
            edges += [(x + w / 2) * width, (y + h / 2) * height]
            clipped = [
                min(max(edge, 0), most)
                for edge, most in zip(edges, [width, height] * 2, strict=True)
            ]
            best.append((float(score), int(label), clipped))
        best = sorted(best, key=lambda each: -each[0])[:5]
        assert found["scores"][row].tolist() == pytest.approx([score for score, _, _ in best])
        assert found["classes"][row].tolist() == [label for _, label, _ in best]
        torch.testing.assert_close(
            found["boxes"][row], torch.tensor([box for _, _, box in best]), rtol=0, atol=1e-3
        )


def test_padding_changes_nothing(features: dict[str, torch.Tensor]) -> None:
    head = small().eval()
    scatter(head)
    with torch.no_grad():
        first = head.raw_outputs(features, context())
        second = head.raw_outputs(with_other_padding(features), context())
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, msg=name)


def test_it_learns_four_images_by_heart() -> None:
    head = SMALL | {"levels": ["P4"], "channels": 64, "encoder_layers": 1, "decoder_layers": 2}
    for overlap, margin in overfitted(head, steps=80):
        assert overlap > 0.7
        assert margin > 0.5


def test_padding_is_ignored_in_the_exported_graph() -> None:
    check_export_with_padding("detr")


def test_more_objects_than_queries_are_no_error(features: dict[str, torch.Tensor]) -> None:
    head = small(queries=2, max_detections=2)
    terms = head.losses(features, targets(), context())
    assert int(terms["box"][1]) == 3  # two of the three objects, and the one of the other image
    sum(total for total, _ in terms.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_layers_are_those_of_torch() -> None:
    """Without positions; torch has the names of the original repository."""
    head = small(decoder_layers=1)
    theirs = nn.Transformer(32, 4, 2, 1, 40, dropout=0.0, batch_first=True).eval()
    theirs.encoder.norm = None
    scatter(theirs)
    published = {f"transformer.{name}": value for name, value in theirs.state_dict().items()}
    published |= {
        "query_embed.weight": torch.randn(12, 32),
        "class_embed.weight": torch.randn(4, 32),
        "class_embed.bias": torch.randn(4),
        "input_proj.weight": torch.randn(32, 24, 1, 1),
    }
    for layer, width in enumerate((32, 32, 4)):
        published[f"bbox_embed.layers.{layer}.weight"] = torch.randn(width, 32)
        published[f"bbox_embed.layers.{layer}.bias"] = torch.randn(width)
    used = fill(head, "openmmlab", published)
    assert set(published) - used == {"input_proj.weight"}

    tokens, query = torch.randn(2, 9, 32), torch.randn(2, 5, 32)
    ignored = torch.rand(2, 9) < 0.4
    encoder, decoder = head.encoder.eval(), head.decoder.eval()
    assert isinstance(encoder, Encoder)
    assert isinstance(decoder, Decoder)
    with torch.no_grad():
        cells = encoder(Memory(tokens, torch.zeros_like(tokens), ignored))
        expected = theirs.encoder(tokens, src_key_padding_mask=ignored)
        kept = ~ignored
        torch.testing.assert_close(cells.tokens[kept], expected[kept], rtol=1e-4, atol=1e-5)
        layer = decoder.layers[0](query, torch.zeros_like(query), cells)
        wanted = theirs.decoder(query, cells.tokens, memory_key_padding_mask=ignored)
        torch.testing.assert_close(decoder.post_norm(layer), wanted, rtol=1e-4, atol=1e-5)


def test_names_of_openmmlab_are_its_own() -> None:
    """3.x has the names of the head; in 2.x the transformer is a part of the box head."""
    head = small()
    own = {name: torch.randn(value.shape) for name, value in head.state_dict().items()}
    assert fill(head, "openmmlab", own | {"neck.convs.0.conv.weight": torch.zeros(1)}) == set(own)
    old = {}
    for name, value in own.items():
        for part, index, old_name in (
            ("self_attn", 0, "attentions"),
            ("cross_attn", 1, "attentions"),
            ("ffn", 0, "ffns"),
        ):
            name = name.replace(f".{part}.", f".{old_name}.{index}.")
        if name.startswith(("encoder", "decoder")):
            name = f"transformer.{name}"
        old[name if name.startswith("bbox_head") else f"bbox_head.{name}"] = value
    other = small()
    assert fill(other, "openmmlab", old) == set(old)
    assert all(torch.equal(value, own[name]) for name, value in other.state_dict().items())


def test_the_published_network_has_the_published_size() -> None:
    with torch.device("meta"):
        head = Detr(DetrHead(), 80)
    sizes = {
        name: sum(parameter.numel() for parameter in part.parameters())
        for name, part in head.named_children()
    }
    assert sizes == {
        "encoder": 7_890_432,
        "decoder": 9_473_024,
        "query_embedding": 25_600,
        "bbox_head": 153_429,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_detections": 13}, "more than the 12 queries"),
        ({"levels": ["P4", "P5"]}, "reads one feature map"),
        ({"heads": 5}, "multiple of 4 and of the 5 heads"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        small(**options)


def test_features_of_another_width_are_refused() -> None:
    config = TypeAdapter(DetrHead).validate_python(SMALL)
    with pytest.raises(ValueError, match="a neck of type channel_mapper with channels: 32"):
        config.build(VOCABULARY, {"P5": 64}, {"P5": 32})
