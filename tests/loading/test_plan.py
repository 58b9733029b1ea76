"""What is decided for whole batches: the size of the canvas, and when mosaic ends."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from zlib import crc32

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from mtl_ray.inputs.image import Canvas
from mtl_ray.loading.batch import Batch
from mtl_ray.loading.config import (
    Augmentation,
    Colour,
    CopyPaste,
    DataConfig,
    Flip,
    Mixup,
    Mosaic,
    OwnRules,
    SplitConfig,
)
from mtl_ray.loading.loader import Loader
from mtl_ray.loading.plan import plan_batch
from mtl_ray.loading.sizes import MultiScale, Resize, ScaleJitter
from tests.loading.splits import data_config, masked_sample, sample, write_split

FIELDS = {"instances": frozenset({"masks"})}
JOINED = (ScaleJitter(scale=(0.5, 1.5)), Mosaic(p=0.3), Mixup(), CopyPaste(), Flip(), Colour())
OBJECTS = ("boxes", "classes", "crowd", "masks", "has_mask")
SEVERAL = MultiScale(scale=(0.7, 2.0), divisor=8)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> str:
    samples = [masked_sample(index) for index in range(29)]
    return write_split(tmp_path_factory.mktemp("split"), samples)


def prints(batch: Batch) -> list[tuple[str, int]]:
    """Of each sample the key, and a checksum of all that the network gets to see of it."""
    objects, labels = batch.targets["instances"], batch.targets["labels"]
    found = []
    for slot, key in enumerate(batch.keys):
        parts = [each[slot] for each in (*batch.inputs.values(), *labels.values())]
        parts += [each[slot] for each in batch.targets["semantic"].values()]
        parts += [objects[name][slot][objects["present"][slot]] for name in OBJECTS]
        found.append((key, crc32(b"".join(part.numpy().tobytes() for part in parts))))
    return found


def take(data: DataConfig, count: int, closed_from: int | None = None, **place: int) -> list[Batch]:
    loader = Loader(data, fields=FIELDS, **place)  # type: ignore[arg-type]
    loader.closed_from = closed_from
    return list(islice(iter(loader), count))


def global_prints(
    data: DataConfig, steps: int, world_size: int, **place: int | None
) -> list[list[tuple[str, int]]]:
    ranks = [
        take(data, steps, rank=rank, world_size=world_size, **place)  # type: ignore[arg-type]
        for rank in range(world_size)
    ]
    return [[each for shares in ranks for each in prints(shares[step])] for step in range(steps)]


def joined(split: str, **changes: object) -> DataConfig:
    return data_config(split, lambda data: replace(data, augment=JOINED, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("multi_scale", [None, SEVERAL])
def test_joined_samples_follow_from_the_address_alone(
    split: str, multi_scale: MultiScale | None
) -> None:
    data = joined(split, multi_scale=multi_scale)
    alone = global_prints(data, 7, 1)
    assert global_prints(data, 7, 2) == alone
    assert global_prints(replace(data, threads=1, cache_mb=0), 7, 4) == alone
    assert global_prints(data, 4, 3, cursor=3 * data.batch) == alone[3:]
    assert [prints(batch) for batch in take(data, 7, seed=1)] != alone


def test_each_batch_has_one_of_the_sizes_and_all_come(split: str) -> None:
    data = data_config(split, lambda data: replace(data, multi_scale=SEVERAL))
    wanted = set(SEVERAL.sizes_for(24, 32))
    assert wanted == {(24, 32), (32, 40), (32, 48), (40, 56), (48, 64)} & wanted
    batches = take(data, 40)
    found = [tuple(batch.inputs["image"].shape[2:]) for batch in batches]
    assert set(found) == wanted
    for batch, (height, width) in zip(batches, found, strict=True):
        objects = batch.targets["instances"]
        assert batch.targets["semantic"]["classes"].shape[1:] == (height, width)
        assert objects["masks"].shape[2:] == (height, width)
        assert (batch.inputs["valid_hw"] <= torch.tensor([height, width])).all()
        assert (objects["boxes"][..., 2] <= width).all()
    slow = data_config(split, lambda data: replace(data, multi_scale=replace(SEVERAL, every=5)))
    sizes = [tuple(batch.inputs["image"].shape[2:]) for batch in take(slow, 20)]
    assert all(len(set(sizes[start : start + 5])) == 1 for start in range(0, 20, 5))


def test_a_split_with_a_canvas_of_its_own_follows(split: str) -> None:
    own = (OwnRules(), OwnRules(canvas=Canvas(kind="stretch", height=24, width=32)))
    data = data_config((split, split), own=own)
    data = replace(data, multi_scale=SEVERAL)
    plan = plan_batch(data, 0, 3, closed=False)
    sizes = {(canvas.height, canvas.width) for canvas in (plan.canvas, *plan.canvases)}
    assert len(sizes) == 1
    assert [canvas.kind for canvas in plan.canvases] == ["letterbox", "stretch"]


def test_what_a_config_does_not_ask_for_changes_nothing(split: str) -> None:
    data = data_config(split)
    plan = plan_batch(data, 0, 5, closed=True)
    assert plan.canvas is data.canvas
    assert plan.augment == (data.augment,)


def test_padding_of_a_jittered_image_is_no_valid_part(split: str) -> None:
    data = data_config(
        split, lambda data: replace(data, augment=(Resize(short_side=(12, 12), step=1),))
    )
    for batch in take(data, 3):
        assert (batch.inputs["valid_hw"].min(dim=1).values == 12).all()


@pytest.mark.parametrize("closed", [0, 1, 3, 5])
def test_mosaic_ends_at_a_batch_and_a_resumed_loader_agrees(split: str, closed: int) -> None:
    data = joined(split)
    plain = tuple(each for each in JOINED if not isinstance(each, Mosaic | Mixup | CopyPaste))
    before = global_prints(data, 6, 1)
    after = global_prints(replace(data, augment=plain), 6, 1)
    cursor = closed * data.batch
    whole = global_prints(data, 6, 1, closed_from=cursor)
    assert whole == before[:closed] + after[closed:]
    for steps in (0, 2, 4):
        resumed = global_prints(data, 6 - steps, 2, cursor=steps * data.batch, closed_from=cursor)
        assert resumed == whole[steps:]


def test_a_loader_that_runs_ends_mosaic_with_the_first_batch_that_is_not_begun(split: str) -> None:
    data = joined(split)
    loader = Loader(data, fields=FIELDS)
    batches = iter(loader)
    found = [prints(next(batches)) for _ in range(2)]
    cursor = loader.close_mosaic()
    assert cursor == 5 * data.batch
    found += [prints(next(batches)) for _ in range(5)]
    assert loader.close_mosaic() == cursor, "it ends once"
    assert found == global_prints(data, 7, 1, closed_from=cursor)


def test_boxes_are_pasted_by_masks_that_no_head_reads(split: str) -> None:
    data = data_config(split, lambda data: replace(data, augment=(CopyPaste(p=1),)))
    pasted = next(iter(Loader(data)))
    assert "masks" not in pasted.targets["instances"]
    with_masks = take(data, 1)[0]
    for name, values in pasted.targets["instances"].items():
        assert torch.equal(values, with_masks.targets["instances"][name])
    plain = take(replace(data, augment=()), 1)[0]
    assert (
        pasted.targets["instances"]["present"].sum() > plain.targets["instances"]["present"].sum()
    )


def test_joining_is_refused_where_images_have_one_label(tmp_path: Path) -> None:
    from mtl_ray.samples import Vocabulary
    from mtl_ray.shards.write import publish_manifest, write_shard
    from tests.loading.splits import NAMES

    entries = [write_shard(str(tmp_path), "train-00000", [sample(index) for index in range(6)])]
    vocabulary = Vocabulary(classes={"labels": NAMES}, exclusive_labels=True)
    publish_manifest(
        str(tmp_path), entries, name="train", vocabulary=vocabulary, shuffled=False, provenance={}
    )
    for change in (Mixup(), CopyPaste()):
        with pytest.raises(ValueError, match=f"{change.type} joins images.*exactly one label"):
            Loader(data_config(str(tmp_path), lambda data, c=change: replace(data, augment=(c,))))


def test_a_size_that_cannot_be_is_refused_when_the_config_is_read() -> None:
    with pytest.raises(ValueError, match="no multiple of 32"):
        DataConfig(
            train=SplitConfig(uri="x"),
            val=SplitConfig(uri="x"),
            canvas={"height": 20, "width": 20},  # type: ignore[arg-type]
            multi_scale=MultiScale(),
        )


@pytest.mark.parametrize(
    "change",
    [
        {"type": "zoom", "scale": [0, 1]},
        {"type": "crop", "area": [0.5, 3]},
        {"type": "crop", "aspect": [-1, 1]},
        {"type": "mosaic", "centre": [-1, 2]},
        {"type": "mosaic", "scale": [0, 0]},
    ],
)
def test_ranges_without_an_image_are_refused_when_the_config_is_read(change: object) -> None:
    with pytest.raises(ValidationError, match=r"should be (greater|less) than"):
        TypeAdapter(Augmentation).validate_python(change)
