"""Archives: what is in them arrives; what would lie elsewhere, links, devices and bombs leave
nothing.
"""

import gzip
import io
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_ray.sources.downloads.unpack import DamagedError, safe_path, unpack

FILES = {"a/one.txt": b"1" * 1000, "a/b/two.txt": b"22", "three.txt": b""}


def make_zip(path: Path, files: dict[str, bytes] = FILES) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/", b"")
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make_tar(path: Path, files: dict[str, bytes] = FILES, *extra: tarfile.TarInfo) -> Path:
    modes = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}
    with tarfile.open(path, modes.get(path.suffix, "w")) as archive:  # type: ignore[call-overload]
        folder = tarfile.TarInfo("./")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member in extra:
            archive.addfile(member)
    return path


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("end", ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_what_is_in_it_arrives(tmp_path: Path, end: str) -> None:
    archive = (make_zip if end == "zip" else make_tar)(tmp_path / f"x.{end}")
    out = tmp_path / "out"
    (out / "a").mkdir(parents=True)
    (out / "a" / "one.txt").write_text("before")
    (out / "a" / "other.txt").write_text("stays")
    assert unpack(archive, out) == 3
    assert files_in(out) == {**FILES, "a/other.txt": b"stays"}


def test_a_single_file(tmp_path: Path) -> None:
    (tmp_path / "x.json.gz").write_bytes(gzip.compress(b"{}"))
    assert unpack(tmp_path / "x.json.gz", tmp_path / "out") == 1
    assert files_in(tmp_path / "out") == {"x.json": b"{}"}


@pytest.mark.parametrize(
    "name",
    [
        "../evil.txt",
        "/evil.txt",
        "a/../../evil.txt",
        "a\\..\\evil.txt",
        "C:/evil.txt",
        "..",
        "C:evil",
    ],
)
@pytest.mark.parametrize("end", ["zip", "tar"])
def test_names_that_lead_elsewhere(tmp_path: Path, name: str, end: str) -> None:
    archive = (make_zip if end == "zip" else make_tar)(
        tmp_path / f"x.{end}", {**FILES, name: b"evil"}
    )
    with pytest.raises(ValueError, match="outside the folder"):
        unpack(archive, tmp_path / "deep" / "out")
    assert files_in(tmp_path / "deep") == {}
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_links_and_devices_in_a_tar(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("link")
    member.type, member.linkname = kind, "/etc"
    with pytest.raises(ValueError, match="link or a device"):
        unpack(make_tar(tmp_path / "x.tar", FILES, member), tmp_path / "out")
    assert files_in(tmp_path / "out") == {}


def test_a_link_in_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        member = zipfile.ZipInfo("link")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, "/etc")
    with pytest.raises(ValueError, match="link or a device"):
        unpack(tmp_path / "x.zip", tmp_path / "out")


@pytest.mark.parametrize("end", ["zip", "tar.gz", "gz"])
def test_bombs(tmp_path: Path, end: str) -> None:
    bomb = {"zeros": bytes(5_000_000)}
    path = tmp_path / f"x.{end}"
    if end == "gz":
        path.write_bytes(gzip.compress(bomb["zeros"]))
    else:
        (make_zip if end == "zip" else make_tar)(path, bomb)
    with pytest.raises(ValueError, match="holds more"):
        unpack(path, tmp_path / "out", max_bytes=1_000_000)
    assert files_in(tmp_path / "out") == {}
    assert unpack(path, tmp_path / "out") == 1


@pytest.mark.parametrize("end", ["zip", "tar", "tar.gz", "gz"])
def test_cut_short_and_no_archive(tmp_path: Path, end: str) -> None:
    path = tmp_path / f"x.{end}"
    if end == "gz":
        path.write_bytes(gzip.compress(FILES["a/one.txt"]))
    else:
        (make_zip if end == "zip" else make_tar)(path)
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 3], b"<html>not found</html>", b""):
        path.write_bytes(data)
        if end == "gz" and not data:
            continue  # nothing packed is nothing
        with pytest.raises(ValueError, match="damaged"):
            unpack(path, tmp_path / "out")
        assert files_in(tmp_path / "out") == {}


def test_a_flipped_bit(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a.txt", b"content")
    path.write_bytes(path.read_bytes().replace(b"content", b"Content"))
    with pytest.raises(ValueError, match="damaged"):
        unpack(path, tmp_path / "out")
    assert files_in(tmp_path / "out") == {}


@pytest.mark.parametrize("end", ["tar.bz2", "tar.xz", "bzip2.zip", "lzma.zip"])
def test_damage_inside_compressed_data(tmp_path: Path, end: str) -> None:
    path = tmp_path / f"x.{end}"
    files = {"a.bin": random.Random(0).randbytes(50_000)}
    if end.endswith("zip"):
        method = zipfile.ZIP_BZIP2 if end == "bzip2.zip" else zipfile.ZIP_LZMA
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("a.bin", files["a.bin"])
    else:
        make_tar(path, files)
    whole = bytearray(path.read_bytes())
    for place in range(len(whole) // 3, len(whole) - 200, 97):
        whole[place] ^= 0x55
    path.write_bytes(whole)
    with pytest.raises(DamagedError, match=r"x\..* is damaged or not an archive: ") as caught:
        unpack(path, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert files_in(tmp_path / "out") == {}


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "x.rar").write_bytes(b"")
    with pytest.raises(ValueError, match="not an archive that can be unpacked"):
        unpack(tmp_path / "x.rar", tmp_path / "out")


@given(st.text(max_size=30))
def test_a_path_stays_inside(name: str) -> None:
    try:
        path = safe_path(name, "x.zip")
    except ValueError:
        return
    assert Path("/root/folder", path).resolve().is_relative_to("/root/folder")
