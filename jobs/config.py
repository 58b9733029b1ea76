"""Shows the resolved values of a config, and writes the schema of config files."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs.run import run
from mtl_ray import storage
from mtl_ray.config.describe import schema, show
from mtl_ray.config.load import load_tree
from mtl_ray.distributed.config import read_pipeline
from mtl_ray.experiment import ExperimentConfig, read_experiment


def main(argv: Sequence[str] | None = None) -> int:
    """``print``: every value and its origin; ``schema``: the JSON Schema."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.config",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python -m jobs.config print configs/multitask/digits.yaml "
        "schedule.epochs=3",
    )
    actions = parser.add_subparsers(dest="action", required=True)
    printing = actions.add_parser(
        "print", help="every value of a config as section.key=value, with its file and line"
    )
    printing.add_argument("config", type=Path, help="a YAML file")
    printing.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="changes, in YAML"
    )
    writing = actions.add_parser("schema", help="the JSON Schema of config files, for editors")
    writing.add_argument("--out", help="write it to this file or URI instead of the terminal")
    arguments = parser.parse_args(argv)
    if arguments.action == "print":
        tree = load_tree(arguments.config, arguments.overrides)
        is_pipeline = isinstance(tree.value, dict) and "experiment" in tree.value
        print(show(tree, read_pipeline(tree) if is_pipeline else read_experiment(tree)))
    elif arguments.out:
        storage.write(
            arguments.out, (json.dumps(schema(ExperimentConfig), indent=2) + "\n").encode()
        )
    else:
        json.dump(schema(ExperimentConfig), sys.stdout, indent=2)
        print()
    return 0


if __name__ == "__main__":
    run(main)
