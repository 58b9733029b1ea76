"""``cascade_rcnn`` equals the paper."""

import pytest
import torch

from mtl_ray.tasks.detection.two_stage.config import CascadeRcnnHead
from tests.tasks.detection.slow_two_stage import slow_detections, slow_losses
from tests.tasks.detection.test_faster_rcnn import parameters, published
from tests.tasks.detection.two_stage_cases import (
    context,
    features,
    proposals_of,
    small_head,
    targets,
)


def test_the_published_network_has_as_many_parameters() -> None:
    with torch.device("meta"):
        head = published(CascadeRcnnHead, 256, 80)
    assert parameters(head.roi_head) == 41_948_415
    assert "roi_head.bbox_head.2.fc_reg.weight" in head.state_dict()
    assert head.state_dict()["roi_head.bbox_head.2.fc_reg.weight"].shape == (4, 1024)


@pytest.mark.parametrize("agnostic", [True, False])
def test_losses_and_detections_are_those_of_the_paper(agnostic: bool) -> None:
    roi = {"levels": 2, "finest_px": 16.0, "size": 3, "channels": 16, "samples": 10**6}
    head = small_head(CascadeRcnnHead, roi=roi | {"class_agnostic": agnostic})
    maps, ctx, some = features(), context(), targets()
    levels = list(maps.values())
    with torch.no_grad():
        terms = head.losses(maps, some, ctx)
        proposals = proposals_of(head, maps, ctx, training=True)
        expected = slow_losses(head, levels, some, proposals, ctx.valid_hw)
        assert expected.keys() == {f"s{i}_{name}" for i in range(3) for name in ("class", "box")}
        for name, value in expected.items():
            torch.testing.assert_close(terms[name][0] / terms[name][1], value, msg=name)
        found = head.predict(maps, ctx)
        proposals = proposals_of(head, maps, ctx, training=False)
        slow = slow_detections(head, levels, proposals, ctx.valid_hw)
    for i, pairs in enumerate(slow):
        assert len(pairs) == int((found["scores"][i] > 0).sum()) > 10
        boxes = torch.tensor([box for _, _, box in pairs])
        torch.testing.assert_close(found["boxes"][i, : len(pairs)], boxes, rtol=0, atol=1e-3)
        scores = torch.tensor([score for score, _, _ in pairs])
        torch.testing.assert_close(found["scores"][i, : len(pairs)], scores)
        assert found["classes"][i, : len(pairs)].tolist() == [label for _, label, _ in pairs]


def test_raw_outputs_are_named_by_stage() -> None:
    head = small_head(CascadeRcnnHead)
    with torch.no_grad():
        raw = head.raw_outputs(features(), context())
    assert {f"s{i}_{name}" for i in range(3) for name in ("rois", "roi_cls", "roi_reg")} <= set(raw)
    assert not torch.equal(raw["s0_rois"], raw["s1_rois"])
