"""Keeps of a file of weights what is wanted: tensors by the beginning of their names, and nothing of the training."""

import argparse
from collections.abc import Sequence

from jobs.run import run
from mtl_ray.distributed.outputs import absolute_output


def main(argv: Sequence[str] | None = None) -> int:
    """Writes what is kept and says what is gone."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.weights wash",
        description=__doc__,
        epilog="example: python -m jobs.weights wash moco.pth backbone.pth --keep backbone_q. --strip",
    )
    parser.add_argument("source", metavar="IN", help="a file of weights, a checkpoint or a run")
    parser.add_argument("to", metavar="OUT", help="the new file; its ending sets the format (.pth .safetensors .npz)")
    parser.add_argument("--keep", nargs="+", default=[], metavar="PREFIX", help="only tensors whose names begin so (default: all)")
    parser.add_argument("--drop", nargs="+", default=[], metavar="PREFIX", help="not those that begin so")
    parser.add_argument("--strip", action="store_true", help="take the prefix away from the names of what is kept")
    parser.add_argument("--key", metavar="KEY", help="top-level key of the weights (default: the usual ones are looked for)")
    args = parser.parse_args(argv)
    if args.strip and not args.keep:
        parser.error("--strip takes away the prefixes of --keep: give those")
    out = absolute_output("OUT", args.to)

    from mtl_ray.weights.edit import edit_file, first_parts, wash

    edited = edit_file(args.source, out, lambda weights: wash(weights, args.keep, args.drop, strip=args.strip), key=args.key)
    gone = dict.fromkeys(edited.removed)
    print(f"{len(edited.weights.tensors)} tensors kept ({', '.join(first_parts(edited.weights.tensors))})")
    print(f"{len(gone)} removed" + (f" ({', '.join(first_parts(gone))})" if gone else ""))
    print(args.to)
    return 0


if __name__ == "__main__":
    run(main)
