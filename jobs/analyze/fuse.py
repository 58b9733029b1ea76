"""Fuses stored predictions of several models: weighted boxes fusion."""

import argparse
from collections.abc import Sequence
from typing import get_args

from jobs.run import run
from mtl_ray.distributed.outputs import absolute_output


def _parser() -> argparse.ArgumentParser:
    from mtl_ray.tasks.detection.fuse import Confidence

    example = (
        "example: python -m jobs.analyze fuse small.json large.pkl --data "
        "instances_val2017.json --weights 1 2 --out fused.json"
    )
    parser = argparse.ArgumentParser(
        prog="python -m jobs.analyze fuse", description=__doc__, epilog=example
    )
    parser.add_argument(
        "predictions",
        nargs="+",
        metavar="P",
        help="of each model predictions.arrow, COCO results or a result pickle",
    )
    parser.add_argument(
        "--data", required=True, metavar="D", help="URI of a split, or a COCO annotation file"
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="COCO results (.json) or predictions (.arrow); path or URI",
    )
    parser.add_argument(
        "--weights",
        nargs="+",
        type=float,
        metavar="W",
        help="of each model, in their order (default: 1 each)",
    )
    parser.add_argument(
        "--iou-thr",
        type=float,
        default=0.55,
        help="boxes with more IoU are fused (default %(default)s)",
    )
    parser.add_argument(
        "--skip-box-thr",
        type=float,
        default=0.0,
        help="boxes with a lower score are left out first (default 0)",
    )
    parser.add_argument(
        "--conf-type",
        choices=get_args(Confidence),
        default="avg",
        help="the score of fused boxes (default %(default)s)",
    )
    parser.add_argument(
        "--classes", nargs="+", metavar="NAME", help="names of the labels 0, 1, ... of pickles"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="Ray tasks at a time; 1 (default): this process, without Ray",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the predictions, and prints the numbers of boxes."""
    parser = _parser()
    args = parser.parse_args(argv)
    weights = args.weights or [1.0] * len(args.predictions)
    if len(weights) != len(args.predictions):
        parser.error(
            f"--weights has {len(weights)} numbers for {len(args.predictions)} files of predictions"
        )
    out = absolute_output("--out", args.out)

    from mtl_ray.analysis.fuse_files import fuse_files, write_fused, writer_of
    from mtl_ray.analysis.paired import PICKLES, open_pairs
    from mtl_ray.distributed.executor import open_executor
    from mtl_ray.tasks.detection.fuse import Fusion

    writer_of(out)
    rule = Fusion(
        weights=tuple(weights), iou=args.iou_thr, least=args.skip_box_thr, confidence=args.conf_type
    )
    opened = [
        open_pairs(uri, args.data, classes=args.classes if uri.endswith(PICKLES) else None)
        for uri in args.predictions
    ]
    with open_executor(args.workers) as executor:
        fused = fuse_files(opened, rule, executor)
    write_fused(out, fused)
    for uri, count in zip(args.predictions, fused.before, strict=True):
        print(f"{count:9,} boxes in {uri}")
    print(f"{sum(map(len, fused.found)):9,} boxes on {len(fused.samples):,} images in {out}")
    for note in fused.notes:
        print(note)
    return 0


if __name__ == "__main__":
    run(main)
