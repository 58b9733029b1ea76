"""The mean of several files of weights: a model soup, or stochastic weight averaging over the
checkpoints of one run.
"""

import argparse
from collections.abc import Sequence

from jobs.run import run
from mtl_ray.distributed.outputs import absolute_output


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the mean of each tensor."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.weights average",
        description=f"{__doc__} Statistics of batch normalisation are averaged like the rest.",
        epilog="example: python -m jobs.weights average a.pth b.pth c.pth soup.safetensors "
        "--shares 2 1 1",
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="IN",
        help="files of weights, checkpoints or runs of one model; two at least",
    )
    parser.add_argument(
        "to",
        metavar="OUT",
        help="the new file; its ending sets the format (.pth .safetensors .npz)",
    )
    parser.add_argument(
        "--shares",
        nargs="+",
        type=float,
        metavar="W",
        help="of each file in the mean (default: equal)",
    )
    parser.add_argument(
        "--key", metavar="KEY", help="top-level key of the weights (default: the usual ones)"
    )
    args = parser.parse_args(argv)
    out = absolute_output("OUT", args.to)

    from mtl_ray.weights.average import average
    from mtl_ray.weights.read import read_weights
    from mtl_ray.weights.write import check_ending, write_weights

    check_ending(out)
    means = average(((uri, read_weights(uri, args.key)) for uri in args.files), args.shares)
    write_weights(out, means)
    print(f"the mean of {len(args.files)} files, {len(means)} tensors: {args.to}")
    return 0


if __name__ == "__main__":
    run(main)
