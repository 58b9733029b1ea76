"""Whole datasets: every file's fate is told, archives are unpacked, and the exit status says
whether anything failed.
"""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import pytest

from jobs.download import main
from jobs.run import run
from mtl_ray.sources.downloads.catalog import CATALOG
from mtl_ray.sources.downloads.download import Options, download_files, file_at, files_of
from mtl_ray.sources.downloads.fetch import RetryPolicy
from tests.sources.bad_server import Page, bad_server

QUICK = RetryPolicy(attempts=2, timeout_s=5, pause_s=0.001)


def zipped(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(f"set/{name}.txt", text)
    return buffer.getvalue()


def test_several_files_of_which_one_fails(tmp_path: Path) -> None:
    with bad_server(
        a_zip=Page(zipped(a="1"), break_after=50), b_zip=Page(zipped(b="2")), c_txt=Page(b"3")
    ) as server:
        files = [
            file_at(f"{server.url}/{name}")
            for name in ("a.zip", "none.zip", "b.zip", "c.txt", "b.zip")
        ]
        options = Options(to=str(tmp_path), retry=QUICK)
        assert [(one.name, one.status, one.files) for one in download_files(files, options)] == [
            ("a.zip", "fetched", 1),
            ("none.zip", "failed", None),
            ("b.zip", "fetched", 1),
            ("c.txt", "fetched", None),
        ]
        assert {path.name for path in (tmp_path / "set").iterdir()} == {"a.txt", "b.txt"}
        again = download_files(files, options)
        assert [(one.status, one.files) for one in again] == [
            ("there", None),
            ("failed", None),
            ("there", None),
            ("there", None),
        ]
        assert "answers 404" in again[1].reason
        assert server.asked["/b.zip"] == 2  # once for the file, and whether there is more


def test_an_archive_that_is_none_fails(tmp_path: Path) -> None:
    with bad_server(a_zip=Page(b"<html>please log in</html>")) as server:
        (one,) = download_files(
            [file_at(f"{server.url}/a.zip")], Options(to=str(tmp_path), retry=QUICK)
        )
        assert (one.status, "damaged or not an archive" in one.reason) == ("failed", True)
        server.pages["/a.zip"] = Page(zipped(a="1"))
        (one,) = download_files(
            [file_at(f"{server.url}/a.zip")], Options(to=str(tmp_path), retry=QUICK)
        )
        assert (one.status, one.files) == ("fetched", 1)


def test_archives_may_be_removed_or_kept_packed(tmp_path: Path) -> None:
    with bad_server(a_zip=Page(zipped(a="1"))) as server:
        files = [file_at(f"{server.url}/a.zip")]
        options = Options(to=str(tmp_path / "x"), retry=QUICK, delete=True)
        assert [download_files(files, options)[0].status for _ in range(2)] == ["fetched", "there"]
        assert not (tmp_path / "x" / "a.zip").exists()
        assert server.asked["/a.zip"] == 2
        download_files(files, Options(to=str(tmp_path / "y"), retry=QUICK, unpack=False))
        assert sorted(path.name for path in (tmp_path / "y").iterdir()) == ["a.zip", "a.zip.sha256"]


def test_mirrors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zipped(a="1")
    with bad_server(val2017_zip=Page(archive)) as server:
        server.pages["/zips/train2017.zip"] = Page(archive)
        files = files_of("coco2017", ["val2017", "train2017.zip"])
        options = Options(
            to=str(tmp_path), retry=QUICK, mirrors=(f"{server.url}/nothing/", server.url)
        )
        refused = download_files(files, options)
        assert [one.status for one in refused] == ["failed", "failed"]
        assert f"has {len(archive)} bytes, the file 815,585,330" in refused[1].reason
        taken = download_files(
            files, Options(to=str(tmp_path), retry=QUICK, mirrors=options.mirrors, check=False)
        )
        assert [(one.name, one.status) for one in taken] == [
            ("train2017.zip", "fetched"),
            ("val2017.zip", "fetched"),
        ]


def test_the_catalogue() -> None:
    for name, about in CATALOG.items():
        assert bool(about.files) != bool(about.instructions), name
        assert len({file.name for file in about.files}) == len(about.files), name
        assert all(
            url.startswith(("http://", "https://")) for file in about.files for url in file.urls
        )
    assert {"coco2017", "voc2007", "voc2012", "lvis", "cityscapes-instructions"} <= CATALOG.keys()
    assert [file.name for file in files_of("lvis", ["lvis_v1_val"])] == ["lvis_v1_val.json.zip"]
    assert len(files_of("objects365v2")) == 97


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = zipped(a="1")
    with bad_server(a_zip=Page(archive, failures=[500]), b_zip=Page(b"")) as server:
        digest = "sha256:" + hashlib.sha256(archive).hexdigest()
        url = f"{server.url}/a.zip"
        assert main([url, "--to", str(tmp_path), "--digest", digest]) == 0
        assert "fetched  a.zip, 1 files unpacked" in capsys.readouterr().out
        assert main([url, f"{server.url}/c.zip", "--to", str(tmp_path), "--attempts", "1"]) == 1
        shown = capsys.readouterr().out
        assert "there    a.zip" in shown
        assert "failed   c.zip: " in shown
    assert main(["cityscapes-instructions", "--to", str(tmp_path / "none")]) == 0
    assert "gtFine_trainvaltest.zip" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["coco2018"], "did you mean coco2017?"),
        (["cityscapes"], "cityscapes-instructions"),
        (["coco2017", "--only", "val2018"], "it has train2017.zip"),
        (["file:///etc/passwd"], "http or https"),
        (["http://127.0.0.1/"], "http or https"),
        (["http://127.0.0.1/x", "--digest", "sha256:12"], "not a digest"),
        (["http://127.0.0.1/x", "http://127.0.0.1/y", "--digest", "md5:" + "0" * 32], "single URL"),
        (["http://127.0.0.1/x", "--to", "s3://bucket/x"], "not a local folder"),
    ],
)
def test_wrong_requests_are_one_sentence(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(lambda: main(arguments))
    shown = capsys.readouterr().err
    assert ended.value.code == 2
    assert words in shown
    assert shown.count("\n") == 1


def test_from_a_server_to_coco(tmp_path: Path, shared_data: Path) -> None:
    """The balloons as their authors ship them: fetched, unpacked, converted."""
    from jobs.convert import main as convert

    root = shared_data / "inst_balloon_via" / "val"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(root.iterdir()):
            archive.write(path, f"balloon/val/{path.name}")
    with bad_server() as server:
        server.pages["/balloon_dataset.zip"] = Page(buffer.getvalue(), break_after=400_000)
        assert main(["balloon", "--to", str(tmp_path), "--mirror", server.url]) == 0
    out = tmp_path / "val.json"
    assert (
        convert(
            [
                "via",
                str(tmp_path / "balloon"),
                "--split",
                "val",
                "--to",
                str(out),
                "--format",
                "coco",
            ]
        )
        == 0
    )
    assert len(json.loads(out.read_text())["annotations"]) == 50
