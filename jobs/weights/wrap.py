"""Puts the weights of a file under another top-level key, or at the top level."""

import argparse
from collections.abc import Sequence

from jobs.run import run
from mtl_ray.distributed.outputs import absolute_output


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the file and prints the new key."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.weights wrap",
        description=__doc__,
        epilog="example: python -m jobs.weights wrap swin_tiny.pth wrapped.pth --key model "
        "--to-key state_dict",
    )
    parser.add_argument("source", metavar="IN", help="a file of weights, a checkpoint or a run")
    parser.add_argument(
        "to", metavar="OUT", help="the new file (.pth): only files of torch.save have keys"
    )
    parser.add_argument(
        "--to-key",
        default="state_dict",
        metavar="KEY",
        help="the new key (default state_dict); '': at the top level",
    )
    parser.add_argument("--key", metavar="KEY", help="the current key (default: the usual ones)")
    args = parser.parse_args(argv)
    out = absolute_output("OUT", args.to)

    from mtl_ray.weights.edit import EditedWeights, edit_file, wrap
    from mtl_ray.weights.write import keeps_rest

    if not keeps_rest(out):
        parser.error(f"{args.to} holds tensors alone; only .pth has top-level keys")
    edited = edit_file(
        args.source, out, lambda weights: EditedWeights(wrap(weights, args.to_key)), key=args.key
    )
    now = f"under {args.to_key!r}" if args.to_key else "at the top level"
    others = ", ".join(edited.weights.rest)
    print(
        f"{len(edited.weights.tensors)} tensors {now}"
        + (f", beside {others}" if others else "")
        + f": {args.to}"
    )
    return 0


if __name__ == "__main__":
    run(main)
