"""Tiny runs on hosts and a bucket: their configs, and their state as seen from outside."""

import subprocess
from pathlib import Path

import yaml

from mtl_ray import storage
from mtl_ray.inference.run_folder import current_checkpoints, newest_attempt
from tests.cluster.bucket import Bucket
from tests.cluster.hosts import Hosts, wait_until
from tests.training.tiny import values, write_split

SAMPLES = 50


class Run:
    """One run: its config is on the shared disk, its data and its folder are in the bucket.

    Args:
        hosts: the cluster.
        storage_uri: where runs and splits lie.
        name: of the run.
        overrides: of the tiny config.
    """

    def __init__(self, hosts: Hosts, storage_uri: str, name: str, *overrides: str) -> None:
        self.hosts, self.name = hosts, name
        self.uri = storage.join(storage_uri, "runs", name)
        self.ledger = hosts.shared / "ledger" / name
        self.config = hosts.shared / f"{name}.yaml"
        content = values(Path("splits"), storage.join(storage_uri, "runs"))
        content["data"]["train"]["uri"], content["data"]["val"]["uri"] = (
            storage.join(storage_uri, part) for part in ("train", "val")
        )
        content["runtime"] |= {
            "name": name,
            "ledger": str(self.ledger),
            "log_every_steps": 1,
            "max_failures": 1000,
        }
        content["runtime"] |= {"checkpoint_every_steps": None, "checkpoint_every_s": 1.0}
        content["schedule"] |= {
            "evaluate_every": None,
            "evaluate_every_steps": None,
            "rate": {"type": "constant", "warmup": 0},
        }
        self.config.write_text(yaml.safe_dump(content))
        self.overrides = list(overrides)

    def start(self) -> "subprocess.Popen[bytes]":
        """Starts the driver on the head."""
        return self.hosts.run(
            ["python", "-m", "jobs.train", str(self.config), *self.overrides], self.name
        )

    def said(self) -> str:
        """The output of all its drivers."""
        return self.hosts.log(self.name).read_text(errors="replace")

    def newest(self) -> tuple[int, int]:
        """Step and attempt of the newest complete checkpoint; zeros if there is none."""
        found = current_checkpoints(self.uri)
        return (found[-1].step, found[-1].attempt) if found else (0, 0)

    def attempt(self) -> int:
        """The number of the newest attempt; 0 if there is none."""
        found = newest_attempt(self.uri)
        return 0 if found is None else found.attempt

    def wait_for_checkpoint(
        self, *, after_attempt: int = 0, after_step: int = 0, patience_s: float = 180.0
    ) -> None:
        """Waits until an attempt after the given one has saved a checkpoint, at a later step
        than the given one.
        """

        def saved() -> bool:
            step, attempt = self.newest()
            return step > after_step and attempt > after_attempt

        wait_until(
            saved, f"{self.name} has a new checkpoint", self.hosts.log(self.name), patience_s
        )

    def wait(
        self, driver: "subprocess.Popen[bytes]", status: int = 0, patience_s: float = 240.0
    ) -> None:
        """Waits until a driver has ended successfully."""
        found = driver.wait(patience_s)
        assert found == status, f"status {found}\n{self.said()[-6000:]}"


def write_data(bucket: Bucket) -> str:
    """Writes splits for runs; returns the URI for ``Run``."""
    uri = bucket.folder("tiny")
    write_split(storage.join(uri, "train"), SAMPLES, 1)
    write_split(storage.join(uri, "val"), 13, 2)
    return uri


def keys() -> set[str]:
    """Of the samples of the training split."""
    return {f"1-{number}" for number in range(SAMPLES)}
