"""Training step and inference of detectors here beside the original ones, with the same weights.

``python -m benchmarks.heads [--size 320] [--rounds 3] [--heads fcos ...]``: torchvision's ResNet-50
detectors and Hugging Face's DETRs of their published sizes, 90 classes, random weights of the
originals that are imported here, one thread, turn by turn. Prints CPU-seconds (medians) of an image
of inference and of a step of two images, and the ratios.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor

from benchmarks import heads_queries
from benchmarks.heads_queries import CLASSES
from mtl_ray.experiment import build_model, load_experiment
from mtl_ray.loading.batch import Batch
from mtl_ray.models.imports import Program
from mtl_ray.models.model import Model
from mtl_ray.weights.network import import_network
from mtl_ray.weights.original import IMAGENET_MEAN, IMAGENET_STD, Original

PAIRS = {"rank": "pair", "iou_threshold": 0.6, "score_threshold": 0.2, "threshold_on": "score"}
REGIONS = {
    "rpn": {"rounded_anchors": True, "min_box_px": 0.001},
    "roi": {"sampling": 2, "aligned": False, "min_box_px": 0.01},
}
CASES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "retinanet": (
        "retinanet_resnet50_fpn",
        {"anchor_rule": "torchvision", "forced_to": "own", "ignore_padding": False},
    ),
    "fcos": (
        "fcos_resnet50_fpn",
        {
            "points": "torchvision",
            "norm_on_bbox": True,
            "centerness_on_reg": True,
            "conv_bias": True,
            "center_sampling": True,
            "box_loss": "giou",
            "select": PAIRS | {"score": "geometric_mean"},
        },
    ),
    "faster_rcnn": ("fasterrcnn_resnet50_fpn", REGIONS),
    "mask_rcnn": ("maskrcnn_resnet50_fpn", REGIONS),
}
MEAN, STD = (torch.tensor(values).view(3, 1, 1) / 255 for values in (IMAGENET_MEAN, IMAGENET_STD))
EVERY = [*CASES, *heads_queries.ORIGINALS]


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a line for each head."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=320, help="pixels of a side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--heads", nargs="+", choices=EVERY, default=EVERY)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    print(f"{'head':<12} {'inference: here':>16} {'original':>9} {'ratio':>6}", end="")
    print(f" {'step: here':>11} {'original':>9} {'ratio':>6}")
    for name in args.heads:
        theirs = _original(name, args.size)
        ours = _imported(name, theirs, args.size)
        images, boxes = torch.rand(2, 3, args.size, args.size), _boxes(args.size)
        # torchvision's networks normalise by themselves
        own = (images - MEAN) / STD if _of_torchvision(theirs) else images
        inference = _turns(
            lambda ours=ours, own=own: _predict(ours, own[:1]),
            lambda theirs=theirs, images=images: _predict_there(theirs, images[:1]),
            args.rounds,
            grad=False,
        )
        step = _turns(
            lambda ours=ours, own=own, boxes=boxes: _step_here(ours, own, boxes),
            lambda theirs=theirs, images=images, boxes=boxes: _step_there(theirs, images, boxes),
            args.rounds,
            grad=True,
        )
        line = f"{name:<12} {inference[0]:16.3f} {inference[1]:9.3f} "
        line += f"{inference[0] / inference[1]:6.2f}"
        print(f"{line} {step[0]:11.3f} {step[1]:9.3f} {step[0] / step[1]:6.2f}", flush=True)


def _original(name: str, size: int) -> Any:
    torch.manual_seed(0)
    if name in heads_queries.ORIGINALS:
        return heads_queries.ORIGINALS[name]()
    return torchvision.models.get_model(
        CASES[name][0],
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES + 1,
        min_size=size,
        max_size=size,
    )


def _imported(name: str, theirs: torch.nn.Module, size: int) -> Model:
    """The same network here, filled from the original's tensors."""
    tree = _regions_tree(name, size) if name in CASES else heads_queries.config_tree(name, size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(json.dumps(tree))
        config = load_experiment(path)
    program: Program = "torchvision" if name in CASES else "huggingface"
    original = Original(program, dict(theirs.state_dict()))
    network = import_network(original, config, classes=CLASSES)
    model = build_model(network.config.model.without_pretrained(), network.vocabulary)
    model.load_state_dict(network.tensors, strict=False)
    return model


def _regions_tree(name: str, size: int) -> dict[str, Any]:
    """A config whose network has the layers of torchvision's."""
    published = Path("configs/detection").absolute() / f"{name}_r50_coco.yaml"
    head = "objects" if name == "mask_rcnn" else "boxes"
    tree: dict[str, Any] = {
        "_base_": str(published),
        "model": {
            "backbone": {"style": "pytorch", "frozen_stages": -1, "norm_eval": False},
            "heads": {head: CASES[name][1]},
        },
        "data": {"canvas": {"height": size, "width": size}},
    }
    if name in ("retinanet", "fcos"):
        tree["model"]["necks"] = {"pyramid": {"extra_input": "output", "relu_before_extra": True}}
    return tree


def _boxes(size: int) -> Tensor:
    """(2, 8, 4) xyxy: eight objects of different sizes on each image."""
    draw = torch.Generator().manual_seed(0)
    corner = torch.rand(2, 8, 2, generator=draw) * size * 0.5
    return torch.cat([corner, corner + size * (0.1 + 0.4 * torch.rand(2, 8, 2, generator=draw))], 2)


def _inputs(images: Tensor) -> dict[str, Tensor]:
    hw = torch.tensor([images.shape[2:]] * len(images), dtype=torch.int32)
    return {"image": images, "valid_hw": hw}


def _predict(model: Model, images: Tensor) -> object:
    return model.eval().predict(_inputs(images))


def _predict_there(model: Any, images: Tensor) -> object:
    return model.eval()(list(images) if _of_torchvision(model) else images)


def _of_torchvision(model: Any) -> bool:
    return type(model).__module__.startswith("torchvision.")


def _step_here(model: Model, images: Tensor, boxes: Tensor) -> object:
    model.train()
    count, objects = boxes.shape[:2]
    flags = torch.zeros(count, objects, dtype=torch.bool)
    size = images.shape[-1]
    instances = {
        "boxes": boxes,
        "classes": torch.arange(count * objects).view(count, objects),
        "crowd": flags,
        "present": ~flags,
        "annotated": torch.ones(count, dtype=torch.bool),
        "known_classes": torch.ones(count, CLASSES, dtype=torch.bool),
        "masks": torch.ones(count, objects, size, size, dtype=torch.uint8),
        "has_mask": ~flags,
    }
    terms = model.losses(Batch(inputs=_inputs(images), targets={"instances": instances}, keys=()))
    torch.stack([value / total.clamp(min=1) for value, total in terms.values()]).sum().backward()
    model.zero_grad()
    return None


def _step_there(model: Any, images: Tensor, boxes: Tensor) -> object:
    if not _of_torchvision(model):
        return heads_queries.step(model, images, boxes)
    model.train()
    objects, size = boxes.shape[1], images.shape[-1]
    targets = [
        {
            "boxes": each,
            "labels": 1 + torch.arange(objects) + objects * row,
            "masks": torch.ones(objects, size, size, dtype=torch.uint8),
        }
        for row, each in enumerate(boxes)
    ]
    sum(model(list(images), targets).values()).backward()
    model.zero_grad()
    return None


def _turns(
    here: Callable[[], object], there: Callable[[], object], rounds: int, grad: bool
) -> tuple[float, float]:
    """Median CPU-seconds of each, after one turn that does not count."""
    taken: tuple[list[float], list[float]] = ([], [])
    with torch.set_grad_enabled(grad):
        for turn in range(rounds + 1):
            for times, run in zip(taken, (here, there), strict=True):
                start = time.process_time()
                run()
                if turn:
                    times.append(time.process_time() - start)
    return statistics.median(taken[0]), statistics.median(taken[1])


if __name__ == "__main__":
    main()
