"""Splits as they are written, opened and read; the sentences for what is wrong with them."""

import json
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtl_ray import storage
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.shards import split as split_module
from mtl_ray.shards import write
from mtl_ray.shards.manifest import MANIFEST, Encoding
from mtl_ray.shards.split import Split, open_split
from tests.shards.random_samples import assert_same
from tests.shards.splits import VOCABULARY, sample, write_split

ENCODINGS = pytest.mark.parametrize("encoding", ["arrow", "tfrecord"])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "BLOCK_ROWS", 4)


@ENCODINGS
def test_a_split_is_read_at_random_and_in_order(tmp_path: Path, encoding: Encoding) -> None:
    split = open_split(write_split(tmp_path / "s", [9, 1, 6], encoding=encoding))
    assert split.num_samples == 16
    assert split.vocabulary == VOCABULARY
    assert split.block_rows.tolist() == [4, 4, 1, 1, 4, 2]
    assert_same(split.read_row(2, 0), sample(8))
    assert [row.key for row in split.read_block(4)] == ["00010", "00011", "00012", "00013"]
    for start, stop in [(0, 16), (3, 11), (8, 9), (5, 5), (14, 99)]:
        found = list(split.read(start, stop))
        assert len(found) == max(min(stop, 16) - start, 0)
        for row, each in enumerate(found, start):
            assert_same(each, sample(row))


@ENCODINGS
def test_a_split_travels_to_other_processes_and_is_shared_by_threads(
    tmp_path: Path, encoding: Encoding
) -> None:
    split = pickle.loads(
        pickle.dumps(open_split(write_split(tmp_path / "s", [40], encoding=encoding)))
    )
    start = threading.Barrier(4)

    def read(thread: int) -> list[str]:
        start.wait()
        return [
            split.read_row(row // 4, row % 4).key
            for row in np.random.default_rng(thread).permutation(40)
        ]

    with ThreadPoolExecutor(4) as threads:
        for keys in threads.map(read, range(4)):
            assert sorted(keys) == [f"{row:05d}" for row in range(40)]


def test_more_blocks_than_are_kept_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_module, "MAX_OPEN_BLOCKS", 2)
    split = open_split(write_split(tmp_path / "s", [40]))
    order = np.random.default_rng(0).permutation(40)
    assert [split.read_row(row // 4, row % 4).key for row in order] == [
        f"{row:05d}" for row in order
    ]


@ENCODINGS
def test_classes_are_scanned(tmp_path: Path, encoding: Encoding) -> None:
    split = open_split(write_split(tmp_path / "s", [5, 3], encoding=encoding))
    assert [row.tolist() for row in split.scan_classes("labels")] == [
        [0],
        [1],
        [2],
        [0],
        [1],
        [2],
        [0],
        [1],
    ]
    assert [row.tolist() for row in split.scan_classes("instances")] == [
        [],
        [0],
        [],
        [0, 1, 0],
        [],
        [0],
        [],
        [0, 1, 0],
    ]


@ENCODINGS
def test_classes_of_semantic_maps_are_scanned(tmp_path: Path, encoding: Encoding) -> None:
    Image.fromarray(np.array([[2, 255], [0, 2]], np.uint8)).save(tmp_path / "map.png")
    rows = [sample(0).with_annotations(semantic=(tmp_path / "map.png").read_bytes()), sample(1)]
    entry = write.write_shard(str(tmp_path / "s"), "train-00000", rows, encoding=encoding)
    write.publish_manifest(
        str(tmp_path / "s"),
        [entry],
        name="train",
        encoding=encoding,
        vocabulary=VOCABULARY,
        shuffled=True,
        provenance={},
    )
    assert [row.tolist() for row in open_split(str(tmp_path / "s")).scan_classes("semantic")] == [
        [0, 2],
        [],
    ]


def test_blocks_are_bounded_in_rows_and_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "BLOCK_BYTES", 1000)
    rows = [sample(row, size) for row, size in enumerate([10, 10, 10, 10, 10, 900, 200, 5000, 10])]
    assert write.write_shard(str(tmp_path), "x", rows).block_rows == (4, 2, 1, 1, 1)


def test_a_sample_may_be_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "MAX_SAMPLE_BYTES", 1000)
    with pytest.raises(ValueError, match="00003 takes 1001 bytes"):
        write.write_shard(str(tmp_path), "x", [sample(2), sample(3, 1001)])
    assert storage.names(str(tmp_path)) == []


@ENCODINGS
def test_a_writer_that_fails_leaves_no_shard(tmp_path: Path, encoding: Encoding) -> None:
    def rows() -> object:
        yield sample(0)
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write.write_shard(str(tmp_path), "x", rows(), encoding=encoding)  # type: ignore[arg-type]
    assert storage.names(str(tmp_path)) == []


@ENCODINGS
def test_a_shard_without_samples(tmp_path: Path, encoding: Encoding) -> None:
    split = open_split(write_split(tmp_path / "s", [0, 3, 0], encoding=encoding))
    assert [row.key for row in split.read(0, 9)] == ["00000", "00001", "00002"]


def test_class_counts_are_written_beside_the_manifest(tmp_path: Path) -> None:
    uri = write_split(tmp_path / "s", [5, 3])
    assert json.loads((Path(uri) / write.CLASS_COUNTS).read_text()) == {
        "labels": {"images": {"cat": 3, "dog": 3, "eel": 2}},
        "instances": {"images": {"car": 4, "bus": 2}, "instances": {"car": 6, "bus": 2}},
    }


@ENCODINGS
def test_the_same_samples_make_the_same_bytes(tmp_path: Path, encoding: Encoding) -> None:
    one, other = (
        Path(write_split(tmp_path / name, [9, 4], encoding=encoding)) for name in ("a", "b")
    )
    assert sorted(path.name for path in one.iterdir()) == sorted(
        path.name for path in other.iterdir()
    )
    assert all(path.read_bytes() == (other / path.name).read_bytes() for path in one.iterdir())


def test_written_again_is_no_error_and_another_split_is(tmp_path: Path) -> None:
    uri = write_split(tmp_path / "s", [5])
    before = (tmp_path / "s" / MANIFEST).read_bytes()
    write_split(tmp_path / "s", [5])
    with pytest.raises(ValueError, match="there is another split at"):
        write.publish_manifest(
            uri, [], name="train", vocabulary=VOCABULARY, shuffled=True, provenance={}
        )
    assert (tmp_path / "s" / MANIFEST).read_bytes() == before


def _edit(**changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / MANIFEST).read_text())
        for path, value in changes.items():
            *parents, last = path.split("__")
            inner = content
            for name in parents:
                inner = inner[name]
            inner[last] = value
        (folder / MANIFEST).write_text(json.dumps(content))

    return edit


def _flip(offset: int) -> Callable[[Path], None]:
    def flip(folder: Path) -> None:
        data = bytearray((folder / "train-00001.arrow").read_bytes())
        data[offset] ^= 1
        (folder / "train-00001.arrow").write_bytes(data)

    return flip


def _cut(name: str, length: int) -> Callable[[Path], None]:
    return lambda folder: (
        (folder / name).write_bytes((folder / name).read_bytes()[:length]) and None
    )


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (
        lambda folder: (folder / MANIFEST).unlink(),
        "there is no split at .*s: it has no manifest.json",
    ),
    "no folder": (
        lambda folder: folder.rename(folder.with_name("elsewhere")),
        "there is no split at .*s: it has no manifest.json",
    ),
    "empty manifest": (_cut(MANIFEST, 0), "the manifest.json of .*s is damaged"),
    "manifest cut short": (_cut(MANIFEST, 700), "the manifest.json of .*s is damaged"),
    "not a manifest": (
        lambda folder: (folder / MANIFEST).write_text("[]"),
        "is damaged: its format is not",
    ),
    "deep manifest": (lambda folder: (folder / MANIFEST).write_text("[" * 99999), "is damaged"),
    "bytes for text": (lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe{"), "is damaged"),
    "later version": (
        _edit(version=2),
        "is damaged: its version 2 is not one that this program reads",
    ),
    "other encoding": (_edit(encoding="parquet"), "neither arrow nor tfrecord"),
    "path in a name": (
        _edit(shards__name="../../etc/passwd train-00001.arrow"),
        "something else than names of files",
    ),
    "hidden name": (
        _edit(shards__name=".ssh train-00001.arrow"),
        "something else than names of files",
    ),
    "short hash": (
        _edit(shards__sha256="ab cd"),
        "something else than names of files or checksums",
    ),
    "missing hash": (_edit(shards__sha256="0" * 64), "not of one length"),
    "missing shard": (_edit(shards__rows="9"), "not of one length"),
    "other number of rows": (_edit(rows=16), "the rows of its blocks do not add up"),
    "rows moved": (_edit(blocks__rows="4 4 2 4 1"), "the rows of its blocks do not add up"),
    "empty block": (_edit(blocks__rows="4 5 0 4 2"), "the rows of its blocks do not add up"),
    "negative": (_edit(blocks__offset="-8 1 1 1 1"), "negative or too large"),
    "huge": (_edit(blocks__offset="99999999999999999999999 1 1 1 1"), "negative or too large"),
    "no number": (_edit(blocks__offset="1 2 x 3 4"), "is damaged"),
    "beyond the end": (
        _edit(blocks__bytes="99999999 1 1 1 1"),
        "reaches beyond the end of its shard",
    ),
    "number for a list": (_edit(blocks=3), "'blocks' is missing or not of type dict"),
    "bad vocabulary": (
        _edit(vocabulary__classes={"smells": ["x"]}),
        "unknown kind of annotation 'smells'",
    ),
    "missing file": (
        lambda folder: (folder / "train-00001.arrow").unlink(),
        "does not match its manifest: train-00001.arrow is missing",
    ),
    "file cut short": (
        _cut("train-00001.arrow", 3000),
        "train-00001.arrow has 3000 bytes instead of",
    ),
    "file of another run": (
        _flip(3000),
        "train-00001.arrow, bytes from .* does not have the content that its manifest says",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_told_in_a_sentence(tmp_path: Path, name: str) -> None:
    damage, sentence = DAMAGE[name]
    uri = write_split(tmp_path / "s", [9, 6])
    assert len(list(open_split(uri).read(0, 15))) == 15
    damage(Path(uri))
    with pytest.raises(ValueError, match=sentence):
        list(open_split(uri).read(0, 15))


@pytest.mark.parametrize("name", ["missing file", "file cut short", "file of another run"])
def test_many_shards_are_checked_when_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(split_module, "MAX_CHECKED_AT_OPEN", 1)
    uri = write_split(tmp_path / "s", [9, 6])
    DAMAGE[name][0](Path(uri))
    split = open_split(uri)
    assert len(list(split.read(0, 9))) == 9
    with pytest.raises(ValueError, match=r"train-00001\.arrow"):
        split.read_row(3, 0)


def test_a_checksum_of_the_whole_file_is_kept(tmp_path: Path) -> None:
    import hashlib

    split = open_split(write_split(tmp_path / "s", [9, 6]))
    found = [split.manifest.shard_sha256[shard] for shard in range(2)]
    assert found == [
        hashlib.sha256((tmp_path / "s" / name).read_bytes()).hexdigest()
        for name in split.manifest.shard_names
    ]


def test_everything_about_a_vocabulary_is_kept(tmp_path: Path) -> None:
    vocabulary = Vocabulary(
        classes={"instances": ("a",), "semantic": ("sky", "c\u00f6te")},
        exclusive_labels=True,
        keypoints=("left", "right", "nose"),
        skeleton=((0, 2), (1, 2)),
        mirror=(1, 0, 2),
        colours={"semantic": ((1, 2, 3), (255, 0, 9))},
        category_ids={"instances": (90,)},
    )
    entry = write.write_shard(str(tmp_path), "x", [sample(0)])
    write.publish_manifest(
        str(tmp_path),
        [entry],
        name="x",
        vocabulary=vocabulary,
        shuffled=False,
        provenance={"a": [1, None]},
    )
    split = open_split(str(tmp_path))
    assert split.vocabulary == vocabulary
    assert (split.manifest.name, split.manifest.shuffled, split.manifest.provenance) == (
        "x",
        False,
        {"a": [1, None]},
    )


def _keys(rows: list[Sample]) -> list[str]:
    return [row.key for row in rows]


def test_an_open_split_is_not_disturbed_by_a_new_one_in_its_place(tmp_path: Path) -> None:
    split: Split = open_split(write_split(tmp_path / "s", [4, 4]))
    split.read_row(0, 0)
    write_split(tmp_path / "t", [4])
    (tmp_path / "t" / "train-00000.arrow").replace(tmp_path / "s" / "train-00000.arrow")
    assert _keys(split.read_block(0)) == ["00000", "00001", "00002", "00003"]


@ENCODINGS
def test_outlines_are_the_samples_but_for_their_bytes(encoding: Encoding, tmp_path: Path) -> None:
    split = open_split(write_split(tmp_path, [5, 3], encoding=encoding))
    outlines = list(split.scan_outlines())
    assert len(outlines) == 8
    for outline, whole in zip(outlines, split.read(0, 8), strict=True):
        assert_same(outline.with_image(data=whole.inputs["image"].data), whole)
