"""Damaged COCO files: the source and the reader of evaluation give samples, skipped items, or
one sentence.
"""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_ray.evaluation.coco_file import read_coco_file
from mtl_ray.geometry.masks import decode_rle
from mtl_ray.sources.image_reading import ImageRule, open_source
from mtl_ray.sources.object_configs import Coco
from mtl_ray.vocabulary import vocabulary_from_json, vocabulary_to_json
from tests.sources.test_fuzz_files import HEIGHT, JPEG, WIDTH, is_told, read_whole

SQUARE = [1, 1, 9, 1, 9, 9, 1, 9]
WHOLE: dict[str, Any] = {
    "info": {"year": 2020},
    "images": [
        {"id": 1, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH},
        {
            "id": 2,
            "file_name": "sub/b.jpg",
            "height": HEIGHT,
            "width": WIDTH,
            "coco_url": "http://x.org/train/b.jpg",
        },
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 1,
            "bbox": [1, 1, 8, 8],
            "area": 64,
            "iscrowd": 0,
            "segmentation": [SQUARE, SQUARE],
        },
        {
            "id": 2,
            "image_id": 1,
            "category_id": 2,
            "bbox": [1, 1, 2, 2],
            "keypoints": [1, 1, 2, 3, 3, 1],
            "num_keypoints": 2,
        },
        {
            "id": 3,
            "image_id": 2,
            "category_id": 2,
            "bbox": [0, 0, 1, 5],
            "iscrowd": 1,
            "segmentation": {"size": [HEIGHT, WIDTH], "counts": [0, 5, 187]},
        },
        {
            "id": 4,
            "image_id": 2,
            "category_id": 1,
            "bbox": [1, 1, 8, 8],
            "segmentation": {"size": [HEIGHT, WIDTH], "counts": "05k5"},
        },
    ],
    "categories": [
        {"id": 1, "name": "cat", "supercategory": "animal"},
        {
            "id": 2,
            "name": "dog",
            "supercategory": "cat",
            "keypoints": ["left eye", "right eye"],
            "skeleton": [[1, 2]],
        },
    ],
}
JUNK = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        7,
        0.5,
        1.0,
        1e18,
        -1e300,
        10**30,
        2**63,
        1 << 40,
        float("nan"),
        float("inf"),
        float("-inf"),
    ),
    *(
        "",
        " ",
        "1",
        "1.0",
        "nan",
        "1e400",
        "-3",
        "1_0",
        "x",
        "日本",
        "\0",
        "\ud800",
        "9" * 40,
        "../../etc/passwd",
        "/etc/passwd",
    ),
    *("..\\..\\a.jpg", "C:\\x\\a.jpg", "%61.jpg", ".", "..", "a.jpg", "http://x.org/%2e%2e/a.jpg"),
    *(
        [],
        {},
        [[]],
        [None],
        [[[]]],
        [1],
        [1, 2, 3, 4],
        ["1", "2", "3", "4"],
        [1e308] * 8,
        [[1e308] * 8],
        [[[1, 1], [5, 1], [5, 5]]],
    ),
    *(
        {"size": [1, 1], "counts": [1]},
        {"size": None, "counts": "~"},
        {"counts": {}},
        [{"id": 1, "name": "z"}],
        [[1, 9], [0, 5]],
        [["a", {}]],
    ),
)
Place = tuple[int | str, ...]


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """All places in a value but the value itself, those of numbers in lists too."""
    parts = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, part in parts:
        yield (*place, key)
        yield from places(part, (*place, key))


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, Any]:
    """The content with some of its fields gone, cut, doubled, or of another type."""
    content = copy.deepcopy(WHOLE)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.sampled_from(list(places(content)) or [("images",)]))
        parent: Any = content
        for step in place[:-1]:
            parent = parent[step]
        match draw(st.sampled_from(("gone", "junk", "junk", "text", "cut", "again", "within"))):
            case "gone":
                parent.pop(place[-1], *([None] if isinstance(parent, dict) else []))
            case "text":
                parent[place[-1]] = (
                    str(parent[place[-1]])
                    if isinstance(parent, list) or place[-1] in parent
                    else ""
                )
            case "cut" if isinstance(parent, list | dict) and isinstance(
                found := parent[place[-1]], list | str
            ):
                parent[place[-1]] = found[: draw(st.integers(0, len(found)))]
            case "again" if isinstance(parent, list):
                parent.append(copy.deepcopy(parent[place[-1]]))
            case "within":
                parent[place[-1]] = [parent[place[-1]]]
            case _:
                parent[place[-1]] = copy.deepcopy(draw(st.sampled_from(JUNK)))
    return content


def write(root: Path, data: bytes) -> None:
    (root / "train").mkdir(exist_ok=True)
    (root / "train" / "sub").mkdir(exist_ok=True)
    (root / "train.json").write_bytes(data)
    (root / "train" / "a.jpg").write_bytes(JPEG)
    (root / "train" / "sub" / "b.jpg").write_bytes(JPEG)


def is_told_in_evaluation(uri: Path) -> None:
    """Reads an annotation file as evaluation does; only a ValueError of one sentence may come
    out.
    """
    try:
        file = read_coco_file(str(uri))
    except ValueError as error:
        told = str(error)
    else:
        assert vocabulary_from_json(vocabulary_to_json(file.vocabulary)) == file.vocabulary
        return
    assert told
    assert "\n" not in told


@given(content=damaged(), needed=st.booleans())
@settings(max_examples=300, deadline=None)
def test_damaged_fields(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any], needed: bool
) -> None:
    root = tmp_path_factory.mktemp("damaged")
    write(root, json.dumps(content).encode())
    is_told(Coco(root=str(root), split="train"), ImageRule(needed=needed))
    is_told_in_evaluation(root / "train.json")


TEXT = json.dumps(WHOLE).encode()


@pytest.mark.parametrize(
    "data",
    [
        *(TEXT.decode().encode(encoding) for encoding in ("utf-16", "utf-8-sig", "utf-32")),
        *(TEXT[:cut] for cut in range(0, len(TEXT), 97)),
        *(
            b"[" * 10_000,
            b'{"images": ' * 10_000,
            TEXT.replace(b"[1, 1, 8, 8]", b"[" * 10_000 + b"]" * 10_000),
        ),
        *(
            TEXT.replace(b"[1, 1, 8, 8]", b'[{"a":' * depth + b"1" + b"}]" * depth)
            for depth in (60, 400, 900)
        ),
        TEXT.replace(b"cat", b"c\xe4t"),
        TEXT.replace(b'"area": 64', b'"area": ' + b"9" * 5000),
        b"",
        b"null",
        b"\0" * 100,
        TEXT + b"\0" * 100,
        b"\xff\xfe",
    ],
    ids=lambda data: f"{data[:12]!r}-{len(data)}",
)
def test_damaged_texts(tmp_path: Path, data: bytes) -> None:
    write(tmp_path, data)
    is_told(Coco(root=str(tmp_path), split="train"), ImageRule())
    is_told_in_evaluation(tmp_path / "train.json")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_whole_file(tmp_path: Path, encoding: str) -> None:
    write(tmp_path, json.dumps(WHOLE).encode(encoding))
    source = open_source(Coco(root=str(tmp_path), split="train"))
    read_whole(source)
    readings = [source.read(index) for index in range(len(source))]
    assert [len(sample.instances or ()) for sample, _ in readings if sample] == [2, 2]
    assert [item for _, items in readings for item in items] == []
    first = readings[0][0]
    assert first is not None
    assert first.instances is not None
    assert first.instances.masks is not None
    assert decode_rle(first.instances.masks[0], HEIGHT, WIDTH).sum() == 64
    assert len(read_coco_file(str(tmp_path / "train.json")).samples) == 2
