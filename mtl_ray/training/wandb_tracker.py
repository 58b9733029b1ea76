"""A run in Weights & Biases, and what W&B's own files in a run's folder hold.

A ``.wandb`` file is a log in LevelDB's format (a header of seven bytes, then blocks of 32 KiB with
records of CRC-32, length and type) of protobuf messages. A killed process leaves it without its
end: up to a block, or all of a short run.
"""

import json
import logging
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from mtl_ray import storage
from mtl_ray.artifact import open_artifact
from mtl_ray.config.validate import values_of
from mtl_ray.experiment import ExperimentConfig
from mtl_ray.geometry.panels import pixels, same_size
from mtl_ray.training.trackers import EvaluationFigures, TrackerFolder

Mode = Literal["online", "offline", "disabled"]
_HEAD, _BLOCK = 7, 32768
_RECORD = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_log = logging.getLogger(__name__)


def wandb_mode(wanted: Literal["auto"] | Mode) -> Mode:
    """The mode of ``runtime.wandb``; ``auto`` is what WANDB_MODE says, else online where there is a
    key in the environment.
    """
    if wanted != "auto":
        return wanted
    asked = os.environ.get("WANDB_MODE", "")
    for mode in get_args(Mode):
        if asked == mode:
            return mode  # type: ignore[no-any-return]
    return "online" if os.environ.get("WANDB_API_KEY") else "offline"


def tracked_numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The values of a row of scalars.jsonl for trackers.

    An evaluation has the step of a training row, so its time has another name.
    """
    found = {
        name: float(value)
        for name, value in row.items()
        if isinstance(value, int | float) and name not in ("step", "iter")
    }
    if row["mode"] == "val":
        found["evaluation_time"] = found.pop("time")
    return found


class Wandb:
    """Weights & Biases, online or into ``wandb/`` of the run's folder, from where ``wandb sync``
    sends it.

    It never asks for anything, and ends no training: where the server does not let it in, it writes
    offline. W&B's step is the step of training. All attempts of a run have one id and make one
    line: an attempt sends what the ones before it lost, and nothing that is there already.
    Everything is written when ``close`` is called; offline, a killed process loses the last 32 kB.

    Args:
        config: of the run.
        uri: of its folder.
        run_id: of all its attempts.
        mode: online or offline.
        or_offline: whether to write offline where the server cannot be reached or refuses; else
            that is a ValueError.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        uri: str,
        run_id: str,
        mode: Mode,
        *,
        or_offline: bool = True,
    ) -> None:
        self._folder = TrackerFolder(uri)
        self._fetched = tempfile.TemporaryDirectory(prefix="mtl_ray-")
        self.held = held_in(uri, run_id)
        self._run = self._open(config, run_id, mode, or_offline)
        self.online = not self._run.offline
        self._last = self._run.starting_step - 1 if self.online else self.held.step

    def _open(self, config: ExperimentConfig, run_id: str, mode: Mode, or_offline: bool) -> Any:
        import wandb

        settings = wandb.Settings(console="off", silent=True, disable_code=True)
        wanted: dict[str, Any] = {
            "project": config.runtime.wandb_project,
            "name": config.runtime.name,
            "group": config.runtime.wandb_group,
            "id": run_id,
            "resume": "allow",
            "dir": str(self._folder.path),
            "config": values_of(config),
            "settings": settings,
        }
        try:
            return wandb.init(mode=mode, **wanted)
        except wandb.errors.Error as error:
            wandb.teardown()
            if not or_offline:
                raise ValueError(f"W&B does not let this run in: {error}") from error
            _log.warning(
                "W&B does not let this run in (%s): it is written offline, jobs.wandb_sync sends "
                "it later",
                error,
            )
            return wandb.init(mode="offline", **wanted)

    @property
    def last(self) -> int:
        """The last step that W&B has; only later ones are sent."""
        return self._last

    @property
    def place(self) -> str:
        """Where W&B keeps it: a page, or the folder for ``wandb sync``."""
        return str(self._run.url if self.online else os.path.dirname(self._run.dir))

    def catch_up(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Sends the rows of scalars.jsonl that W&B does not have."""
        for row in rows:
            self._log(row["step"], tracked_numbers(row))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Tracker``."""
        self._log(step, values)

    def _log(self, step: int, values: Mapping[str, Any]) -> None:
        if step > self._last:
            with _errors():
                self._run.log(dict(values), step=step)

    def evaluation(self, step: int, shown: EvaluationFigures) -> None:
        """See ``Tracker``."""
        import wandb

        content: dict[str, Any] = {
            name: wandb.Image(pixels(chart)) for name, chart in shown.charts.items()
        }
        if shown.images:
            names = [name for name, _ in shown.images]
            # of others W&B warns, and shows them wrongly
            images = same_size([image for _, image in shown.images])
            content["predictions"] = [
                wandb.Image(image, caption=name, file_type="jpg")
                for name, image in zip(names, images, strict=True)
            ]
        self._log(step, content)

    def artifact(self, uri: str, kind: str, aliases: Sequence[str]) -> None:
        """See ``Tracker``.

        Its files are not copied; offline, those of an artifact in a bucket are left for
        ``jobs.wandb_sync``.
        """
        import wandb

        missing = [
            alias for alias in aliases if self.online or (uri, alias) not in self.held.artifacts
        ]
        if not missing or not (self.online or self._folder.stays):
            return
        found = open_artifact(uri, kind=kind)
        made = wandb.Artifact(f"{self._run.id}-{kind}", type="model", metadata={"uri": uri})
        folder = (
            Path(tempfile.mkdtemp(dir=self._fetched.name))
            if storage.is_remote(uri)
            else Path(found.uri)
        )
        for name in found.names:
            if storage.is_remote(uri):
                found.fetch(name, folder / name)
            made.add_file(str(folder / name), name=name, policy="immutable", skip_cache=True)
        with _errors():
            self._run.log_artifact(made, aliases=missing)

    def close(self) -> None:
        """See ``Tracker``; offline, ``finish`` returns before its helper process has written
        everything, ``teardown`` waits.
        """
        import wandb

        try:
            with _errors():
                self._run.finish()
                wandb.teardown()
        finally:
            self._folder.close()
            self._fetched.cleanup()


@contextmanager
def _errors() -> Iterator[None]:
    """W&B's own errors as ``ConnectionError``, which is what its client raises when its helper
    process is gone.
    """
    import wandb

    try:
        yield
    except wandb.errors.Error as error:
        raise ConnectionError(str(error)) from error


class WandbHistory(NamedTuple):
    """What W&B's files hold of a run: the last step (0 if none), and the URIs and aliases of its
    artifacts.
    """

    step: int
    artifacts: frozenset[tuple[str, str]]


def held_in(run_uri: str, run_id: str) -> WandbHistory:
    """What all W&B files in a run's folder hold together, whole or cut off.

    Args:
        run_uri: the run's folder.
        run_id: of the run with W&B.
    """
    step, artifacts = 0, set()
    for uri in wandb_files(run_uri, run_id):
        for record in records(storage.read(uri)):
            if record.HasField("history"):
                step = max(step, step_of(record.history))
            elif record.HasField("artifact"):
                where = json.loads(record.artifact.metadata or "{}").get("uri", "")
                artifacts |= {(where, alias) for alias in record.artifact.aliases}
    return WandbHistory(step, frozenset(artifacts))


def wandb_files(run_uri: str, run_id: str) -> list[str]:
    """The ``.wandb`` files in a run's folder, of all attempts, in the order of their start."""
    found = storage.files(storage.join(run_uri, "wandb"))
    mine = (
        uri for uri in found if uri.endswith(f"/run-{run_id}.wandb") and "/latest-run/" not in uri
    )
    # run-20261120_114153-ID, and -1 after it for the second of that second
    return sorted(mine, key=lambda uri: uri.split("/")[-2].removeprefix("offline-"))


def step_of(history: Any) -> int:
    """The step of a history record."""
    return int(
        next(
            json.loads(item.value_json)
            for item in history.item
            if "_step" in (item.key, *item.nested_key)
        )
    )


def records(data: bytes) -> Iterator[Any]:
    """The messages (``wandb_internal_pb2.Record``) of a file, up to where it ends early."""
    from wandb.proto.wandb_internal_pb2 import Record

    for message in _messages(data):
        yield Record.FromString(message)


def _messages(data: bytes) -> Iterator[bytes]:
    place, parts = _HEAD, b""
    while place + _RECORD.size <= len(data):
        left = _BLOCK - place % _BLOCK
        if left < _RECORD.size:
            place += left
            continue
        _, length, kind = _RECORD.unpack_from(data, place)
        place += _RECORD.size
        if not _FULL <= kind <= _LAST or place + length > len(data):
            return
        parts = (
            data[place : place + length]
            if kind in (_FULL, _FIRST)
            else parts + data[place : place + length]
        )
        place += length
        if kind in (_FULL, _LAST):
            yield parts
