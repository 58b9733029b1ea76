"""What the loader gives, and that its order and pixels depend on nothing but data, config and
seed.
"""

import threading
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from zlib import crc32

import fsspec
import numpy as np
import pytest
import torch

from mtl_ray.inputs.decode import decode_image, decode_semantic
from mtl_ray.inputs.frame import place, place_map
from mtl_ray.loading.batch import Batch
from mtl_ray.loading.config import Colour, DataConfig, Flip, Mosaic, RandomCrop, SplitConfig, Zoom
from mtl_ray.loading.loader import BadSamplesError, Loader
from mtl_ray.samples import IGNORE_INDEX
from tests.loading.splits import NAMES, data_config, sample, unannotated, write_split

EVERYTHING = (Mosaic(p=0.5), Flip(), RandomCrop(p=0.5), Zoom(p=0.5), Colour())


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_split(tmp_path_factory.mktemp("split"), [sample(index) for index in range(41)])


def take(data: DataConfig, count: int, **place: int) -> list[Batch]:
    batches = iter(Loader(data, **place))
    return list(islice(batches, count))


def prints(batches: Sequence[Batch]) -> list[tuple[str, int]]:
    """Of each sample in its order: the key, and a checksum of all that the network gets to see
    of it.
    """
    found = []
    for batch in batches:
        for slot, key in enumerate(batch.keys):
            boxes = batch.targets["instances"]["boxes"][slot][
                batch.targets["instances"]["present"][slot]
            ]
            parts = (
                batch.inputs["image"][slot],
                batch.targets["semantic"]["classes"][slot],
                boxes,
                batch.targets["labels"]["present"][slot],
            )
            found.append((key, crc32(b"".join(part.numpy().tobytes() for part in parts))))
    return found


def global_prints(
    data: DataConfig, steps: int, world_size: int, cursor: int = 0
) -> list[list[tuple[str, int]]]:
    """The global batch of each step: the shares of all ranks, one after the other."""
    ranks = [
        take(data, steps, rank=rank, world_size=world_size, cursor=cursor)
        for rank in range(world_size)
    ]
    return [prints([shares[step] for shares in ranks]) for step in range(steps)]


def test_a_batch_holds_what_its_samples_say(split: str) -> None:
    data = data_config(split)
    originals = {each.key: each for each in (sample(index) for index in range(41))}
    for batch in take(data, 3):
        assert len(batch) == 6
        assert batch.inputs["image"].shape == (6, 3, 24, 32)
        assert batch.inputs["image"].is_contiguous()
        instances, semantic, labels = (
            batch.targets[kind] for kind in ("instances", "semantic", "labels")
        )
        for slot, key in enumerate(batch.keys):
            original = originals[key]
            canvas, frame = place(decode_image(original.image), data.canvas)
            assert (batch.inputs["image"][slot].numpy().transpose(1, 2, 0) == canvas).all()
            assert batch.inputs["valid_hw"][slot].tolist() == [
                frame.valid_height,
                frame.valid_width,
            ]
            placed = place_map(decode_semantic(original.semantic), frame, IGNORE_INDEX)
            expected = np.where(placed < len(NAMES), placed, IGNORE_INDEX)
            assert (semantic["classes"][slot].numpy() == expected).all()
            assert labels["present"][slot].nonzero().flatten().tolist() == original.labels.tolist()
            present = instances["present"][slot]
            kept = frame.boxes_to_canvas(original.instances.boxes_xyxy)
            large = ((kept[:, 2:] - kept[:, :2]) >= 1).all(axis=1)
            assert (
                np.abs(instances["boxes"][slot][present].numpy() - kept[large]).max(initial=0)
                < 1e-4
            )
            assert (
                instances["classes"][slot][present].tolist()
                == original.instances.classes[large].tolist()
            )
            assert (
                instances["crowd"][slot][present].tolist()
                == original.instances.crowd[large].tolist()
            )
        assert all(target["annotated"].all() for target in batch.targets.values())


@pytest.mark.parametrize("augment", [(), EVERYTHING])
def test_order_and_pixels_are_the_same_for_every_world_size(
    split: str, augment: tuple[object, ...]
) -> None:
    data = data_config(split, lambda data: replace(data, augment=augment))
    alone = global_prints(data, 10, 1)
    assert global_prints(data, 10, 2) == alone
    assert global_prints(data, 10, 3) == alone
    assert global_prints(data, 10, 4) == alone, "six lanes for four ranks: two ranks have two"
    assert global_prints(replace(data, threads=5, cache_mb=0), 10, 1) == alone
    other = global_prints(data_config(split, lambda data: replace(data, augment=augment)), 10, 1)
    assert other == alone
    reseeded = [prints([batch]) for batch in take(data, 10, seed=1)]
    assert reseeded != alone


@pytest.mark.parametrize("steps", [0, 1, 6, 7, 20])
@pytest.mark.parametrize("world_size", [1, 3])
def test_resumed_at_any_cursor_with_any_world_size(split: str, steps: int, world_size: int) -> None:
    data = data_config(split, lambda data: replace(data, augment=EVERYTHING))
    whole = global_prints(data, steps + 3, 1)
    assert global_prints(data, 3, world_size, cursor=steps * data.batch) == whole[steps:]


def test_the_cursor_counts_what_was_given(split: str) -> None:
    loader = Loader(data_config(split), world_size=2)
    batches = iter(loader)
    assert loader.cursor == 0
    for step in range(1, 4):
        next(batches)
        assert loader.cursor == 6 * step
    again = Loader(data_config(split), world_size=2, cursor=loader.cursor)
    assert prints([next(iter(again))]) == prints([next(batches)])


def test_an_epoch_sees_each_sample_once(split: str) -> None:
    loader = Loader(data_config(split))
    assert loader.samples_per_epoch == 41
    keys = [key for batch in islice(iter(loader), 41) for key in batch.keys]
    counts = {key: keys.count(key) for key in set(keys)}
    assert set(counts.values()) == {6}, "six epochs are 41 batches of 6"
    assert len(counts) == 41


def test_repeats_of_an_image_are_augmented_differently(split: str) -> None:
    data = data_config(split, lambda data: replace(data, augment=(Colour(),)))
    found = prints(take(data, 82))
    assert len({key for key, _ in found}) == 41
    assert len(set(found)) > 300


def test_numbers_that_do_not_fit_are_refused_at_once(split: str) -> None:
    with pytest.raises(ValueError, match="at most 6 workers"):
        Loader(data_config(split), rank=0, world_size=7)
    with pytest.raises(ValueError, match="cursor 5"):
        Loader(data_config(split), cursor=5)


def test_threads_end_with_the_iterator(split: str) -> None:
    before = {thread.ident for thread in threading.enumerate()}
    batches = iter(Loader(data_config(split)))
    next(batches)
    assert any(thread.name.startswith("loader") for thread in threading.enumerate())
    batches.close()  # type: ignore[attr-defined]
    assert {thread.ident for thread in threading.enumerate()} <= before


def test_what_is_not_annotated_is_marked(tmp_path: Path) -> None:
    samples = [sample(index) if index % 2 else unannotated(index) for index in range(12)]
    for batch in take(data_config(write_split(tmp_path, samples)), 2):
        for slot, key in enumerate(batch.keys):
            known = int(key[:4]) % 2 == 1
            assert all(
                bool(target["annotated"][slot]) is known for target in batch.targets.values()
            )
            if not known:
                assert (batch.targets["semantic"]["classes"][slot] == IGNORE_INDEX).all()
                assert not batch.targets["instances"]["present"][slot].any()
                assert not batch.targets["labels"]["present"][slot].any()


def test_a_kind_that_the_split_does_not_annotate_is_no_target(tmp_path: Path) -> None:
    uri = write_split(
        tmp_path,
        [sample(index).with_annotations(labels=None, semantic=None) for index in range(6)],
        kinds=["instances"],
    )
    assert set(take(data_config(uri), 1)[0].targets) == {"instances"}


@pytest.fixture
def half_bad(tmp_path: Path) -> str:
    """Two of twelve samples do not decode: one image is cut short, one is of another size than
    its record says.
    """
    samples = [sample(index) for index in range(12)]
    samples[3] = samples[3].with_image(data=samples[3].image[:60])
    samples[7] = samples[7].with_image(width=samples[7].width + 1)
    return write_split(tmp_path, samples)


def test_bad_samples_keep_their_slot_without_weight(
    half_bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    loader = Loader(data_config(half_bad, lambda data: replace(data, max_bad=2)))
    batches = list(islice(iter(loader), 8))
    assert set(loader.bad) == {"0003.png", "0007.png"}
    assert "its record says" in loader.bad["0007.png"]
    assert [record.message.split(" is left out")[0] for record in caplog.records].count(
        "sample 0003.png"
    ) == 1
    for batch in batches:
        for slot, key in enumerate(batch.keys):
            bad = key in loader.bad
            assert all(
                bool(target["annotated"][slot]) is not bad for target in batch.targets.values()
            )
            if bad:
                assert (batch.inputs["image"][slot] == 114).all()
    keys = [key for batch in batches for key in batch.keys]
    assert all(keys.count(key) == 4 for key in set(keys)), "positions do not shift"


def test_too_many_bad_samples_end_the_run_by_name(half_bad: str) -> None:
    with pytest.raises(BadSamplesError, match=r"data.max_bad allows 1.*000[37]\.png"):
        take(data_config(half_bad, lambda data: replace(data, max_bad=1)), 8)
    assert issubclass(BadSamplesError, ValueError)


def test_a_mosaic_with_a_bad_partner_goes_without_it(half_bad: str) -> None:
    data = data_config(half_bad, lambda data: replace(data, max_bad=2, augment=(Mosaic(p=1),)))
    batches = take(data, 8)
    for batch in batches:
        bad = torch.tensor([key in ("0003.png", "0007.png") for key in batch.keys])
        assert all((target["annotated"] == ~bad).all() for target in batch.targets.values())
    assert prints(batches) == prints(take(replace(data, threads=1, cache_mb=0), 8))


def test_a_forged_header_is_a_bad_sample(tmp_path: Path) -> None:
    samples = [sample(index) for index in range(6)]
    forged = bytearray(samples[2].image)
    forged[16:24] = (40_000).to_bytes(4, "big") * 2
    samples[2] = samples[2].with_image(data=bytes(forged))
    with pytest.raises(BadSamplesError, match="40000 x 40000"):
        take(data_config(write_split(tmp_path, samples)), 1)


def test_a_damaged_shard_ends_the_run(tmp_path: Path) -> None:
    data = data_config(write_split(tmp_path, [sample(index) for index in range(12)]))
    shard = next(tmp_path.glob("train-00000.*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="train-00000"):
        take(data, 4)


def test_a_split_elsewhere_gives_the_same_batches(split: str) -> None:
    """Read through a file system that can only be asked for ranges of bytes."""
    files = fsspec.filesystem("memory")
    files.put(split, "/bucket/split", recursive=True)
    data = data_config(split, lambda data: replace(data, augment=EVERYTHING))
    away = replace(data, train=SplitConfig(uri="memory://bucket/split"))
    assert prints(take(away, 9)) == prints(take(data, 9))


def test_mosaic_is_refused_where_images_have_one_label(tmp_path: Path) -> None:
    from mtl_ray.samples import Vocabulary
    from mtl_ray.shards.write import publish_manifest, write_shard

    entries = [write_shard(str(tmp_path), "train-00000", [sample(index) for index in range(6)])]
    vocabulary = Vocabulary(classes={"labels": NAMES}, exclusive_labels=True)
    publish_manifest(
        str(tmp_path), entries, name="train", vocabulary=vocabulary, shuffled=False, provenance={}
    )
    with pytest.raises(ValueError, match="exactly one label"):
        Loader(data_config(str(tmp_path), lambda data: replace(data, augment=(Mosaic(),))))
