"""Names of published DETR and Deformable DETR checkpoints.

The heads have the names of OpenMMLab 3.x. Also read are OpenMMLab 2.x, the original repositories
(facebookresearch/detr, fundamentalvision/Deformable-DETR) and Hugging Face's transformers. The
projection of the backbone's features (``neck``, ``input_proj``) belongs to the neck.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from mtl_ray.models.imports import Imported, Program, Rename, renamed

_FFN = r"layers.\1.ffn.layers."
_OPENMMLAB = (
    Rename(r"((?:encoder|decoder|query_embedding)\..*)", r"\1"),
    Rename(r"(bbox_head\.(?:fc_cls|reg_ffn|fc_reg|cls_branches|reg_branches)\..*)", r"\1"),
    Rename(r"(level_embed|(?:reference_points_fc|(?:memory|pos)_trans_(?:fc|norm))\..*)", r"\1"),
    # 2.x: the transformer is a part of the head
    Rename(r"bbox_head\.(query_embedding\..*)", r"\1"),
    *(
        Rename(
            rf"bbox_head\.transformer\.({part}\.layers\.\d+)\.attentions\.{index}\.(.*)",
            rf"\1.{name}.\2",
        )
        for part, index, name in (
            ("encoder", 0, "self_attn"),
            ("decoder", 0, "self_attn"),
            ("decoder", 1, "cross_attn"),
        )
    ),
    Rename(r"bbox_head\.transformer\.(.*\.layers\.\d+)\.ffns\.0\.(.*)", r"\1.ffn.\2"),
    Rename(r"bbox_head\.transformer\.(.*\.layers\.\d+\.norms\..*)", r"\1"),
    Rename(r"bbox_head\.transformer\.(decoder\.post_norm\..*)", r"\1"),
    Rename(r"bbox_head\.transformer\.level_embeds", "level_embed"),
    Rename(r"bbox_head\.transformer\.reference_points\.(.*)", r"reference_points_fc.\1"),
    Rename(r"bbox_head\.transformer\.enc_output\.(.*)", r"memory_trans_fc.\1"),
    Rename(r"bbox_head\.transformer\.enc_output_norm\.(.*)", r"memory_trans_norm.\1"),
    Rename(r"bbox_head\.transformer\.pos_trans\.(.*)", r"pos_trans_fc.\1"),
    Rename(r"bbox_head\.transformer\.pos_trans_norm\.(.*)", r"pos_trans_norm.\1"),
)
_LAYER = r"((?:en|de)coder\.layers\.\d+)"


def _original(cross: str, norms: tuple[int, int, int]) -> tuple[Rename, ...]:
    """The rules that the original repositories share.

    Args:
        cross: the name of the decoder's attention to the image.
        norms: the number of the norm after self-attention, attention to the image, and the linear
            layers of the decoder; the encoder has the first two in order.
    """
    attn = "attn." if cross == "multihead_attn" else ""
    fused = r"(?:in_proj_weight|in_proj_bias|out_proj\.\w+)"
    return (
        Rename(rf"transformer\.{_LAYER}\.self_attn\.({fused})", r"\1.self_attn.attn.\2"),
        Rename(rf"transformer\.{_LAYER}\.self_attn\.(.*)", r"\1.self_attn.\2"),
        Rename(rf"transformer\.{_LAYER}\.{cross}\.(.*)", rf"\1.cross_attn.{attn}\2"),
        Rename(rf"transformer\.{_LAYER}\.linear1\.(.*)", r"\1.ffn.layers.0.0.\2"),
        Rename(rf"transformer\.{_LAYER}\.linear2\.(.*)", r"\1.ffn.layers.1.\2"),
        Rename(r"transformer\.(encoder\.layers\.\d+)\.norm1\.(.*)", r"\1.norms.0.\2"),
        Rename(r"transformer\.(encoder\.layers\.\d+)\.norm2\.(.*)", r"\1.norms.1.\2"),
        *(
            Rename(
                rf"transformer\.(decoder\.layers\.\d+)\.norm{number}\.(.*)", rf"\1.norms.{place}.\2"
            )
            for place, number in enumerate(norms)
        ),
        Rename(r"query_embed\.(.*)", r"query_embedding.\1"),
    )


_HUGGINGFACE = (
    Rename(
        rf"(?:model\.)?{_LAYER}\.self_attn\.(?:o|out)_proj\.(.*)", r"\1.self_attn.attn.out_proj.\2"
    ),
    Rename(rf"(?:model\.)?{_LAYER}\.(?:mlp\.)?fc1\.(.*)", r"\1.ffn.layers.0.0.\2"),
    Rename(rf"(?:model\.)?{_LAYER}\.(?:mlp\.)?fc2\.(.*)", r"\1.ffn.layers.1.\2"),
    Rename(rf"(?:model\.)?{_LAYER}\.self_attn_layer_norm\.(.*)", r"\1.norms.0.\2"),
    Rename(r"(?:model\.)?(decoder\.layers\.\d+)\.encoder_attn_layer_norm\.(.*)", r"\1.norms.1.\2"),
    Rename(r"(?:model\.)?(encoder\.layers\.\d+)\.final_layer_norm\.(.*)", r"\1.norms.1.\2"),
    Rename(r"(?:model\.)?(decoder\.layers\.\d+)\.final_layer_norm\.(.*)", r"\1.norms.2.\2"),
    Rename(r"(?:model\.)?query_position_embeddings\.(.*)", r"query_embedding.\1"),
)

_DETR = (
    *_OPENMMLAB,
    *_original("multihead_attn", (1, 2, 3)),
    Rename(r"transformer\.decoder\.norm\.(.*)", r"decoder.post_norm.\1"),
    Rename(r"class_embed\.(weight|bias)", r"bbox_head.fc_cls.\1"),
    Rename(r"bbox_embed\.layers\.0\.(.*)", r"bbox_head.reg_ffn.layers.0.0.\1"),
    Rename(r"bbox_embed\.layers\.1\.(.*)", r"bbox_head.reg_ffn.layers.1.\1"),
    Rename(r"bbox_embed\.layers\.2\.(.*)", r"bbox_head.fc_reg.\1"),
)
_DETR_HUGGINGFACE = (
    *_HUGGINGFACE,
    Rename(
        rf"(?:model\.)?{_LAYER}\.encoder_attn\.(?:o|out)_proj\.(.*)",
        r"\1.cross_attn.attn.out_proj.\2",
    ),
    Rename(r"(?:model\.)?decoder\.layernorm\.(.*)", r"decoder.post_norm.\1"),
    Rename(r"class_labels_classifier\.(.*)", r"bbox_head.fc_cls.\1"),
    Rename(r"bbox_predictor\.layers\.0\.(.*)", r"bbox_head.reg_ffn.layers.0.0.\1"),
    Rename(r"bbox_predictor\.layers\.1\.(.*)", r"bbox_head.reg_ffn.layers.1.\1"),
    Rename(r"bbox_predictor\.layers\.2\.(.*)", r"bbox_head.fc_reg.\1"),
)
_BRANCHES = (
    Rename(r"class_embed\.(\d+)\.(.*)", r"bbox_head.cls_branches.\1.\2"),
    *(
        Rename(
            rf"bbox_embed\.(\d+)\.layers\.{layer}\.(.*)",
            rf"bbox_head.reg_branches.\1.{2 * layer}.\2",
        )
        for layer in range(3)
    ),
)
_DEFORMABLE = (
    *_OPENMMLAB,
    # there norm1 follows the attention to the image, and norm2 self-attention
    *_original("cross_attn", (2, 1, 3)),
    Rename(r"transformer\.level_embed", "level_embed"),
    Rename(r"transformer\.reference_points\.(.*)", r"reference_points_fc.\1"),
    Rename(r"transformer\.enc_output\.(.*)", r"memory_trans_fc.\1"),
    Rename(r"transformer\.enc_output_norm\.(.*)", r"memory_trans_norm.\1"),
    Rename(r"transformer\.pos_trans\.(.*)", r"pos_trans_fc.\1"),
    Rename(r"transformer\.pos_trans_norm\.(.*)", r"pos_trans_norm.\1"),
    *_BRANCHES,
)
_DEFORMABLE_HUGGINGFACE = (
    Rename(
        r"(?:model\.)?(encoder\.layers\.\d+\.self_attn"
        r"\.(?:sampling_offsets|attention_weights|value_proj|output_proj)\..*)",
        r"\1",
    ),
    *_HUGGINGFACE,
    Rename(
        r"(?:model\.)?(decoder\.layers\.\d+)\.encoder_attn"
        r"\.((?:sampling_offsets|attention_weights|value_proj|output_proj)\..*)",
        r"\1.cross_attn.\2",
    ),
    Rename(r"(?:model\.)?level_embed", "level_embed"),
    Rename(r"(?:model\.)?reference_points\.(.*)", r"reference_points_fc.\1"),
    Rename(r"(?:model\.)?enc_output\.(.*)", r"memory_trans_fc.\1"),
    Rename(r"(?:model\.)?enc_output_norm\.(.*)", r"memory_trans_norm.\1"),
    Rename(r"(?:model\.)?pos_trans\.(.*)", r"pos_trans_fc.\1"),
    Rename(r"(?:model\.)?pos_trans_norm\.(.*)", r"pos_trans_norm.\1"),
    *_BRANCHES,
)
_QKV = re.compile(rf"(?:model\.)?{_LAYER}\.(self_attn|encoder_attn)\.q_proj\.(weight|bias)")
_SHARED = re.compile(r"class_embed\.0\.(weight|bias)")
_OF_LAYER = re.compile(r"(?:model\.decoder\.layers|(?:model\.decoder\.)?bbox_embed)\.(\d+)\.")
_COPY = re.compile(r"(?:model|transformer)\.decoder\.((?:class|bbox)_embed\..*)")


def _with_shared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with those of classifiers that all decoder layers share: transformers stores only
    the first one.
    """
    layers = {int(match[1]) for name in tensors if (match := _OF_LAYER.match(name))}
    found = dict(tensors)
    for name, value in tensors.items():
        if match := _SHARED.fullmatch(name):
            for layer in sorted(layers):
                found.setdefault(f"class_embed.{layer}.{match[1]}", value)
    return found


def imported_detr(program: Program, tensors: Mapping[str, Tensor]) -> dict[str, Imported]:
    """The tensors of a ``detr`` head; see ``Importing``."""
    if program == "huggingface":
        return renamed(tensors, _DETR_HUGGINGFACE) | _fused(tensors)
    return renamed(tensors, _DETR)


def imported_deformable_detr(
    program: Program, tensors: Mapping[str, Tensor], branches: int
) -> dict[str, Imported]:
    """The tensors of a ``deformable_detr`` head; see ``Importing``.

    Args:
        program: that wrote the file.
        tensors: of the file.
        branches: pairs of classifiers and box layers of the head. Without refinement it has one,
            while a file has the same one for each decoder layer.
    """
    if program == "huggingface":
        tensors = _with_shared(tensors)
    # Predictions of the decoder are in some files twice, or there only.
    copies = {name: match[1] for name in tensors if (match := _COPY.fullmatch(name))}
    own = {name: value for name, value in tensors.items() if name not in copies}
    moved = {to: tensors[name] for name, to in copies.items() if to not in own}
    if program == "huggingface":
        found = renamed(own | moved, _DEFORMABLE_HUGGINGFACE) | _fused(tensors)
    else:
        found = renamed(own | moved, _DEFORMABLE)
    names: dict[str, list[str]] = {}
    for name, to in copies.items():
        names.setdefault(to, []).append(name)
    found = {
        to: value._replace(
            sources=tuple(
                source
                for name in value.sources
                for source in [*([name] if name in tensors else []), *names.get(name, [])]
            )
        )
        for to, value in found.items()
    }
    return _first_branches(found, branches)


def _first_branches(found: Mapping[str, Imported], branches: int) -> dict[str, Imported]:
    """Of shared branches the first, which has the names of all of them."""
    if branches > 1:
        return dict(found)
    kept: dict[str, Imported] = {}
    for name, value in found.items():
        first = re.sub(r"((?:cls|reg)_branches)\.\d+\.", r"\1.0.", name)
        kept[first] = (
            kept[first]._replace(sources=kept[first].sources + value.sources)
            if first in kept
            else value
        )
    return kept


def _fused(tensors: Mapping[str, Tensor]) -> dict[str, Imported]:
    """Query, key and value of attention as one tensor, from names that have one for each."""
    found: dict[str, Imported] = {}
    for name in tensors:
        if match := _QKV.fullmatch(name):
            sources = tuple(name.replace("q_proj", f"{part}_proj") for part in "qkv")
            attention = "self_attn" if match[2] == "self_attn" else "cross_attn"
            missing = [source for source in sources if source not in tensors]
            if missing:
                raise ValueError(f"{', '.join(missing)} is missing beside {name}")
            found[f"{match[1]}.{attention}.attn.in_proj_{match[3]}"] = Imported(
                torch.cat([tensors[source] for source in sources]), sources
            )
    return found
