"""Keeps tensors of a file of weights by the prefix of their names, without the state of the
training.
"""

import argparse
from collections.abc import Sequence

from jobs.run import run
from mtl_ray.distributed.outputs import absolute_output


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.weights wash",
        description=__doc__,
        epilog="example: python -m jobs.weights wash moco.pth backbone.pth --keep backbone_q. "
        "--strip",
    )
    parser.add_argument("source", metavar="IN", help="a file of weights, a checkpoint or a run")
    parser.add_argument(
        "to",
        metavar="OUT",
        help="the new file; its ending sets the format (.pth .safetensors .npz)",
    )
    parser.add_argument(
        "--keep",
        nargs="+",
        default=[],
        metavar="PREFIX",
        help="only tensors with this prefix (default: all)",
    )
    parser.add_argument(
        "--drop", nargs="+", default=[], metavar="PREFIX", help="not tensors with this prefix"
    )
    parser.add_argument(
        "--strip", action="store_true", help="remove the prefix from the kept names"
    )
    parser.add_argument(
        "--key", metavar="KEY", help="top-level key of the weights (default: the usual ones)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the kept tensors and prints which were removed."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.strip and not args.keep:
        parser.error("--strip removes the prefixes of --keep: --keep is needed")
    out = absolute_output("OUT", args.to)

    from mtl_ray.weights.edit import edit_file, first_parts, wash

    edited = edit_file(
        args.source,
        out,
        lambda weights: wash(weights, args.keep, args.drop, strip=args.strip),
        key=args.key,
    )
    removed = dict.fromkeys(edited.removed)
    print(
        f"{len(edited.weights.tensors)} tensors kept "
        f"({', '.join(first_parts(edited.weights.tensors))})"
    )
    print(f"{len(removed)} removed" + (f" ({', '.join(first_parts(removed))})" if removed else ""))
    print(args.to)
    return 0


if __name__ == "__main__":
    run(main)
