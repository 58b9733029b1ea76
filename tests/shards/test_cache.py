"""The cache on the disk: bounded, shared by processes, and not harmed when they are killed."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mtl_ray.shards.cache import Cache, default_cache


def _never() -> bytes:
    raise AssertionError("this should come from the cache")


def _of(size: int) -> Callable[[], bytes]:
    return lambda: b"x" * size


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_what_was_fetched_once_is_there(tmp_path: Path) -> None:
    assert bytes(Cache(tmp_path, 100).get("a", lambda: b"123")) == b"123"
    assert bytes(Cache(tmp_path, 100).get("a", _never)) == b"123"
    assert "a" in Cache(tmp_path, 100)


def test_the_least_recently_used_makes_room(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 30)
    for age, key in enumerate("abc"):
        cache.get(key, _of(10))
        os.utime(tmp_path / key, (1000 + age, 1000 + age))
    cache.get("a", _never)
    cache.get("d", _of(15))
    assert _files(tmp_path) == ["a", "d"]


def test_it_never_holds_more_than_its_limit(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 100)
    for number in range(1, 50):
        cache.get(f"k{number}", _of(number))
        assert sum((tmp_path / name).stat().st_size for name in _files(tmp_path)) <= 100


def test_a_view_outlives_its_file(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 10)
    view = cache.get("a", lambda: b"0123456789")
    cache.get("b", _of(10))
    assert _files(tmp_path) == ["b"]
    assert bytes(view) == b"0123456789"


def test_of_many_that_want_it_one_fetches(tmp_path: Path) -> None:
    fetched: list[int] = []

    def fetch() -> bytes:
        fetched.append(1)
        time.sleep(0.05)
        return b"123"

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: bytes(Cache(tmp_path, 100).get("a", fetch)), range(16)))
    assert found == [b"123"] * 16
    assert len(fetched) == 1


def test_a_failed_fetch_leaves_nothing_and_may_be_repeated(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 100)
    with pytest.raises(AssertionError):
        cache.get("a", _never)
    assert _files(tmp_path) == []
    assert bytes(cache.get("a", lambda: b"123")) == b"123"


def test_what_killed_writers_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".abandoned").write_bytes(b"x" * 10)
    (tmp_path / ".in-the-making").write_bytes(b"x" * 10)
    os.utime(tmp_path / ".abandoned", (1000, 1000))
    Cache(tmp_path, 100).get("a", _of(10))
    assert _files(tmp_path) == [".in-the-making", "a"]


def test_the_environment_says_where_and_how_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTL_RAY_CACHE", str(tmp_path / "here"))
    monkeypatch.setenv("MTL_RAY_CACHE_BYTES", "1234")
    assert default_cache().limit_bytes == 1234
    assert (tmp_path / "here").stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("MTL_RAY_CACHE_BYTES", "much")
    with pytest.raises(
        ValueError, match="MTL_RAY_CACHE_BYTES must be a number of bytes, not 'much'"
    ):
        default_cache()
    monkeypatch.delenv("MTL_RAY_CACHE_BYTES")
    assert 0 < default_cache().limit_bytes <= 50 << 30


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(
        ValueError, match=r"cannot take 3 bytes \(No space left on device\); set MTL_RAY_CACHE"
    ):
        Cache(tmp_path, 100).get("a", lambda: b"123")
