"""One trunk, several heads."""

import pytest
import torch
from pydantic import TypeAdapter

from mtl_ray.experiment import ModelConfig, build_model
from mtl_ray.samples import Vocabulary
from tests.tasks.head_cases import (
    HEADS,
    VOCABULARY,
    batch_of,
    images,
    inputs_of,
    model_of,
    scattered,
)


def test_bytes_are_normalised_in_the_first_layer() -> None:
    model = model_of("linear")
    image = images(2)
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    expected = (image.float() - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(model.normalise(image), expected)
    assert not any(name in ("mean", "std") for name in model.state_dict())


def test_each_head_has_its_terms_and_its_weight() -> None:
    plain = model_of(*HEADS)
    torch.manual_seed(0)
    names = {name: HEADS[name] | {"weight": 0.5 if name == "fcn" else 1.0} for name in HEADS}
    config = {
        "backbone": {
            "name": "resnet18",
            "levels": ["C3", "C4"],
            "options": {
                "layers": [1, 1, 1],
                "channels": [8, 16, 32],
                "stem_type": "deep",
                "stem_width": 8,
            },
        },
        "necks": {
            "pyramid": {"type": "fpn", "inputs": ["C3", "C4"], "channels": 16},
            "pool": {"type": "pool", "input": "C4"},
        },
        "heads": names,
    }
    weighted = build_model(TypeAdapter(ModelConfig).validate_python(config), VOCABULARY)
    batch = batch_of(2)
    one, other = plain.losses(batch), weighted.losses(batch)
    assert {name.split("/")[0] for name in one} == set(HEADS)
    for name, (value, count) in one.items():
        torch.testing.assert_close(
            other[name][0], value * (0.5 if name.startswith("fcn/") else 1.0)
        )
        assert other[name][1] == count


def test_an_auxiliary_head_is_trained_but_does_not_predict() -> None:
    model = model_of("fcn", "auxiliary")
    assert "auxiliary/pixel" in model.losses(batch_of(2))
    assert set(model.predict(inputs_of(images(2), (64, 96)))) == {"fcn"}


def test_forward_is_losses() -> None:
    model = scattered(model_of("yolov3"))
    batch = batch_of(2)
    assert {name: float(value.detach()) for name, (value, _) in model(batch, 3).items()} == {
        name: float(value.detach()) for name, (value, _) in model.losses(batch, 3).items()
    }


def test_heads_that_do_not_fit_the_data_or_the_trunk_are_refused_in_words() -> None:
    base = {
        "backbone": {
            "name": "resnet18",
            "levels": ["C4"],
            "options": {"layers": [1, 1, 1], "channels": [8, 8, 8]},
        },
        "necks": {"pool": {"type": "pool", "input": "C4"}},
    }

    def build(head: dict[str, object], vocabulary: Vocabulary = VOCABULARY) -> None:
        build_model(
            TypeAdapter(ModelConfig).validate_python(base | {"heads": {"h": head}}), vocabulary
        )

    with pytest.raises(ValueError, match="learns one label for each image"):
        build({"type": "linear", "levels": ["G4"]}, Vocabulary(classes={"labels": ("a", "b")}))
    with pytest.raises(ValueError, match="reads pooled features"):
        build({"type": "linear", "levels": ["C4"]})
    with pytest.raises(ValueError, match="reads feature maps, not pooled features"):
        build({"type": "fcn", "levels": ["G4"]})
    with pytest.raises(ValueError, match="reads feature maps, not pooled features"):
        build({"type": "yolov3", "levels": ["G4"], "anchors": [[[4, 4]]]})
    for levels in ([], ["C4", "C4"]):
        with pytest.raises(ValueError, match="at least one feature map, and each once"):
            build({"type": "retinanet", "levels": levels})
    with pytest.raises(ValueError, match="one list for each of the 1 levels"):
        build({"type": "yolov3", "levels": ["C4"], "anchors": [[[4, 4]], [[8, 8]]]})
    with pytest.raises(ValueError, match="above 0"):
        build({"type": "yolov3", "levels": ["C4"], "anchors": [[[4, 0]]]})


def test_a_model_too_narrow_for_the_fast_layout_learns_on_two_threads() -> None:
    """In channels last, this one writes past a buffer of oneDNN: the process would end here or
    later (see models/model.py).
    """
    model, batch = model_of("yolov3"), batch_of(3)
    assert model.normalise(batch.inputs["image"]).is_contiguous()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in range(5):
            sum(value for value, _ in model.losses(batch).values()).backward()
    finally:
        torch.set_num_threads(threads)
    assert all(
        parameter.grad.isfinite().all()
        for parameter in model.parameters()
        if parameter.grad is not None
    )
