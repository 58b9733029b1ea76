"""Sends the missing steps of a run to Weights & Biases: of a killed process, or of a run without
W&B.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jobs.run import run
from mtl_ray.terminal import progress_bar
from mtl_ray.training.wandb_sync import Sent, sync


def main(argv: Sequence[str] | None = None) -> int:
    """Sends, and prints how many steps and where."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.wandb_sync",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  WANDB_API_KEY=... python -m jobs.wandb_sync runs/bccd --to online",
    )
    parser.add_argument("run", metavar="RUN", help="folder or URI of a run that is not training")
    parser.add_argument(
        "--to",
        choices=["online", "offline"],
        help="default: online with WANDB_API_KEY in the environment, else offline",
    )
    args = parser.parse_args(argv)
    print(upload_sentence(sync(args.run, args.to, _bar)))
    return 0


def upload_sentence(sent: Sent) -> str:
    """One sentence, and the next command."""
    if not sent.steps:
        what = f"W&B had all {sent.of} logged steps already"
    else:
        what = f"{sent.steps} of {sent.of} logged steps were missing and have been sent"
    return f"{what}: {sent.place}" + (
        "" if sent.online else f"\nto upload it: wandb sync {sent.place}"
    )


def _bar(rows: Iterable[Mapping[str, Any]], total: int) -> Iterable[Mapping[str, Any]]:
    bar: Iterable[Mapping[str, Any]] = progress_bar(rows, total=total, desc="replay", unit="row")
    return bar


if __name__ == "__main__":
    run(main)
