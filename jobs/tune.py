"""Searches for better values of a config on Ray: ``python -m jobs.tune CONFIG [section.key=value
...]``.
"""

import argparse
from collections.abc import Sequence

from jobs.run import run
from mtl_ray.config.load import load_tree
from mtl_ray.experiment import read_experiment
from mtl_ray.tuning.space import with_flat_space


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the remaining trials and prints all as a table; 1 if no trial is complete, 130 if a
    signal ended the search.
    """
    parser = argparse.ArgumentParser(
        prog="python -m jobs.tune",
        description="Search the space in the section tune of a config. The same command again "
        "continues where it stopped.",
        epilog="example: python -m jobs.tune configs/tuning/yolov3_bccd.yaml tune.trials=40 "
        "runtime.storage=s3://bucket/runs",
    )
    parser.add_argument("config", help="a YAML file")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="section.key=value",
        help="values that override those of the file",
    )
    args = parser.parse_args(argv)
    tree = with_flat_space(load_tree(args.config, args.overrides))
    read_experiment(tree)

    from mtl_ray.distributed.tune import search
    from mtl_ray.tuning.report import trials_text, write_search_report

    found = search(tree)
    print(trials_text(found))
    for uri in write_search_report(found):
        print(uri)
    if not found.done:
        print(
            f"{len(found.results)} of {found.total} trials have ended: run the same command to "
            "continue"
        )
        return 130
    return 0 if found.best() else 1


if __name__ == "__main__":
    run(main)
