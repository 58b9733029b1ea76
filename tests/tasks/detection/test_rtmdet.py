"""The heads ``rtmdet`` and ``rtmdet_ins``."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from mtl_ray.models.csp_config import CspNextBackbone, CspPafpnNeck
from mtl_ray.models.head import Context, dense
from mtl_ray.models.imports import Importing
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.detection.dynamic.assign import assign_soft_labels
from mtl_ray.tasks.detection.dynamic.config import RtmdetHead, RtmdetInsHead
from mtl_ray.tasks.detection.dynamic.matching import (
    CandidatePoints,
    binary_quality_focal_loss,
    box_overlaps,
    dynamic_k,
    pair_overlaps,
)
from mtl_ray.tasks.detection.dynamic.rtmdet_ins import dice_loss, dynamic_masks
from mtl_ray.tasks.detection.options import Selection
from tests.tasks.detection.slow_assign import inside, iou, matched, soft_label_cost
from tests.tasks.head_cases import batch_of, images, inputs_of, model_of, scattered

REFERENCES = Path(__file__).parents[3].parent / "shared" / "data" / "heads_reference"
REFERENCE = pytest.mark.skipif(not REFERENCES.exists(), reason="the reference is not here")
FIVE = Vocabulary(classes={"instances": tuple("abcde")})
STRIDES = {"P3": 8, "P4": 16, "P5": 32}


def filled(module: Any, tensors: dict[str, Tensor]) -> Any:
    """The module with imported tensors, in evaluation mode."""
    assert isinstance(module, Importing)
    found = module.imported("openmmlab", tensors)
    module.load_state_dict({name: each.value for name, each in found.items()})
    return module.eval()


def head_of(config: RtmdetHead | RtmdetInsHead, channels: int = 32) -> Any:
    return config.build(FIVE, dict.fromkeys(STRIDES, channels), STRIDES)


def targets_of(arrays: dict[str, NDArray[Any]], count: int, most: int) -> dict[str, Tensor]:
    """The objects of a reference as the loader gives them."""
    found = {
        "boxes": torch.zeros(count, most, 4),
        "classes": torch.zeros(count, most, dtype=torch.int64),
        "present": torch.zeros(count, most, dtype=torch.bool),
        "crowd": torch.zeros(count, most, dtype=torch.bool),
        "annotated": torch.ones(count, dtype=torch.bool),
        "known_classes": torch.ones(count, 5, dtype=torch.bool),
    }
    for row in range(count):
        number = len(arrays[f"gt{row}_labels"])
        found["boxes"][row, :number] = torch.from_numpy(arrays[f"gt{row}_boxes"])
        found["classes"][row, :number] = torch.from_numpy(arrays[f"gt{row}_labels"])
        found["present"][row, :number] = True
    return found


@pytest.fixture(scope="module")
def reference() -> tuple[dict[str, NDArray[Any]], dict[str, Tensor]]:
    with np.load(REFERENCES / "rtmdet.npz") as arrays:
        return dict(arrays), torch.load(REFERENCES / "rtmdet.pth", weights_only=True)


Reference = tuple[dict[str, NDArray[Any]], dict[str, Tensor]]


def from_image(arrays: dict[str, NDArray[Any]], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The pyramid by our own trunk."""
    backbone = CspNextBackbone(deepen_factor=0.167, widen_factor=0.125).build()
    neck = CspPafpnNeck(channels=32, blocks=1).build(backbone.channels, backbone.strides)
    with torch.no_grad():
        maps = filled(backbone, tensors)(torch.from_numpy(arrays["image"]))
        return dict(filled(neck, tensors)(maps))


@REFERENCE
@pytest.mark.parametrize("whole", [False, True])
def test_it_is_the_original_network(reference: Reference, whole: bool) -> None:
    arrays, tensors = reference
    head = filled(head_of(RtmdetHead(channels=32)), tensors)
    features = {f"P{i + 3}": torch.from_numpy(arrays[f"p{i}"]) for i in range(3)}
    if whole:
        features = from_image(arrays, tensors)
    valid_hw = torch.from_numpy(arrays["img_shape"]).int()
    context = Context(inputs={"image": torch.from_numpy(arrays["image"]), "valid_hw": valid_hw})
    with torch.no_grad():
        for name, values in head.raw_outputs(features, context).items():
            np.testing.assert_allclose(values, arrays[name], rtol=1e-4, atol=1e-4, err_msg=name)
        found = head.predict(features, context)
    for row in range(2):
        np.testing.assert_allclose(found["boxes"][row], arrays[f"b{row}_boxes"], atol=1e-2)
        np.testing.assert_allclose(found["scores"][row], arrays[f"b{row}_scores"], atol=1e-5)
        assert found["classes"][row].tolist() == arrays[f"b{row}_labels"].tolist()
    terms = head.losses(features, targets_of(arrays, 2, 6), context)
    losses = {name: value / total.clamp(min=1) for name, (value, total) in terms.items()}
    assert float(losses["class"].detach()) == pytest.approx(float(arrays["loss_cls"]), rel=1e-3)
    assert float(losses["box"].detach()) == pytest.approx(float(arrays["loss_bbox"]), rel=1e-3)
    (losses["class"] + losses["box"]).backward()
    gradients = {f"bbox_head.{name}": each.grad for name, each in head.named_parameters()}
    assert gradients.keys() == set(arrays["gradnorm_names"].tolist())
    for name, norm in zip(arrays["gradnorm_names"], arrays["gradnorm"], strict=True):
        assert float(gradients[name].norm()) == pytest.approx(norm, rel=1e-2), name


@REFERENCE
def test_every_copy_of_a_shared_convolution_is_named(reference: Reference) -> None:
    _, tensors = reference
    head = head_of(RtmdetHead(channels=32))
    found = head.imported("openmmlab", tensors)
    assert found.keys() == head.state_dict().keys()
    names = [source for each in found.values() for source in each.sources]
    assert sorted(names) == sorted(name for name in tensors if name.startswith("bbox_head."))
    assert head.imported("torchvision", tensors) == {}
    other = tensors | {"bbox_head.cls_convs.2.1.conv.weight": torch.zeros(32, 32, 3, 3)}
    with pytest.raises(ValueError, match=r"cls_convs\.2\.1\.conv\.weight is not the same as"):
        head.imported("openmmlab", other)


def test_masks_share_the_tower_of_classes_and_boxes_in_a_file() -> None:
    head = head_of(RtmdetInsHead(channels=32))
    tensors = {f"bbox_head.{name}": value for name, value in head.state_dict().items()}
    for name in [*tensors]:
        if "cls_convs.0" in name and name.endswith("conv.weight"):
            tensors |= {name.replace("convs.0", f"convs.{i}"): tensors[name] for i in (1, 2)}
    tensors |= {
        name.replace("cls_convs", "reg_convs"): value
        for name, value in tensors.items()
        if "cls_convs" in name
    }
    found = head.imported("openmmlab", tensors)
    assert found.keys() == head.state_dict().keys()
    names = [source for each in found.values() for source in each.sources]
    assert sorted(names) == sorted(tensors)
    assert len(found["cls_convs.0.1.conv.weight"].sources) == 6


def a_scene(seed: int, size: int = 6, objects: int = 4) -> dict[str, Tensor]:
    """Candidates on a grid of stride 8, their outputs, and objects, some of them the same."""
    draw = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    xy = torch.stack([x, y], dim=-1).reshape(-1, 2).float() * 8
    corner = torch.rand(objects, 2, generator=draw) * 30
    boxes = torch.cat([corner, corner + 3 + 20 * torch.rand(objects, 2, generator=draw)], dim=1)
    count = len(xy)
    predicted = torch.cat([xy - 12, xy + 12], dim=1) + torch.randn(count, 4, generator=draw) * 4
    return {
        "xy": xy,
        "boxes": boxes,
        "classes": torch.randint(0, 3, (objects,), generator=draw),
        "predicted": predicted,
        "logits": torch.randn(count, 3, generator=draw) * 2,
        "wanted": torch.rand(objects, generator=draw) < 0.8,
    }


def targets_in(scene: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        "boxes": scene["boxes"][None],
        "classes": scene["classes"][None],
        "present": scene["wanted"][None],
        "crowd": torch.zeros_like(scene["wanted"])[None],
        "annotated": torch.ones(1, dtype=torch.bool),
    }


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_assignment_is_that_of_plain_loops(seed: int) -> None:
    scene = a_scene(seed)
    wanted = [i for i, each in enumerate(scene["wanted"].tolist()) if each]
    boxes = [scene["boxes"][i].tolist() for i in wanted]
    points, predicted = scene["xy"].tolist(), scene["predicted"].tolist()
    costs = [
        [
            soft_label_cost(logits, box, x, y, 8, gt, int(scene["classes"][i]),
                            ((gt[0] + gt[2]) / 2, (gt[1] + gt[3]) / 2), 3.0)
            for logits, box, (x, y) in zip(scene["logits"].tolist(), predicted, points, strict=True)
        ]
        for i, gt in zip(wanted, boxes, strict=True)
    ]  # fmt: skip
    overlaps = [[iou(box, gt) for box in predicted] for gt in boxes]
    possible = [any(inside(x, y, gt) for gt in boxes) for x, y in points]
    expected = [
        None if each is None else wanted[each] for each in matched(costs, overlaps, possible, 13)
    ]
    found = assign_soft_labels(
        scene["logits"][None],
        scene["predicted"][None],
        CandidatePoints(scene["xy"], torch.full((len(points),), 8.0)),
        targets_in(scene),
        (scene["boxes"][None, :, :2] + scene["boxes"][None, :, 2:]) / 2,
        radius=3.0,
        topk=13,
        overlap_cost=3.0,
    )
    assert found.positive[0].tolist() == [each is not None for each in expected]
    for i, each in enumerate(expected):
        if each is not None:
            assert int(found.object[0, i]) == each
            exact = iou(predicted[i], scene["boxes"][each].tolist())
            assert float(found.overlap[0, i]) == pytest.approx(exact, abs=1e-5)
        else:
            assert float(found.overlap[0, i]) == 0


def test_a_candidate_of_two_equal_objects_goes_to_the_first() -> None:
    cost = torch.tensor([[[2.0, 1.0, 9.0], [2.0, 1.0, 9.0]]])
    overlaps = torch.tensor([[[0.9, 0.9, 0.1], [0.9, 0.9, 0.1]]])
    everything = torch.ones(1, 3, dtype=torch.bool)
    found = dynamic_k(cost, overlaps, everything[:, :2], everything, 3)
    assert found.positive[0].tolist() == [False, True, False]
    assert found.object[0].tolist() == [0, 0, 0]
    none = dynamic_k(cost, overlaps, everything[:, :2], ~everything, 3)
    assert not none.positive.any()
    assert not none.overlap.any()
    # a cost beyond float32 still is that of a candidate that can be chosen
    far = dynamic_k(cost + torch.inf, overlaps, everything[:, :2], everything, 1)
    assert int(far.positive.sum()) == 1


@given(seed=st.integers(0, 10**6))
def test_overlaps_of_pairs_are_those_of_single_boxes(seed: int) -> None:
    scene = a_scene(seed)
    found = pair_overlaps(scene["predicted"][None], scene["boxes"][None])[0]
    for row, gt in zip(found, scene["boxes"], strict=True):
        exact = [iou(box, gt.tolist()) for box in scene["predicted"].tolist()]
        np.testing.assert_allclose(row, exact, rtol=1e-4, atol=1e-6)
        alone, generalised = box_overlaps(scene["predicted"], gt.expand(len(row), 4))
        torch.testing.assert_close(alone, row)
        assert bool((generalised <= alone + 1e-6).all())
        assert bool((generalised >= -1 - 1e-6).all())


def test_the_quality_focal_loss_is_zero_where_the_score_is_the_quality() -> None:
    quality = torch.tensor([0.1, 0.5, 0.9])
    torch.testing.assert_close(
        binary_quality_focal_loss(quality.logit(), quality, 2.0), torch.zeros(3)
    )
    wrong = binary_quality_focal_loss(torch.zeros(1), torch.ones(1), 2.0)
    assert float(wrong) == pytest.approx(0.25 * np.log(2))


def test_distances_need_no_exponential() -> None:
    features = {level: torch.randn(1, 32, 64 // s, 64 // s) for level, s in STRIDES.items()}
    context = Context(inputs=inputs_of(images(1, (64, 64)), (64, 64)))
    raw, grown = (head_of(RtmdetHead(channels=32, exp_on_reg=exp)).eval() for exp in (False, True))
    grown.load_state_dict(raw.state_dict())
    with torch.no_grad():
        one, other = (head.raw_outputs(features, context)["reg1"] for head in (raw, grown))
    torch.testing.assert_close((one / 16).exp() * 16, other)


def grouped_masks(kernels: Tensor, features: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """The masks of one image by grouped convolutions: (K, 169), (8, H, W), (K, 2), (K,)."""
    height, width = features.shape[1:]
    masks = []
    for kernel, point, stride in zip(kernels, points, strides, strict=True):
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        offset = (point[:, None, None] - torch.stack([x, y]) * 8.0) / (stride * 8)
        values = torch.cat([offset, features])[None]
        weights, biases = kernel[:152].split([80, 64, 8]), kernel[152:].split([8, 8, 1])
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            values = F.conv2d(values, weight.view(len(bias), -1, 1, 1), bias)
            values = values if i == 2 else values.relu()
        masks.append(values[0, 0])
    return torch.stack(masks)


def test_masks_are_those_of_a_network_for_each_detection() -> None:
    draw = torch.Generator().manual_seed(0)
    kernels = torch.randn(2, 3, 169, generator=draw)
    features = torch.randn(2, 8, 4, 6, generator=draw)
    points = torch.rand(2, 3, 2, generator=draw) * 40
    strides = torch.tensor([8.0, 16.0, 32.0]).expand(2, 3)
    found = dynamic_masks(
        kernels, [(10, 8), (8, 8), (8, 1)], features, 8, points, strides[..., None]
    )
    for row in range(2):
        expected = grouped_masks(kernels[row], features[row], points[row], strides[row])
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-4)


def test_the_dice_loss() -> None:
    gt = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])[None]
    assert float(dice_loss((gt - 0.5) * 60, gt)) == pytest.approx(0, abs=1e-5)
    assert float(dice_loss((0.5 - gt) * 60, gt)) == pytest.approx(1, abs=1e-5)
    half = 1 - 2 * 1.0 / (4 * 0.25 + 2)  # probabilities of a half
    assert float(dice_loss(torch.zeros_like(gt), gt)) == pytest.approx(half, abs=1e-4)


def test_objects_without_a_mask_add_no_mask_loss() -> None:
    model, batch = scattered(model_of("rtmdet_ins")), batch_of(3)
    with torch.no_grad():
        before = model.losses(batch)
        batch.targets["instances"]["has_mask"][0] = False
        batch.targets["instances"]["masks"][0] = 0
        after = model.losses(batch)
        others = model.losses(batch[1:3])
        batch.targets["instances"]["has_mask"][:] = False
        none = model.losses(batch)["rtmdet_ins/mask"]
    assert before["rtmdet_ins/mask"][1] > after["rtmdet_ins/mask"][1] > 0
    for one, other in zip(after["rtmdet_ins/mask"], others["rtmdet_ins/mask"], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert tuple(map(float, none)) == (0, 0)


def test_candidates_are_near_the_middle_of_a_mask() -> None:
    head = head_of(RtmdetInsHead(channels=32))
    masks = torch.zeros(1, 3, 16, 24, dtype=torch.uint8)
    masks[0, 0, 2:5, 10:14] = 1
    targets = {
        "boxes": torch.tensor([[[0.0, 0, 20, 10], [2, 2, 6, 8], [0, 0, 4, 4]]]),
        "masks": masks,
        "has_mask": torch.tensor([[True, False, True]]),
    }
    assert head.centres(targets)[0].tolist() == [[11.5, 3.0], [4.0, 5.0], [2.0, 2.0]]


def test_masks_belong_to_their_detections() -> None:
    model = scattered(model_of("rtmdet_ins"))
    head: Any = model.heads["rtmdet_ins"]
    assert dense(head) is None, "its candidates would have no masks"
    with torch.no_grad():
        features, context = model.prepare(inputs_of(images(2), (64, 96)))
        found = head.predict(features, context)
        outputs = head.outputs(features)
        everything = torch.arange(len(outputs.points)).expand(2, -1)
        every = head.mask_logits(features, outputs, everything).sigmoid()
    assert found["masks"].shape == (2, 50, 8, 12)
    for row in range(2):
        for box, mask in zip(found["boxes"][row][:5], found["masks"][row], strict=False):
            same = (outputs.boxes[row].clamp(min=0) - box).abs().sum(dim=1).argsort()[:1]
            candidates = every[row, same]
            assert float((candidates - mask).abs().amax(dim=(1, 2)).min()) < 1e-4


def test_a_mask_stride_must_divide_that_of_the_level() -> None:
    with pytest.raises(ValueError, match="mask_loss_stride 3 is no divisor of the stride of P3, 8"):
        head_of(RtmdetInsHead(mask_loss_stride=3))


def test_published_defaults() -> None:
    published = Selection(
        score_threshold=0.001, iou_threshold=0.65, max_detections=300, candidates=30000, rank="pair"
    )
    assert asdict(RtmdetHead().select) == asdict(published)
    assert replace(RtmdetInsHead().select, score_threshold=0.02).max_detections == 100
    assert RtmdetInsHead.fields == {"masks"}
    assert RtmdetHead().level_sizes((64, 96)) == (96, 24, 6)
