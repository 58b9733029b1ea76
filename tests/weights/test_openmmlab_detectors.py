"""Checkpoints of OpenMMLab through ``jobs.weights import`` and ``jobs.analyze forward``: what comes
out is what MMDetection 3.3.0 computed.

``tests/heads_reference/openmmlab/NAME.json`` was written by MMDetection, run from its wheel with
the network of ``tests/heads_reference/NAME.yaml``: names and shapes of its tensors, and results
with the values of ``drawn`` as weights and image.
"""

import importlib
import json
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from jobs.analyze.forward import main as forward_main
from mtl_ray.analysis.forward_arrays import read_arrays

import_main: Callable[[list[str]], int] = importlib.import_module("jobs.weights.import").main
CONFIGS = Path(__file__).parents[1] / "heads_reference"
NAMES = sorted(path.stem for path in (CONFIGS / "openmmlab").glob("*.json"))
CANVAS_HW, VALID_HW = (128, 160), [(128, 160), (100, 122)]
BOXES = (
    [[10, 20, 60, 90], [50, 5, 150, 70], [5, 5, 25, 30], [60.5, 60.2, 110.7, 120.1]],
    [[20, 30, 110, 95], [3, 60, 40, 99], [70.2, 10.5, 100.9, 44.4]],
)
LABELS = ([0, 3, 4, 1], [2, 1, 3])
_SMALL = re.compile(
    r"(rpn_cls|fc_cls|retina_cls|conv_cls|atss_cls|gfl_cls|conv_centerness|atss_centerness"
    r"|multi_level_conv_\w+\.\d|cls_branches\.\d+)\.weight$"
)
_TINY = re.compile(r"(rpn_reg|fc_reg|retina_reg|conv_reg|atss_reg)\.weight$")


def drawn(name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """The values of a tensor, a function of its name alone; outputs of layers keep their scale."""
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("integral.project"):
        return np.arange(shape[0], dtype=np.float32)
    if name.endswith("running_var"):
        values = draw.uniform(0.5, 1.5, shape)
    elif name.endswith("sampling_offsets.bias"):
        values = draw.uniform(-3, 3, shape)
    elif len(shape) > 1:
        values = draw.normal(size=shape) * (2 / np.prod(shape[1:])) ** 0.5
        values *= 0.3 if _SMALL.search(name) else 0.1 if _TINY.search(name) else 1.0
    elif name.endswith(("weight", "scale")):
        values = draw.uniform(0.5, 1.2, shape)
    else:
        values = draw.normal(size=shape) * 0.1
    return np.asarray(values, np.float32)


def an_input() -> dict[str, NDArray[Any]]:
    """Two images, the second with padding; each object is an ellipse in its box."""
    y, x = np.mgrid[: CANVAS_HW[0], : CANVAS_HW[1]] + 0.5
    arrays = {"image": drawn("image", (2, 3, *CANVAS_HW)) * 8, "img_shape": np.array(VALID_HW)}
    for row, (boxes, labels) in enumerate(zip(BOXES, LABELS, strict=True)):
        sides = np.array(boxes, np.float32)
        middle, half = (sides[:, :2] + sides[:, 2:]) / 2, (sides[:, 2:] - sides[:, :2]) / 2
        far = ((x - middle[:, 0, None, None]) / half[:, 0, None, None]) ** 2
        far = far + ((y - middle[:, 1, None, None]) / half[:, 1, None, None]) ** 2
        arrays |= {f"gt{row}_boxes": sides, f"gt{row}_labels": np.array(labels)}
        arrays[f"gt{row}_masks"] = (far <= 1).astype(np.uint8)
    return arrays


@pytest.fixture(scope="module", params=NAMES)
def computed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]:
    """What MMDetection computed, and what the jobs give for its checkpoint."""
    name, folder = request.param, tmp_path_factory.mktemp("detector")
    wanted = json.loads((CONFIGS / "openmmlab" / f"{name}.json").read_text())
    same = wanted.get("same", {})  # layers of the original that share a tensor
    state = {
        key: torch.from_numpy(drawn(same.get(key, key), tuple(shape)))
        for key, shape in wanted["tensors"].items()
    }
    meta = {"mmdet_version": "3.3.0", "dataset_meta": {"classes": tuple("abcde")}}
    torch.save({"meta": meta, "state_dict": state}, folder / "in.pth")
    np.savez(folder / "in.npz", **an_input())  # type: ignore[arg-type]
    out, report = str(folder / "network"), str(folder / "report.json")
    arguments = [str(folder / "in.pth"), out, "--config", str(CONFIGS / f"{name}.yaml")]
    assert import_main([*arguments, "--report", report]) == 0
    said = json.loads(Path(report).read_text())
    assert said["program"] == "openmmlab"
    assert said["unused"] == []
    assert said["classes"] == {"instances": list("abcde")}
    arrays = str(folder / "out.npz")
    assert forward_main([out, "--input", str(folder / "in.npz"), "--out", arrays]) == 0
    return wanted, read_arrays(arrays)


Computed = tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]


def test_raw_outputs_are_those_of_the_original(computed: Computed) -> None:
    wanted, found = computed
    sums = {name: np.abs(found[name].astype(np.float64)).sum() for name in wanted["raw"]}
    assert sums == pytest.approx(wanted["raw"], rel=1e-4)


def test_losses_and_gradients_are_those_of_the_original(computed: Computed) -> None:
    wanted, found = computed
    losses = {name: float(found[name]) for name in wanted["losses"]}
    assert losses == pytest.approx(wanted["losses"], rel=1e-3)
    lengths = [sorted(each for each in norms if each > 1e-4) for norms in _gradients(*computed)]
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-2)


def _gradients(wanted: Mapping[str, Any], found: Mapping[str, NDArray[Any]]) -> list[list[float]]:
    """Their lengths here and there; parameters may have other names."""
    return [found["gradnorm"].tolist(), list(wanted["gradients"].values())]


def test_detections_are_those_of_the_original(computed: Computed) -> None:
    wanted, found = computed
    for row, detections in enumerate(wanted["detections"]):
        boxes, scores = found[f"b{row}_boxes"], found[f"b{row}_scores"]
        for place, (*box, score, label) in enumerate(detections):
            near = np.abs(boxes - np.array(box)).max(axis=1) < 1e-2
            same = near & (found[f"b{row}_labels"] == label) & (np.abs(scores - score) < 1e-4)
            assert same.any(), (row, box, score, label)
            if "mask_areas" in wanted:
                area = wanted["mask_areas"][row][place]
                areas = found[f"b{row}_masks"][same].sum(axis=(1, 2))
                assert areas.tolist() == pytest.approx([area] * len(areas), abs=2)


def test_weights_that_differ_are_noticed(computed: Computed) -> None:
    """The sums of raw outputs tell networks apart."""
    wanted, found = computed
    name = next(iter(wanted["raw"]))
    assert np.abs(found[name] * 1.001).sum() != pytest.approx(wanted["raw"][name], rel=1e-4)
