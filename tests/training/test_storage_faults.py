"""A bucket that fails now and then: requests are repeated, and what is read and written is
whole.
"""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from mtl_ray import artifact, storage
from tests.s3_server import S3Server
from tests.shards.flaky_proxy import FlakyProxy, _Handler, flaky_proxy


class _Faulty(_Handler):
    """Every request meets the next of the faults."""

    def _meet(self) -> None:
        with self.server.lock:
            fault = self.server.faults.pop(0) if self.server.faults else ""
        if fault in ("500", "503"):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            code = {"500": "InternalError", "503": "SlowDown"}[fault]
            self._answer(
                int(fault),
                {},
                f"<Error><Code>{code}</Code><Message>a bad day</Message></Error>".encode(),
            )
        elif fault == "reset":
            self.close_connection = True
        else:
            time.sleep(1.0 if fault == "slow" else 0)
            self._fault = fault if fault == "truncated" else ""
            self._forward()

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _meet  # noqa: N815


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyProxy]:
    """Between this process and the server for the time of a test."""
    with flaky_proxy(s3.endpoint) as made:
        made.RequestHandlerClass = _Faulty
        monkeypatch.setenv("AWS_ENDPOINT_URL", made.endpoint)
        s3fs.S3FileSystem.clear_instance_cache()
        yield made
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("fault", ["500", "503", "reset", "slow"])
def test_requests_are_repeated(s3: S3Server, proxy: FlakyProxy, tmp_path: Path, fault: str) -> None:
    folder, data = s3.folder(), bytes(range(256)) * 1000
    for name, write in {"a": storage.write, "b": storage.write_new}.items():
        proxy.faults = [fault, fault]
        write(storage.join(folder, name), data)
        proxy.faults = [fault, fault]
        assert storage.read(storage.join(folder, name)) == data
    (tmp_path / "file").write_bytes(data)
    proxy.faults = [fault, fault]
    storage.upload(tmp_path / "file", storage.join(folder, "c"))
    proxy.faults = [fault, fault]
    assert storage.sizes(folder) == {"a": len(data), "b": len(data), "c": len(data)}


def test_a_body_cut_short_is_read_again(s3: S3Server, proxy: FlakyProxy) -> None:
    uri, data = storage.join(s3.folder(), "file"), bytes(range(256)) * 1000
    storage.write(uri, data)
    proxy.faults = ["truncated", "truncated"]
    assert storage.read(uri) == data
    proxy.faults = ["truncated"]
    assert storage.read(uri, 1000, 200_000) == data[1000:200_000]


def test_an_artifact_is_published_through_a_storm(s3: S3Server, proxy: FlakyProxy) -> None:
    uri = s3.folder()
    proxy.faults = ["", "503", "reset", "", "500", "", "503", "503"]
    artifact.publish(uri, {"a": b"1" * 1000, "b": b"2"}, kind="checkpoint")
    found = artifact.open_artifact(uri, kind="checkpoint")
    assert found.read("a") == b"1" * 1000


def test_a_run_goes_on_while_the_bucket_is_away(
    s3: S3Server, proxy: FlakyProxy, make_config, splits, monkeypatch, caplog
) -> None:
    """For two seconds every answer is an error, longer than the client's own patience."""
    from mtl_ray.inference.run_folder import current_checkpoints
    from mtl_ray.training import saver
    from mtl_ray.training.context import RunContext
    from mtl_ray.training.scalars import read_scalars
    from mtl_ray.training.trainer import run

    monkeypatch.setattr(saver, "SLOW_S", 0.2)
    monkeypatch.setattr(saver, "FIRST_WAIT_S", 0.1)
    place, asked = s3.folder(), []

    def storm() -> bool:
        asked.append(1)
        if len(asked) == 3:
            proxy.faults = ["500"] * 60
            threading.Timer(2.0, proxy.faults.clear).start()
        return False

    options = ("runtime.checkpoint_every_steps=2", "runtime.log_every_steps=1")
    found = run(make_config(f"runtime.storage={place}", *options), RunContext(should_stop=storm))
    assert found["metrics"] == run(make_config(*options), RunContext())["metrics"]
    assert current_checkpoints(f"{place}/run")[-1].step == 14
    assert [
        row["step"] for row in read_scalars(f"{place}/run/scalars.jsonl") if row["mode"] == "train"
    ] == list(range(1, 15))
