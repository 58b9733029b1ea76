"""Writes the weights of a training checkpoint as a file for distribution, named after its
content.
"""

import argparse
from collections.abc import Sequence

from jobs.run import run
from mtl_ray.distributed.outputs import absolute_output


def main(argv: Sequence[str] | None = None) -> int:
    """Writes {stem of OUT}-{first 8 digits of its SHA-256}.pth and prints what was removed."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.weights publish",
        description=f"{__doc__} Its name ends in the first eight digits of its SHA-256, as "
        "torch.hub checks it.",
        epilog="example: python -m jobs.weights publish runs/bccd yolov3_bccd.pth",
    )
    parser.add_argument("source", metavar="IN", help="a file of weights, a checkpoint or a run")
    parser.add_argument(
        "to",
        metavar="OUT",
        help="name of the new file, without the digits (.pth .safetensors .npz)",
    )
    parser.add_argument(
        "--ema",
        choices=("averaged", "raw"),
        default="averaged",
        help="the copy, if the file has two (default averaged)",
    )
    parser.add_argument(
        "--save-keys",
        nargs="*",
        default=["meta"],
        metavar="KEY",
        help="keys that stay beside the weights (default meta)",
    )
    parser.add_argument(
        "--key", metavar="KEY", help="top-level key of the weights (default: the usual ones)"
    )
    args = parser.parse_args(argv)
    out = absolute_output("OUT", args.to)

    from mtl_ray.weights.publish import publish_weights

    done = publish_weights(args.source, out, ema=args.ema, keep=args.save_keys, key=args.key)
    for each in done.removed:
        print(f"removed: {each}")
    which = f" ({done.weights} weights)" if done.weights else ""
    print(f"{done.tensors} tensors{which}, {done.numbers:,} numbers, {done.size_bytes:,} bytes")
    print(f"file    sha256 {done.sha256}\ncontent sha256 {done.content}\n{done.uri}")
    return 0


if __name__ == "__main__":
    run(main)
