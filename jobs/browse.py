"""Draws samples of a split with their annotations."""

import argparse
from collections.abc import Sequence

from jobs.run import run
from mtl_ray.distributed.outputs import absolute_output
from mtl_ray.experiment import load_experiment


def main(argv: Sequence[str] | None = None) -> int:
    """Writes an image of each sample and contact sheets, and prints where."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.browse",
        description=__doc__,
        epilog="example: python -m jobs.browse shards/bccd/train --out look --num 30 --augmented "
        "configs/detection/yolov3_bccd.yaml",
    )
    parser.add_argument("uri", metavar="URI", help="a split: the folder of its manifest")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder or URI for the images")
    parser.add_argument(
        "--num",
        type=int,
        default=20,
        metavar="N",
        help="how many samples (default 20; spread evenly over the split)",
    )
    parser.add_argument(
        "--augmented",
        metavar="CONFIG",
        help="draw the training inputs of this config, in the order of training",
    )
    args = parser.parse_args(argv)
    if args.num < 1:
        parser.error("--num must be at least 1")
    out = absolute_output("--out", args.out)
    config = load_experiment(args.augmented) if args.augmented else None

    from mtl_ray.analysis.browse import browse

    names, sheets = browse(args.uri, out, args.num, config)
    print(f"{len(names)} images are in {args.out}; start with {', '.join(sheets)}")
    return 0


if __name__ == "__main__":
    run(main)
