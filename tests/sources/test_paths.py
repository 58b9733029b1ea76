"""Files are found by their names as people and programs write them, and never outside their
folder.
"""

import posixpath
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_ray.sources.paths import Tree, inside

PATHS = (
    "a.jpg",
    "train/a.jpg",
    "train/b c [1] #2.jpg",
    "train/100%.jpg",
    "träume/ä.png",
    "Up/Case.JPG",
    "deep/er/x.png",
)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("train/a.jpg", "train/a.jpg"),
        ("a.jpg", "a.jpg"),
        ("train\\a.jpg", "train/a.jpg"),
        (r"..\..\project\images\train\a.jpg", "train/a.jpg"),
        ("./train/../train/a.jpg", "train/a.jpg"),
        (r"C:\data\set\deep\er\x.png", "deep/er/x.png"),
        ("/data/local-files/?d=set%2Ftrain%2Fa.jpg", "train/a.jpg"),
        ("https://host.example/bucket/deep/er/x.png?key=1", "deep/er/x.png"),
        ("train/b%20c%20%5B1%5D%20%232.jpg", "train/b c [1] #2.jpg"),
        ("train/100%.jpg", "train/100%.jpg"),
        (unicodedata.normalize("NFD", "träume/ä.png"), "träume/ä.png"),
        ("up/case.jpg", "Up/Case.JPG"),
        ("nothing.jpg", None),
        ("../../etc/passwd", None),
        ("", None),
    ],
)
def test_a_name_is_read_as_a_person_would(name: str, found: str | None) -> None:
    assert Tree("/root", PATHS).find(name) == found


def test_a_name_that_could_be_two_files_in_another_case_is_none() -> None:
    tree = Tree("/root", ["A.jpg", "a.JPG"])
    assert tree.find("a.jpg") is None
    assert tree.find("A.jpg") == "A.jpg"


@given(
    st.lists(st.sampled_from(["..", ".", "a", "b.jpg", "", "%2e%2e", "c:"]), max_size=8),
    st.sampled_from("/\\"),
)
def test_nothing_outside_the_folder_is_found(steps: list[str], slash: str) -> None:
    found = Tree("/root", PATHS).find(slash.join(steps))
    assert found is None or found in PATHS


@given(st.lists(st.sampled_from(["..", ".", "a", "b.jpg"]), min_size=1, max_size=8))
def test_a_path_inside_stays_inside(steps: list[str]) -> None:
    name = "/".join(steps)
    leaves = any(posixpath.normpath("/".join(steps[:end])).startswith("..") for end in [len(steps)])
    if leaves:
        with pytest.raises(ValueError, match="leaves the image root"):
            inside(name)
    else:
        assert posixpath.normpath(posixpath.join("/root", inside(name))).startswith("/root")


@pytest.mark.parametrize(
    "name", ["/etc/passwd", r"\\server\share\x", "C:/x.jpg", "../x", "a/../../x", "a\0b"]
)
def test_a_path_that_leaves_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="leaves the image root"):
        inside(name)
