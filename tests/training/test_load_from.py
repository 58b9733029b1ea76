"""``runtime.load_from`` with a checkpoint of other classes: rows of a head move by class name."""

import json
from pathlib import Path
from typing import Any, cast

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from mtl_ray.experiment import ExperimentConfig, build_model
from mtl_ray.models.model import Model
from mtl_ray.samples import Vocabulary
from mtl_ray.training import class_rows
from mtl_ray.training.learner import build_method
from mtl_ray.weights.imported import write_checkpoint
from mtl_ray.weights.network import ImportedNetwork
from tests.tasks.head_cases import CLASS_GRADIENTS, HEADS
from tests.training.tiny import config_from, values

MOVED = sorted(HEADS)


def config_of(*names: str, **options: Any) -> ExperimentConfig:
    tree = values(Path("nowhere"), "runs")
    tree["model"] |= {
        "backbone": {"type": "resnet", "depth": 18, "base_channels": 8, "levels": ["C3", "C4"]},
        "necks": {
            "pyramid": {"type": "fpn", "inputs": ["C3", "C4"], "channels": 16},
            "pool": {"type": "pool", "input": "C4"},
        },
        "heads": {name: HEADS[name] | options for name in names},
    }
    return config_from(json.loads(json.dumps(tree)))  # no list is there twice


def vocabulary_of(classes: str) -> Vocabulary:
    names = tuple(classes)
    every = dict.fromkeys(("labels", "instances", "semantic"), names)
    return Vocabulary(classes=every, exclusive_labels=True)


def stored(folder: Path, config: ExperimentConfig, classes: str) -> tuple[str, Model]:
    """A checkpoint of a network whose biases are all different."""
    vocabulary = vocabulary_of(classes)
    model = build_model(config.model, vocabulary)
    torch.manual_seed(3)
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter)
    network = ImportedNetwork("openmmlab", config, vocabulary, model.state_dict(), {}, (), {}, ())
    write_checkpoint(str(folder / "checkpoint"), network)
    return str(folder / "checkpoint"), model


def loaded(config: ExperimentConfig, uri: str | None, classes: str) -> Model:
    runtime = config.runtime.__class__(**(vars(config.runtime) | {"load_from": uri}))
    changed = config.__class__(**(vars(config) | {"runtime": runtime}))
    model = build_method(changed, vocabulary_of(classes), 1, None).model()
    assert model is not None
    return model


def class_biases(model: Model, name: str) -> list[Tensor]:
    """Of each layer of the classes of a head its biases (k, classes)."""
    head = cast(Any, model.heads[name])
    for parameter in head.parameters():
        parameter.grad = parameter.detach().clone()
    return CLASS_GRADIENTS[name](head)


@pytest.mark.parametrize("classes", ["cba", "cn", "bcan"])
def test_rows_move_by_class_name(classes: str, tmp_path: Path) -> None:
    config = config_of(*MOVED)
    uri, theirs = stored(tmp_path, config, "abc")
    model, fresh = loaded(config, uri, classes), loaded(config, None, classes)
    for name in MOVED:
        layers = (class_biases(each, name) for each in (model, theirs, fresh))
        for ours, old, new in zip(*layers, strict=True):
            for place, letter in enumerate(classes):
                wanted = new[:, place] if letter == "n" else old[:, "abc".index(letter)]
                assert torch.equal(ours[:, place], wanted), name
    own, before = model.state_dict(), theirs.state_dict()
    same = "trunk.backbone.conv1.weight", "heads.faster_rcnn.roi_head.bbox_head.shared_fcs.0.weight"
    assert all(torch.equal(own[each], before[each]) for each in same)
    background = "heads.faster_rcnn.roi_head.bbox_head.fc_cls.bias"
    assert own[background][-1] == before[background][-1]


def test_a_head_with_classes_of_its_own(tmp_path: Path) -> None:
    """Only they count, in its order, there and here."""
    uri, theirs = stored(tmp_path, config_of("atss", classes=["c", "a"]), "abc")
    model = loaded(config_of("atss", classes=["a", "c", "d"]), uri, "dcba")
    (ours,), (old,) = class_biases(model, "atss"), class_biases(theirs, "atss")
    assert torch.equal(ours[:, :2], old[:, [1, 0]])


def test_no_class_in_common_leaves_random_rows_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of("atss", "linear")
    uri, theirs = stored(tmp_path, config, "abc")
    model, fresh = loaded(config, uri, "xyz"), loaded(config, None, "xyz")
    name = "heads.atss.atss_cls.weight"
    assert torch.equal(model.state_dict()[name], fresh.state_dict()[name])
    assert "3 of the 3 classes of head atss are not in" in caplog.text
    assert f"{name} has no rows there for these classes" in caplog.text
    boxes = "heads.atss.atss_reg.weight"
    assert torch.equal(model.state_dict()[boxes], theirs.state_dict()[boxes])


@pytest.mark.parametrize("name", ["yolov3", "uneven"])
def test_classes_beside_boxes_move_with_them(name: str, tmp_path: Path) -> None:
    """A layer of boxes, objectness and classes of each anchor, also of a single anchor."""
    config = config_of(name)
    uri, theirs = stored(tmp_path, config, "abcd")
    own, fresh = (loaded(config, source, "cxa").state_dict() for source in (uri, None))
    for level in (0, 1):
        tensor = f"heads.{name}.outputs.{level}.weight"
        old = theirs.state_dict()[tensor].unflatten(0, (-1, 9))
        new = own[tensor].unflatten(0, (-1, 8))
        assert torch.equal(new[:, :5], old[:, :5])
        assert torch.equal(new[:, [5, 7]], old[:, [7, 5]])
        assert torch.equal(new[:, 6], fresh[tensor].unflatten(0, (-1, 8))[:, 6])


def test_rows_that_are_not_known_start_random(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_rows, "GroupedOutput", nn.Conv3d)  # of yolov3, as of a plugin
    config = config_of("yolov3")
    uri, theirs = stored(tmp_path, config, "abc")
    name = "heads.yolov3.outputs.0.weight"
    model, fresh = loaded(config, uri, "cba"), loaded(config, None, "cba")
    assert torch.equal(model.state_dict()[name], fresh.state_dict()[name])
    assert f"{name}: it is unknown which rows belong to which class" in caplog.text
    same = loaded(config, uri, "abc").state_dict()
    assert torch.equal(same[name], theirs.state_dict()[name])


def test_a_weight_file_keeps_its_rows_and_the_random_numbers_to_come_stay_the_same(
    tmp_path: Path,
) -> None:
    config = config_of("atss")
    uri, theirs = stored(tmp_path, config, "abc")
    path = str(tmp_path / "plain.safetensors")
    safetensors.torch.save_file(theirs.state_dict(), path)
    name = "heads.atss.atss_cls.weight"
    plain = loaded(config, path, "cba").state_dict()[name]
    following = torch.rand(3)
    assert torch.equal(plain, theirs.state_dict()[name])
    loaded(config, uri, "cba")
    assert torch.equal(torch.rand(3), following)
