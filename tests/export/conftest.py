from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from pydantic import TypeAdapter

from mtl_ray.experiment import ModelConfig, build_model
from mtl_ray.inference.torch_predictor import TorchPredictor
from mtl_ray.inputs.image import Canvas
from mtl_ray.samples import Vocabulary

VOCABULARY = Vocabulary(
    classes={
        "instances": ("cat", "dog", "owl"),
        "semantic": ("ground", "sky"),
        "labels": ("day", "night", "fog", "rain"),
    }
)
CANVAS = Canvas(height=96, width=128)
HEADS = {
    "yolov3": {
        "type": "yolov3",
        "channels": 16,
        "levels": ["P4", "P5"],
        "anchors": [[[20, 25], [40, 30]], [[60, 60], [90, 80]]],
        "select": {"max_detections": 30},
    },
    "retinanet": {
        "type": "retinanet",
        "channels": 16,
        "convs": 1,
        "levels": ["P4", "P5"],
        "select": {"max_detections": 30},
    },
    "fcn": {"type": "fcn", "channels": 16, "levels": ["P4"]},
    "aux": {"type": "fcn", "channels": 8, "convs": 1, "levels": ["C4"], "train_only": True},
    "multilabel": {"type": "multilabel"},
    "linear": {"type": "linear"},
}


@pytest.fixture(scope="session")
def predictor() -> Callable[..., TorchPredictor]:
    """Makes a small model with random weights whose detection heads are sure enough of
    themselves to give boxes.
    """

    def make(*names: str) -> TorchPredictor:
        torch.manual_seed(0)
        necks = {
            "pyramid": {"type": "fpn", "channels": 16, "inputs": ["C4", "C5"]},
            "pool": {"type": "pool"},
        }
        options = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
        backbone = {"type": "timm", "name": "resnet18", "levels": ["C4", "C5"], "options": options}
        values = {
            "backbone": backbone,
            "necks": necks,
            "heads": {name: HEADS[name] for name in names},
        }
        config = TypeAdapter(ModelConfig).validate_python(values)
        vocabulary = replace(VOCABULARY, exclusive_labels="linear" in names)
        model = build_model(config, vocabulary).eval()
        with torch.no_grad():
            for name, parameter in model.heads.named_parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3 if parameter.dim() == 4 else 0.0)
                if parameter.dim() == 1 and "outputs" in name:
                    parameter.zero_()
        return TorchPredictor(model, config.heads, vocabulary, CANVAS)

    return make
