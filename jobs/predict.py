"""Draws the predictions of a model on images (or files of another input, or samples of a split),
and writes them as JSON.
"""

import argparse
import sys
from collections.abc import Sequence

from jobs.run import run
from mtl_ray.distributed.outputs import absolute_output
from mtl_ray.inference.endpoint import read_api_key
from mtl_ray.inference.files import open_results, predict_data
from mtl_ray.inference.places import find_data
from mtl_ray.inference.tta import open_with_tta
from mtl_ray.inputs.cloud_options import FEATURES_OPTION
from mtl_ray.inputs.image_header import MAX_PIXELS
from mtl_ray.tasks.optional import RESULTS_FORMS
from mtl_ray.tasks.response import MASK_FORMS

DRAWN_FROM = 0.3
"""The least score of what is drawn and in predictions.json, where it is not stated."""


def _parser() -> argparse.ArgumentParser:
    example = "example: python -m jobs.predict runs/bccd photos/ 'more/*.jpg' --out drawn"
    parser = argparse.ArgumentParser(
        prog="python -m jobs.predict", description=__doc__, epilog=example
    )
    parser.add_argument("target", help="run folder, checkpoint, bundle or endpoint URL")
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="an image (or a file of another input), a folder, a pattern in quotes, or a split",
    )
    parser.add_argument(
        "--out", required=True, help="folder or URI for the drawings and predictions.json"
    )
    parser.add_argument(
        "--score-thr",
        type=float,
        help="boxes and labels with a lower score are left out (default 0.3; in the result files "
        "of --format none is, as their metric wants all)",
    )
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=MAX_PIXELS,
        help=f"images that state more are not read (default {MAX_PIXELS})",
    )
    parser.add_argument(
        "--masks",
        choices=MASK_FORMS,
        default="rle",
        help="form of masks in predictions.json: COCO run lengths (default), polygons or none",
    )
    parser.add_argument(
        "--format",
        choices=("json", *RESULTS_FORMS),
        default="json",
        help="kitti or nuscenes: also the result files of that benchmark, in a folder of that name "
        "below --out; for splits of point clouds",
    )
    parser.add_argument("--features", help=f"of point clouds: {FEATURES_OPTION}")
    parser.add_argument(
        "--tta",
        help="test-time augmentation: flip,scales=0.8:1:1.2,fuse=wbf|nms,iou=0.55 (each part may "
        "be left out), or none; by default evaluate.tta of the config",
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
    """Writes a drawing of each file and predictions.json; 1 if a file could not be read."""
    args = _parser().parse_args(argv)
    if args.max_pixels < 1:
        raise ValueError(f"--max-pixels is {args.max_pixels}; it must be at least 1")
    out = absolute_output("--out", args.out)
    predictor = open_with_tta(
        args.target, args.tta, api_key=read_api_key(args.api_key_env), engine=args.engine
    )
    kind = predictor.canvas.input
    options = {} if args.features is None else {"features": args.features}
    data = find_data(args.images, predictor.canvas, options)
    of_results, drawn = (
        (0.0, DRAWN_FROM) if args.score_thr is None else (args.score_thr, args.score_thr)
    )
    results = {} if args.format == "json" else open_results(predictor, args.format, out, of_results)
    if results and any(each.sample() is None for each in data):
        raise ValueError(f"--format {args.format} needs the samples of splits; name no files")
    bad = predict_data(predictor, data, out, drawn, args.max_pixels, args.masks, results)
    written = [writer.finish() for writer in results.values()]
    print(
        f"{len(data) - len(bad)} of {len(data)} {kind.noun}s: drawings and predictions.json are in "
        f"{args.out}"
    )
    if written:
        print(f"results of the form {args.format}: {', '.join(written)}")
    for uri, reason in bad:
        print(f"could not be read: {uri}: {reason}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    run(main)
