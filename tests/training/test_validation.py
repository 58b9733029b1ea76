"""Validation during training: what it measures does not depend on how the validation split
numbers its classes.
"""

import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mtl_ray.evaluation.metrics import write_list
from mtl_ray.experiment import ExperimentConfig, build_model
from mtl_ray.geometry.masks import encode_rle
from mtl_ray.inputs.decode import decode_semantic
from mtl_ray.loading.loader import BadSamplesError
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.shards.split import open_split
from mtl_ray.shards.write import publish_manifest, shard_name, write_shard
from mtl_ray.tasks.detection.occlusion import HiddenObject
from mtl_ray.training.context import Collective, RunContext
from mtl_ray.training.validation import Validation
from tests.training.conftest import MakeConfig
from tests.training.tiny import NAMES, write_split


def turned(sample: Sample) -> Sample:
    """The same truth with the classes in the opposite order."""
    assert sample.labels is not None
    assert sample.semantic is not None
    done, semantic = cv2.imencode(".png", (1 - decode_semantic(sample.semantic)).astype(np.uint8))
    assert done
    return sample.with_annotations(
        labels=len(NAMES) - 1 - sample.labels, semantic=semantic.tobytes()
    )


def write_turned(uri: Path, samples: list[Sample], names: tuple[str, ...]) -> str:
    vocabulary = Vocabulary(
        classes={"labels": names, "semantic": ("square", "background")}, exclusive_labels=True
    )
    entries = [
        write_shard(
            str(uri),
            shard_name("tiny", 0),
            [turned(sample.with_annotations(instances=None)) for sample in samples],
        )
    ]
    publish_manifest(
        str(uri), entries, name="tiny", vocabulary=vocabulary, shuffled=True, provenance={}
    )
    return str(uri)


def measured(config: ExperimentConfig, vocabulary: Vocabulary) -> dict[str, float]:
    """The figures of a network that knows the vocabulary, always of the same random weights."""
    torch.manual_seed(0)
    model = build_model(config.model, vocabulary).eval()
    context = RunContext()
    return Validation(config, vocabulary, context, Collective(context)).measure(model)[0]


def test_classes_in_another_order_are_matched_by_name(
    make_config: MakeConfig, splits: Path, tmp_path: Path
) -> None:
    train, val = open_split(str(splits / "train")), open_split(str(splits / "val"))
    ours = measured(make_config(), train.vocabulary)
    uri = write_turned(tmp_path / "turned", list(val.read(0, val.num_samples)), NAMES[::-1])
    theirs = measured(make_config(f"data.val.uri={uri}"), train.vocabulary)
    assert theirs == pytest.approx(ours, abs=1e-9, nan_ok=True)
    both = measured(make_config(f"data.val.uri=[{splits / 'val'}, {uri}]"), train.vocabulary)
    assert both == pytest.approx(ours, abs=1e-9, nan_ok=True)


def test_a_config_may_ask_for_the_recall_of_hidden_objects(
    make_config: MakeConfig, splits: Path, tmp_path: Path
) -> None:
    val = open_split(str(splits / "val"))
    wanted = []
    for sample in val.read(0, val.num_samples):
        assert sample.instances is not None
        mask = np.zeros((32, 32), np.uint8)
        x1, y1, x2, y2 = sample.instances.boxes_xyxy[0].tolist()
        mask[int(y1) : int(y2), int(x1) : int(x2)] = 1
        label = NAMES[int(sample.instances.classes[0])]
        wanted.append(
            HiddenObject(
                file_name=sample.key,
                name=label,
                box_xyxy=(x1, y1, x2, y2),
                height=32,
                width=32,
                mask=encode_rle(mask),
            )
        )
    write_list(str(tmp_path / "all.json"), wanted)
    write_list(str(tmp_path / "none.json"), [])
    lists = f"occluded: {tmp_path / 'all.json'}, separated: {tmp_path / 'none.json'}"
    config = make_config(
        "model.heads.boxes={type: retinanet, levels: [C3], channels: 8, convs: 0, select: "
        "{score_threshold: 0, max_detections: 500}}",
        f"evaluate.occlusion={{{lists}, score_threshold: 0, iou_threshold: 0.2}}",
    )
    figures = measured(config, open_split(str(splits / "train")).vocabulary)
    assert 0 < figures["boxes/occluded_recall"] <= 1
    assert np.isnan(figures["boxes/separated_recall"])
    assert not any(name.endswith("_recall") and name.startswith("labels") for name in figures)


def test_a_class_that_training_does_not_know_is_named(
    make_config: MakeConfig, splits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train, val = open_split(str(splits / "train")), open_split(str(splits / "val"))
    uri = write_turned(
        tmp_path / "turned", list(val.read(0, val.num_samples)), ("violet", *NAMES[1::-1])
    )
    with caplog.at_level(logging.WARNING):
        measured(make_config(f"data.val.uri={uri}"), train.vocabulary)
    assert "the training split does not know labels: violet" in caplog.text


def test_pictures_that_cannot_be_read_are_counted(
    make_config: MakeConfig, splits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vocabulary = open_split(str(splits / "train")).vocabulary
    write_split(str(tmp_path / "val"), 13, 2, broken=(3, 8))
    here = f"data.val.uri={tmp_path / 'val'}"
    with pytest.raises(
        BadSamplesError, match=r"2 samples of the validation split.*data.max_bad allows 1: 2-8: "
    ):
        measured(make_config(here, "data.max_bad=1"), vocabulary)
    with caplog.at_level(logging.WARNING):
        measured(make_config(here, "data.max_bad=2"), vocabulary)
    assert caplog.text.count("is not measured") == 2


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_measure_as_one_and_only_the_first_holds_what_all_found(
    start, make_config: MakeConfig, splits, tmp_path, world_size
) -> None:
    config = make_config(
        "model.heads.boxes={type: retinanet, levels: [C3], channels: 8, convs: 0, select: "
        "{score_threshold: 0, max_detections: 20}}"
    )
    alone = measured(config, open_split(str(splits / "train")).vocabulary)
    assert (
        start("validation_rank.py", world_size, CONFIG=config, OUT=str(tmp_path))
        == [0] * world_size
    )
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(world_size)]
    for rank, each in enumerate(found):
        assert each["figures"] == pytest.approx(alone, abs=1e-9, nan_ok=True)
        assert each["images"] == (13 if rank == 0 else None)
    assert "boxes/mAP" in alone
