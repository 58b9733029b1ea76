"""Splits of small samples for the tests of this room."""

from pathlib import Path

import numpy as np

from mtl_ray.annotations.instance_values import Instances
from mtl_ray.samples import Sample, Vocabulary, image_sample
from mtl_ray.shards.manifest import Encoding
from mtl_ray.shards.write import publish_manifest, shard_name, write_shard

VOCABULARY = Vocabulary(classes={"labels": ("cat", "dog", "eel"), "instances": ("car", "bus")})


def sample(index: int, image_bytes: int = 200) -> Sample:
    """With labels, and every second time with instances."""
    objects = index % 4
    instances = Instances(
        boxes_xyxy=np.arange(objects * 4, dtype=np.float32).reshape(-1, 4),
        classes=np.arange(objects) % 2,
        ids=np.full(objects, -1),
        areas=np.ones(objects, np.float32),
        crowd=np.zeros(objects, np.bool_),
        difficult=np.zeros(objects, np.bool_),
        truncated=np.zeros(objects, np.bool_),
    )
    image = np.random.default_rng(index).bytes(image_bytes)
    return image_sample(
        key=f"{index:05d}",
        image=image,
        height=4,
        width=6,
        labels=np.array([index % 3]),
        instances=instances if index % 2 else None,
    )


def write_split(
    uri: str | Path,
    shards: list[int],
    *,
    encoding: Encoding = "arrow",
    shuffled: bool = True,
    image_bytes: int = 200,
) -> str:
    """A split of shards with so many rows each, numbered from 0 through all shards."""
    first = np.cumsum([0, *shards])
    entries = [
        write_shard(
            str(uri),
            shard_name("train", index),
            (sample(row, image_bytes) for row in range(first[index], first[index + 1])),
            encoding=encoding,
        )
        for index in range(len(shards))
    ]
    publish_manifest(
        str(uri),
        entries,
        name="train",
        encoding=encoding,
        vocabulary=VOCABULARY,
        shuffled=shuffled,
        provenance={"seed": 1},
    )
    return str(uri)
