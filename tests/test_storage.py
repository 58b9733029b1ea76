import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from mtl_ray import storage
from tests.s3_server import KEY, S3Server


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place, on the disk and in a bucket."""
    if request.param == "local":
        return str(tmp_path / "folder")
    server: S3Server = request.getfixturevalue("s3")
    return server.folder()


def test_bytes_come_back_whole_and_in_ranges(folder: str) -> None:
    uri = storage.join(folder, "a", "b.bin")
    storage.write(uri, b"0123456789")
    storage.write(uri, b"abcdefghij")
    assert storage.read(uri) == b"abcdefghij"
    assert storage.read(uri, 2, 5) == b"cde"
    assert storage.size(uri) == 10
    assert storage.exists(uri)
    assert storage.exists(storage.join(folder, "a"))
    assert not storage.exists(storage.join(folder, "c"))


@pytest.mark.parametrize("missing", [storage.read, storage.size], ids=["read", "size"])
def test_what_is_not_there_is_a_file_not_found(
    folder: str, missing: Callable[[str], object]
) -> None:
    with pytest.raises(FileNotFoundError):
        missing(storage.join(folder, "nothing"))


def test_write_new_leaves_alone_what_is_there(folder: str) -> None:
    uri = storage.join(folder, "once")
    assert storage.write_new(uri, b"first")
    assert not storage.write_new(uri, b"second")
    assert storage.read(uri) == b"first"


def test_of_many_writers_at_once_exactly_one_succeeds(folder: str) -> None:
    uri = storage.join(folder, "once")
    with ThreadPoolExecutor(8) as threads:
        won = list(
            threads.map(lambda number: storage.write_new(uri, str(number).encode()), range(24))
        )
    assert won.count(True) == 1
    assert storage.read(uri) == str(won.index(True)).encode()


def test_listings_show_what_others_just_wrote(folder: str) -> None:
    assert storage.names(folder) == []
    assert storage.sizes(folder) == {}
    storage.write(storage.join(folder, "b"), b"12")
    assert storage.names(folder) == ["b"]
    storage.write(storage.join(folder, "a"), b"1")
    storage.write(storage.join(folder, "deep", "c"), b"123")
    assert storage.names(folder) == ["a", "b", "deep"]
    assert storage.sizes(folder) == {"a": 1, "b": 2}
    assert list(storage.files(folder)) == [
        storage.join(folder, name) for name in ("a", "b", "deep/c")
    ]


def test_listings_follow_links(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "deep" / "file").write_bytes(b"123")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, goal in {
        "link": "../elsewhere",
        "again": "../elsewhere/deep",
        "file": "../elsewhere/deep/file",
        "broken": "nowhere",
        "loop": "loop",
        "up": "..",
        "same": ".",
    }.items():
        (folder / name).symlink_to(goal)
    uri = str(folder)
    assert storage.folders(uri) == ["again", "link", "same", "up"]
    assert storage.sizes(uri)["file"] == 3
    found = [name.removeprefix(f"{uri}/") for name in storage.files(uri)]
    assert [name for name in found if not name.startswith("up/")] == [
        *("again/file", "broken", "file", "link/deep/file", "loop")
    ], "what leads nowhere is a file that cannot be read"
    assert [name for name in found if name.startswith("up/")] == ["up/elsewhere/deep/file"]
    storage.remove(storage.join(uri))
    assert (tmp_path / "elsewhere" / "deep" / "file").exists()


def test_remove_takes_a_folder_with_all_that_is_in_it(folder: str) -> None:
    storage.write(storage.join(folder, "deep", "c"), b"123")
    storage.remove(storage.join(folder, "deep"))
    storage.remove(storage.join(folder, "nothing"))
    assert list(storage.files(folder)) == []


@pytest.mark.parametrize("size", [0, 1000, 120 << 20], ids=["empty", "small", "multipart"])
def test_files_travel_whole(folder: str, tmp_path: Path, size: int) -> None:
    source, back = tmp_path / "source", tmp_path / "deep" / "back"
    source.write_bytes(os.urandom(size))
    storage.upload(source, storage.join(folder, "file"))
    storage.download(storage.join(folder, "file"), back)
    assert back.read_bytes() == source.read_bytes()
    assert storage.names(folder) == ["file"]
    assert [path.name for path in back.parent.iterdir()] == ["back"]


def test_a_file_in_the_making_is_not_there_until_it_is_whole(folder: str) -> None:
    uri = storage.join(folder, "file")
    with storage.writing(uri) as path:
        path.write_bytes(b"whole")
        assert not storage.exists(uri)
    assert storage.read(uri) == b"whole"


def test_a_failed_writer_leaves_nothing(folder: str) -> None:
    def fail() -> None:
        with storage.writing(storage.join(folder, "file")) as path:
            path.write_bytes(b"half")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    assert storage.names(folder) == []


def _with_options(monkeypatch: pytest.MonkeyPatch, **options: object) -> None:
    fs = fsspec.filesystem("s3", use_listings_cache=False, **options)
    monkeypatch.setattr(storage, "filesystem", lambda uri: (fs, uri.removeprefix("s3://")))


@pytest.mark.parametrize("ask", [storage.read, storage.size, storage.exists, storage.names])
def test_a_wrong_secret_is_told(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, ask: Callable[[str], object]
) -> None:
    storage.write(uri := storage.join(s3.folder(), "file"), b"1")
    _with_options(monkeypatch, key=KEY, secret="wrong")
    with pytest.raises(PermissionError, match=f"access to {uri} is refused"):
        ask(uri)


def test_a_server_that_is_not_there_is_told(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    _with_options(
        monkeypatch,
        endpoint_url="http://127.0.0.1:9",
        config_kwargs={"retries": {"total_max_attempts": 1}},
    )
    with pytest.raises(ConnectionError, match="s3://tests/file cannot be reached"):
        storage.read("s3://tests/file")
    with pytest.raises(ConnectionError, match="s3://tests/file cannot be reached"):
        storage.remove("s3://tests/file")
    with pytest.raises(ConnectionError, match=r"http://127\.0\.0\.1:9/file cannot be reached"):
        storage.exists("http://127.0.0.1:9/file")


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://bucket/a/", "s3://bucket/a"),
        ("file:///a/b", "/a/b"),
        ("/a/b", "/a/b"),
        ("a/b", f"{os.getcwd()}/a/b"),
    ],
)
def test_absolute(uri: str, expected: str) -> None:
    assert storage.absolute(uri) == expected


@pytest.mark.parametrize(
    ("uri", "expected"),
    [("s3://bucket/a", True), ("file:///a", False), ("/a", False), ("a", False), ("C:/a", False)],
)
def test_is_remote(uri: str, expected: bool) -> None:
    assert storage.is_remote(uri) is expected


def test_names_that_look_like_patterns(folder: str) -> None:
    names = ["road [v2]", "road v", "r*", "what?", "100 % #1", "50%41", "{a,b}", "日本 é"]
    for name in names:
        storage.write(storage.join(folder, name, "deep [x]", "f [1].txt"), name.encode())
    assert storage.names(folder) == sorted(names)
    for name in names:
        place = storage.join(folder, name)
        (uri,) = storage.files(place)
        assert uri == storage.join(place, "deep [x]", "f [1].txt")
        assert storage.read(uri) == storage.read(uri, 0, 99) == name.encode()
        assert storage.sizes(storage.join(place, "deep [x]")) == {"f [1].txt": len(name.encode())}
    for at, name in enumerate(names):
        storage.remove(storage.join(folder, name))
        # S3 here keeps names of empty folders
        left = [other for other in names if list(storage.files(storage.join(folder, other)))]
        assert left == names[at + 1 :], name


def test_there_is_no_folder_below_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"a")
    below = storage.join(str(file), "folder")
    assert storage.names(below) == []
    assert storage.sizes(below) == {}
