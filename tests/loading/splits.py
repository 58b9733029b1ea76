"""Small splits made from a seed, for the tests of this room."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mtl_ray.annotations.instance_values import Instances
from mtl_ray.loading.config import DataConfig, SplitConfig
from mtl_ray.samples import Sample, Vocabulary, image_sample
from mtl_ray.shards.write import publish_manifest, write_shard
from tests.loading.scenes import masked_scene, scene

NAMES = ("ant", "bee", "cat", "dog", "eel", "fox")


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def sample(index: int, *, prefix: str = "") -> Sample:
    """Of a size that depends on the index, with all annotations."""
    drawn = scene(index, 20 + index % 7, 30 + index % 5, objects=1 + index % 3)
    boxes = drawn.part("instances").boxes_xyxy
    count = len(boxes)
    instances = Instances(
        boxes_xyxy=boxes,
        classes=drawn.part("instances").classes % len(NAMES),
        ids=np.arange(count),
        areas=np.ones(count, np.float32),
        crowd=np.arange(count) == 2,
        difficult=np.zeros(count, np.bool_),
        truncated=np.zeros(count, np.bool_),
    )
    height, width = drawn.hw
    return image_sample(
        key=f"{prefix}{index:04d}.png",
        image=png(drawn.image),
        height=height,
        width=width,
        labels=np.unique(np.array([index % 6, index % 4])),
        instances=instances,
        semantic=png(drawn.part("semantic")),
    )


def masked_sample(index: int) -> Sample:
    """Ellipses in an image of a size that depends on the index, with masks."""
    drawn = masked_scene(index, 40 + index % 7, 50 + index % 5, objects=2 + index % 3)
    objects = drawn.part("instances")
    count = len(objects.classes)
    instances = Instances(
        boxes_xyxy=objects.boxes_xyxy,
        classes=objects.classes % len(NAMES),
        ids=np.arange(count),
        areas=np.ones(count, np.float32),
        crowd=objects.crowd,
        difficult=np.zeros(count, np.bool_),
        truncated=np.zeros(count, np.bool_),
        masks=objects.masks.counts,
    )
    height, width = drawn.hw
    return image_sample(
        key=f"{index:04d}.png",
        image=png(drawn.image),
        height=height,
        width=width,
        labels=np.unique(np.array([index % 6, index % 4])),
        instances=instances,
        semantic=png(drawn.part("semantic")),
    )


def unannotated(index: int) -> Sample:
    return sample(index).with_annotations(labels=None, instances=None, semantic=None)


def write_split(
    folder: Path,
    samples: Sequence[Sample],
    names: tuple[str, ...] = NAMES,
    kinds: Sequence[str] = ("labels", "instances", "semantic"),
) -> str:
    """Two shards and their manifest; the URI."""
    half = len(samples) // 2
    entries = [
        write_shard(str(folder), f"train-{part:05d}", each)
        for part, each in enumerate((samples[:half], samples[half:]))
        if each
    ]
    vocabulary = Vocabulary(classes=dict.fromkeys(kinds, names))
    publish_manifest(
        str(folder), entries, name="train", vocabulary=vocabulary, shuffled=False, provenance={}
    )
    return str(folder)


def data_config(
    uri: str | tuple[str, ...],
    change: Callable[[DataConfig], DataConfig] = lambda data: data,
    **train: object,
) -> DataConfig:
    """A batch of 6 in 6 lanes on a small canvas, changed by ``change``."""
    split = SplitConfig(uri=uri, **train)  # type: ignore[arg-type]
    data = DataConfig(
        train=split, val=split, canvas={"height": 24, "width": 32}, batch=6, threads=2
    )  # type: ignore[arg-type]
    return change(data)
