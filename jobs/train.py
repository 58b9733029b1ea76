"""Trains a model on Ray: ``python -m jobs.train CONFIG [section.key=value ...]``."""

import argparse
import sys
from collections.abc import Sequence

from jobs.run import run
from mtl_ray.experiment import load_experiment


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, and prints the run's folder and its metrics; 1 after too many invalid samples."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.train",
        description="Train on Ray. The same command again continues where it stopped; a finished "
        "run is not changed.",
        epilog="example: python -m jobs.train configs/detection/yolov3_bccd.yaml "
        "data.train.uri=shards/bccd/train runtime.workers=2",
    )
    parser.add_argument("config", help="a YAML file")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="section.key=value",
        help="values that override those of the file",
    )
    args = parser.parse_args(argv)
    config = load_experiment(args.config, args.overrides)

    from mtl_ray.distributed.train import train
    from mtl_ray.training.resume import summary_text

    try:
        print(summary_text(train(config), config))
    except ValueError as error:
        from mtl_ray.loading.loader import BadSamplesError  # imports torch

        if not isinstance(error, BadSamplesError):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    run(main)
