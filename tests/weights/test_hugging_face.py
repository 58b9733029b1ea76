"""What lies beside the weights of a model of Hugging Face, as transformers writes it and broken."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mtl_ray.weights.hugging_face import read_model_description
from mtl_ray.weights.original import read_original
from mtl_ray.weights.read import read_weights

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
IMAGENET = {"image_mean": MEAN, "image_std": STD}
RTDETR = {"image_processor_type": "RTDetrImageProcessor"}
LABELS = {"0": "N/A", "1": "cat", "2": "N/A"}


def written(folder: Path, config: Any = None, preprocessor: Any = None) -> str:
    for name, content in (("config", config), ("preprocessor_config", preprocessor)):
        if content is not None:
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / f"{name}.json").write_text(text)
    return str(folder / "model.safetensors")


@pytest.mark.parametrize(
    ("preprocessor", "mean", "std"),
    [
        (IMAGENET, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
        (IMAGENET | {"do_rescale": False}, MEAN, STD),
        (IMAGENET | {"rescale_factor": 0.5}, (0.97, 0.912, 0.812), (0.458, 0.448, 0.45)),
        (IMAGENET | {"do_normalize": False}, (0, 0, 0), (255, 255, 255)),
        (IMAGENET | RTDETR, (0, 0, 0), (255, 255, 255)),
        (IMAGENET | RTDETR | {"do_normalize": True, "do_rescale": False}, MEAN, STD),
    ],
)
def test_the_rule_of_normalisation(
    preprocessor: dict[str, Any], mean: tuple[float, ...], std: tuple[float, ...], tmp_path: Path
) -> None:
    found = read_model_description(written(tmp_path, None, preprocessor))
    assert found.mean == pytest.approx(mean)
    assert found.std == pytest.approx(std)
    assert found.classes is None


def test_classes_beside_a_lone_file(tmp_path: Path) -> None:
    path = written(tmp_path, {"id2label": LABELS}, IMAGENET)
    save_file({"model.decoder.layers.0.fc1.weight": torch.zeros(2)}, path)
    for source in (path, str(tmp_path)):
        found = read_original(read_weights(source), "huggingface", uri=source)
        assert found.classes == ("N/A", "cat", "N/A (2)")
        assert found.bgr is False
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "LABEL_0"}}))
    assert read_model_description(path).classes is None
    (tmp_path / "alone").mkdir()
    assert read_model_description(str(tmp_path / "alone" / "model.safetensors")) == (
        None,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("config", "preprocessor", "error"),
    [
        ("{", None, r"config\.json: it is no JSON"),
        ("[" * 100_000, None, r"config\.json: it is no JSON: it is nested too deep"),
        (" " * (1 << 22) + "{}", None, r"config\.json: it has 4194306 bytes"),
        ([1], None, r"config\.json: it holds no JSON object"),
        ({"id2label": ["a"]}, None, "id2label is no object"),
        ({"id2label": {}}, None, "id2label is no object"),
        ({"id2label": {"0": "a", "2": "b"}}, None, "does not name the classes 0 to 1"),
        ({"id2label": {"0": 7}}, None, "does not name the classes 0 to 0"),
        (None, IMAGENET | {"image_std": [1, 1]}, "image_std is not 3 plain numbers"),
        (None, IMAGENET | {"image_std": [1, 0, 1]}, "not all above 1e-06"),
        (None, IMAGENET | {"image_mean": [1, True, "1"]}, "image_mean is not 3 plain numbers"),
        (None, '{"rescale_factor": NaN}', "rescale_factor is not 1 plain number"),
        (None, IMAGENET | {"rescale_factor": 1e-320}, "not all above 1e-06"),
        (None, {"do_rescale": "no"}, r"preprocessor_config\.json: do_rescale is neither"),
        (None, {"do_normalize": True}, "image_mean is not 3 plain numbers"),
    ],
)
def test_what_is_broken_is_one_sentence(
    config: Any, preprocessor: Any, error: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=error) as said:
        read_model_description(written(tmp_path, config, preprocessor))
    assert "\n" not in str(said.value)
    assert str(said.value).endswith("Fix: correct it, or remove it")


def test_weights_in_several_files(tmp_path: Path) -> None:
    written(tmp_path, {})
    with pytest.raises(ValueError, match="has 0 files of safetensors"):
        read_weights(str(tmp_path))
    for part in (1, 2):
        save_file(
            {f"model.layers.{part}.weight": torch.full((1,), float(part))},
            tmp_path / f"model-0000{part}-of-00002.safetensors",
        )
    found = read_weights(str(tmp_path)).tensors
    assert {name: float(value) for name, value in found.items()} == {
        "model.layers.1.weight": 1.0,
        "model.layers.2.weight": 2.0,
    }
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match="parts of its weights are missing"):
        read_weights(str(tmp_path))
