"""Errors that lower the average precision of a detector: localisation, classes, background,
misses; by class and area.
"""

import argparse
from collections.abc import Sequence

from jobs.run import run
from mtl_ray.distributed.outputs import absolute_output


def _parser() -> argparse.ArgumentParser:
    example = (
        "example: python -m jobs.analyze errors results/bccd/boxes.coco.json --data "
        "instances_val2017.json --out errors"
    )
    parser = argparse.ArgumentParser(
        prog="python -m jobs.analyze errors", description=__doc__, epilog=example
    )
    parser.add_argument(
        "predictions",
        help="predictions.arrow, a COCO results file, or a result pickle of MMDetection",
    )
    parser.add_argument(
        "--data",
        required=True,
        help="URI of a split, or a COCO annotation file, which may have supercategories",
    )
    parser.add_argument("--out", required=True, help="folder or URI")
    parser.add_argument(
        "--type", choices=("bbox", "segm"), default="bbox", help="compare boxes (default) or masks"
    )
    parser.add_argument(
        "--score-thr",
        type=float,
        default=0.0,
        help="detections of a lower score are left out (default 0)",
    )
    parser.add_argument(
        "--areas",
        type=float,
        nargs=3,
        default=(1024, 9216, 1e10),
        help="largest area of small, medium and large objects",
    )
    parser.add_argument(
        "--no-class-figures", action="store_true", help="draw no curves of single classes"
    )
    parser.add_argument(
        "--classes", nargs="+", metavar="NAME", help="names of the labels 0, 1, ... of a pickle"
    )
    parser.add_argument("--head", help="the detection head, if there are several")
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="Ray tasks at a time; 1 (default): this process, without Ray",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Writes errors.json, errors.csv, tide.json and figures, prints the means."""
    args = _parser().parse_args(argv)
    out = absolute_output("--out", args.out)

    from mtl_ray.analysis.errors import KINDS, error_curves
    from mtl_ray.analysis.errors_report import write_errors
    from mtl_ray.analysis.paired import read_paired
    from mtl_ray.analysis.tide import tide
    from mtl_ray.distributed.executor import open_executor

    paired = read_paired(
        args.predictions, args.data, kind=args.type, head=args.head, classes=args.classes
    )
    paired = paired.above(args.score_thr).comparable(args.type)
    shares = tide(paired, args.type)
    with open_executor(args.workers) as executor:
        found = error_curves(paired, executor, kind=args.type, areas=args.areas)
        written = write_errors(
            out, found, shares, executor, kind=args.type, class_figures=not args.no_class_figures
        )
    print(" " * 34 + "".join(f"{kind:>8}" for kind in KINDS))
    for title, rows in (
        ("all classes", found.averages()["allclass"]),
        ("classes with objects", found.of_present()),
    ):
        for area, row in rows.items():
            print(f"{title:24}{area:10}" + "".join(f"{row[kind]:8.3f}" for kind in KINDS))
    print(
        f"TIDE, AP50 {shares['ap']:.3f}: "
        + ", ".join(f"{name} {value:.3f}" for name, value in shares["delta_ap"].items())
    )
    for line in (*paired.notes, *written):
        print(line)
    return 0


if __name__ == "__main__":
    run(main)
