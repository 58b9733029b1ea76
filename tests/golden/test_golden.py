"""Results do not move: trainings, exports and files are what they were, bit for bit on the
machine that wrote them down.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inference.checkpoint import open_checkpoint
from mtl_ray.shards.split import open_split
from tests.golden.golden import FILES, HEADS, VALUES, answers, machine, train
from tests.training.tiny import write_split

WRITTEN = json.loads(VALUES.read_text())
CLOSE = 5e-3
"""Relative difference on other processors, whose kernels add in another order, after 20 steps."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("golden")
    write_split(str(made / "train"), 50, 1)
    write_split(str(made / "val"), 13, 2)
    return made


def close(found: Any, written: Any) -> bool:
    """Whether two nested values agree within what another processor explains."""
    if isinstance(written, dict):
        return found.keys() == written.keys() and all(
            close(found[key], written[key]) for key in written
        )
    if isinstance(written, list):
        return len(found) == len(written) and all(map(close, found, written))
    return bool(np.isclose(found, written, rtol=CLOSE, atol=CLOSE, equal_nan=True))


@pytest.mark.parametrize("case", HEADS)
def test_a_training_is_what_it_was(case: str, folder: Path) -> None:
    found, written = train(case, folder), WRITTEN["trainings"][case]
    if machine() == WRITTEN["machine"]:
        # as texts, because NaN is not equal to itself
        assert json.dumps(found) == json.dumps(written)
    else:
        assert close(found["losses"], written["losses"])


def test_a_difference_would_be_seen() -> None:
    written = WRITTEN["trainings"]["joint"]["losses"]
    other = json.loads(json.dumps(written))
    other[7]["loss"] *= 1.02
    assert close(written, written)
    assert not close(other, written)


@pytest.mark.parametrize("encoding", ["arrow", "tfrecord"])
def test_an_old_split_opens(encoding: str, folder: Path) -> None:
    old, new = open_split(str(FILES / encoding)), open_split(str(folder / "val"))
    assert old.vocabulary == new.vocabulary
    for one, other in zip(old.read(0, 6), new.read(0, 6), strict=True):
        assert (one.key, one.height, one.width) == (other.key, other.height, other.width)
        assert one.instances is not None
        assert other.instances is not None
        np.testing.assert_array_equal(one.instances.boxes_xyxy, other.instances.boxes_xyxy)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_an_old_bundle_answers_as_it_did() -> None:
    assert close(answers(str(FILES / "bundle")), WRITTEN["bundle"])


def test_an_old_checkpoint_and_its_bundle_still_agree() -> None:
    image = np.random.default_rng(3).integers(0, 255, (40, 30, 3)).astype(np.uint8)
    torch_found = next(iter(open_checkpoint(str(FILES / "checkpoint")).predict([image])))
    bundle_found = next(iter(BundlePredictor(str(FILES / "bundle")).predict([image])))
    assert torch_found.keys() == bundle_found.keys() == {"boxes", "semantic", "labels"}
    np.testing.assert_allclose(
        torch_found["labels"].scores, bundle_found["labels"].scores, atol=1e-4
    )
    assert (torch_found["semantic"].classes == bundle_found["semantic"].classes).mean() > 0.99
