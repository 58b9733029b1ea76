"""Latency and throughput of a model (checkpoint, bundle, endpoint), of a loader, or of the
preparation of samples by step.
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from typing import get_args

from jobs.run import run
from mtl_ray import storage
from mtl_ray.distributed.outputs import absolute_output


def _parser() -> argparse.ArgumentParser:
    from mtl_ray.analysis.speed import SpeedRequest, Task

    default = {field.name: field.default for field in dataclasses.fields(SpeedRequest)}
    example = (
        "example: python -m jobs.analyze speed runs/bccd --task inference --repeat 3 --json "
        "speed.json"
    )
    parser = argparse.ArgumentParser(
        prog="python -m jobs.analyze speed", description=__doc__, epilog=example
    )
    parser.add_argument(
        "target",
        help="run folder, checkpoint, bundle, endpoint URL, or config (.yaml); loader and dataset "
        "need a config",
    )
    parser.add_argument(
        "--task",
        choices=get_args(Task),
        default=default["task"],
        help="the timed task (default inference)",
    )
    parser.add_argument(
        "--repeat",
        type=int,
        default=default["repeat"],
        metavar="N",
        help="repetitions of the measurement (default 1)",
    )
    parser.add_argument(
        "--iterations",
        type=int,
        default=default["iterations"],
        metavar="N",
        help="timed steps (default 200)",
    )
    parser.add_argument(
        "--warmup",
        type=int,
        default=default["warmup"],
        metavar="N",
        help="steps before them (default 10)",
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=default["batch"],
        metavar="N",
        help="images of one step of a model (default 1)",
    )
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
        "--threads",
        type=int,
        default=default["threads"],
        metavar="N",
        help="of torch or onnxruntime; 0 (default): theirs",
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
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a table, and writes the figures."""
    from mtl_ray.analysis.speed import SpeedRequest, measure_speed
    from mtl_ray.inference.endpoint import read_api_key

    args = _parser().parse_args(argv)
    out = absolute_output("--json", args.json) if args.json else None
    fields = {field.name for field in dataclasses.fields(SpeedRequest)}
    options = {name: value for name, value in vars(args).items() if name in fields}
    report = measure_speed(SpeedRequest(**options, api_key=read_api_key(args.api_key_env)))
    print(report.to_text())
    if out is not None:
        storage.write(out, json.dumps(report.to_json(), indent=1).encode())
    return 0


if __name__ == "__main__":
    run(main)
