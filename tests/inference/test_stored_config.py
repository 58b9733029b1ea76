"""Weights open although the rest of their config cannot be read any more."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mtl_ray.artifact import open_artifact
from mtl_ray.config.validate import values_of
from mtl_ray.export.bundle import checkpoint_config
from mtl_ray.inference.checkpoint import open_checkpoint
from mtl_ray.inference.stored_config import network_yaml, read_config, read_network
from tests.inference.tiny import HEADS, images, tiny_config, write_checkpoint


def rename_keep(values: dict[str, Any]) -> None:
    values["runtime"]["keep_newest"] = values["runtime"].pop("keep")


def rename_name(values: dict[str, Any]) -> None:
    values["runtime"]["run_name"] = values["runtime"].pop("name")


def other_rate(values: dict[str, Any]) -> None:
    values["schedule"]["rate"] = {"type": "polynomial", "degree": 3}


def nested_key(values: dict[str, Any]) -> None:
    values["schedule"]["optimizer"] |= {"lookahead": 5, "lr": "fast"}


def together(values: dict[str, Any]) -> None:
    values["runtime"] |= {"workers": 4, "gpus_per_worker": 0.5}


def no_section(values: dict[str, Any]) -> None:
    del values["schedule"], values["runtime"]


CHANGES = [rename_keep, rename_name, other_rate, nested_key, together, no_section]


def checkpoint_with(
    folder: Path, change: Callable[[dict[str, Any]], None], **further: bytes
) -> str:
    values = values_of(tiny_config(HEADS))
    change(values)
    return str(
        write_checkpoint(
            folder / "checkpoint", HEADS, config__yaml=yaml.safe_dump(values).encode(), **further
        )
    )


@pytest.mark.parametrize("change", CHANGES)
def test_weights_open_whatever_this_version_cannot_read_of_schedule_and_runtime(
    tmp_path, change, caplog
):
    uri = checkpoint_with(tmp_path, change)
    predictor = open_checkpoint(uri)
    assert set(predictor.heads) == {"boxes", "semantic", "labels"}
    with caplog.at_level(logging.WARNING):
        config = checkpoint_config(uri, ["export.opset=21"])
    assert config.export.opset == 21
    assert config.data == tiny_config(HEADS).data
    assert ("this version does not know" in caplog.text) == (change is not no_section)


def test_what_is_left_out_is_named_with_its_value(tmp_path, caplog):
    uri = checkpoint_with(tmp_path, nested_key)
    config = read_config(open_artifact(uri, kind="checkpoint"))
    assert config.schedule.optimizer.lr == 1e-3
    assert "schedule.optimizer.lookahead (5)" in caplog.text
    assert "schedule.optimizer.lr (fast)" in caplog.text


def test_model_yaml_opens_without_the_rest(tmp_path):
    def spoil(values: dict[str, Any]) -> None:
        values.clear()
        values["unknown"] = 1

    network = network_yaml(tiny_config(HEADS)).encode()
    alone = open_checkpoint(checkpoint_with(tmp_path / "alone", spoil, model__yaml=network))
    whole = open_checkpoint(checkpoint_with(tmp_path / "whole", lambda values: None))
    for one, other in zip(alone.predict(images(2)), whole.predict(images(2)), strict=True):
        np.testing.assert_array_equal(one["labels"].scores, other["labels"].scores)


def test_a_model_yaml_counts_more_than_config_yaml(tmp_path):
    network = network_yaml(tiny_config({"labels": HEADS["labels"]})).encode()
    opened = open_artifact(
        checkpoint_with(tmp_path, lambda values: None, model__yaml=network), kind="checkpoint"
    )
    assert set(read_network(opened).model.heads) == {"labels"}


@pytest.mark.parametrize("name", ["model", "data"])
def test_a_config_without_its_network_is_refused_in_words(tmp_path, name):
    uri = checkpoint_with(tmp_path, lambda values: values.pop(name))
    with pytest.raises(ValueError, match=r"config\.yaml:1: .* is missing"):
        open_checkpoint(uri)


def test_mistakes_of_the_command_line_are_still_mistakes(tmp_path):
    uri = checkpoint_with(tmp_path, rename_keep)
    with pytest.raises(ValueError, match=r"unknown key runtime\.kep; did you mean runtime\.keep\?"):
        checkpoint_config(uri, ["runtime.kep=3"])
