"""Inputs and kinds of annotation of plugins in the tools that look at data, and heads of plugins on
built-in kinds.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pulse_counting.counting import COUNTING
from pulse_counting.pulses import PULSES

from jobs import browse as browse_job
from jobs import convert as convert_job
from jobs.analyze import dataset as job
from mtl_ray.analysis.browse import panels
from mtl_ray.analysis.health import Health
from mtl_ray.analysis.health_sample import look_at
from mtl_ray.annotations.annotation import AnnotationKind
from mtl_ray.evaluation.config import EvaluateConfig
from mtl_ray.evaluation.metrics import head_metrics
from mtl_ray.layout import DEFAULT
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.task import KnownHead
from tests.loading.splits import sample
from tests.plugin.conftest import CONFIG, write_signals

RAW = "pulse_files:root=raw,split=val"


@pytest.fixture
def signals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with twelve signals, of which two are the same and one is damaged."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "raw" / "val"
    write_signals(folder, 12, 3)
    (folder / "0005.f32").write_bytes((folder / "0004.f32").read_bytes())
    (folder / "bad.f32").write_bytes(b"odd")
    convert = ["--plugins", "pulse_counting", "pulse_files", "raw", "--split", "val"]
    assert convert_job.main([*convert, "--to", "shards", "--workers", "1"]) == 0
    return tmp_path


@pytest.mark.parametrize("data", ["shards", RAW])
def test_a_dataset_of_signals_is_checked(
    signals: Path, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert job.main([data, "--plugins", "pulse_counting", "--out", "out"]) == 0
    said = capsys.readouterr().out
    assert "pulses: 0 classes, 12 samples annotated" in said
    assert "1 samples are there more than once" in said
    assert "1 x left out by the reader, such as bad.f32" in said
    assert "has an annotation" not in said
    names = {path.name for path in (signals / "out").iterdir()}
    assert {"samples-1.jpg", "same.jpg"} <= names
    assert not {"sizes.png", "classes-pulses.png"} & names, "there is nothing to draw in them"


def test_signals_are_drawn_as_the_network_gets_them(signals: Path) -> None:
    (signals / "config.yaml").write_text(CONFIG)
    assert browse_job.main(["shards", "--out", "drawn", "--augmented", "config.yaml"]) == 0
    with Image.open(next((signals / "drawn").glob("00*"))) as drawn:
        assert drawn.size == (216, 102), "200 x 64, and a title"


def test_a_kind_that_no_task_draws_leaves_the_image() -> None:
    image = np.full((48, 64, 3), 100, np.uint8)
    classes = {"dark": ()}
    assert np.array_equal(panels(image, sample(0), Vocabulary(classes=classes)), image)
    both = Vocabulary(classes={**classes, "labels": ("a", "b", "c")})
    one = Vocabulary(classes={"labels": ("a", "b", "c")})
    assert np.array_equal(panels(image, sample(0), both), panels(image, sample(0), one))


class Darkness(AnnotationKind[int, int]):
    """Of an image as a whole, in [0, 10]."""

    name = "dark"

    def check(self, value: int, size: object) -> None:
        if not 0 <= value <= 10 or size != {"height": 48, "width": 64}:
            raise ValueError(f"the darkness {value} is outside [0, 10]")


def test_a_kind_of_a_plugin_on_images_is_checked() -> None:
    layout = replace(DEFAULT, annotations=(*DEFAULT.annotations, Darkness()))
    health = Health(vocabulary=Vocabulary(classes={"dark": ()}))
    for index, value in enumerate((3, 40)):
        size = {"height": 48, "width": 64}
        each = replace(sample(index).with_image(**size), annotations={"dark": value})
        look_at(each, index, health, layout)
    assert health.annotated == {"dark": 2}
    assert health.findings.annotations == 1
    assert [each.text for each in health.problems if each.kind == "damaged dark"] == [
        "the darkness 40 is outside [0, 10]"
    ]


def test_a_head_that_counts_objects_is_no_detector() -> None:
    """It reads instances, and its predictions are no detections."""
    head = KnownHead(type="count", task=COUNTING, annotation="instances", exclusive=False)
    vocabulary = Vocabulary(classes={"instances": ("a",), PULSES.name: ()})
    plain = head_metrics({"count": head}, vocabulary)["count"]
    config = EvaluateConfig(class_agnostic=True)
    assert type(head_metrics({"count": head}, vocabulary, config)["count"]) is type(plain)
