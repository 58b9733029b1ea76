"""Sends what a run's folder holds, and W&B does not, to W&B."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl_ray import storage
from mtl_ray.artifact import MANIFEST
from mtl_ray.experiment import ExperimentConfig, parse_experiment
from mtl_ray.geometry.panels import pixels
from mtl_ray.inference.run_folder import current_checkpoints, newest_attempt
from mtl_ray.tasks.charts import chart_of
from mtl_ray.training import checkpoint
from mtl_ray.training.scalars import read_scalars
from mtl_ray.training.trackers import EvaluationFigures, checkpoints_of
from mtl_ray.training.wandb_tracker import (
    Mode,
    Wandb,
    WandbHistory,
    held_in,
    wandb_files,
    wandb_mode,
)

ANSWER_S = 30
"""Seconds in which W&B's server must answer."""
RowProgress = Callable[[Iterable[Mapping[str, Any]], int], Iterable[Mapping[str, Any]]]
"""Takes rows and their number, yields the rows, and shows the progress."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What was sent.

    Attributes:
        steps: logged steps that W&B did not have.
        of: logged steps of the run.
        place: the page of the run, or the folder for ``wandb sync``.
        online: whether it is a page.
    """

    steps: int
    of: int
    place: str
    online: bool


def sync(run: str, to: Mode | None, watch: RowProgress) -> Sent:
    """Sends what W&B lacks of a run: curves, the newest images and plots, the best and last
    checkpoint, the pipeline's bundle.

    Online, what was written offline goes first, as it is.

    Args:
        run: URI of a run's folder; nothing may be training into it.
        to: where; by default as ``runtime.wandb: auto`` decides.
        watch: shows progress.

    Raises:
        ValueError: if it is no run, or the server does not let it in.
    """
    run = storage.absolute(run)
    config, run_id = config_of(run), run_id_of(run)
    rows = read_scalars(storage.join(run, "scalars.jsonl"))
    steps = sorted({row["step"] for row in rows})
    artifacts = artifacts_of(run)
    mode = to or wandb_mode("auto")
    if mode == "online":
        _ask_server()
        _send_offline(run, run_id)
    elif _has_all(held_in(run, run_id), steps, artifacts):
        return Sent(steps=0, of=len(steps), place=storage.join(run, "wandb"), online=False)
    tracker = Wandb(config, run, run_id, mode, or_offline=False)
    try:
        missing = sum(step > tracker.last for step in steps)
        _replay(tracker, run, rows, watch)
        for artifact in artifacts:
            tracker.artifact(*artifact)
        return Sent(steps=missing, of=len(steps), place=tracker.place, online=tracker.online)
    finally:
        tracker.close()


def artifacts_of(run: str) -> list[tuple[str, str, tuple[str, ...]]]:
    """URI, kind and aliases of what a run's folder holds."""
    found = (
        [(uri, "checkpoint", aliases) for uri, aliases in checkpoints_of(run)]
        if current_checkpoints(run)
        else []
    )
    bundle = storage.join(run, "bundle")
    return (
        [*found, (bundle, "bundle", ("latest",))]
        if storage.exists(storage.join(bundle, MANIFEST))
        else found
    )


def _has_all(
    held: WandbHistory, steps: Sequence[int], artifacts: Sequence[tuple[str, str, tuple[str, ...]]]
) -> bool:
    return (
        all(step <= held.step for step in steps)
        and {(uri, alias) for uri, _, given in artifacts for alias in given} <= held.artifacts
    )


def send_bundle(target: str, bundle: str, config: ExperimentConfig) -> None:
    """Sends a bundle to W&B, as an artifact of the run that it was made from, if the run uses W&B.

    Args:
        target: the run's folder, or a checkpoint in it; for a checkpoint elsewhere the run is not
            known.
        bundle: URI of the bundle.
        config: of the run.
    """
    run = storage.absolute(target).partition("/checkpoints/")[0]
    mode = wandb_mode(config.runtime.wandb)
    if mode == "disabled" or not storage.exists(storage.join(run, "scalars.jsonl")):
        return
    tracker = Wandb(config, run, run_id_of(run), mode)
    try:
        tracker.artifact(storage.absolute(bundle), "bundle", ("latest",))
    finally:
        tracker.close()


def config_of(run: str) -> ExperimentConfig:
    """The config of a run.

    Raises:
        ValueError: if it is none.
    """
    place = storage.join(run, "config.yaml")
    try:
        return parse_experiment(storage.read(place).decode(), place)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"{run} is no run's folder: it has no config.yaml") from error


def run_id_of(run: str) -> str:
    """The id of a run in trackers.

    Raises:
        ValueError: if it has neither attempts nor checkpoints that say so.
    """
    owner = newest_attempt(run)
    if owner is not None:
        return owner.run_id
    found = current_checkpoints(run)
    if not found:
        raise ValueError(f"{run} has no checkpoint yet, so nothing says which run of W&B it is")
    return checkpoint.read_state(found[-1].uri).run_id


def _replay(
    tracker: Wandb, run: str, rows: Sequence[Mapping[str, Any]], watch: RowProgress
) -> None:
    """Sends all rows, and with the last evaluation its images; those of earlier ones are not
    kept.
    """
    measured = max((row["step"] for row in rows if row["mode"] == "val"), default=0)
    shown = _shown(run) if measured > tracker.last else None
    for row in watch(rows, len(rows)):
        tracker.catch_up([row])
        if shown is not None and row["mode"] == "val" and row["step"] == measured:
            tracker.evaluation(measured, shown)


def _shown(run: str) -> EvaluationFigures:
    images = [
        (uri.rsplit("/", 1)[-1], pixels(storage.read(uri)))
        for uri in storage.files(storage.join(run, "pictures"))
    ]
    plots = {
        chart_of(uri.rsplit("/", 1)[-1]): uri for uri in storage.files(storage.join(run, "plots"))
    }
    return EvaluationFigures(
        images, {name: storage.read(uri) for name, uri in plots.items() if name is not None}
    )


def _ask_server() -> None:
    """Checks that the server answers: ``wandb sync`` would wait for ever."""
    import wandb

    try:
        wandb.login(verify=True, timeout=ANSWER_S)
    except (wandb.errors.Error, TimeoutError) as error:
        raise ValueError(f"W&B does not let this run in: {error}") from error
    finally:
        wandb.teardown()


def _send_offline(run: str, run_id: str) -> None:
    """Sends with ``wandb sync`` what earlier attempts wrote offline."""
    folders = {uri.rpartition("/")[0] for uri in wandb_files(run, run_id) if "/offline-run-" in uri}
    with tempfile.TemporaryDirectory(prefix="mtl_ray-") as temporary:
        local = [_local(folder, Path(temporary)) for folder in sorted(folders)]
        if not local:
            return
        command = [sys.executable, "-m", "wandb", "sync", "--yes", *local]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(
            f"wandb sync failed, nothing was sent: {done.stderr.strip() or done.stdout.strip()}"
        )


def _local(folder: str, temporary: Path) -> str:
    if not storage.is_remote(folder):
        return folder
    copy = temporary / folder.rsplit("/", 1)[-1]
    for uri in storage.files(folder):
        path = copy / uri.removeprefix(f"{folder}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.download(uri, path)
    return str(copy)
