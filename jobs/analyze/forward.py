"""One forward of a network on given arrays: features, raw outputs of the heads, predictions and,
with objects, losses, targets and gradients; to hold a network against another program's.
"""

import argparse
from collections.abc import Sequence

from jobs.run import run
from mtl_ray.distributed.outputs import absolute_output


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.analyze forward",
        description=__doc__,
        epilog="example: python -m jobs.analyze forward fcos.yaml --weights fcos.pth --input "
        "fcos.npz --out ours.npz",
    )
    parser.add_argument("target", help="config (.yaml), run folder or checkpoint")
    parser.add_argument(
        "--input",
        required=True,
        metavar="NPZ",
        help="arrays: image float32 (B, 3, H, W) normalised, or uint8; img_shape (B, 2), valid "
        "height and width; gt0_boxes (M, 4) xyxy, gt0_labels (M), gt0_masks (M, H, W), gt1_...",
    )
    parser.add_argument("--out", required=True, metavar="NPZ", help="the arrays to write")
    parser.add_argument(
        "--weights", metavar="FILE", help="for a config: of this project or another program"
    )
    parser.add_argument(
        "--classes",
        metavar="N|FILE",
        help="the classes where they are not known from data: their number, or a file of names",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the arrays, and prints their shapes and the losses."""
    args = _parser().parse_args(argv)
    out = absolute_output("--out", args.out)

    from mtl_ray.analysis.forward import forward_file
    from mtl_ray.weights.original import read_class_list

    classes: int | tuple[str, ...] | None = None
    if args.classes is not None:
        counted = args.classes.isdecimal()
        classes = int(args.classes) if counted else read_class_list(args.classes)
    found = forward_file(args.target, args.input, out, weights=args.weights, classes=classes)
    width = max(map(len, found))
    for name, value in found.items():
        shown = f"{float(value):.6g}" if value.ndim == 0 else f"{value.dtype} {value.shape}"
        print(f"{name:{width}}  {shown}")
    print(args.out)
    return 0


if __name__ == "__main__":
    run(main)
