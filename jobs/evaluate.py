"""Measures a model, an endpoint or stored predictions on a split."""

import argparse
from collections.abc import Sequence

from jobs.run import run
from mtl_ray.distributed.evaluate import evaluate_rows
from mtl_ray.distributed.outputs import absolute_output
from mtl_ray.evaluation.evaluate import EvaluationRequest, write_results
from mtl_ray.inference.endpoint import read_api_key
from mtl_ray.inputs.image_header import MAX_PIXELS


def _parser() -> argparse.ArgumentParser:
    example = "example: python -m jobs.evaluate runs/bccd --data shards/bccd/val --out results/bccd"
    parser = argparse.ArgumentParser(
        prog="python -m jobs.evaluate", description=__doc__, epilog=example
    )
    parser.add_argument(
        "target",
        help="run folder, checkpoint, bundle, endpoint URL, predictions.arrow, or a COCO results "
        "file",
    )
    parser.add_argument("--data", required=True, help="URI of a split, or a COCO annotation file")
    parser.add_argument(
        "--out", required=True, help="folder or URI for report.json and the predictions"
    )
    parser.add_argument("--images", help="folder of the images of a COCO annotation file")
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="Ray tasks that share the rows; 1 (default): this process, without Ray",
    )
    parser.add_argument("--batch", type=int, default=16, help="images of one call of the network")
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
        "--tta",
        help="test-time augmentation: flip,scales=0.8:1:1.2,fuse=wbf|nms,iou=0.55 (each part may "
        "be left out), or none; by default evaluate.tta of the config",
    )
    parser.add_argument(
        "--class-agnostic",
        action="store_true",
        help="objects of all classes count as of one",
    )
    parser.add_argument(
        "--engine",
        metavar="NAME[:PRECISION]",
        help="one of the engines of a bundle, such as openvino:int8; by default its first",
    )
    parser.add_argument(
        "--api-key-env", help="environment variable with the API key of the endpoint"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Writes report.json and the predictions, prints the figures; 1 if there are more invalid
    samples than allowed.
    """
    args = _parser().parse_args(argv)
    out = absolute_output("--out", args.out)
    request = EvaluationRequest(
        target=args.target,
        data=args.data,
        images=args.images,
        batch=args.batch,
        max_pixels=args.max_pixels,
        api_key=read_api_key(args.api_key_env),
        tta=args.tta,
        engine=args.engine,
        class_agnostic=args.class_agnostic,
    )
    report, part = evaluate_rows(request, args.workers)
    print(report.to_text())
    for uri in write_results(out, report, part):
        print(uri)
    for key, reason in part.measured.invalid:
        print(f"invalid sample {key}: {reason}")
    return 1 if len(part.measured.invalid) > args.max_bad else 0


if __name__ == "__main__":
    run(main)
