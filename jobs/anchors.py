"""Fits anchors to the boxes of a dataset, and writes them as an overlay for a config."""

import argparse
from collections.abc import Sequence

from jobs.run import run
from mtl_ray.distributed.outputs import absolute_output
from mtl_ray.inputs.image import Canvas

EXAMPLE = (
    "example: python -m jobs.anchors --data shards/bccd/train --num 9 --input 320 240 --out "
    "anchors/bccd"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Writes anchors.json, anchors.yaml and anchors.png, and prints the anchors."""
    parser = _parser()
    args = parser.parse_args(argv)
    if min(args.input) < 1:
        parser.error("--input must be above 0")
    out = absolute_output("--out", args.out)

    from mtl_ray.tuning.anchor_report import anchors_text, write_anchors
    from mtl_ray.tuning.anchor_search import (
        YOLOV3_LEVELS,
        AnchorRequest,
        anchors_of_config,
        evaluate_anchors,
        fit_anchors,
        shapes_of_request,
    )

    levels, before = (
        anchors_of_config(args.config, args.head) if args.config else (YOLOV3_LEVELS, None)
    )
    request = AnchorRequest(
        canvas=Canvas(kind=args.placement, width=args.input[0], height=args.input[1]),
        method=args.method or ("kmeans" if args.compat else "fast"),
        data=tuple(args.data),
        levels=tuple(args.levels) or levels,
        before=before,
        **{name: getattr(args, name) for name in ("num", "compat", "seed", "head")},
    )
    shapes = shapes_of_request(request)
    if request.method == "optuna":
        from mtl_ray.distributed.anchors import search_anchors

        anchors = search_anchors(
            shapes,
            request.num,
            sampler=args.sampler,
            trials=args.trials,
            workers=args.workers,
            seed=request.seed,
        )
    else:
        anchors = fit_anchors(request, shapes)
    report = evaluate_anchors(request, shapes, anchors)
    print(anchors_text(report))
    for uri in args.data:
        if uri.endswith(".json"):
            print(
                f"note: {uri}: the sizes in the file were used; they were not compared with images"
            )
    for uri in write_anchors(report, out):
        print(uri)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.anchors", description=__doc__, epilog=EXAMPLE
    )
    parser.add_argument(
        "--data",
        nargs="+",
        required=True,
        metavar="D",
        help="splits or COCO annotation files (.json)",
    )
    parser.add_argument(
        "--num", type=int, default=9, help="of anchors over all levels (default %(default)s)"
    )
    parser.add_argument(
        "--input",
        type=int,
        nargs=2,
        required=True,
        metavar=("WIDTH", "HEIGHT"),
        help="of the network's canvas",
    )
    kinds = ("letterbox", "stretch", "crop")
    parser.add_argument(
        "--placement",
        choices=kinds,
        default="letterbox",
        help="data.canvas.kind (default %(default)s)",
    )
    methods = ("fast", "kmeans", "de", "optuna")
    parser.add_argument(
        "--method", choices=methods, help="how they are fitted (default fast; with --compat kmeans)"
    )
    parser.add_argument(
        "--compat",
        action="store_true",
        help="boxes, k-means and differential evolution by MMDetection's documented rules",
    )
    _add_search_options(parser)
    return parser


def _add_search_options(parser: argparse.ArgumentParser) -> None:
    """The options of the head, the search and the output."""
    parser.add_argument(
        "--head",
        default="boxes",
        help="of the config that the overlay is for (default %(default)s)",
    )
    parser.add_argument(
        "--levels",
        nargs="+",
        default=[],
        metavar="P",
        help="of that head (default those of --config, else P3 P4 P5)",
    )
    compared = "compare with the anchors of its head (default: the published ones of YOLOv3)"
    parser.add_argument("--config", metavar="CONFIG", help=compared)
    parser.add_argument(
        "--seed", type=int, default=0, help="of the random numbers (default %(default)s)"
    )
    parser.add_argument(
        "--sampler", choices=("tpe", "cmaes"), default="tpe", help="of Optuna (default %(default)s)"
    )
    parser.add_argument("--trials", type=int, default=40, help="of Optuna (default %(default)s)")
    parser.add_argument(
        "--workers", type=int, default=1, help="trials of Optuna at a time (default %(default)s)"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder or URI")


if __name__ == "__main__":
    run(main)
