"""A split of invented truth, the same as a COCO data set, and an untrained network to measure on
it.
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mtl_ray.annotations.instance_values import Instances
from mtl_ray.inference.checkpoint import open_checkpoint
from mtl_ray.inference.predictor import Predictor
from mtl_ray.samples import Sample, Vocabulary, image_sample
from mtl_ray.shards.write import publish_manifest, shard_name, write_shard
from mtl_ray.tasks.detection.decode import Detections
from tests.inference.tiny import HEADS, VOCABULARY, images, write_checkpoint

COUNT = 11


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def make_samples(predictor: Predictor) -> list[Sample]:
    """Images of all sizes whose truth is near what the predictor says, so that figures are neither
    0 nor 1.

    Among them one without objects and one whose objects nobody annotated; some objects are crowds.
    """
    rng = np.random.default_rng(5)
    pictures = images(COUNT)
    samples = []
    for number, (image, found) in enumerate(
        zip(pictures, predictor.predict(pictures), strict=True)
    ):
        noise = rng.random(image.shape[:2]) < 0.3
        semantic = np.where(
            noise,
            rng.choice(np.array([0, 1, 2, 255], np.uint8), noise.shape),
            found["semantic"].classes if "semantic" in found else np.uint8(0),
        )
        likely = int(found["labels"].scores.argmax())
        samples.append(
            image_sample(
                key=f"{number:06d}.png",
                image=png(image[..., ::-1]),
                height=image.shape[0],
                width=image.shape[1],
                labels=np.array([likely if rng.random() < 0.7 else 1 - likely]),
                instances=None
                if number == 3 or "boxes" not in found
                else near(rng, found["boxes"], 0 if number == 2 else 6),
                semantic=png(semantic.astype(np.uint8)),
            )
        )
    return samples


def near(rng: np.random.Generator, found: Detections, count: int) -> Instances:
    """Some of what was found, a little moved; the first is no crowd."""
    chosen = rng.permutation(len(found))[:count]
    n = len(chosen)
    boxes = found.boxes_xyxy[chosen]
    side = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    boxes = (boxes + rng.normal(0, 0.06, (n, 4)) * side[:, None]).astype(np.float32)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 0.5)
    return Instances(
        boxes_xyxy=boxes,
        classes=found.classes[chosen],
        ids=np.arange(n),
        areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
        crowd=(rng.random(n) < 0.2) & (np.arange(n) > 0),
        difficult=np.zeros(n, np.bool_),
        truncated=np.zeros(n, np.bool_),
    )


def write_split(uri: Path, samples: list[Sample], vocabulary: Vocabulary = VOCABULARY) -> str:
    entries = [write_shard(str(uri), shard_name("random", i), samples[i::2]) for i in range(2)]
    publish_manifest(
        str(uri), entries, name="random", vocabulary=vocabulary, shuffled=True, provenance={}
    )
    return str(uri)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", HEADS))


@pytest.fixture(scope="session")
def samples(checkpoint: str) -> list[Sample]:
    return make_samples(open_checkpoint(checkpoint))


@pytest.fixture(scope="session")
def split(samples: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_split(tmp_path_factory.mktemp("split") / "val", samples)


@pytest.fixture(scope="session")
def coco(samples: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The annotated objects of the split as an annotation file whose ids all start at 0,
    pictures in ``images`` beside it.
    """
    folder = tmp_path_factory.mktemp("coco")
    (folder / "images").mkdir()
    annotated = [sample for sample in samples if sample.instances is not None]
    annotations: list[dict[str, Any]] = []
    for number, sample in enumerate(annotated):
        (folder / "images" / sample.key).write_bytes(sample.image)
        assert sample.instances is not None
        for box, label, crowd in zip(
            sample.instances.boxes_xyxy.tolist(),
            sample.instances.classes,
            sample.instances.crowd,
            strict=True,
        ):
            xywh = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number,
                    "category_id": int(label),
                    "bbox": xywh,
                    "area": xywh[2] * xywh[3],
                    "iscrowd": int(crowd),
                }
            )
    content = {
        "images": [
            {"id": i, "file_name": s.key, "height": s.height, "width": s.width}
            for i, s in enumerate(annotated)
        ],
        "annotations": annotations,
        "categories": [
            {"id": i, "name": name} for i, name in enumerate(VOCABULARY.classes["instances"])
        ],
    }
    (folder / "val.json").write_text(json.dumps(content))
    return str(folder / "val.json")


def broken(samples: list[Sample], number: int) -> list[Sample]:
    """The samples, one of them with half its picture."""
    return [
        s.with_image(data=s.image[: len(s.image) // 2]) if i == number else s
        for i, s in enumerate(samples)
    ]
