"""A run as Weights & Biases keeps it."""

import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from mtl_ray import storage
from mtl_ray.artifact import open_artifact
from mtl_ray.config.validate import values_of
from mtl_ray.experiment import ExperimentConfig
from mtl_ray.geometry.pictures import pixels, same_size
from mtl_ray.training.shown import Shown
from mtl_ray.training.tracker_folder import TrackerFolder
from mtl_ray.training.wandb_files import held_in

Mode = Literal["online", "offline", "disabled"]
_log = logging.getLogger(__name__)


def wandb_mode(wanted: Literal["auto"] | Mode) -> Mode:
    """The mode of ``runtime.wandb``; ``auto`` is what WANDB_MODE says, else online where there is a key in the environment."""
    if wanted != "auto":
        return wanted
    asked = os.environ.get("WANDB_MODE", "")
    for mode in get_args(Mode):
        if asked == mode:
            return mode  # type: ignore[no-any-return]
    return "online" if os.environ.get("WANDB_API_KEY") else "offline"


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """What trackers get of a row of scalars.jsonl. An evaluation shares its step with training: its time has a name of its own."""
    found = {name: float(value) for name, value in row.items() if isinstance(value, int | float) and name not in ("step", "iter")}
    if row["mode"] == "val":
        found["evaluation_time"] = found.pop("time")
    return found


class Wandb:
    """Weights & Biases, online or into ``wandb/`` of the run's folder, from where ``wandb sync`` sends it.

    It never asks for anything, and ends no training: where the server does not let it in, it writes offline. W&B's step is the step
    of training. All attempts of a run have one id and make one line: an attempt sends what the ones before it lost, and nothing
    that is there already. Everything is written when ``close`` is called; offline, a killed process loses the last 32 kB.

    Args:
        config: of the run.
        uri: of its folder.
        run_id: of all its attempts.
        mode: online or offline.
        or_offline: whether to write offline where the server cannot be reached or refuses; else that is a ValueError.
    """

    def __init__(self, config: ExperimentConfig, uri: str, run_id: str, mode: Mode, *, or_offline: bool = True) -> None:
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
            _log.warning("W&B does not let this run in (%s): it is written offline, jobs.wandb_sync sends it later", error)
            return wandb.init(mode="offline", **wanted)

    @property
    def last(self) -> int:
        """The last step that W&B has; only later ones are sent."""
        return self._last

    @property
    def place(self) -> str:
        """Where what is sent goes: a page, or the folder that ``wandb sync`` takes."""
        return str(self._run.url if self.online else os.path.dirname(self._run.dir))

    def catch_up(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Sends the rows of scalars.jsonl that W&B does not have."""
        for row in rows:
            self._log(row["step"], numbers(row))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Tracker``."""
        self._log(step, values)

    def _log(self, step: int, values: Mapping[str, Any]) -> None:
        if step > self._last:
            with _errors():
                self._run.log(dict(values), step=step)

    def evaluation(self, step: int, shown: Shown) -> None:
        """See ``Tracker``."""
        import wandb

        content: dict[str, Any] = {name: wandb.Image(pixels(picture)) for name, picture in shown.charts.items()}
        if shown.pictures:
            names = [name for name, _ in shown.pictures]
            images = same_size([image for _, image in shown.pictures])  # of others W&B warns, and shows them wrongly
            content["predictions"] = [wandb.Image(image, caption=name, file_type="jpg") for name, image in zip(names, images, strict=True)]
        self._log(step, content)

    def artifact(self, uri: str, kind: str, aliases: Sequence[str]) -> None:
        """See ``Tracker``. Its files are not copied; offline, those of an artifact in a bucket are left for ``jobs.wandb_sync``."""
        import wandb

        missing = [alias for alias in aliases if self.online or (uri, alias) not in self.held.artifacts]
        if not missing or not (self.online or self._folder.stays):
            return
        found = open_artifact(uri, kind=kind)
        made = wandb.Artifact(f"{self._run.id}-{kind}", type="model", metadata={"uri": uri})
        folder = Path(tempfile.mkdtemp(dir=self._fetched.name)) if storage.is_remote(uri) else Path(found.uri)
        for name in found.names:
            if storage.is_remote(uri):
                found.fetch(name, folder / name)
            made.add_file(str(folder / name), name=name, policy="immutable", skip_cache=True)
        with _errors():
            self._run.log_artifact(made, aliases=missing)

    def close(self) -> None:
        """See ``Tracker``; offline, ``finish`` returns before its helper process has written everything, ``teardown`` waits."""
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
    """W&B's own errors as ``ConnectionError``, which is what its client raises when its helper process is gone."""
    import wandb

    try:
        yield
    except wandb.errors.Error as error:
        raise ConnectionError(str(error)) from error
