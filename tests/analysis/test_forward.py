"""``jobs.analyze forward``: what it writes, and the reference networks of other programs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from jobs.analyze.forward import main
from jobs.run import run
from mtl_ray.analysis.forward import OpenedNetwork, forward_arrays, open_inspected
from mtl_ray.analysis.forward_arrays import batch_of, loss_name, read_arrays
from mtl_ray.experiment import load_experiment
from mtl_ray.models.head import Context
from tests.tasks.head_cases import VOCABULARY, model_of, scattered

ROOT = Path(__file__).parents[2]
REFERENCES = ROOT.parent / "shared" / "data" / "heads_reference"
CONFIGS = ROOT / "tests" / "heads_reference"
Arrays = dict[str, NDArray[Any]]
RNG = np.random.default_rng


def an_input(**more: Any) -> Arrays:
    """Two images, the second padded, with two objects and none."""
    return {
        "image": RNG(0).normal(size=(2, 3, 64, 96)).astype(np.float32),
        "img_shape": np.array([[64, 96], [48, 80]]),
        "gt0_boxes": np.array([[4, 4, 40, 36], [50, 10, 90, 60]], np.float32),
        "gt0_labels": np.array([1, 0]),
        "gt1_boxes": np.zeros((0, 4), np.float32),
        "gt1_labels": np.zeros(0, np.int64),
        **more,
    }


@pytest.mark.parametrize("name", ["retinanet", "yolov3"])
def test_losses_are_those_of_the_model_and_gradients_those_of_their_sum(name: str) -> None:
    model = scattered(model_of(name))
    batch = batch_of(an_input())
    found = forward_arrays(OpenedNetwork(model, VOCABULARY), batch)
    assert {"C3", "C4", "P3", "P4", "b0_boxes", "b1_scores", "b1_labels"} <= set(found)
    assert batch.objects is not None
    targets = batch.objects | {"known_classes": torch.ones(2, 2, dtype=torch.bool)}
    features, context = model.prepare({"image": batch.image, "valid_hw": batch.valid_hw})
    head: Any = model.heads[name]
    losses = {
        key: value / count.clamp(min=1)
        for key, (value, count) in head.losses(features, targets, context).items()
    }
    for key, value in losses.items():
        np.testing.assert_allclose(found[loss_name(key)], value.detach(), rtol=1e-5)
    assert {"loss_cls", "loss_bbox"} <= set(found)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert found["gradnorm_names"].tolist() == [key for key, _ in head.named_parameters()]
    wanted = [float(each.grad.norm()) for each in head.parameters()]
    np.testing.assert_allclose(found["gradnorm"], wanted, rtol=1e-4, atol=1e-7)
    again = forward_arrays(OpenedNetwork(model, VOCABULARY), batch)
    assert all(np.array_equal(value, again[key]) for key, value in found.items())


def test_predictions_have_no_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    model = scattered(model_of("retinanet"))
    head: Any = model.heads["retinanet"]
    scores = torch.tensor([[0.9, 0.5, 0.0], [0.0, 0.0, 0.0]])
    monkeypatch.setattr(
        head,
        "predict",
        lambda features, context: {
            "boxes": torch.arange(24.0).reshape(2, 3, 4),
            "scores": scores,
            "classes": torch.tensor([[1, 0, 0], [0, 0, 0]]),
            "masks": torch.rand(2, 3, 28, 28),
        },
    )
    found = forward_arrays(
        OpenedNetwork(model, VOCABULARY), batch_of({"image": an_input()["image"]})
    )
    assert found["b0_boxes"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert found["b0_labels"].tolist() == [1, 0]
    assert found["b0_masks"].shape == (2, 28, 28)
    assert found["b1_boxes"].shape == (0, 4)
    assert not any(key.startswith(("loss", "gradnorm")) for key in found)


def test_heads_are_told_apart_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    model = scattered(model_of("retinanet", "fcn"))

    def raw(features: Any, context: Context) -> dict[str, torch.Tensor]:
        return {"cls0": features["P3"] * 2}

    head: Any = model.heads["retinanet"]
    monkeypatch.setattr(head, "raw_outputs", raw, raising=False)
    monkeypatch.setattr(
        head,
        "target_arrays",
        lambda features, targets, context: {"target_labels": targets["classes"]},
        raising=False,
    )
    found = forward_arrays(OpenedNetwork(model, VOCABULARY), batch_of(an_input()))
    np.testing.assert_array_equal(found["retinanet/cls0"], found["P3"] * 2)
    assert found["retinanet/target_labels"].tolist() == [[1, 0], [0, 0]]
    assert found["fcn/classes"].shape == (2, 64, 96)
    assert "fcn/gradnorm" not in found


def test_weights_of_a_trunk_alone_give_features(tmp_path: Path) -> None:
    config = str(CONFIGS / "deeplabv3.yaml")
    tensors = open_inspected(config, classes=5).model.trunk.state_dict(prefix="trunk.")
    save_file(tensors, tmp_path / "in.safetensors")
    found = forward_arrays(
        open_inspected(config, str(tmp_path / "in.safetensors"), 5),
        batch_of({"image": an_input()["image"]}),
    )
    assert {name: value.shape[2:] for name, value in found.items()} == {
        "C2": (16, 24),
        "C3": (8, 12),
        "C4": (8, 12),
        "C5": (8, 12),
    }


def test_terms_have_the_names_of_openmmlab() -> None:
    names = {
        "class": "loss_cls",
        "box": "loss_bbox",
        "centerness": "loss_centerness",
        "objectness": "loss_obj",
        "rpn_class": "loss_rpn_cls",
        "rpn_box": "loss_rpn_bbox",
        "s0_class": "s0_loss_cls",
        "s2_mask": "s2_loss_mask",
        "d0_class": "d0_loss_cls",
        "d10_iou": "d10_loss_iou",
        "pre_class": "pre_loss_cls",
        "enc_box": "enc_loss_bbox",
        "d1_dn_class": "d1_dn_loss_cls",
        "dfl": "loss_dfl",
    }
    assert {term: loss_name(term) for term in names} == names


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image": None}, "no array 'image'"),
        ({"image": np.zeros((3, 64, 96), np.float32)}, "not float32 or uint8"),
        ({"image": np.zeros((2, 3, 64, 96), np.int64)}, "not float32 or uint8"),
        ({"img_shape": np.array([[64, 96]])}, r"img_shape is int64 \(1, 2\)"),
        ({"img_shape": np.array([[64, 96], [65, 80]])}, "beyond the canvas of 64 x 96"),
        ({"gt1_boxes": None}, "objects, but no array gt1_boxes"),
        ({"gt0_labels": np.zeros(3, np.int64)}, r"gt0_labels is int64 \(3,\), not integers \(2\)"),
        ({"gt0_boxes": np.zeros((2, 5), np.float32)}, r"gt0_boxes is float32 \(2, 5\)"),
        ({"gt0_masks": np.zeros((2, 8, 8), np.uint8)}, r"gt0_masks is uint8 \(2, 8, 8\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: Arrays, said: str) -> None:
    arrays = {name: value for name, value in an_input(**change).items() if value is not None}
    with pytest.raises(ValueError, match=said):
        batch_of(arrays)


def test_objects_are_read_by_their_names_alone() -> None:
    """Whole numbers are boxes, too; objects under other names would be left out."""
    arrays = an_input()
    whole = batch_of(arrays | {"gt0_boxes": arrays["gt0_boxes"].astype(np.int64)}).objects
    assert whole is not None
    assert whole["boxes"][0, 0].tolist() == [4, 4, 40, 36]
    with pytest.raises(ValueError, match="gt0_boxes has values that are not finite"):
        batch_of(arrays | {"gt0_boxes": np.full((2, 4), np.nan, np.float32)})
    others = {"image": arrays["image"], "gt_boxes": arrays["gt0_boxes"]}
    with pytest.raises(ValueError, match="the input has gt_boxes; the objects of the first image"):
        batch_of(others)


def test_files_that_are_no_plain_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", image=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"objects\.npz"):
        read_arrays(str(tmp_path / "objects.npz"))
    (tmp_path / "text.npz").write_text("image")
    with pytest.raises(ValueError, match=r"text.npz is no .npz file"):
        read_arrays(str(tmp_path / "text.npz"))


def test_labels_beyond_the_classes_are_refused() -> None:
    model = model_of("retinanet").eval()
    with pytest.raises(ValueError, match="labels of the objects go up to 7, the network has 2"):
        forward_arrays(
            OpenedNetwork(model, VOCABULARY), batch_of(an_input(gt0_labels=np.array([7, 0])))
        )


CONFIG = """
model:
  backbone: {type: resnet, depth: 18, base_channels: 8, levels: [C3]}
  heads:
    boxes: {type: retinanet, levels: [C3], channels: 8, convs: 1}
data:
  train: {uri: nowhere}
  val: {uri: nowhere}
  canvas: {kind: letterbox, height: 64, width: 96}
schedule: {steps: 1}
runtime: {name: a, storage: runs}
"""


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    np.savez(tmp_path / "in.npz", **an_input())  # type: ignore[arg-type]
    arguments = [
        str(tmp_path / "config.yaml"),
        *("--classes", "2", "--input", str(tmp_path / "in.npz")),
        *("--out", str(tmp_path / "out.npz")),
    ]
    assert main(arguments) == 0
    assert "loss_cls" in capsys.readouterr().out
    with np.load(tmp_path / "out.npz", allow_pickle=False) as arrays:
        assert arrays["C3"].shape == (2, 16, 8, 12)
        assert arrays["loss_bbox"].shape == ()
    with pytest.raises(SystemExit) as stop:
        run(lambda: main([*arguments[:-1], str(tmp_path / "out.txt")]))
    assert stop.value.code == 2
    assert "the result is a .npz file" in capsys.readouterr().err


@pytest.mark.skipif(not REFERENCES.exists(), reason="the reference networks are not here")
@pytest.mark.parametrize("name", ["fcos", "faster_rcnn", "rtmdet"])
def test_a_reference_network_computes_what_the_original_did(name: str, tmp_path: Path) -> None:
    config = CONFIGS / f"{name}.yaml"
    try:
        load_experiment(config)
    except ValueError as error:
        if "unknown type" in str(error):
            pytest.skip(f"not built yet: {error}")
        raise
    arguments = [
        str(config),
        *("--weights", str(REFERENCES / f"{name}.pth"), "--out", str(tmp_path / "out.npz")),
        *("--input", str(REFERENCES / f"{name}.npz")),
    ]
    assert main(arguments) == 0
    wanted = read_arrays(str(REFERENCES / f"{name}.npz"))
    found = read_arrays(str(tmp_path / "out.npz"))
    levels = [key for key in found if key[0] in "CP" and key[1:].isdigit()]
    for kind in "CP":
        for index, level in enumerate(key for key in levels if key[0] == kind):
            same(found[level], wanted[f"{kind.lower()}{index}"], 1e-4)
    raw = [key for key in wanted if key.startswith(("cls", "reg", "ctr", "rpn_"))]
    assert raw
    for key in raw:
        same(found[key], wanted[key], 1e-4)
    for row in range(2):
        same_detections(found, wanted, f"b{row}")
    losses = [key for key in wanted if key.startswith("loss") and not key.endswith("_levels")]
    for key in losses:
        np.testing.assert_allclose(found[key], wanted[key], rtol=1e-3)
    same_gradients(found, wanted)


def same(found: NDArray[Any], wanted: NDArray[Any], relative: float) -> None:
    assert found.shape == wanted.shape
    np.testing.assert_allclose(
        found, wanted, rtol=relative, atol=relative * float(np.abs(wanted).max())
    )


def same_detections(found: Arrays, wanted: Arrays, row: str) -> None:
    """Every detection of the original is there; those at the end of the list may differ, where
    scores are equal.
    """
    assert len(found[f"{row}_scores"]) == len(wanted[f"{row}_scores"])
    np.testing.assert_allclose(found[f"{row}_scores"], wanted[f"{row}_scores"], rtol=1e-3)
    last = float(wanted[f"{row}_scores"][-1]) * 1.001
    for box, score, label in zip(
        *(wanted[f"{row}_{part}"] for part in ("boxes", "scores", "labels")), strict=True
    ):
        if score > last:
            near = np.abs(found[f"{row}_boxes"] - box).max(axis=1) < 1e-2
            assert (near & (found[f"{row}_labels"] == label)).any()


def same_gradients(found: Arrays, wanted: Arrays) -> None:
    """By the ends of their names: a head may leave out what all its names begin with."""
    lengths = dict(zip(found["gradnorm_names"].tolist(), found["gradnorm"], strict=True))
    for name, value in zip(wanted["gradnorm_names"].tolist(), wanted["gradnorm"], strict=True):
        ours = next((key for key in lengths if name == key or name.endswith(f".{key}")), None)
        if ours is not None:
            np.testing.assert_allclose(lengths[ours], value, rtol=1e-2, atol=1e-6)
