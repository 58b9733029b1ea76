"""FLOPs and parameters of a network, by module, with a list of the operators that do not count."""

import argparse
import json
from collections.abc import Sequence
from typing import get_args

from jobs.run import run
from mtl_ray import storage
from mtl_ray.distributed.outputs import absolute_output
from mtl_ray.inputs.cloud_options import FEATURES_OPTION

EXAMPLES = """examples:
  python -m jobs.analyze complexity configs/detection/yolov3_bccd.yaml --shape 256 320 --classes 3
  python -m jobs.analyze complexity runs/street --data shards/street/val
  python -m jobs.analyze complexity mtl_ray.analysis.published:retinanet_r50_fpn --shape 1280 800 --rule mmcv"""  # noqa: E501


def _parser() -> argparse.ArgumentParser:
    from mtl_ray.analysis.complexity import CountingRule
    from mtl_ray.analysis.complexity_report import Modality

    parser = argparse.ArgumentParser(
        prog="python -m jobs.analyze complexity",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "target",
        help="config (.yaml), run folder, checkpoint, bundle, or MODULE:FUNCTION that returns a "
        "torch module",
    )
    parser.add_argument(
        "--shape",
        type=int,
        nargs="+",
        metavar="N",
        help="height and width, one number for a square, or the whole shape",
    )
    parser.add_argument(
        "--rule",
        choices=get_args(CountingRule),
        default="dispatch",
        help="mmcv: as OpenMMLab's published figures were counted",
    )
    parser.add_argument(
        "--modality",
        choices=get_args(Modality),
        default="image",
        help="point: --shape POINTS VALUES of a cloud",
    )
    parser.add_argument(
        "--size-divisor",
        type=int,
        default=1,
        metavar="N",
        help="round height and width up to multiples of this",
    )
    _add_network_options(parser)
    return parser


def _add_network_options(parser: argparse.ArgumentParser) -> None:
    """The options of what is counted, and how it is shown."""
    parser.add_argument(
        "--classes",
        type=int,
        metavar="N",
        help="their number, for a config whose split is not available",
    )
    parser.add_argument(
        "--auxiliary", action="store_true", help="with auxiliary heads (train_only)"
    )
    parser.add_argument(
        "--data",
        metavar="PLACE",
        help="a file or a split, for networks whose cost depends on it: of point clouds",
    )
    parser.add_argument(
        "--sample", type=int, default=0, metavar="N", help="which of it, from 0 (default 0)"
    )
    parser.add_argument("--features", help=f"of point clouds: {FEATURES_OPTION}")
    parser.add_argument(
        "--device",
        help="meta (default for images): nothing is computed; cpu: for networks that depend on "
        "values",
    )
    parser.add_argument(
        "--depth", type=int, default=2, metavar="N", help="depth of the table (default 2)"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write the figures of all modules there (path or URI)"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the figures, and writes them."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.size_divisor < 1:
        parser.error("--size-divisor must be at least 1")
    out = absolute_output("--json", args.json) if args.json else None

    from mtl_ray.analysis.complexity_report import complexity_report

    options = {
        "rule": args.rule,
        "modality": args.modality,
        "divisor": args.size_divisor,
        "classes": args.classes,
    }
    found = complexity_report(
        args.target,
        args.shape,
        **options,
        auxiliary=args.auxiliary,
        device=args.device,
        data=args.data,
        row=args.sample,
        options={} if args.features is None else {"features": args.features},
    )
    print(found.to_text(args.depth))
    if out is not None:
        storage.write(out, json.dumps(found.to_json(), indent=1).encode())
    return 0


if __name__ == "__main__":
    run(main)
