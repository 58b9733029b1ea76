"""Which samples a rank trained on, step by step: for whoever wants to count them."""

import json
from collections.abc import Sequence
from pathlib import Path


class Ledger:
    """One file an attempt and rank, ``FOLDER/00000003-0001.jsonl``; a line reaches the system before the step is saved.

    Args:
        folder: a local path.
        attempt: of the run.
        rank: of this process.
    """

    def __init__(self, folder: str, attempt: int, rank: int) -> None:
        self._attempt = attempt
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._path = Path(folder) / f"{attempt:08d}-{rank:04d}.jsonl"

    def add(self, step: int, keys: Sequence[str]) -> None:
        """After a step, counted from 1: ``{"attempt", "step", "keys"}``, the keys of this rank's share in their order."""
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"attempt": self._attempt, "step": step, "keys": list(keys)}) + "\n")
