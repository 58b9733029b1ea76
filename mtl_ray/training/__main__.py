"""``python -m mtl_ray.training CONFIG [section.key=value ...]``: a whole training without Ray,
alone or under torchrun.
"""

import argparse
import signal
import sys
from collections.abc import Sequence

from mtl_ray.experiment import load_experiment
from mtl_ray.loading.loader import BadSamplesError
from mtl_ray.training.launch import launch
from mtl_ray.training.resume import summary_text


def main(argv: Sequence[str] | None = None) -> int:
    """Trains and prints where the run lies and what was measured.

    The exit status is 1 after too many bad samples, 2 after a mistake, 143 where SIGTERM stopped
    the run, with a checkpoint.
    """
    parser = argparse.ArgumentParser(
        prog="python -m mtl_ray.training",
        description="Train without Ray: runtime.workers processes on this machine, or the "
        "processes that torchrun started.",
        epilog="example: python -m mtl_ray.training configs/classification/linear_cifar10.yaml "
        "runtime.workers=2 schedule.epochs=3",
    )
    parser.add_argument("config", help="a YAML file")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="section.key=value",
        help="values that take the place of the file's",
    )
    args = parser.parse_args(argv)
    try:
        config = load_experiment(args.config, args.overrides)
        summary = launch(config)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, BadSamplesError) else 2
    if summary is None:
        return 0
    print(summary_text(summary, config))
    return 0 if summary["finished"] else 128 + signal.SIGTERM


if __name__ == "__main__":
    sys.exit(main())
