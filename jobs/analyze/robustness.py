"""Measures a model on corrupted images: 15 corruptions (or 19) in five severities. The same
command again continues.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from jobs.run import run
from mtl_ray.distributed.outputs import absolute_output
from mtl_ray.inference.endpoint import read_api_key
from mtl_ray.inputs.image_header import MAX_PIXELS

EXAMPLE = (
    "example: python -m jobs.analyze robustness runs/bccd --data shards/bccd/val --out "
    "robust/bccd --corruptions noise fog --workers 4"
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.analyze robustness", description=__doc__, epilog=EXAMPLE
    )
    parser.add_argument(
        "target",
        help="run folder, checkpoint, bundle or endpoint URL; or MMDetection's ..._results.pkl",
    )
    parser.add_argument("--data", metavar="D", help="URI of a split, or a COCO annotation file")
    parser.add_argument(
        "--out",
        required=True,
        metavar="DIR",
        help="folder or URI; cells that it already holds are not measured again",
    )
    names = "names, noise, blur, weather, digital, holdout, benchmark (15), all (19) or none"
    parser.add_argument(
        "--corruptions",
        nargs="+",
        default=["benchmark"],
        metavar="NAME",
        help=f"{names} (default benchmark)",
    )
    parser.add_argument(
        "--severities",
        nargs="+",
        type=int,
        default=[0, 1, 2, 3, 4, 5],
        metavar="N",
        help="1 to 5; clean is always measured",
    )
    parser.add_argument(
        "--aggregate",
        choices=("benchmark", "all"),
        default="benchmark",
        help="the corruptions of mPC (default %(default)s)",
    )
    _add_measurement_options(parser)
    return parser


def _add_measurement_options(parser: argparse.ArgumentParser) -> None:
    """How the cells are measured."""
    parser.add_argument(
        "--images", metavar="DIR", help="folder of the images of a COCO annotation file"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="Ray tasks of one core each; 1 (default): this process, without Ray",
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=16,
        help="images of one call of the network (default %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the corruptions (default %(default)s)"
    )
    parser.add_argument(
        "--max-bad",
        type=int,
        default=0,
        help="invalid samples that are allowed; more give status 1",
    )
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=MAX_PIXELS,
        help="images that state more are invalid samples",
    )
    parser.add_argument(
        "--engine",
        metavar="NAME[:PRECISION]",
        help="one of the engines of a bundle, such as openvino:int8; by default its first",
    )
    parser.add_argument(
        "--api-key-env", help="environment variable with the API key of the endpoint"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Writes robustness.json, robustness.csv and robustness.png, and prints P, mPC and rPC; 1 if
    there are too many invalid samples.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    out = absolute_output("--out", args.out)

    from mtl_ray.analysis.robustness import CLEAN
    from mtl_ray.analysis.robustness_file import SUFFIXES, read_robustness
    from mtl_ray.analysis.robustness_report import robustness_text, summarise, write_robustness

    if args.data is None and args.target.endswith(SUFFIXES):
        summary = summarise(read_robustness(args.target), {"target": args.target}, args.aggregate)
    elif args.data is None:
        parser.error("--data is needed, unless the target is a file of results")
    else:
        summary = summarise(*_measured(args, out), args.aggregate)
    print(robustness_text(summary))
    for uri in write_robustness(summary, out):
        print(uri)
    bad = summary.cells[CLEAN].bad
    for key, reason in bad:
        print(f"invalid sample {key}: {reason}")
    return 1 if len(bad) > args.max_bad else 0


def _measured(args: argparse.Namespace, out: str) -> tuple[Any, dict[str, Any]]:
    """The cells, and facts about the request."""
    from mtl_ray.analysis.corruptions import chosen
    from mtl_ray.analysis.robustness import RobustnessRequest, benchmark_cells, resolved
    from mtl_ray.distributed.robustness import measure_cells

    given = {
        name: getattr(args, name)
        for name in ("target", "data", "images", "seed", "batch", "max_pixels", "engine")
    }
    cells = benchmark_cells(chosen(args.corruptions), args.severities)
    request = resolved(RobustnessRequest(**given, api_key=read_api_key(args.api_key_env)))
    return measure_cells(request, cells, out, args.workers), request.about()


if __name__ == "__main__":
    run(main)
