"""Values of training logs (of OpenMMLab, all generations, or of this project) as curves, with
the points as CSV beside the figure.
"""

import argparse
import os
from collections.abc import Sequence
from typing import get_args

from jobs.run import run
from mtl_ray import storage
from mtl_ray.analysis.curves import CurveAxis, axis_of, curves_of, to_csv
from mtl_ray.analysis.curves_figure import Style, draw_curves, figure_bytes
from mtl_ray.analysis.logs import join_logs, read_log
from mtl_ray.distributed.outputs import absolute_output


def _parser() -> argparse.ArgumentParser:
    example = (
        "example: python -m jobs.analyze curves runs/a runs/b --keys bbox_mAP --legend "
        "small "
        "large --out curves.pdf"
    )
    parser = argparse.ArgumentParser(
        prog="python -m jobs.analyze curves", description=__doc__, epilog=example
    )
    parser.add_argument(
        "logs",
        nargs="+",
        metavar="LOG",
        help="*.log.json, scalars.json, scalars.jsonl, or the folder of a run; path or URI",
    )
    parser.add_argument(
        "--keys",
        nargs="+",
        required=True,
        metavar="K",
        help="such as loss, bbox_mAP or coco/bbox_mAP",
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="the figure: .png, .pdf, .svg, ... (path or URI)",
    )
    parser.add_argument(
        "--legend",
        nargs="+",
        metavar="L",
        help="a name for each log and key, all keys of the first log first",
    )
    parser.add_argument("--title", default="", metavar="T", help="above the figure")
    parser.add_argument(
        "--mode", choices=("train", "eval"), help="only lines of training or of evaluation"
    )
    parser.add_argument(
        "--x",
        choices=get_args(CurveAxis),
        help="by default epochs if all keys are of evaluations, else steps",
    )
    _add_figure_options(parser)
    return parser


def _add_figure_options(parser: argparse.ArgumentParser) -> None:
    """How the logs become curves, and what they look like."""
    parser.add_argument(
        "--smooth",
        type=float,
        default=0.0,
        metavar="W",
        help="weight of the past in a running mean, 0 to below 1",
    )
    parser.add_argument(
        "--join", action="store_true", help="the logs belong to one resumed training, in this order"
    )
    parser.add_argument(
        "--interval",
        "--eval-interval",
        type=int,
        metavar="N",
        help="epochs between evaluations, for logs without the epoch",
    )
    parser.add_argument(
        "--style",
        choices=get_args(Style),
        default="whitegrid",
        metavar="S",
        help=f"one of {', '.join(get_args(Style))}",
    )
    parser.add_argument(
        "--backend",
        metavar="B",
        help="of matplotlib: agg (default), cairo, svg, pdf, pgf, ...; no window is opened",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the figure and the CSV."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.interval is not None and args.interval < 1:
        parser.error("--interval must be at least 1")
    out = absolute_output("--out", args.out)
    logs = [read_log(uri) for uri in args.logs]
    for log in logs:
        if log.unread:
            print(f"{log.uri}: {log.unread} lines are not JSON (cut off?) ; they were left out")
    logs = [join_logs(logs)] if args.join else logs
    joined = [log.joined() for log in logs]
    for log, kept in zip(logs, joined, strict=True):
        if left_out := len(log.records) - len(kept.records):
            print(
                f"{log.uri}: repeated steps: the last lines count, {left_out} earlier lines were "
                "left out"
            )
    curves = curves_of(
        joined,
        args.keys,
        labels=args.legend,
        kind=args.mode,
        interval=args.interval,
        smooth=args.smooth,
    )
    figure = draw_curves(curves, args.x or axis_of(curves), title=args.title, style=args.style)
    table = os.path.splitext(args.out)[0] + ".csv"
    storage.write(out, figure_bytes(figure, args.out, args.backend))
    storage.write(os.path.splitext(out)[0] + ".csv", to_csv(curves).encode())
    print(
        f"{sum(len(curve.steps) for curve in curves)} points of {len(curves)} curves are in "
        f"{args.out} and {table}"
    )
    return 0


if __name__ == "__main__":
    run(main)
