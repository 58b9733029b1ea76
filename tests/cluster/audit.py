"""Compares the samples that a run has trained on with those of an undisturbed run."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from mtl_ray import storage
from mtl_ray.artifact import open_artifact
from mtl_ray.inference.run_folder import Attempt, checkpoint_folders, is_whole, newest_attempt
from mtl_ray.training import checkpoint


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The sequence of steps that led to the weights of a run.

    Attributes:
        steps: the keys of the samples of each step, all ranks one after the other.
        worlds: how many workers made each step.
    """

    steps: list[list[str]]
    worlds: list[int]


def attempts(run: str) -> list[Attempt]:
    """All attempts of a run, the oldest first."""
    folder = storage.join(run, "attempts")
    found = [json.loads(storage.read(storage.join(folder, name))) for name in storage.names(folder)]
    return [
        Attempt(**{**one, "ends": {int(number): step for number, step in one["ends"].items()}})
        for one in found
    ]


def trained(run: str, ledger: Path, last: int) -> Trained:
    """Reads the ledgers of the ranks along the sequence of steps up to the last.

    Raises:
        AssertionError: if a step of the line is in no ledger, or was made twice by one attempt.
    """
    owner = newest_attempt(run)
    assert owner is not None, f"{run} has no attempts"
    keys: dict[int, list[str]] = {}
    worlds: dict[int, int] = {}
    for attempt in attempts(run):
        end = last if attempt.attempt == owner.attempt else owner.ends.get(attempt.attempt, -1)
        if end <= attempt.from_step:  # it made no step, or none that counts
            continue
        ranks = [
            _lines(ledger / f"{attempt.attempt:08d}-{rank:04d}.jsonl")
            for rank in range(attempt.world_size)
        ]
        for step in range(attempt.from_step + 1, end + 1):
            assert step not in keys, f"step {step} is twice on the line"
            keys[step] = [key for rank in ranks for key in rank[step]]
            worlds[step] = attempt.world_size
    assert sorted(keys) == list(range(1, last + 1)), "the line has gaps"
    return Trained(
        steps=[keys[step] for step in sorted(keys)], worlds=[worlds[step] for step in sorted(keys)]
    )


def _lines(path: Path) -> dict[int, list[str]]:
    """The keys of each step of one rank, without a truncated last line."""
    found: dict[int, list[str]] = {}
    for text in path.read_text().splitlines(keepends=True):
        if text.endswith("\n"):
            line = json.loads(text)
            assert line["step"] not in found, f"{path}: step {line['step']} twice"
            found[line["step"]] = line["keys"]
    return found


def lost_and_repeated(run: Trained, reference: Trained) -> tuple[int, int]:
    """How many samples a run has seen less often than the reference, and how many more often."""
    seen, expected = (
        Counter(key for step in one.steps for key in step) for one in (run, reference)
    )
    return (expected - seen).total(), (seen - expected).total()


def uneven(run: Trained, keys: set[str]) -> list[str]:
    """Samples that were seen at least twice more often than others, or never.

    A correct run has none.
    """
    seen = Counter(key for step in run.steps for key in step)
    fewest = min(seen[key] for key in keys)
    return sorted(
        key for key in seen | dict.fromkeys(keys, 0) if seen[key] > fewest + 1 or key not in keys
    )


def corrupt(run: str) -> list[str]:
    """Checkpoints that have a manifest but are incomplete."""
    found = []
    for place in checkpoint_folders(run):
        if is_whole(place):
            try:
                opened = open_artifact(place.uri, kind=checkpoint.KIND)
                for name in opened.names:
                    opened.read(name)
            except ValueError as error:
                found.append(str(error))
    return found


def same_weights(run: str, reference: str) -> bool:
    """Whether two runs ended with identical weights and optimiser state."""
    one, other = checkpoint.newest(run), checkpoint.newest(reference)
    assert one is not None
    assert other is not None
    weights = [checkpoint.read_tensors(uri, "model.safetensors") for uri in (one, other)]
    optimizers = [checkpoint.read_training(uri)["optimizer"] for uri in (one, other)]
    return (
        checkpoint.read_state(one).step == checkpoint.read_state(other).step
        and _equal(weights[0], weights[1])
        and _equal(*optimizers)
    )


def _equal(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one == other
