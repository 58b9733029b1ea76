"""Looks at this machine and says in one line each what is well and what is broken, with the mend."""

import argparse
from collections.abc import Sequence

from jobs.run import run
from mtl_ray.distributed.doctor import examine


def main(argv: Sequence[str] | None = None) -> int:
    """1 if something is broken."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.doctor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python -m jobs.doctor --storage s3://bucket/runs",
    )
    parser.add_argument("--storage", default="runs", metavar="URI", help="where runs are to be written (default: %(default)s)")
    arguments = parser.parse_args(argv)
    broken = 0
    for finding in examine(arguments.storage):
        broken += finding.broken
        print(f"{'BROKEN' if finding.broken else 'ok':<7} {finding.subject:<12} {finding.text}", flush=True)
    if broken:
        print(f"{broken} broken")
    return 1 if broken else 0


if __name__ == "__main__":
    run(main)
