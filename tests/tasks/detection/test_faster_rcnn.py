"""``faster_rcnn`` equals OpenMMLab's and torchvision's networks."""

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torchvision.models.detection import (
    fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2,
    maskrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn_v2,
)
from torchvision.models.detection.image_list import ImageList

from mtl_ray.models.head import Context, InspectedHead
from mtl_ray.models.imports import Importing
from mtl_ray.tasks.detection.two_stage.config import (
    CascadeRcnnHead,
    FasterRcnnHead,
    MaskRcnnHead,
    TwoStageHead,
)
from mtl_ray.tasks.detection.two_stage.faster_rcnn import FasterRcnn
from tests.tasks.detection.slow_two_stage import slow_detections, slow_losses
from tests.tasks.detection.two_stage_cases import (
    context,
    features,
    proposals_of,
    small_head,
    targets,
)

LEVELS = ("P2", "P3", "P4", "P5", "P6")
STRIDES = dict(zip(LEVELS, (4, 8, 16, 32, 64), strict=True))


def published(kind: type[TwoStageHead], width: int, classes: int, **options: Any) -> FasterRcnn:
    config = TypeAdapter(kind).validate_python({"type": kind.type, **options})
    return FasterRcnn(config, dict.fromkeys(LEVELS, width), STRIDES, classes)


def filled(head: FasterRcnn, program: Any, tensors: dict[str, Tensor]) -> FasterRcnn:
    found = head.imported(program, tensors)
    assert found.keys() == head.state_dict().keys()
    head.load_state_dict({name: each.value for name, each in found.items()})
    return head.eval()


def parameters(module: nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())


def test_the_published_network_has_as_many_parameters() -> None:
    with torch.device("meta"):
        head = published(FasterRcnnHead, 256, 80)
    assert parameters(head.rpn_head) == 593_935
    assert parameters(head.roi_head) == 14_306_705
    assert isinstance(head, InspectedHead)
    assert isinstance(head, Importing)


class Reference:
    """The arrays of MMDetection's network, and a head with its weights."""

    def __init__(self, folder: Path) -> None:
        self.arrays = np.load(folder / "faster_rcnn.npz")
        tensors = torch.load(folder / "faster_rcnn.pth", weights_only=True)
        proposals = {"train_candidates": 300, "train_proposals": 100, "candidates": 300}
        head = published(
            FasterRcnnHead,
            32,
            5,
            rpn={"channels": 32, "samples": 10**6, "proposals": 50, **proposals},
            roi={"channels": 64, "samples": 10**6},
        )
        self.head = filled(head, "openmmlab", tensors)
        self.features = {level: self[f"p{i}"] for i, level in enumerate(LEVELS)}
        valid = self["img_shape"].int()
        self.context = Context(inputs={"image": self["image"], "valid_hw": valid})

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name])

    def targets(self) -> dict[str, Tensor]:
        most = max(len(self[f"gt{i}_labels"]) for i in range(2))
        found = {
            "boxes": torch.zeros(2, most, 4),
            "classes": torch.zeros(2, most, dtype=torch.int64),
            "present": torch.zeros(2, most, dtype=torch.bool),
            "crowd": torch.zeros(2, most, dtype=torch.bool),
            "annotated": torch.ones(2, dtype=torch.bool),
            "known_classes": torch.ones(2, 5, dtype=torch.bool),
        }
        for i in range(2):
            count = len(self[f"gt{i}_labels"])
            found["boxes"][i, :count] = self[f"gt{i}_boxes"]
            found["classes"][i, :count] = self[f"gt{i}_labels"]
            found["present"][i, :count] = True
        return found


@pytest.fixture(scope="module")
def reference(shared_data: Path) -> Reference:
    return Reference(shared_data / "heads_reference")


def test_openmmlab_has_the_same_outputs(reference: Reference) -> None:
    with torch.no_grad():
        raw = reference.head.raw_outputs(reference.features, reference.context)
    assert {"rpn_cls4", "rpn_reg0", "prop1_scores", "rois", "roi_feat", "roi_cls"} <= raw.keys()
    for name, value in raw.items():
        wanted = reference[name]
        atol = 1e-3 if "rois" in name or "boxes" in name else 1e-4 * float(wanted.abs().max())
        torch.testing.assert_close(value, wanted, rtol=0, atol=atol, msg=name)


def test_openmmlab_has_the_same_detections(reference: Reference) -> None:
    with torch.no_grad():
        found = reference.head.predict(reference.features, reference.context)
    for i in range(2):
        boxes, scores = reference[f"b{i}_boxes"], reference[f"b{i}_scores"]
        torch.testing.assert_close(found["boxes"][i], boxes, rtol=0, atol=1e-3)
        torch.testing.assert_close(found["scores"][i], scores, rtol=0, atol=1e-5)
        assert torch.equal(found["classes"][i], reference[f"b{i}_labels"])


def test_openmmlab_has_the_same_losses_and_gradients(reference: Reference) -> None:
    head = reference.head
    terms = head.losses(reference.features, reference.targets(), reference.context)
    losses = {name: value / count for name, (value, count) in terms.items()}
    names = {
        "rpn_class": "loss_rpn_cls",
        "rpn_box": "loss_rpn_bbox",
        "class": "loss_cls",
        "box": "loss_bbox",
    }
    assert losses.keys() == names.keys()
    for name, theirs in names.items():
        assert float(losses[name].detach()) == pytest.approx(float(reference[theirs]), rel=1e-5)
    torch.stack(list(losses.values())).sum().backward()
    own = dict(head.named_parameters())
    norms = zip(reference.arrays["gradnorm_names"], reference["gradnorm"], strict=True)
    for name, norm in norms:
        assert float(own[str(name)].grad.norm()) == pytest.approx(float(norm), rel=1e-3)


TORCHVISION: dict[str, tuple[Any, type[TwoStageHead], dict[str, Any]]] = {
    "faster": (fasterrcnn_resnet50_fpn, FasterRcnnHead, {}),
    "faster_v2": (
        fasterrcnn_resnet50_fpn_v2,
        FasterRcnnHead,
        {"rpn": {"convs": 2}, "roi": {"convs": 4, "fcs": 1, "norm": "batch"}},
    ),
    "mask": (maskrcnn_resnet50_fpn, MaskRcnnHead, {}),
    "mask_v2": (
        maskrcnn_resnet50_fpn_v2,
        MaskRcnnHead,
        {
            "rpn": {"convs": 2},
            "roi": {"convs": 4, "fcs": 1, "norm": "batch"},
            "mask": {"norm": "batch"},
        },
    ),
}


def scattered(network: Any) -> Any:
    """Random statistics and outputs that vary."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 1.5)
            module.running_mean.normal_(0, 0.1)
    for layer, std in (
        (network.roi_heads.box_predictor.cls_score, 0.3),
        (network.roi_heads.box_predictor.bbox_pred, 0.05),
        (network.rpn.head.cls_logits, 0.3),
        (network.rpn.head.bbox_pred, 0.05),
    ):
        nn.init.normal_(layer.weight, std=std)
    return network.eval()


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_has_the_same_detections(name: str) -> None:
    build, kind, options = TORCHVISION[name]
    limits = {"rpn_pre_nms_top_n_test": 60, "rpn_post_nms_top_n_test": 40}
    theirs = scattered(build(weights=None, weights_backbone=None, num_classes=6, **limits))
    options = options | {
        "rpn": {"rounded_anchors": True, "min_box_px": 0.001, "candidates": 60, "proposals": 40}
        | options.get("rpn", {}),
        "roi": {"aligned": False, "sampling": 2, "min_box_px": 0.01} | options.get("roi", {}),
    }
    head = filled(published(kind, 256, 5, **options), "torchvision", theirs.state_dict())
    maps = OrderedDict(
        (key, torch.randn(2, 256, -(-128 // stride), -(-192 // stride)))
        for key, stride in zip(("0", "1", "2", "3", "pool"), STRIDES.values(), strict=True)
    )
    images = ImageList(torch.zeros(2, 3, 128, 192), [(128, 192), (100, 150)])
    inputs = {"image": images.tensors, "valid_hw": torch.tensor(images.image_sizes)}
    with torch.no_grad():
        proposals, _ = theirs.rpn(images, maps)
        expected, _ = theirs.roi_heads(maps, proposals, images.image_sizes)
        by_name = dict(zip(LEVELS, maps.values(), strict=True))
        found = head.predict(by_name, Context(inputs=inputs))
    for i, wanted in enumerate(expected):
        count = int((found["scores"][i] > 0).sum())
        assert 20 < count == len(wanted["scores"])
        torch.testing.assert_close(found["boxes"][i, :count], wanted["boxes"], rtol=0, atol=1e-3)
        torch.testing.assert_close(found["scores"][i, :count], wanted["scores"], rtol=0, atol=1e-5)
        assert torch.equal(found["classes"][i, :count] + 1, wanted["labels"])
        if kind is MaskRcnnHead:
            masks = found["masks"][i, :count]
            torch.testing.assert_close(masks, wanted["masks"][:, 0], rtol=0, atol=1e-4)


def test_older_files_of_torchvision_have_other_names() -> None:
    head = small_head(MaskRcnnHead, mask={"size": 2, "convs": 1, "channels": 8})
    names = ("rpn.head.conv.weight", "roi_heads.mask_head.mask_fcn1.bias")
    found = head.imported("torchvision", {name: torch.zeros(1) for name in names})
    assert set(found) == {"rpn_head.rpn_conv.weight", "roi_head.mask_head.convs.0.conv.bias"}


@pytest.mark.parametrize("low_quality", [False, True])
def test_losses_and_detections_are_those_of_the_paper(low_quality: bool) -> None:
    head = small_head(FasterRcnnHead)
    head.config = replace(head.config, roi=replace(head.config.roi, low_quality=low_quality))
    maps, ctx, some = features(), context(), targets()
    valid = ctx.valid_hw
    with torch.no_grad():
        terms = head.losses(maps, some, ctx)
        expected = slow_losses(
            head, list(maps.values()), some, proposals_of(head, maps, ctx, True), valid
        )
        for name, value in expected.items():
            torch.testing.assert_close(terms[name][0] / terms[name][1], value)
        found = head.predict(maps, ctx)
        slow = slow_detections(
            head, list(maps.values()), proposals_of(head, maps, ctx, False), valid
        )
    for i, pairs in enumerate(slow):
        assert len(pairs) == int((found["scores"][i] > 0).sum()) > 10
        boxes = torch.tensor([box for _, _, box in pairs])
        torch.testing.assert_close(found["boxes"][i, : len(pairs)], boxes, rtol=0, atol=1e-3)
        assert found["classes"][i, : len(pairs)].tolist() == [label for _, label, _ in pairs]


def test_samples_do_not_depend_on_the_batch() -> None:
    head = small_head(
        FasterRcnnHead,
        rpn={"channels": 8, "samples": 16},
        roi={"levels": 2, "channels": 16, "samples": 8},
    )
    maps, some = features(3), targets(3)
    ctx = replace(context(3), step=7)
    with torch.no_grad():
        together = head.losses(maps, some, ctx)
        alone = []
        for i in range(3):
            part = slice(i, i + 1)
            own = {name: value[part] for name, value in some.items()}
            if i == 1:  # one object fewer, and so less padding
                own |= {name: own[name][:, :2] for name in ("boxes", "classes", "present", "crowd")}
            inputs = {name: value[part] for name, value in ctx.inputs.items()}
            of_image = {level: value[part] for level, value in maps.items()}
            alone.append(head.losses(of_image, own, replace(ctx, inputs=inputs)))
        other = head.losses(maps, some, replace(ctx, step=8))
    for name, (value, count) in together.items():
        torch.testing.assert_close(value, torch.stack([each[name][0] for each in alone]).sum())
        assert count == sum(each[name][1] for each in alone)
        assert value != other[name][0]


def test_crowd_regions_are_no_background() -> None:
    head = small_head(FasterRcnnHead, rpn={"channels": 8, "samples": 10**6})
    some = targets()
    whole = torch.tensor([0.0, 0.0, 128.0, 96.0])
    some["boxes"][:, 0], some["crowd"][:, 0] = whole, True
    arrays = head.target_arrays(features(), some, context())
    assert not (arrays["rpn_target_labels"] == 1).any()
    assert not (arrays["target_labels"] == head.classes).any()
    assert (arrays["target_labels"] >= 0).any()


def test_degenerate_objects_and_tiny_maps_are_finite() -> None:
    head = small_head(FasterRcnnHead)
    maps = {level: torch.randn(2, 8, 1, 1, requires_grad=True) for level in head.levels}
    some = targets()
    some["boxes"][0] = torch.tensor([5.0, 5.0, 5.0, 9.0])
    terms = head.losses(maps, some, context())
    torch.stack([value for value, _ in terms.values()]).sum().backward()
    assert all(value.isfinite() for value, _ in terms.values())
    assert all(each.grad is not None and each.grad.isfinite().all() for each in head.parameters())


def test_an_option_leaves_the_published_ones_as_they_are() -> None:
    adapter = TypeAdapter(CascadeRcnnHead)
    config = adapter.validate_python({"roi": {"channels": 64}, "rpn": {"channels": 32}})
    assert len(config.roi.stages) == 3
    assert config.roi.class_agnostic
    assert config.rpn.beta == pytest.approx(1 / 9)
    assert TypeAdapter(MaskRcnnHead).validate_python({"roi": {"channels": 64}}).roi.low_quality
    with pytest.raises(ValidationError, match="best_class"):
        TypeAdapter(FasterRcnnHead).validate_python({"select": {"best_class": True}})
    with pytest.raises(ValidationError, match=r"roi\.levels"):
        TypeAdapter(FasterRcnnHead).validate_python({"levels": ["P3"]})
