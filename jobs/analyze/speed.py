"""Latency and throughput of models (checkpoint, bundle, endpoint) by phase and side by side, of a
loader, or of the preparation of samples by step.
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from typing import get_args

from jobs.run import run
from mtl_ray import storage
from mtl_ray.distributed.outputs import absolute_output

_NUMBERS = {
    "repeat": "repetitions of the measurement",
    "iterations": "timed steps of each thread",
    "warmup": "steps before them",
    "batch": "images of one step of a model",
    "concurrency": "threads that call the model at the same time",
    "threads": "of torch or the engine within one call; 0: theirs",
}
"""Options that are numbers, and their help."""


def _parser() -> argparse.ArgumentParser:
    from mtl_ray.analysis.speed import SpeedRequest
    from mtl_ray.analysis.speed_report import SpeedTask

    default = {field.name: field.default for field in dataclasses.fields(SpeedRequest)}
    example = (
        "examples: python -m jobs.analyze speed runs/bccd --repeat 3 --json speed.json; "
        "python -m jobs.analyze speed bundles/a bundles/b --engine onnxruntime openvino:int8 "
        "--threads 1 --concurrency 4 --png speed.png"
    )
    parser = argparse.ArgumentParser(
        prog="python -m jobs.analyze speed", description=__doc__, epilog=example
    )
    parser.add_argument(
        "targets",
        nargs="+",
        metavar="target",
        help="run folder, checkpoint, bundle, endpoint URL, or config (.yaml); loader and dataset "
        "need a config; several are compared, by turns",
    )
    parser.add_argument(
        "--task",
        choices=get_args(SpeedTask),
        default=default["task"],
        help="the timed task (default inference)",
    )
    parser.add_argument(
        "--engine",
        nargs="+",
        default=[],
        metavar="NAME",
        help="engines of the bundles, such as onnxruntime openvino:int8 (default: the first of "
        "each)",
    )
    for name, text in _NUMBERS.items():
        parser.add_argument(
            f"--{name}",
            type=int,
            default=default[name],
            metavar="N",
            help=f"{text} (default %(default)s)",
        )
    _add_data_options(parser)
    return parser


def _add_data_options(parser: argparse.ArgumentParser) -> None:
    """The options of data, device and outputs."""
    parser.add_argument(
        "--data",
        help="split (for inference also a COCO annotation file); by default that of the config, or "
        "generated",
    )
    parser.add_argument("--images", help="folder of the images of a COCO annotation file")
    parser.add_argument(
        "--device", help="of torch: cpu, cuda, cuda:1; by default a GPU if there is one"
    )
    parser.add_argument(
        "--classes",
        type=int,
        metavar="N",
        help="their number, for a config whose split is not available",
    )
    parser.add_argument(
        "--api-key-env", help="environment variable with the API key of the endpoint"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there (path or URI)")
    parser.add_argument(
        "--png",
        metavar="FILE",
        help="draw phases, percentiles and throughput there (path or URI; also .svg, .pdf)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a table, and writes the figures."""
    from mtl_ray.analysis.speed import SpeedRequest, compare_speed, speed_requests
    from mtl_ray.analysis.speed_report import comparison_json, comparison_text
    from mtl_ray.inference.endpoint import read_api_key

    args = _parser().parse_intermixed_args(argv)
    out = absolute_output("--json", args.json) if args.json else None
    figure = absolute_output("--png", args.png) if args.png else None
    fields = {field.name for field in dataclasses.fields(SpeedRequest)} - {"engine"}
    options = {name: value for name, value in vars(args).items() if name in fields}
    request = SpeedRequest(
        target=args.targets[0], **options, api_key=read_api_key(args.api_key_env)
    )
    reports = compare_speed(speed_requests(args.targets, args.engine, request))
    print(reports[0].to_text() if len(reports) == 1 else comparison_text(reports))
    if out is not None:
        storage.write(out, json.dumps(comparison_json(reports), indent=1).encode())
    if figure is not None:
        from mtl_ray.analysis.curves_figure import figure_bytes
        from mtl_ray.analysis.speed_figure import draw_speed

        storage.write(figure, figure_bytes(draw_speed(reports), figure))
    return 0


if __name__ == "__main__":
    run(main)
