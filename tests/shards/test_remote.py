"""Splits in a bucket of a real S3 server: each byte crosses the network once, whatever goes
wrong on the way.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from mtl_ray import storage
from mtl_ray.shards import remote as remote_module
from mtl_ray.shards import write
from mtl_ray.shards.cache import FOLDER_VARIABLE, LIMIT_VARIABLE
from mtl_ray.shards.remote import ATTEMPTS
from mtl_ray.shards.split import Split, open_split
from tests.s3_server import S3Server
from tests.shards.flaky_proxy import FAULTS, FlakyProxy, flaky_proxy
from tests.shards.random_samples import assert_same
from tests.shards.splits import sample, write_split

SHARDS = [9, 12, 5]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(remote_module, "FIRST_WAIT_S", 0.001)
    return tmp_path / "cache"


@pytest.fixture
def uri(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(write, "BLOCK_ROWS", 4)
    return write_split(s3.folder(), SHARDS)


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyProxy]:
    with flaky_proxy(s3.endpoint) as found:
        fs = fsspec.filesystem("s3", endpoint_url=found.endpoint, use_listings_cache=False)
        monkeypatch.setattr(storage, "filesystem", lambda uri: (fs, uri.removeprefix("s3://")))
        yield found


def _check(split: Split) -> None:
    for row, each in enumerate(split.read(0, sum(SHARDS))):
        assert_same(each, sample(row))


@pytest.mark.parametrize("encoding", ["arrow", "tfrecord"])
def test_a_split_is_read_and_comes_from_the_cache_the_second_time(
    s3: S3Server,
    cache: Path,
    proxy: FlakyProxy,
    monkeypatch: pytest.MonkeyPatch,
    encoding: write.Encoding,
) -> None:
    monkeypatch.setattr(write, "BLOCK_ROWS", 4)
    uri = write_split(s3.folder(), SHARDS, encoding=encoding)
    for _ in range(2):
        _check(open_split(uri))
        assert len(list(open_split(uri).scan_classes("labels"))) == sum(SHARDS)
        assert sorted(proxy.ranges.values()) == [1, 1, 1]


def test_blocks_are_fetched_one_by_one_where_shards_are_large(
    cache: Path, uri: str, proxy: FlakyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_module, "WHOLE_SHARD_BYTES", 1000)
    split = open_split(uri)
    split.read_row(1, 0)
    assert sum(proxy.ranges.values()) == 1
    assert proxy.bytes_sent == split.manifest.block_bytes[1]
    _check(split)
    assert sum(proxy.ranges.values()) == len(split.block_rows)
    assert proxy.bytes_sent == split.manifest.block_bytes.sum()


def test_a_small_cache_is_not_filled_with_whole_shards(
    cache: Path, uri: str, proxy: FlakyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, "6000")
    split = open_split(uri)
    _check(split)
    assert sum(proxy.ranges.values()) == len(split.block_rows)
    assert sum(path.stat().st_size for path in cache.iterdir() if path.is_file()) <= 6000


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_overcome(cache: Path, uri: str, proxy: FlakyProxy, fault: str) -> None:
    split = open_split(uri)
    proxy.faults = [fault, fault]
    _check(split)
    assert not proxy.faults
    assert sum(proxy.ranges.values()) > len(SHARDS)


def test_many_faults_and_not_one_bad_sample(
    cache: Path, uri: str, proxy: FlakyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_module, "WHOLE_SHARD_BYTES", 0)
    # nearly nothing stays, so nearly every read is a request
    monkeypatch.setenv(LIMIT_VARIABLE, "3000")
    random = np.random.default_rng(0)
    split = open_split(uri)
    split_rows = [
        (block, row) for block, size in enumerate(split.block_rows) for row in range(size)
    ]
    for _ in range(4):
        split = open_split(uri)
        proxy.faults = [
            FAULTS[fault] if fault < len(FAULTS) else ""
            for fault in random.integers(0, 3 * len(FAULTS), 40)
        ]
        for index in random.permutation(len(split_rows)):
            assert_same(split.read_row(*split_rows[index]), sample(int(index)))
    assert sum(proxy.ranges.values()) > 40


def test_patience_has_an_end(cache: Path, uri: str, proxy: FlakyProxy) -> None:
    split = open_split(uri)
    proxy.faults = ["flipped"] * 100
    with pytest.raises(
        ValueError,
        match=r"train-00000\.arrow, bytes .* cannot be read as its manifest describes them: the content is not",  # noqa: E501
    ):
        split.read_row(0, 0)
    assert sum(proxy.ranges.values()) == ATTEMPTS
    proxy.faults = []
    _check(split)


def test_a_missing_shard_is_told_at_once(cache: Path, uri: str) -> None:
    split = open_split(uri)
    storage.remove(storage.join(uri, "train-00001.arrow"))
    with pytest.raises(ValueError, match=r"train-00001\.arrow is missing"):
        split.read_row(4, 0)
    with pytest.raises(ValueError, match=r"train-00001\.arrow is missing"):
        open_split(uri)


def test_a_damaged_copy_is_fetched_again(cache: Path, uri: str, proxy: FlakyProxy) -> None:
    _check(open_split(uri))
    for path in cache.iterdir():
        if path.is_file():
            data = bytearray(path.read_bytes())
            data[500] ^= 1
            path.write_bytes(data)
    _check(open_split(uri))
    assert sum(proxy.ranges.values()) == 2 * len(SHARDS)


def test_blocks_are_brought_near_before_they_are_needed(
    cache: Path, uri: str, proxy: FlakyProxy
) -> None:
    split = open_split(uri)
    split.prefetch(range(len(split.block_rows)))
    _check(split)
    assert sorted(proxy.ranges.values()) == [1, 1, 1]


READER = """
import sys
import numpy as np
from mtl_ray.shards.split import open_split
split = open_split(sys.argv[1])
order = np.random.default_rng(int(sys.argv[2])).permutation(len(split.block_rows))
print(sorted(sample.key for block in order for sample in split.read_block(int(block))))
"""


def _reader(uri: str, proxy: FlakyProxy, seed: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "AWS_ENDPOINT_URL": proxy.endpoint}
    return subprocess.Popen(
        [sys.executable, "-c", READER, uri, str(seed)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_share_what_each_fetches(cache: Path, uri: str, proxy: FlakyProxy) -> None:
    readers = [_reader(uri, proxy, seed) for seed in range(3)]
    expected = str([f"{row:05d}" for row in range(sum(SHARDS))]) + "\n"
    assert [reader.communicate(timeout=60)[0] for reader in readers] == [expected] * 3
    assert sorted(proxy.ranges.values()) == [1, 1, 1]


def test_a_process_killed_while_it_fetches_stops_nobody(
    cache: Path, uri: str, proxy: FlakyProxy
) -> None:
    proxy.faults = ["hang"]
    killed = _reader(uri, proxy, 0)
    assert proxy.hanging.wait(60)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    _check(open_split(uri))
