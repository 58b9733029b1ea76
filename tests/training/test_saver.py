"""Checkpoints are written while training goes on, whatever the storage does meanwhile."""

import threading

import pytest

from mtl_ray import artifact, storage
from mtl_ray.inference.run_folder import current_checkpoints
from mtl_ray.training import saver as module
from mtl_ray.training.context import RunContext
from mtl_ray.training.saver import NotSavedError, Saver
from mtl_ray.training.scalars import Scalars, read_scalars
from mtl_ray.training.trainer import run


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.01)


def test_a_failed_write_is_tried_again_until_it_succeeds(caplog):
    tries, saver = [], Saver(60)

    def write() -> None:
        tries.append(1)
        if len(tries) < 4:
            raise ConnectionError("503")

    saver.submit(write)
    saver.finish()
    saver.close()
    assert len(tries) == 4
    assert "tried again in 0.02 s: 503" in caplog.text


def test_a_failing_write_is_overtaken_by_a_newer_one_and_training_does_not_wait(caplog):
    written, first, saver = [], threading.Event(), Saver(60)

    def fails() -> None:
        first.set()
        raise OSError(28, "No space left on device")

    saver.submit(fails)
    first.wait()
    saver.submit(lambda: written.append("newer"))
    saver.finish()
    saver.close()
    assert written == ["newer"]


def test_a_write_that_takes_long_is_seen():
    begun, go_on, saver = threading.Event(), threading.Event(), Saver(60)
    assert not saver.busy()
    saver.submit(lambda: begun.set() or go_on.wait())
    begun.wait()
    assert saver.busy()
    go_on.set()
    saver.finish()
    assert not saver.busy()
    saver.close()


def test_the_last_one_must_succeed():
    saver = Saver(0.2)

    def fails() -> None:
        raise ConnectionError("the bucket is gone")

    saver.submit(fails)
    with pytest.raises(NotSavedError, match=r"for 0\.2 s: the bucket is gone"):
        saver.finish()
    saver.close()


def test_what_is_no_fault_of_the_storage_reaches_the_run():
    saver = Saver(60)

    def fails() -> None:
        raise ValueError("our own mistake")

    saver.submit(fails)
    with pytest.raises(ValueError, match="our own mistake"):
        saver.finish()
    saver.close()


def test_a_run_outlives_a_disk_that_is_full_for_a_while(make_config, tmp_path, monkeypatch, caplog):
    """Nothing but the files of the run can be written, from step 3 to step 9."""
    steps, uri = [], tmp_path / "runs" / "run"
    real_write, real_open = storage.write, Scalars._append

    def full() -> None:
        if 3 <= len(steps) < 9:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(
        artifact.storage, "write", lambda target, data: full() or real_write(target, data)
    )
    monkeypatch.setattr(Scalars, "_append", lambda self, row: full() or real_open(self, row))
    undisturbed = run(make_config("runtime.name=whole"), RunContext())
    monkeypatch.setattr(storage, "write", lambda target, data: full() or real_write(target, data))
    found = run(make_config(), RunContext(should_stop=lambda: bool(steps.append(1))))
    assert found["metrics"] == undisturbed["metrics"]
    assert current_checkpoints(str(uri))[-1].step == 14
    assert [
        row["step"] for row in read_scalars(str(uri / "scalars.jsonl")) if row["mode"] == "train"
    ] == [2, 4, 6, 8, 10, 12, 14]
    assert "a checkpoint could not be written, training goes on" in caplog.text
