"""Where else curves go: Weights & Biases and TensorBoard."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.artifact import open_artifact
from mtl_ray.config.validate import values_of
from mtl_ray.experiment import ExperimentConfig

Pictures = Sequence[tuple[str, NDArray[np.uint8]]]
"""Name and (H, W, 3) RGB of each."""


class Tracker(Protocol):
    """Somebody who keeps the curves of a run."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one step."""
        ...

    def pictures(self, step: int, pictures: Pictures) -> None:
        """Sample predictions after one step."""
        ...

    def checkpoint(self, uri: str) -> None:
        """The best checkpoint of a run that is done."""
        ...

    def close(self) -> None:
        """The last call."""
        ...


def open_trackers(config: ExperimentConfig, uri: str, run_id: str, step: int) -> list[Tracker]:
    """The trackers that a config asks for.

    Args:
        config: of the run.
        uri: of its folder.
        run_id: the same for every attempt of a run.
        step: from which this attempt goes on.
    """
    trackers: list[Tracker] = []
    if config.runtime.wandb != "disabled":
        trackers.append(Wandb(config, uri, run_id))
    if config.runtime.tensorboard:
        trackers.append(TensorBoard(uri, step))
    return trackers


class _Folder:
    """A local folder whose files lie at ``uri`` in the end."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._temporary = tempfile.TemporaryDirectory() if storage.is_remote(uri) else None
        self.path = Path(self._temporary.name if self._temporary else uri)
        self.path.mkdir(parents=True, exist_ok=True)

    def close(self) -> None:
        """Brings the files to a bucket."""
        if self._temporary is None:
            return
        for file in self.path.rglob("*"):
            if file.is_file() and not file.is_symlink():
                storage.upload(file, storage.join(self._uri, file.relative_to(self.path).as_posix()))
        self._temporary.cleanup()


class Wandb:
    """Weights & Biases: online where there is a key, else into ``wandb/`` of the run's folder, from where ``wandb sync`` sends it.

    It never asks for anything. Everything is written when ``close`` is called: offline, the last 32 kB are lost without it.
    """

    def __init__(self, config: ExperimentConfig, uri: str, run_id: str) -> None:
        import wandb

        wanted = config.runtime.wandb
        mode = ("online" if os.environ.get("WANDB_API_KEY") else "offline") if wanted == "auto" else wanted
        self._folder = _Folder(uri)
        self._run = wandb.init(
            project=config.runtime.wandb_project,
            name=config.runtime.name,
            id=run_id,
            resume="allow",
            dir=str(self._folder.path),
            mode=mode,
            config=values_of(config),
            settings=wandb.Settings(console="off", silent=True),
        )
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Tracker``."""
        self._run.log({"step": step, **values})

    def pictures(self, step: int, pictures: Pictures) -> None:
        """See ``Tracker``."""
        import wandb

        self._run.log({"step": step, "predictions": [wandb.Image(image, caption=name) for name, image in pictures]})

    def checkpoint(self, uri: str) -> None:
        """See ``Tracker``."""
        import wandb

        found = open_artifact(uri, kind="checkpoint")
        artifact = wandb.Artifact(f"{self._run.id}-checkpoint", type="model", metadata={"uri": uri})
        for name in found.names:
            with artifact.new_file(name, "wb") as file:
                file.write(found.read(name))
        self._run.log_artifact(artifact)

    def close(self) -> None:
        """See ``Tracker``; offline, ``finish`` returns before its helper process has written everything, ``teardown`` waits."""
        import wandb

        self._run.finish()
        wandb.teardown()
        self._folder.close()


class TensorBoard:
    """Event files in ``tensorboard/`` of the run's folder."""

    def __init__(self, uri: str, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = _Folder(storage.join(uri, "tensorboard"))
        self._writer: Any = SummaryWriter(str(self._folder.path), purge_step=step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Tracker``."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def pictures(self, step: int, pictures: Pictures) -> None:
        """See ``Tracker``."""
        for name, image in pictures:
            self._writer.add_image(f"predictions/{name}", image, step, dataformats="HWC")

    def checkpoint(self, uri: str) -> None:
        """See ``Tracker``."""
        self._writer.add_text("best checkpoint", uri)

    def close(self) -> None:
        """See ``Tracker``."""
        self._writer.close()
        self._folder.close()
