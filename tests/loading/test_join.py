"""Several splits read as one: classes by name, mixes and repeats."""

from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from mtl_ray.inputs.decode import decode_image
from mtl_ray.inputs.frame import place
from mtl_ray.inputs.image import Canvas
from mtl_ray.loading.config import Flip, OwnRules
from mtl_ray.loading.join import join_vocabularies
from mtl_ray.loading.loader import Loader
from mtl_ray.samples import IGNORE_INDEX, Vocabulary
from tests.loading.splits import NAMES, data_config, sample, write_split


@pytest.fixture
def two(tmp_path: Path) -> tuple[str, str]:
    """The same classes in another order, and images of other names."""
    first = write_split(tmp_path / "first", [sample(index, prefix="a") for index in range(30)])
    second = write_split(
        tmp_path / "second", [sample(index, prefix="b") for index in range(12)], names=NAMES[::-1]
    )
    return first, second


def keys(loader: Loader, steps: int) -> list[str]:
    return [key for batch in islice(iter(loader), steps) for key in batch.keys]


def test_classes_are_mapped_by_name(two: tuple[str, str]) -> None:
    loader = Loader(data_config(two))
    assert loader.vocabulary.classes["instances"] == NAMES
    assert loader.samples_per_epoch == 42
    seen = set()
    for batch in islice(iter(loader), 14):
        for slot, key in enumerate(batch.keys):
            original = sample(int(key[1:5]))
            names = NAMES if key[0] == "a" else NAMES[::-1]
            labels = {
                loader.vocabulary.classes["labels"][index]
                for index in batch.targets["labels"]["present"][slot].nonzero().flatten()
            }
            assert labels == {names[index] for index in original.labels}
            present = batch.targets["instances"]["present"][slot]
            found = [
                loader.vocabulary.classes["instances"][index]
                for index in batch.targets["instances"]["classes"][slot][present]
            ]
            assert set(found) <= {names[index] for index in original.instances.classes}
            values = set(torch.unique(batch.targets["semantic"]["classes"][slot]).tolist()) - {
                IGNORE_INDEX
            }
            assert values <= {NAMES.index(names[index]) for index in range(4)}
            seen.add(key[0])
    assert seen == {"a", "b"}


def test_union_in_order_of_first_appearance_and_lacking_classes_are_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = Vocabulary(
        classes={"instances": ("cat", "dog")}, colours={"instances": ((1, 1, 1), (2, 2, 2))}
    )
    other = Vocabulary(
        classes={"instances": ("dog", "fox"), "semantic": ("sky",)},
        colours={"instances": ((9, 9, 9), (3, 3, 3))},
    )
    joined, spaces = join_vocabularies([one, other], ["here", "there"])
    assert joined.classes == {"instances": ("cat", "dog", "fox"), "semantic": ("sky",)}
    assert joined.colours == {"instances": ((1, 1, 1), (2, 2, 2), (3, 3, 3))}
    assert spaces[1].mappers["instances"].indices.tolist() == [1, 2]
    assert spaces[0].mappers["semantic"].indices.tolist() == []
    assert spaces[1].mappers["semantic"].indices.tolist() == [0]
    assert [space.known_classes["instances"].tolist() for space in spaces] == [
        [True, True, False],
        [False, True, True],
    ]
    assert "here: its instances do not know fox" in caplog.text
    assert "there: its instances do not know cat" in caplog.text


def test_exclusive_only_if_all_are_and_other_keypoints_are_refused() -> None:
    single = Vocabulary(classes={"labels": ("cat",)}, exclusive_labels=True)
    several = Vocabulary(classes={"labels": ("cat",)})
    boxes = Vocabulary(classes={"instances": ("cat",)}, keypoints=("nose",))
    assert join_vocabularies([single, single], ["a", "b"])[0].exclusive_labels
    assert join_vocabularies([single, boxes], ["a", "b"])[0].exclusive_labels
    assert not join_vocabularies([single, several], ["a", "b"])[0].exclusive_labels
    assert not join_vocabularies([boxes], ["a"])[0].exclusive_labels
    assert join_vocabularies([single, boxes], ["a", "b"])[0].keypoints == ("nose",)
    with pytest.raises(ValueError, match="different keypoints"):
        join_vocabularies([boxes, replace(boxes, keypoints=("tail",))], ["a", "b"])


def test_numbers_of_the_source_survive_only_if_they_are_unique() -> None:
    one = Vocabulary(classes={"instances": ("cat",)}, category_ids={"instances": (7,)})
    clash = Vocabulary(classes={"instances": ("dog",)}, category_ids={"instances": (7,)})
    fits = Vocabulary(classes={"instances": ("dog",)}, category_ids={"instances": (9,)})
    assert join_vocabularies([one, fits], ["a", "b"])[0].category_ids == {"instances": (7, 9)}
    assert join_vocabularies([one, clash], ["a", "b"])[0].category_ids == {}


def test_joined_splits_are_each_visited_once_an_epoch(two: tuple[str, str]) -> None:
    counts = Counter(keys(Loader(data_config(two)), 7))
    assert len(counts) == 42
    assert set(counts.values()) == {1}


def test_weights_are_shares(two: tuple[str, str]) -> None:
    loader = Loader(data_config(two, weights=(1.0, 3.0)))
    share = Counter(key[0] for key in keys(loader, 100))["b"] / 600
    assert abs(share - 0.75) < 0.02
    plain = Counter(key[0] for key in keys(Loader(data_config(two)), 100))["b"] / 600
    assert abs(plain - 12 / 42) < 0.02


def test_repeat_makes_an_epoch_longer(two: tuple[str, str]) -> None:
    loader = Loader(data_config(two, repeat=3))
    assert loader.samples_per_epoch == 126
    assert set(Counter(keys(loader, 21)).values()) == {3}


def test_balanced_shows_rare_classes_more_often(tmp_path: Path) -> None:
    """One image of forty has class 5: with t = 0.5 it comes sqrt(0.5 / 0.025) = 4.5 times as
    often as it would.
    """
    samples = []
    for index in range(40):
        made = sample(index)
        made.instances.classes[:] = 5 if index == 17 else 0
        samples.append(made.with_annotations(labels=None, semantic=None))
    uri = write_split(tmp_path, samples, kinds=["instances"])
    plain = Counter(keys(Loader(data_config(uri)), 200))["0017.png"]
    balanced = Counter(keys(Loader(data_config(uri, balanced=0.5)), 200))["0017.png"]
    assert plain == 30
    assert 3.5 * plain < balanced < 5 * plain


def test_pins_tell_one_order_from_another(two: tuple[str, str]) -> None:
    pins = Loader(data_config(two)).pins
    assert pins == Loader(data_config(two), world_size=3, rank=1, cursor=60).pins
    assert pins != Loader(data_config(two), seed=1).pins
    assert pins != Loader(data_config(two[0])).pins


def test_a_joined_split_may_have_its_own_transforms_and_canvas(two: tuple[str, str]) -> None:
    """Images of the second split are stretched and flipped always; those of the first are
    letterboxed as they are.
    """
    stretched = Canvas(kind="stretch", height=24, width=32)
    own = (OwnRules(), OwnRules(augment=(Flip(p=1),), canvas=stretched))
    plain, changed = Loader(data_config(two)), Loader(data_config(two, own=own))
    assert plain.pins == changed.pins, "the order of samples stays"
    seen = set()
    for before, after in islice(zip(plain, changed, strict=True), 7):
        assert before.keys == after.keys
        for slot, key in enumerate(before.keys):
            seen.add(key[0])
            if key[0] == "a":
                assert torch.equal(before.inputs["image"][slot], after.inputs["image"][slot])
                continue
            image = decode_image(sample(int(key[1:5])).image)
            expected = place(np.ascontiguousarray(image[:, ::-1]), stretched)[0]
            assert np.array_equal(after.inputs["image"][slot].numpy().transpose(1, 2, 0), expected)
            assert after.inputs["valid_hw"][slot].tolist() == [24, 32]
    assert seen == {"a", "b"}


def test_rules_that_do_not_fit_are_refused(two: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="own has 1 entries for 2 URIs"):
        data_config(two, own=(OwnRules(),))
    with pytest.raises(
        ValueError, match=r"train.own\[1\].canvas must have the size of data.canvas"
    ):
        data_config(two, own=(OwnRules(), OwnRules(canvas=Canvas(height=24, width=30))))


def test_a_batch_says_which_classes_a_dataset_knows(tmp_path: Path) -> None:
    one = write_split(
        tmp_path / "one", [sample(index, prefix="a") for index in range(12)], names=NAMES
    )
    other = write_split(
        tmp_path / "other",
        [sample(index, prefix="b") for index in range(12)],
        names=(*NAMES[1:], "further"),
    )
    loader = Loader(data_config((one, other)))
    classes = loader.vocabulary.classes["labels"]
    assert classes == (*NAMES, "further")
    known = {"a": [name in NAMES for name in classes], "b": [name != NAMES[0] for name in classes]}
    for batch in islice(iter(loader), 4):
        for kind in ("labels", "instances", "semantic"):
            for slot, key in enumerate(batch.keys):
                assert batch.targets[kind]["known_classes"][slot].tolist() == known[key[0]]
