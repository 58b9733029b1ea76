"""COCO results files of heads of plugins, whose kind of annotation is not ``instances``."""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mtl_ray.evaluation.coco_results import categories_of
from mtl_ray.evaluation.evaluate import EvaluationPart, write_results
from mtl_ray.evaluation.measure import MeasuredSamples
from mtl_ray.evaluation.predictions_file import to_table
from mtl_ray.evaluation.report import report
from mtl_ray.samples import Vocabulary, image_sample
from mtl_ray.tasks.task import KnownHead, PlainTask

VOCABULARY = Vocabulary(classes={"instances": ("a",), "spots": ("x", "y", "z")})


class SpotTask(PlainTask):
    """Points of a plugin, with a COCO results file, and without a field ``scores``."""

    name, kind, schema_name = "spots", SimpleNamespace(name="spots"), "Spots"

    @property
    def to_coco(self) -> Any:
        return lambda found, image, height, width, categories: [
            {"image_id": image, "category_id": categories[found.spot], "score": found.sure}
        ]

    def row_type(self) -> Any:
        return pa.struct([("spot", pa.int64()), ("sure", pa.float64())])

    def to_row(self, prediction: Any) -> dict[str, Any]:
        return vars(prediction)

    def from_row(self, row: Mapping[str, Any]) -> Any:
        return SimpleNamespace(**row)


@pytest.mark.parametrize("sure", [0.5, np.nan])
def test_a_head_of_a_plugin_has_the_categories_of_its_own_kind(tmp_path: Path, sure: float) -> None:
    data = replace(VOCABULARY, category_ids={"spots": (10, 20, 30)})
    head = KnownHead(
        type="spot", task=SpotTask(), annotation="spots", exclusive=False, classes=("z", "x")
    )
    samples = [image_sample(key="7.jpg", image=b"", height=10, width=12)]
    part = EvaluationPart(
        metrics={},
        table=to_table(samples, [{"spots": SimpleNamespace(spot=0, sure=sure)}], {"spots": head}),
        heads={"spots": head},
        plugins=(),
        vocabulary=VOCABULARY,
        categories=categories_of(VOCABULARY, data),
        measured=MeasuredSamples(),
        notes=[],
    )
    written = partial(write_results, str(tmp_path), report({}, {}), part)
    if np.isnan(sure):
        with pytest.raises(ValueError, match=r"a score of 7\.jpg is not finite"):
            written()
    else:
        written()
        (entry,) = json.loads((tmp_path / "spots.coco.json").read_text())
        assert (entry["category_id"], entry["image_id"]) == (30, 7)
