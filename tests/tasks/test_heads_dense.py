"""The segmentation and classification heads against plain arithmetic."""

import math

import pytest
import torch
import torch.nn.functional as F

from mtl_ray.models.head import Context
from mtl_ray.samples import IGNORE_INDEX
from mtl_ray.tasks.classification.config import LinearHead, MultilabelHead
from mtl_ray.tasks.classification.heads import Linear, Multilabel
from mtl_ray.tasks.segmentation.config import FcnHead
from mtl_ray.tasks.segmentation.fcn import Fcn
from tests.tasks.head_cases import known

CONTEXT = Context(
    inputs={"image": torch.zeros(2, 3, 6, 10), "valid_hw": torch.tensor([[6, 10]] * 2)}
)


def fcn() -> tuple[Fcn, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    head = Fcn(
        FcnHead(levels=("P4", "P3"), channels=4, convs=1, dropout=0.0),
        {"P3": 3, "P4": 5},
        {"P3": 2, "P4": 4},
        3,
    ).eval()
    return head, {"P3": torch.rand(2, 3, 3, 5), "P4": torch.rand(2, 5, 2, 3)}


def test_the_pixel_loss_is_cross_entropy_over_pixels_with_a_class() -> None:
    head, features = fcn()
    gt = torch.randint(0, 3, (2, 6, 10), dtype=torch.uint8)
    gt[0, 2:4] = IGNORE_INDEX
    terms = head.losses(
        features,
        {"classes": gt, "annotated": torch.tensor([True, True]), "known_classes": known(2, 3)},
        CONTEXT,
    )
    counted = gt != IGNORE_INDEX
    logits = head.logits(features, CONTEXT).permute(0, 2, 3, 1)[counted]
    value, count = terms["pixel"]
    assert count == counted.sum() == 100
    torch.testing.assert_close(value / count, F.cross_entropy(logits, gt[counted].long()))


def test_an_auxiliary_head_learns_the_class_in_the_middle_of_each_cell() -> None:
    head, features = fcn()
    head.train_only = True
    gt = torch.randint(0, 3, (2, 6, 10), dtype=torch.uint8)
    value, count = head.losses(
        features,
        {"classes": gt, "annotated": torch.tensor([True, True]), "known_classes": known(2, 3)},
        CONTEXT,
    )["pixel"]
    assert count == 2 * 3 * 5
    middle = gt[:, 1::2, 1::2].long()
    torch.testing.assert_close(value / count, F.cross_entropy(head.cells(features), middle))


def test_the_finest_level_comes_first_whatever_the_config_says() -> None:
    head, features = fcn()
    assert head.levels == ("P3", "P4")
    assert head.logits(features, CONTEXT).shape == (2, 3, 6, 10)
    predicted = head.predict(features, CONTEXT)["classes"]
    assert predicted.dtype == torch.uint8
    assert torch.equal(predicted.long(), head.logits(features, CONTEXT).argmax(1))


def test_the_classification_losses_by_hand() -> None:
    features = {"G4": torch.tensor([[1.0, 2.0], [0.5, -1.0]]), "G5": torch.tensor([[3.0], [0.0]])}
    present = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    targets = {
        "present": present,
        "annotated": torch.tensor([True, False]),
        "known_classes": known(2, 2),
    }
    for head in (
        Linear(LinearHead(levels=("G4", "G5")), {"G4": 2, "G5": 1}, 2),
        Multilabel(MultilabelHead(levels=("G4", "G5")), {"G4": 2, "G5": 1}, 2),
    ):
        torch.nn.init.constant_(head.linear.weight, 0.0)
        head.linear.weight.data[1] = 1.0
        torch.nn.init.zeros_(head.linear.bias)
        value, count = head.losses(features, targets, CONTEXT)["class"]
        scores = head.predict(features, CONTEXT)["scores"][0]
        sure = 1 / (1 + math.exp(-6.0))
        assert count == 1
        if isinstance(head, Linear):
            torch.testing.assert_close(value, torch.tensor(-math.log(sure)))
            torch.testing.assert_close(scores, torch.tensor([1 - sure, sure]))
        else:
            torch.testing.assert_close(value, torch.tensor(-math.log(sure) - math.log(0.5)))
            torch.testing.assert_close(scores, torch.tensor([0.5, sure]))


def test_smoothing_spreads_the_target() -> None:
    features = {"G5": torch.tensor([[0.0]])}
    head = Linear(LinearHead(smoothing=0.2), {"G5": 1}, 2)
    head.linear.bias.data[:] = torch.tensor([2.0, 0.0])
    targets = {
        "present": torch.tensor([[1.0, 0.0]]),
        "annotated": torch.tensor([True]),
        "known_classes": known(1, 2),
    }
    value, _ = head.losses(features, targets, CONTEXT)["class"]
    sure = 1 / (1 + math.exp(-2.0))
    torch.testing.assert_close(
        value, torch.tensor(-0.9 * math.log(sure) - 0.1 * math.log(1 - sure))
    )


@pytest.mark.parametrize("empty", [[False] * 3, [True, False, True]])
def test_an_image_without_exactly_one_label_teaches_an_exclusive_head_nothing(
    empty: list[bool],
) -> None:
    """Annotated and without a label is not class 0, and an image of two classes is not the first
    of them.
    """
    torch.manual_seed(0)
    head = Linear(LinearHead(levels=("G5",)), {"G5": 4}, 3).eval()
    features = {"G5": torch.rand(3, 4)}
    present = torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]])
    present[torch.tensor(empty)] = torch.tensor([1.0, 0, 1])
    targets = {
        "present": present,
        "annotated": torch.tensor([True] * 3),
        "known_classes": known(3, 3),
    }
    value, count = head.losses(features, targets, CONTEXT)["class"]
    wanted = F.cross_entropy(head.logits(features)[1:2], torch.tensor([1]))
    assert count == 1
    torch.testing.assert_close(value, wanted)


def test_an_image_without_a_label_is_negative_for_every_class_of_a_multilabel_head() -> None:
    torch.manual_seed(0)
    head = Multilabel(MultilabelHead(levels=("G5",)), {"G5": 4}, 3).eval()
    features = {"G5": torch.rand(2, 4)}
    targets = {
        "present": torch.zeros(2, 3),
        "annotated": torch.tensor([True, False]),
        "known_classes": known(2, 3),
    }
    value, count = head.losses(features, targets, CONTEXT)["class"]
    assert count == 1
    torch.testing.assert_close(value, -F.logsigmoid(-head.logits(features)[0]).sum())
