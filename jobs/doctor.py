"""Checks this machine, a cluster file or a running cluster, a line for each check: ok, or broken
and how to fix it.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from jobs.run import run

EXAMPLES = """examples:
  python -m jobs.doctor --storage s3://bucket/runs                                        this machine
  python -m jobs.doctor clusters/aws.yaml                                                 a file, before a cluster is started
  ray job submit --working-dir . -- python -m jobs.doctor auto --storage s3://bucket/runs  every machine of a running cluster"""  # noqa: E501


def main(argv: Sequence[str] | None = None) -> int:
    """1 if something is broken."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.doctor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "target",
        nargs="?",
        metavar="CLUSTER.yaml|ADDRESS",
        help="a cluster file, HOST:PORT of a Ray cluster, or auto",
    )
    parser.add_argument(
        "--storage",
        metavar="URI",
        help="where runs will be written (default, without a target: runs)",
    )
    arguments = parser.parse_args(argv)
    if arguments.target is None:
        from mtl_ray.distributed.doctor import examine

        findings = examine(arguments.storage or "runs")
    elif arguments.target.endswith((".yaml", ".yml")):
        from mtl_ray.distributed.doctor_file import examine_file

        findings = examine_file(Path(arguments.target))
    else:
        from mtl_ray.distributed.doctor_nodes import examine_cluster

        findings = examine_cluster(arguments.target, arguments.storage)
    broken = 0
    for finding in findings:
        broken += finding.broken
        print(
            f"{'BROKEN' if finding.broken else 'ok':<7} {finding.subject:<12} {finding.text}",
            flush=True,
        )
    if broken:
        print(f"{broken} broken")
    return 1 if broken else 0


if __name__ == "__main__":
    run(main)
