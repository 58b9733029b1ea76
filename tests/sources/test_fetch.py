"""Downloads from a server that breaks off, lies, fails and forgets: whole and checked, or an
error and a part to go on from.
"""

import base64
import fcntl
import hashlib
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_ray.sources.downloads.fetch import FetchError, RetryPolicy, Wanted, fetch
from tests.sources.bad_server import BadServer, Page, bad_server

DATA = np.random.default_rng(0).bytes(1_000_000)
QUICK = RetryPolicy(attempts=3, timeout_s=5, pause_s=0.001)


def sha256(data: bytes = DATA) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def get(server: BadServer, folder: Path, path: str = "/a.bin", **options: object) -> bool:
    return fetch(Wanted(path="a.bin", urls=(server.url + path,), **options), folder, QUICK)  # type: ignore[arg-type]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_whole_and_checked(tmp_path: Path) -> None:
    counted: list[int] = []
    with bad_server(a_bin=Page(DATA)) as server:
        wanted = Wanted(
            path="sub/a.bin", urls=(f"{server.url}/a.bin",), size=len(DATA), digest=sha256()
        )
        assert fetch(wanted, tmp_path, QUICK, counted.append)
        assert not fetch(wanted, tmp_path, QUICK)
        assert server.asked["/a.bin"] == 1
    assert sum(counted) == len(DATA)
    assert (tmp_path / "sub" / "a.bin").read_bytes() == DATA
    assert names(tmp_path / "sub") == {"a.bin", "a.bin.sha256"}
    assert (tmp_path / "sub" / "a.bin.sha256").read_text() == f"{sha256()[7:]}  a.bin\n"


@pytest.mark.parametrize("digest", [None, sha256()])
@pytest.mark.parametrize("chunked", [False, True])
def test_goes_on_where_it_broke_off(tmp_path: Path, digest: str | None, chunked: bool) -> None:
    with bad_server(a_bin=Page(DATA, break_after=300_000, chunked=chunked)) as server:
        assert get(server, tmp_path, digest=digest)
        assert [asked for asked in server.ranges if asked][:3] == [
            "bytes=300000-",
            "bytes=600000-",
            "bytes=900000-",
        ]
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_goes_on_in_another_run(tmp_path: Path) -> None:
    with bad_server(a_bin=Page(DATA, break_after=300_000)) as server:
        server.pages["/a.bin"].ranges = False  # so that it cannot be completed
        with pytest.raises(FetchError, match="broke off after 300,000 of 1,000,000 bytes"):
            get(server, tmp_path)
        assert names(tmp_path) >= {"a.bin.part"}
        assert "a.bin" not in names(tmp_path)
        server.pages["/a.bin"] = Page(DATA)
        server.ranges.clear()
        assert get(server, tmp_path)
        assert server.ranges[0] == "bytes=300000-"
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert names(tmp_path) == {"a.bin", "a.bin.sha256"}


def test_a_server_without_ranges(tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(DATA[:1000])
    with bad_server(a_bin=Page(DATA, ranges=False)) as server:
        assert get(server, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == DATA


@pytest.mark.parametrize("end", ["416", "416 alone", "206"])
@pytest.mark.parametrize("there", [0, 1000, len(DATA), len(DATA) + 1])
def test_ways_to_say_that_there_is_no_more(tmp_path: Path, end: Any, there: int) -> None:
    if there:
        (tmp_path / "a.bin.part").write_bytes((DATA + b"x")[:there])
    with bad_server(a_bin=Page(DATA, end=end)) as server:
        assert get(server, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_another_version_is_fetched_from_the_start(tmp_path: Path) -> None:
    other = DATA[::-1]
    with bad_server(a_bin=Page(other, break_after=300_000, ranges=False)) as server:
        with pytest.raises(FetchError):
            get(server, tmp_path)
        server.pages["/a.bin"] = Page(DATA)
        assert get(server, tmp_path)
        server.pages["/a.bin"] = Page(DATA + b"more")
        (tmp_path / "a.bin").unlink()
        (tmp_path / "a.bin.part").write_bytes(DATA[:10])
        (tmp_path / "a.bin.part.json").write_text(
            '{"url": "another", "total": 1000000, "tag": null}'
        )
        assert get(server, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == DATA + b"more"


def test_fails_for_a_while(tmp_path: Path) -> None:
    with bad_server(a_bin=Page(DATA, failures=[500, 503])) as server:
        assert get(server, tmp_path)
        server.pages["/a.bin"].failures = [500] * 9
        (tmp_path / "a.bin").unlink()
        with pytest.raises(FetchError, match="answers 500"):
            get(server, tmp_path)
        assert len(server.pages["/a.bin"].failures) == 6
    assert "a.bin" not in names(tmp_path)


def test_what_is_not_there_is_asked_for_once(tmp_path: Path) -> None:
    with bad_server() as server:
        with pytest.raises(FetchError, match="answers 404"):
            get(server, tmp_path)
        assert server.asked["/a.bin"] == 1


@pytest.mark.parametrize("known", [{}, {"size": len(DATA)}, {"digest": sha256()}])
@pytest.mark.parametrize("stated", [900_000, 1_100_000])
def test_lies_about_the_length(tmp_path: Path, stated: int, known: dict[str, object]) -> None:
    with bad_server(a_bin=Page(DATA, stated=stated)) as server, pytest.raises(FetchError):
        get(server, tmp_path, **known)
    assert "a.bin" not in names(tmp_path)


def test_another_content(tmp_path: Path) -> None:
    with bad_server(a_bin=Page(b"x" * len(DATA))) as server:
        with pytest.raises(FetchError, match="do not have the checksum"):
            get(server, tmp_path, digest=sha256())
        assert "a.bin.part" not in names(tmp_path)
        with pytest.raises(FetchError, match="has 1,000,000 bytes, the file 7"):
            get(server, tmp_path, size=7)


def test_the_digest_that_the_server_states(tmp_path: Path) -> None:
    right = b"sha-256=:" + base64.b64encode(hashlib.sha256(DATA).digest()) + b":"
    wrong = b"sha-256=:" + base64.b64encode(hashlib.sha256(b"").digest()) + b":"
    with bad_server(a_bin=Page(DATA, digest=wrong)) as server:
        with pytest.raises(FetchError, match="do not have the checksum sha256:e3b0c442"):
            get(server, tmp_path)
        server.pages["/a.bin"].digest = right
        assert get(server, tmp_path)


def test_a_part_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"from elsewhere")
    with bad_server(a_bin=Page(DATA)) as server:
        assert get(server, tmp_path, digest=sha256())
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_a_whole_file_from_elsewhere_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(DATA)
    with bad_server(a_bin=Page(DATA)) as server:
        assert not get(server, tmp_path, digest=sha256())
        assert server.asked["/a.bin"] == 0
        assert get(server, tmp_path)
        assert server.ranges[0] == "bytes=1000000-"
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_the_next_place_is_asked(tmp_path: Path) -> None:
    with bad_server(a_bin=Page(b"x" * len(DATA)), b_bin=Page(DATA, failures=[500])) as server:
        urls = (f"{server.url}/none", f"{server.url}/a.bin", f"{server.url}/b.bin")
        assert fetch(Wanted(path="a.bin", urls=urls, digest=sha256()), tmp_path, QUICK)
    assert (tmp_path / "a.bin").read_bytes() == DATA


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_no_other_kinds_of_addresses(tmp_path: Path, place: str) -> None:
    with pytest.raises(FetchError, match="http"):
        fetch(Wanted(path="a.bin", urls=(place,)), tmp_path, QUICK)
    with bad_server(a_bin=Page(redirect=place)) as server, pytest.raises(FetchError):
        get(server, tmp_path)
    assert "a.bin" not in names(tmp_path)


def test_redirects_are_followed(tmp_path: Path) -> None:
    with bad_server(a_bin=Page(redirect="/b.bin"), b_bin=Page(DATA)) as server:
        assert get(server, tmp_path)


def test_nobody_there_and_nobody_answering(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.bin"
        with pytest.raises(FetchError, match="timed out"):
            fetch(
                Wanted(path="a.bin", urls=(url,)),
                tmp_path,
                RetryPolicy(attempts=1, timeout_s=0.2, pause_s=0),
            )
    with pytest.raises(FetchError, match="refused"):
        fetch(
            Wanted(path="a.bin", urls=(url,)),
            tmp_path,
            RetryPolicy(attempts=1, timeout_s=5, pause_s=0),
        )


def test_two_at_once(tmp_path: Path) -> None:
    with open(tmp_path / "a.bin.part.lock", "w") as lock, bad_server(a_bin=Page(DATA)) as server:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(FetchError, match="another download"):
            get(server, tmp_path)
