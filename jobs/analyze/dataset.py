"""Checks of datasets before a training: class balance, boxes, damaged and missing files, images
in two splits.
"""

import argparse
from collections.abc import Sequence

from jobs.run import run
from mtl_ray.distributed.outputs import absolute_output

EXAMPLES = """examples:
  python -m jobs.analyze dataset data/bccd/train data/bccd/val --out health
  python -m jobs.analyze dataset annotations/instances_val2017.json --images val2017 --out health
  python -m jobs.analyze dataset data/street/train --config configs/lidar/pointpillars_street.yaml
  python -m jobs.analyze dataset voc:root=BCCD,split=train voc:root=BCCD,split=val --out health"""


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the findings; writes figures and numbers; with --strict 1 if there are findings."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.analyze dataset",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "data",
        nargs="+",
        metavar="D",
        help="split, COCO annotation file, or KIND:root=R,split=S,... as jobs.convert reads it",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="folder or URI for dataset.json, the tables and the figures"
    )
    parser.add_argument("--images", help="folder of the images of a COCO annotation file")
    parser.add_argument(
        "--config", help="of a network: compares clouds with its grid and its anchors"
    )
    parser.add_argument(
        "--plugins",
        action="append",
        default=[],
        metavar="MODULE",
        help="module of a plugin, which may add a KIND",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="Ray tasks at a time; 1 (default): this process, without Ray",
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 if there are findings")
    args = parser.parse_args(argv)
    out = absolute_output("--out", args.out) if args.out else None

    from mtl_ray.analysis.health_data import network_of
    from mtl_ray.distributed.dataset_health import check_health
    from mtl_ray.plugin import installed_plugins

    network = network_of(args.config) if args.config else None
    report, sets = check_health(
        args.data,
        images=args.images,
        workers=args.workers,
        network=network,
        plugins=(*installed_plugins(), *args.plugins),
    )
    print(report.to_text())
    if out is not None:
        from mtl_ray.analysis.health_figures import write_health

        print(f"{', '.join(write_health(out, report, sets))} are in {args.out}")
    return 1 if args.strict and report.findings else 0


if __name__ == "__main__":
    run(main)
