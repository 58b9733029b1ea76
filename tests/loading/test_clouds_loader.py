"""Batches of clouds: their order and numbers depend on nothing but data, config and seed."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from mtl_ray.geometry.voxels import hard_voxels
from mtl_ray.loading.batch import Batch
from mtl_ray.loading.cloud_config import (
    DropPoints,
    FlipCloud,
    MoveCloud,
    MoveObjects,
    PasteObjects,
    ShufflePoints,
)
from mtl_ray.loading.config import DataConfig, SplitConfig
from mtl_ray.loading.loader import BadSamplesError, Loader
from mtl_ray.loading.prepare import SceneCache
from mtl_ray.samples import Sample
from tests.loading.clouds import (
    CANVAS,
    CLASSES,
    cloud_sample,
    object_samples,
    objects,
    scene,
    write_clouds,
)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_clouds(
        tmp_path_factory.mktemp("clouds"), [cloud_sample(seed) for seed in range(23)]
    )


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    database = write_clouds(tmp_path_factory.mktemp("bank"), object_samples(range(50, 60)))
    return (
        PasteObjects(database=database, counts={"Car": 5, "Cyclist": 3}, ground_plane=True, p=0.8),
        MoveObjects(),
        FlipCloud(),
        MoveCloud(translation=(0.2, 0.2, 0.2)),
        DropPoints(share=(0.0, 0.2)),
        ShufflePoints(),
    )


def data_config(uri: str, augment: tuple[object, ...] = (), **train: object) -> DataConfig:
    split = SplitConfig(uri=uri, **train)  # type: ignore[arg-type]
    return DataConfig(train=split, val=split, canvas=CANVAS, batch=6, threads=2, augment=augment)  # type: ignore[arg-type]


def take(data: DataConfig, count: int, **place: int) -> list[Batch]:
    return list(islice(Loader(data, **place), count))


def prints(batches: Sequence[Batch]) -> list[tuple[str, int]]:
    """Of each sample in its order: the key, and a checksum of its voxels and objects; padding,
    which depends on the other samples of the batch, left out.
    """
    found = []
    for batch in batches:
        for slot, key in enumerate(batch.keys):
            used = int((batch.inputs["num_points"][slot] > 0).sum())
            present = batch.targets["boxes_3d"]["present"][slot]
            parts = [batch.inputs[name][slot][:used] for name in batch.inputs]
            parts += [
                batch.targets["boxes_3d"][name][slot][present]
                for name in ("boxes", "classes", "velocity", "has_velocity")
            ]
            found.append((key, crc32(b"".join(part.numpy().tobytes() for part in parts))))
    return found


def global_prints(
    data: DataConfig, steps: int, world_size: int, cursor: int = 0
) -> list[list[tuple[str, int]]]:
    ranks = [
        take(data, steps, rank=rank, world_size=world_size, cursor=cursor)
        for rank in range(world_size)
    ]
    return [prints([shares[step] for shares in ranks]) for step in range(steps)]


def test_a_batch_holds_the_voxels_and_boxes_of_its_samples(split: str) -> None:
    for batch in take(data_config(split), 3):
        most = 0
        for slot, key in enumerate(batch.keys):
            whole = cloud_sample(int(key)).inputs["points"]
            points = np.frombuffer(whole.data, np.float32).reshape(-1, 4)
            expected = hard_voxels(points, CANVAS.grid, 16, 700)
            used = len(expected.counts)
            most = max(most, used)
            assert (batch.inputs["voxels"][slot, :used].numpy() == expected.points).all()
            assert (batch.inputs["num_points"][slot, :used].numpy() == expected.counts).all()
            assert (batch.inputs["coordinates"][slot, :used].numpy() == expected.coordinates).all()
            assert not batch.inputs["num_points"][slot, used:].any()
            assert not batch.inputs["voxels"][slot, used:].any()
            assert (batch.inputs["coordinates"][slot, used:] == -1).all()
            present = batch.targets["boxes_3d"]["present"][slot]
            boxes, classes = objects(int(key), 3 + int(key) % 4)
            assert (batch.targets["boxes_3d"]["boxes"][slot][present].numpy() == boxes).all()
            assert batch.targets["boxes_3d"]["classes"][slot][present].tolist() == classes.tolist()
        assert batch.inputs["voxels"].shape == (6, most, 16, 4), "trimmed to the fullest sample"


def test_objects_outside_the_grid_are_left_out(split: str) -> None:
    small = replace(CANVAS, maximum=(20.0, 20.0, 1.0))
    data = replace(data_config(split), canvas=small)
    for batch in take(data, 2):
        for slot, key in enumerate(batch.keys):
            boxes, _ = objects(int(key), 3 + int(key) % 4)
            present = batch.targets["boxes_3d"]["present"][slot]
            found = batch.targets["boxes_3d"]["boxes"][slot][present].numpy()
            assert (found == boxes[boxes[:, 0] < 20]).all()


@pytest.mark.parametrize("changed", [False, True])
def test_order_and_numbers_are_the_same_for_every_world_size(
    split: str, everything: tuple[object, ...], changed: bool
) -> None:
    data = data_config(split, everything if changed else ())
    alone = global_prints(data, 8, 1)
    assert global_prints(data, 8, 2) == alone
    assert global_prints(data, 8, 3) == alone
    assert global_prints(replace(data, threads=5, cache_mb=0), 8, 1) == alone
    assert [prints([batch]) for batch in take(data, 8, seed=1)] != alone


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("world_size", [1, 2])
def test_resumed_at_any_cursor(
    split: str, everything: tuple[object, ...], steps: int, world_size: int
) -> None:
    data = data_config(split, everything)
    whole = global_prints(data, steps + 3, 1)
    assert global_prints(data, 3, world_size, cursor=steps * data.batch) == whole[steps:]


def test_repeats_of_a_cloud_are_augmented_differently(
    split: str, everything: tuple[object, ...]
) -> None:
    found = prints(take(data_config(split, everything), 23))
    assert len({key for key, _ in found}) == 23
    assert len(set(found)) == len(found) == 138


def test_pasting_ends_where_mosaics_do(split: str, everything: tuple[object, ...]) -> None:
    loader = Loader(data_config(split, everything[:1]))
    plain = prints(take(data_config(split), 8))
    batches = iter(loader)
    first = prints([next(batches)])
    assert loader.close_mosaic() == 4 * 6
    rest = prints(list(islice(batches, 7)))
    assert first + rest[:18] != plain[:24]
    assert rest[18:] == plain[24:]


def test_rare_classes_are_balanced(tmp_path: Path) -> None:
    rare = [seed for seed in range(40) if 1 in objects(seed, 3 + seed % 4)[1]][:3]
    common = [seed for seed in range(400) if 1 not in objects(seed, 3 + seed % 4)[1]][:27]
    uri = write_clouds(tmp_path, [cloud_sample(seed) for seed in (*rare, *common)])
    plain, balanced = (
        [key for batch in take(data, 30) for key in batch.keys]
        for data in (data_config(uri), data_config(uri, balanced=0.9))
    )
    shares = [sum(int(key) in rare for key in keys) / len(keys) for keys in (plain, balanced)]
    assert shares[0] == pytest.approx(0.1, abs=0.03)
    assert shares[1] > 0.2, "Cyclists are in a tenth of the clouds; 0.9 / 0.1 -> 3 times as often"


def test_what_is_not_annotated_gets_no_pasted_objects(
    tmp_path: Path, everything: tuple[object, ...]
) -> None:
    samples = [cloud_sample(seed, annotated=seed % 2 == 1) for seed in range(12)]
    for batch in take(data_config(write_clouds(tmp_path, samples), everything), 3):
        for slot, key in enumerate(batch.keys):
            target = batch.targets["boxes_3d"]
            assert bool(target["annotated"][slot]) is (int(key) % 2 == 1)
            assert bool(target["present"][slot].any()) is (int(key) % 2 == 1)


def test_clouds_that_cannot_be_read_keep_an_empty_slot(tmp_path: Path) -> None:
    samples = [cloud_sample(seed) for seed in range(6)]
    points = samples[2].inputs["points"]
    broken = replace(points, data=np.full((3, 4), np.nan, "<f4").tobytes())
    samples[2] = Sample(key=samples[2].key, inputs={"points": broken}, annotations={})
    uri = write_clouds(tmp_path, samples)
    with pytest.raises(BadSamplesError, match="3 of 3 points have a NaN"):
        take(data_config(uri), 1)
    batch = take(replace(data_config(uri), max_bad=1), 1)[0]
    slot = batch.keys.index("000002")
    assert not batch.inputs["num_points"][slot].any()
    assert (batch.inputs["coordinates"][slot] == -1).all()
    assert not batch.targets["boxes_3d"]["annotated"][slot]
    with pytest.raises(BadSamplesError, match=r"numbers, more than .*; data.max_pixels allows"):
        take(replace(data_config(uri), max_pixels=1000, max_bad=5), 1)


def test_a_cloud_without_points_is_a_sample(tmp_path: Path, everything: tuple[object, ...]) -> None:
    samples = [cloud_sample(seed) for seed in range(6)]
    points = samples[2].inputs["points"]
    samples[2] = replace(samples[2], inputs={"points": replace(points, data=b"")})
    uri = write_clouds(tmp_path, samples)
    for augment in ((), everything):
        batch = take(data_config(uri, augment), 1)[0]
        assert batch.targets["boxes_3d"]["annotated"].all()


def test_the_cache_counts_the_bytes_of_clouds() -> None:
    found = scene(1)
    source = CANVAS.input
    assert found.num_bytes(source) >= found.cloud.points.nbytes
    cache = SceneCache(2 * found.num_bytes(source) + 1)
    for row in range(3):
        cache.put((0, 0, row), (str(row), found), found.num_bytes(source))
    assert [cache.get((0, 0, row)) is not None for row in range(3)] == [False, True, True]
    assert CLASSES[2] == "Car"
