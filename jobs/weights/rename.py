"""Gives the tensors of a file other names: by prefix, part or pattern."""

import argparse
from collections.abc import Sequence
from functools import partial

from jobs.run import run
from mtl_ray.distributed.outputs import absolute_output


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the file with the new names and prints them."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.weights rename",
        description=__doc__
        + " The rules are applied in the given order. Two tensors of one name are an error.",
        epilog="example: python -m jobs.weights rename resnet20.th net.pth --prefix module. '' "
        "--pattern '^layer(\\d)' 'stage\\1'",
    )
    parser.add_argument("source", metavar="IN", help="a file of weights, a checkpoint or a run")
    parser.add_argument(
        "to",
        metavar="OUT",
        help="the new file; its ending sets the format (.pth .safetensors .npz)",
    )
    for kind, does in (
        ("prefix", "names that start with OLD"),
        ("part", "every OLD in a name"),
        ("pattern", "matches of a regular expression"),
    ):
        # in one list, so that the order among rules of different kinds stays
        rule = partial(_rule, kind)
        parser.add_argument(
            f"--{kind}",
            nargs=2,
            type=rule,
            action="append",
            dest="rules",
            metavar=("OLD", "NEW"),
            help=does,
        )
    parser.add_argument(
        "--key", metavar="KEY", help="top-level key of the weights (default: the usual ones)"
    )
    args = parser.parse_args(argv)
    if not args.rules:
        parser.error("give at least one of --prefix, --part, --pattern")
    out = absolute_output("OUT", args.to)

    from mtl_ray.weights.edit import RenameRule, edit_file, rename

    rules = [RenameRule(kind, old, new) for (kind, old), (_, new) in args.rules]
    edited = edit_file(args.source, out, lambda weights: rename(weights, rules), key=args.key)
    for old, new in edited.renamed:
        print(f"{old} -> {new}")
    print(f"{len(edited.renamed)} of {len(edited.weights.tensors)} names changed: {args.to}")
    return 0


def _rule(kind: str, text: str) -> tuple[str, str]:
    return kind, text


if __name__ == "__main__":
    run(main)
