import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mtl_ray import storage
from mtl_ray.artifact import MANIFEST, open_artifact, publish
from tests.s3_server import S3Server


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes | Path]:
    weights = tmp_path / "weights"
    weights.write_bytes(b"w" * 10_000)
    return {"state.json": b"{}", "model.bin": weights}


@pytest.fixture(params=["local", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "artifact")
    server: S3Server = request.getfixturevalue("s3")
    return server.folder()


def test_what_was_published_is_read_back(
    uri: str, files: dict[str, bytes | Path], tmp_path: Path
) -> None:
    assert publish(uri, files, kind="checkpoint")
    artifact = open_artifact(uri, kind="checkpoint")
    assert artifact.names == ("model.bin", "state.json")
    assert artifact.read("state.json") == b"{}"
    artifact.fetch("model.bin", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"w" * 10_000


def test_a_second_one_changes_nothing(uri: str, files: dict[str, bytes | Path]) -> None:
    assert publish(uri, files, kind="checkpoint")
    assert not publish(uri, {"state.json": b"other"}, kind="checkpoint")
    assert open_artifact(uri, kind="checkpoint").read("state.json") == b"{}"


def test_a_writer_killed_before_the_manifest_leaves_no_artifact(
    uri: str, files: dict[str, bytes | Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(uri: str, data: bytes) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_new", killed)
        with pytest.raises(KeyboardInterrupt):
            publish(uri, files, kind="checkpoint")
    assert storage.exists(storage.join(uri, "model.bin"))
    with pytest.raises(ValueError, match=f"no whole checkpoint at .* {MANIFEST}"):
        open_artifact(uri, kind="checkpoint")
    assert publish(uri, files, kind="checkpoint")
    assert open_artifact(uri, kind="checkpoint").names == ("model.bin", "state.json")


def _take(uri: str, how: str, path: Path) -> None:
    artifact = open_artifact(uri, kind="checkpoint")
    if how == "read":
        artifact.read("model.bin")
    else:
        artifact.fetch("model.bin", path)


def _shorten(uri: str) -> None:
    storage.write(uri, storage.read(uri)[:-1])


def _change(uri: str) -> None:
    storage.write(uri, b"v" + storage.read(uri)[1:])


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            lambda uri: _shorten(storage.join(uri, "model.bin")),
            "model.bin has 9999 bytes, its manifest says 10000",
        ),
        (
            lambda uri: _change(storage.join(uri, "model.bin")),
            "model.bin does not have the content",
        ),
        (lambda uri: storage.remove(storage.join(uri, "model.bin")), "model.bin is missing"),
        (lambda uri: storage.remove(storage.join(uri, MANIFEST)), "it has no MANIFEST.json"),
        (lambda uri: _shorten(storage.join(uri, MANIFEST)), "the MANIFEST.json of .* is damaged"),
        (
            lambda uri: storage.write(storage.join(uri, MANIFEST), b"[" * 100_000),
            "the MANIFEST.json of .* is damaged",
        ),
        (lambda uri: storage.write(storage.join(uri, MANIFEST), b" " * (2 << 20)), "larger than"),
    ],
    ids=[
        "short",
        "changed",
        "missing",
        "no manifest",
        "short manifest",
        "nested manifest",
        "large manifest",
    ],
)
@pytest.mark.parametrize("take", ["read", "fetch"])
def test_damage_is_told_in_a_sentence(
    uri: str,
    files: dict[str, bytes | Path],
    tmp_path: Path,
    damage: Callable[[str], None],
    sentence: str,
    take: str,
) -> None:
    publish(uri, files, kind="checkpoint")
    damage(uri)
    with pytest.raises(ValueError, match=sentence):
        _take(uri, take, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_one_kind_is_not_taken_for_another(tmp_path: Path) -> None:
    publish(str(tmp_path / "a"), {"x": b""}, kind="bundle")
    with pytest.raises(ValueError, match="is a bundle, not a checkpoint"):
        open_artifact(str(tmp_path / "a"), kind="checkpoint")


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"format": "something"},
        {"kind": 3},
        {"files": []},
        {"files": {"../outside": {"bytes": 0, "sha256": "0" * 64}}},
        {"files": {"x": {"bytes": -1, "sha256": "0" * 64}}},
        {"files": {"x": {"bytes": True, "sha256": "0" * 64}}},
        {"files": {"x": {"bytes": 0, "sha256": "zz"}}},
    ],
    ids=str,
)
def test_a_forged_manifest_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    publish(str(tmp_path / "a"), {"x": b""}, kind="bundle")
    manifest = tmp_path / "a" / MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | change))
    with pytest.raises(ValueError, match="is damaged"):
        open_artifact(str(tmp_path / "a"), kind="bundle")


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", MANIFEST])
def test_names_that_could_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name"):
        publish(str(tmp_path / "a"), {name: b""}, kind="bundle")
    assert not (tmp_path / "a").exists()


def test_a_file_that_is_not_part_of_it(tmp_path: Path) -> None:
    publish(str(tmp_path / "a"), {"x": b""}, kind="bundle")
    with pytest.raises(ValueError, match="has no y; it has x"):
        open_artifact(str(tmp_path / "a"), kind="bundle").read("y")
