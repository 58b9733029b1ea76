"""Duration of the training steps in logs by epoch: slowest, fastest, spread and average."""

import argparse
import dataclasses
import json
from collections.abc import Sequence

from jobs.run import run
from mtl_ray import storage
from mtl_ray.analysis.logs import read_log
from mtl_ray.analysis.train_time import train_time
from mtl_ray.distributed.outputs import absolute_output


def main(argv: Sequence[str] | None = None) -> int:
    """Prints four lines for each log."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.analyze train-time",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python -m jobs.analyze train-time "
        "work_dirs/retinanet/20240101_120000.log.json --include-outliers",
    )
    parser.add_argument(
        "logs",
        nargs="+",
        metavar="LOG",
        help="*.log.json, scalars.json, scalars.jsonl, or the folder of a run; path or URI",
    )
    parser.add_argument(
        "--include-outliers",
        action="store_true",
        help="count the first record of each epoch too, which includes the start",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write the figures of every epoch there (path or URI)"
    )
    args = parser.parse_args(argv)
    out = absolute_output("--json", args.json) if args.json else None
    found = [train_time(read_log(uri), include_outliers=args.include_outliers) for uri in args.logs]
    print("\n\n".join(each.to_text() for each in found))
    if out is not None:
        storage.write(
            out, json.dumps([dataclasses.asdict(each) for each in found], indent=1).encode()
        )
    return 0


if __name__ == "__main__":
    run(main)
