"""Data for tiny runs."""

import pytest

from tests.training.tiny import write_split


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    write_split(str(folder / "train"), 24, 1)
    write_split(str(folder / "val"), 6, 2)
    return folder
