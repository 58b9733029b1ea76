"""A tiny data set and a tiny network, so that whole trainings take seconds."""

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from PIL import Image

from mtl_ray.annotations.instance_values import Instances
from mtl_ray.config.document import parse
from mtl_ray.config.load import override_tree
from mtl_ray.config.tree import merge
from mtl_ray.config.validate import validate
from mtl_ray.experiment import ExperimentConfig
from mtl_ray.samples import Sample, Vocabulary, image_sample
from mtl_ray.shards.write import publish_manifest, shard_name, write_shard

NAMES = ("red", "green", "blue")
COLOURS = ((220, 40, 40), (40, 200, 40), (40, 60, 220))


def sample(rng: np.random.Generator, key: str) -> Sample:
    """A 32x32 picture with one coloured square: its colour is the label, its place the box and
    the map.
    """
    kind = int(rng.integers(3))
    size, (x, y) = int(rng.integers(10, 20)), rng.integers(0, 12, 2)
    pixels = rng.integers(90, 160, (32, 32, 3)).astype(np.uint8)
    pixels[y : y + size, x : x + size] = COLOURS[kind]
    semantic = np.zeros((32, 32), np.uint8)
    semantic[y : y + size, x : x + size] = 1
    one = np.zeros(1, np.bool_)
    objects = Instances(
        boxes_xyxy=np.array([[x, y, x + size, y + size]], np.float32),
        classes=np.array([kind]),
        ids=np.array([-1]),
        areas=np.array([size * size], np.float32),
        crowd=one,
        difficult=one,
        truncated=one,
    )
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    _, encoded = cv2.imencode(".png", semantic)
    return image_sample(
        key=key,
        image=buffer.getvalue(),
        height=32,
        width=32,
        labels=np.array([kind]),
        instances=objects,
        semantic=encoded.tobytes(),
    )


def write_split(uri: str, count: int, seed: int, broken: tuple[int, ...] = ()) -> None:
    """A split of two shards; the pictures whose numbers are ``broken`` do not decode."""
    rng = np.random.default_rng(seed)
    vocabulary = Vocabulary(
        classes={"labels": NAMES, "instances": NAMES, "semantic": ("background", "square")},
        exclusive_labels=True,
    )
    samples = [sample(rng, f"{seed}-{k}") for k in range(count)]
    samples = [
        each.with_image(data=each.image[:60]) if k in broken else each
        for k, each in enumerate(samples)
    ]
    entries = [write_shard(uri, shard_name("tiny", i), samples[i::2]) for i in range(2)]
    publish_manifest(uri, entries, name="tiny", vocabulary=vocabulary, shuffled=True, provenance={})


def values(splits: Path, storage: Path | str) -> dict[str, Any]:
    return {
        "model": {
            "backbone": {
                "type": "timm",
                "name": "resnet18",
                "levels": ["C3", "C5"],
                "options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]},
            },
            "necks": {"pool": {"type": "pool", "input": "C5"}},
            "heads": {
                "labels": {"type": "linear", "dropout": 0.1},
                "semantic": {"type": "fcn", "levels": ["C3"], "channels": 8, "convs": 1},
            },
        },
        "data": {
            "train": {"uri": str(splits / "train")},
            "val": {"uri": str(splits / "val")},
            "canvas": {"kind": "stretch", "height": 32, "width": 32},
            "augment": [{"type": "flip"}],
            "batch": 12,
            "threads": 1,
        },
        "schedule": {"steps": 14, "optimizer": {"lr": 0.01}, "evaluate_every_steps": 6},
        "runtime": {
            "name": "run",
            "storage": str(storage),
            "device": "cpu",
            "deterministic": True,
            "log_every_steps": 2,
            "checkpoint_every_steps": 4,
            "checkpoint_every_s": None,
            "wandb": "disabled",
        },
        "evaluate": {"pictures": 2},
    }


def config_of(splits: Path, storage: Path | str, *overrides: str) -> ExperimentConfig:
    """The tiny config with overrides such as ``schedule.steps=3``."""
    return config_from(values(splits, storage), *overrides)


def config_from(given: dict[str, Any], *overrides: str) -> ExperimentConfig:
    """The config in some values, with overrides."""
    return validate(
        merge(parse(yaml.safe_dump(given), "tiny"), override_tree(overrides)), ExperimentConfig
    )
