"""Whole detectors of other programs: filled strictly, their classes found by name, their colours
turned, written as checkpoints.
"""

import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jobs.run import run
from mtl_ray.experiment import ExperimentConfig, build_model, load_experiment
from mtl_ray.inference.checkpoint import open_checkpoint
from mtl_ray.models.imports import Imported, Program, Rename, renamed
from mtl_ray.models.model import Model
from mtl_ray.tasks.detection.dense.retinanet import RetinaNet
from mtl_ray.tasks.head_classes import numbered_vocabulary
from mtl_ray.training.class_rows import ClassRows, move_rows
from mtl_ray.training.learner import load_from
from mtl_ray.weights.network import ImportedNetwork, import_network
from mtl_ray.weights.original import find_program, read_class_list, read_original
from mtl_ray.weights.weights import Weights
from tests.training.tiny import write_split

import_main: Callable[[list[str]], int] = importlib.import_module("jobs.weights.import").main
CONFIG = """
model:
  backbone: {BACKBONE}
  necks:
    pyramid: {type: fpn, inputs: [C3, C4], channels: 8, norm: false, extra: 1}
  heads:
    boxes: {type: retinanet, levels: [P3, P4, P5], channels: 8, convs: 1}
data:
  train: {uri: URI}
  val: {uri: URI}
  canvas: {kind: letterbox, height: 64, width: 64}
schedule: {steps: 1}
runtime: {name: a, storage: runs, device: cpu}
"""
BACKBONES = {
    "resnet": "{type: resnet, depth: 18, base_channels: 8, levels: [C3, C4]}",
    "timm": "{name: resnet18, levels: [C3, C4], options: {channels: [8, 16, 32, 64], "
    "stem_width: 8}}",
}
CAFFE = (
    "data_preprocessor=dict(type='DetDataPreprocessor', mean=[103.530, 116.280, 123.675], "
    "std=[1.0, 1.0, 1.0], bgr_to_rgb=False)"
)


@pytest.fixture(autouse=True)
def importing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head whose published names are its own."""

    def imported(
        self: RetinaNet, program: Program, tensors: Mapping[str, Tensor]
    ) -> dict[str, Imported]:
        return renamed(tensors, [Rename(r"bbox_head\.(.*)", r"\1")])

    monkeypatch.setattr(RetinaNet, "imported", imported, raising=False)


def config_of(folder: Path, uri: str = "nowhere", backbone: str = "resnet") -> ExperimentConfig:
    text = CONFIG.replace("{BACKBONE}", BACKBONES[backbone]).replace("URI", uri)
    (folder / "config.yaml").write_text(text)
    return load_experiment(folder / "config.yaml")


def network_of(config: ExperimentConfig, classes: int) -> Model:
    torch.manual_seed(1)
    model = build_model(config.model, numbered_vocabulary(config.model.heads.values(), classes))
    with torch.no_grad():
        for each in model.state_dict().values():
            if each.is_floating_point():
                each.copy_(torch.rand(each.shape) * 0.2 + 0.1)
    return model.eval()


def as_openmmlab(model: Model) -> dict[str, Tensor]:
    """The network under the names of OpenMMLab."""
    found = {}
    for name, value in model.state_dict().items():
        parts = name.removeprefix("trunk.").removeprefix("heads.").split(".")
        if parts[0] == "backbone":
            key = ".".join(part for part in parts if part != "net")
        elif parts[0] == "necks":
            kind, index = parts[2], int(parts[3])
            own = "lateral_convs" if kind == "lateral" else "fpn_convs"
            key = f"neck.{own}.{index + (2 if kind == 'further' else 0)}.conv.{parts[-1]}"
        else:
            key = ".".join(["bbox_head", *parts[1:]])
        found[key] = value
    return found


def taken(
    tensors: dict[str, Tensor],
    config: ExperimentConfig,
    meta: dict[str, Any] | None = None,
    **options: Any,
) -> ImportedNetwork:
    rest = {} if meta is None else {"meta": meta}
    return import_network(
        read_original(Weights(tensors, "state_dict", rest), "openmmlab"), config, **options
    )


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_tensor_is_filled(backbone: str, tmp_path: Path) -> None:
    config = config_of(tmp_path, backbone=backbone)
    model = network_of(config, 4)
    tensors = as_openmmlab(model) | {"bbox_head.integral.project": torch.arange(17.0)}
    found = taken(tensors, config)
    assert found.unused == ("bbox_head.integral.project",)
    assert found.vocabulary.classes == {"instances": ("0", "1", "2", "3")}
    assert "the file does not name its classes: they are called by number" in found.notes
    assert all(
        torch.equal(found.tensors[name], value) for name, value in model.state_dict().items()
    )


def test_layers_that_are_used_in_part_are_refused(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    tensors = as_openmmlab(network_of(config, 4)) | {"backbone.conv1.bias": torch.zeros(8)}
    with pytest.raises(ValueError, match=r"\(backbone.conv1.bias\).*not equal the original. Fix"):
        taken(tensors, config)
    found = taken(tensors, config, partial=True)
    assert found.unused == ("backbone.conv1.bias",)
    assert any(
        "belong to layers that are used (backbone.conv1.bias)" in note for note in found.notes
    )


def test_what_is_missing_or_has_another_shape_is_one_error(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    tensors = as_openmmlab(network_of(config, 4))
    del tensors["neck.fpn_convs.2.conv.bias"]
    del tensors["backbone.layer1.0.bn1.running_mean"]
    tensors["backbone.conv1.weight"] = torch.zeros(16, 3, 7, 7)
    tensors["bbox_head.box_tower.output.bias"] = torch.zeros(3)
    with pytest.raises(ValueError, match="does not fill the network") as error:
        taken(tensors, config)
    for said in (
        "2 tensors are not in it: trunk.backbone.layer1.0.bn1.running_mean, "
        "trunk.necks.pyramid.further.0.0.bias",
        "2 have another shape: backbone.conv1.weight is (16, 3, 7, 7) and "
        "trunk.backbone.conv1.weight (8, 3, 7, 7)",
    ):
        assert said in str(error.value)


def test_counters_of_batches_may_be_missing(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    tensors = as_openmmlab(network_of(config, 2))
    found = taken({k: v for k, v in tensors.items() if not k.endswith("tracked")}, config)
    assert int(found.tensors["trunk.backbone.bn1.num_batches_tracked"]) == 0


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing of this file of openmmlab fits"):
        taken({"backbone.stages.0.weight": torch.zeros(3)}, config_of(tmp_path))


def test_rows_of_classes_are_found_by_name(tmp_path: Path) -> None:
    write_split(str(tmp_path / "data"), 2, 1)  # red, green, blue
    config = config_of(tmp_path, str(tmp_path / "data"))
    tensors = as_openmmlab(network_of(config, 4))
    meta = {"dataset_meta": {"classes": ("cat", "Blue", "dog", "red")}}
    found = taken(tensors, config, meta)
    assert found.vocabulary.classes["instances"] == ("red", "green", "blue")
    assert found.random == {"boxes": ("green",)}
    name = "class_tower.output.bias"
    theirs = tensors[f"bbox_head.{name}"].view(-1, 4)
    ours = found.tensors[f"heads.boxes.{name}"].view(-1, 3)
    assert torch.equal(ours[:, 0], theirs[:, 3])
    assert torch.equal(ours[:, 2], theirs[:, 1])
    assert float(ours[:, 1].max()) < 0  # the prior of a new head
    assert torch.equal(
        found.tensors["heads.boxes.box_tower.output.bias"],
        tensors["bbox_head.box_tower.output.bias"],
    )
    again = taken(tensors, config, meta)
    assert all(torch.equal(value, again.tensors[key]) for key, value in found.tensors.items())


def test_equal_numbers_of_classes_in_another_order_are_sorted_too(tmp_path: Path) -> None:
    write_split(str(tmp_path / "data"), 2, 1)
    config = config_of(tmp_path, str(tmp_path / "data"))
    tensors = as_openmmlab(network_of(config, 3))
    found = taken(tensors, config, classes=("blue", "red", "green"))
    theirs = tensors["bbox_head.class_tower.output.bias"].view(-1, 3)
    ours = found.tensors["heads.boxes.class_tower.output.bias"].view(-1, 3)
    assert torch.equal(ours, theirs[:, [1, 2, 0]])
    unnamed = taken(tensors, config)
    assert torch.equal(unnamed.tensors["heads.boxes.class_tower.output.bias"].view(-1, 3), theirs)
    with pytest.raises(ValueError, match=r"4 classes and does not name them, head 'boxes' has 3"):
        taken(as_openmmlab(network_of(config, 4)), config)
    with pytest.raises(ValueError, match="no class of head 'boxes'"):
        taken(tensors, config, classes=("x", "y", "z"))


@pytest.mark.parametrize("outer", [True, False])
def test_rows_move_with_what_lies_beside_them(outer: bool) -> None:
    """Of each class four box sides (``outer``), or of each of four anchors the classes."""
    old = torch.arange(12.0).view(3, 4) if outer else torch.arange(12.0).view(4, 3)
    new = -torch.ones(8, 2)
    rows = ClassRows(0, 4, 0, outer)
    moved = move_rows(old.reshape(12, 1).expand(12, 2), new, rows, [2, None])[:, 0]
    by_class = moved.view(2, 4) if outer else moved.view(4, 2).T
    assert by_class[0].tolist() == (old[2] if outer else old[:, 2]).tolist()
    assert by_class[1].tolist() == [-1] * 4
    background = move_rows(
        torch.tensor([1.0, 2, 3, 9]), torch.zeros(3), ClassRows(0, 1, 1, True), [1, None]
    )
    assert background.tolist() == [2, 0, 9]


def test_a_network_of_blue_green_red_becomes_one_of_red_green_blue(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    tensors = as_openmmlab(network_of(config, 2))
    found = taken(tensors, config, {"cfg": CAFFE})
    stem = found.tensors["trunk.backbone.conv1.weight"]
    assert torch.equal(stem, tensors["backbone.conv1.weight"].flip(1))
    assert found.config.model.mean == (123.675, 116.28, 103.53)
    assert found.config.model.std == (1.0, 1.0, 1.0)
    assert any("first convolution was reversed" in note for note in found.notes)
    assert torch.equal(
        taken(tensors, config, {"cfg": CAFFE}, compat=True).tensors["trunk.backbone.conv1.weight"],
        tensors["backbone.conv1.weight"],
    )
    plain = taken(tensors, config)
    assert plain.config == config
    assert any("does not say the order of its colours" in note for note in plain.notes)


@pytest.mark.parametrize(
    ("text", "caffe"),
    [
        ("backbone=dict(type='ResNet', depth=50, style='caffe')", True),
        ("'backbone': {'type': 'ResNet', 'style': 'caffe'}", True),
        ("backbone=dict(type='ResNet', depth=50, style='pytorch')", False),
        ("backbone=dict(type='ResNet', depth=50)", False),
        ("backbone=dict(type='CSPNeXt')", None),
        ("", None),
    ],
)
def test_what_a_config_of_openmmlab_says_of_strides(text: str, caffe: bool | None) -> None:
    weights = Weights({"backbone.conv1.weight": torch.zeros(1)}, "", {"meta": {"cfg": text}})
    assert read_original(weights, "openmmlab").caffe == caffe


def test_strides_are_those_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint gets them; a file of weights cannot, so that it is refused."""
    deep = BACKBONES["resnet"].replace("18", "50, blocks: [1, 1, 1, 1]")
    (tmp_path / "config.yaml").write_text(CONFIG.replace("{BACKBONE}", deep))
    config = load_experiment(tmp_path / "config.yaml")
    meta = {"cfg": "backbone=dict(type='ResNet', depth=50, style='caffe')"}
    tensors = as_openmmlab(network_of(config, 2))
    backbone = taken(tensors, config, meta).config.model.backbone
    assert getattr(backbone, "style", None) == "caffe"
    torch.save({"meta": meta, "state_dict": tensors}, tmp_path / "in.pth")
    arguments = [str(tmp_path / "in.pth"), "--config", str(tmp_path / "config.yaml")]
    with pytest.raises(ValueError, match=r"need model\.backbone\.style=caffe.*Fix: set it"):
        import_main([*arguments, str(tmp_path / "out.safetensors")])
    assert import_main([*arguments, str(tmp_path / "out.safetensors"), "--partial"]) == 0
    assert import_main([*arguments, str(tmp_path / "out")]) == 0
    assert "trained with model.backbone.style: caffe" in capsys.readouterr().out
    assert "style: caffe" in (tmp_path / "out" / "model.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "bgr", "mean"),
    [
        (CAFFE, True, (123.675, 116.28, 103.53)),
        ("img_norm_cfg = dict(mean=[1.0, 2.0, 3.0], std=[1, 1, 1], to_rgb=True)", False, (1, 2, 3)),
        (
            "data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32)",
            True,
            (0, 0, 0),
        ),
        ("bbox_coder=dict(target_means=[0.0, 0.0, 0.0, 0.0])", None, None),
        ("", None, None),
    ],
)
def test_what_a_config_of_openmmlab_says_of_colours(
    text: str, bgr: bool | None, mean: tuple[float, ...] | None
) -> None:
    weights = Weights({"backbone.conv1.weight": torch.zeros(1)}, "", {"meta": {"cfg": text}})
    found = read_original(weights, "openmmlab")
    assert (found.bgr, found.mean) == (bgr, mean)


@pytest.mark.parametrize(
    ("names", "program"),
    [
        (["backbone.conv1.weight", "neck.convs.0.conv.weight"], "openmmlab"),
        (["module.bbox_head.retina_cls.weight"], "openmmlab"),
        (["backbone.body.conv1.weight", "roi_heads.box_head.fc6.weight"], "torchvision"),
        (["backbone.fpn.inner_blocks.0.0.weight"], "torchvision"),
        (["model.backbone.model.embedder.stem1.convolution.weight"], "huggingface"),
        (["model.decoder.layers.0.fc1.weight", "class_embed.0.weight"], "huggingface"),
        (["conv1.weight", "fc.weight"], None),
    ],
)
def test_programs_are_told_apart_by_their_names(names: list[str], program: str | None) -> None:
    assert find_program({name: torch.zeros(1) for name in names}) == program


def test_class_names_are_lines_or_a_list(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("cat\ntraffic light\n\n")
    (tmp_path / "a.json").write_text('["cat", "traffic light"]')
    for name in ("a.txt", "a.json"):
        assert read_class_list(str(tmp_path / name)) == ("cat", "traffic light")
    (tmp_path / "b.txt").write_text("cat\nN/A\nN/A\n")
    assert read_class_list(str(tmp_path / "b.txt")) == ("cat", "N/A", "N/A (2)")
    (tmp_path / "c.txt").write_text("\n")
    with pytest.raises(ValueError, match="names no class"):
        read_class_list(str(tmp_path / "c.txt"))


def test_a_checkpoint_of_this_project_comes_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tmp_path)
    model = network_of(config, 2)
    torch.save({"meta": {}, "state_dict": as_openmmlab(model)}, tmp_path / "in.pth")
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    arguments = [str(tmp_path / "in.pth"), str(tmp_path / "out")]
    arguments += ["--config", str(tmp_path / "config.yaml")]
    arguments += ["--classes", str(tmp_path / "names.txt"), "--report", str(tmp_path / "r.json")]
    assert import_main(arguments) == 0
    assert "a file of openmmlab: the network is filled" in capsys.readouterr().out
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["classes"] == {"instances": ["cat", "dog"]}
    assert report["unused"] == []
    predictor = open_checkpoint(str(tmp_path / "out"))
    assert predictor.vocabulary.classes["instances"] == ("cat", "dog")
    image = np.random.default_rng(0).integers(0, 255, (50, 60, 3)).astype(np.uint8)
    assert list(predictor.predict([image]))
    fresh: nn.Module = network_of(config, 2)
    nn.init.zeros_(fresh.get_parameter("trunk.backbone.conv1.weight"))
    load_from(fresh, str(tmp_path / "out"))
    assert torch.equal(
        fresh.get_parameter("trunk.backbone.conv1.weight"),
        model.get_parameter("trunk.backbone.conv1.weight"),
    )
    with pytest.raises(SystemExit) as stop:
        run(lambda: import_main(arguments))
    assert stop.value.code == 2
    assert "there is a checkpoint at" in capsys.readouterr().err


def test_a_file_of_weights_comes_out(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    model = network_of(config, 2)
    torch.save({"state_dict": as_openmmlab(model)}, tmp_path / "in.pth")
    arguments = [str(tmp_path / "in.pth"), str(tmp_path / "out.safetensors")]
    assert import_main([*arguments, "--config", str(tmp_path / "config.yaml")]) == 0
    fresh: nn.Module = network_of(config, 2)
    for each in fresh.parameters():
        nn.init.zeros_(each)
    load_from(fresh, str(tmp_path / "out.safetensors"))
    assert all(
        torch.equal(value, fresh.state_dict()[name]) for name, value in model.state_dict().items()
    )


def test_a_backbone_alone_is_still_imported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tmp_path)
    model = network_of(config, 2)
    tensors = {k: v for k, v in as_openmmlab(model).items() if k.startswith("backbone.")}
    torch.save({"state_dict": tensors}, tmp_path / "in.pth")
    arguments = [str(tmp_path / "in.pth"), str(tmp_path / "out.safetensors"), "--classes", "2"]
    assert import_main([*arguments, "--config", str(tmp_path / "config.yaml")]) == 0
    said = capsys.readouterr().out
    assert "of the network not in the file:\n  trunk.necks.pyramid" in said
    with pytest.raises(SystemExit) as stop:
        run(
            lambda: import_main(
                [arguments[0], str(tmp_path / "out"), "--config", str(tmp_path / "config.yaml")]
            )
        )
    assert stop.value.code == 2
    assert "does not fill the network of the config" in capsys.readouterr().err
