"""Runs the whole chain from one file: convert, train, evaluate, export, serve, compare, on one
Ray.
"""

import argparse
from collections.abc import Sequence

from jobs.run import run
from mtl_ray.config.load import load_tree
from mtl_ray.distributed.config import read_pipeline


def main(argv: Sequence[str] | None = None) -> int:
    """1 if a metric is below what the config expects, or a check failed."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.pipeline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python -m jobs.pipeline configs/pipelines/demo.yaml "
        "experiment.runtime.storage=s3://bucket/runs",
    )
    parser.add_argument("config", help="a YAML file")
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="changes, in YAML"
    )
    arguments = parser.parse_args(argv)
    config = read_pipeline(load_tree(arguments.config, arguments.overrides))

    from mtl_ray.distributed.pipeline import run_pipeline
    from mtl_ray.distributed.stage import stage_table

    stages = []
    for stage in run_pipeline(config):
        stages.append(stage)
        print(f"{stage.outcome.result}  ({stage.seconds:.1f} s)", flush=True)
    print(f"\n{stage_table(stages)}")
    return 0 if all(stage.outcome.held for stage in stages) else 1


if __name__ == "__main__":
    run(main)
