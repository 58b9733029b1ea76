"""Splits a dataset into train, val and test: seeded, stratified by class, with groups kept
together.
"""

import argparse
from collections.abc import Sequence

from jobs.run import run
from mtl_ray.distributed.split import SplitOptions, parts_table, split_data

EXAMPLE = r"""examples:
  python -m jobs.split shards/all --to shards/parts --parts train=0.8 val=0.1 test=0.1 --seed 1
  python -m jobs.split annotations/instances_all.json --to annotations --parts train=9 val=1 --group "^([^/]+)/"
  python -m jobs.split scans.json --to parts --parts train=0.7 val=0.3 --groups patients.csv"""  # noqa: E501


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.split",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "data", metavar="D", help="a split's folder, or a COCO annotation file (NAME.json)"
    )
    parser.add_argument(
        "--to",
        required=True,
        help="folder of the parts: splits TO/PART or files TO/instances_PART.json, lists "
        "TO/PART.txt, TO/split.json",
    )
    parser.add_argument(
        "--parts",
        nargs="+",
        default=["train=0.8", "val=0.1", "test=0.1"],
        metavar="NAME=SHARE",
        help="(train=0.8 val=0.1 test=0.1)",
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other parts (0)")
    parser.add_argument(
        "--group", metavar="REGEX", help="images whose names match with the same text stay together"
    )
    parser.add_argument(
        "--group-field",
        metavar="FIELD",
        help="field of a COCO file's images: those with the same value stay together",
    )
    parser.add_argument("--groups", metavar="FILE", help='a file with lines "name,group"')
    flag = argparse.BooleanOptionalAction
    parser.add_argument(
        "--stratify",
        action=flag,
        default=True,
        help="give each part the same share of every class (yes)",
    )
    parser.add_argument(
        "--join-duplicates",
        action=flag,
        default=True,
        help="keep identical images of a split together (yes)",
    )
    parser.add_argument("--workers", type=int, help="tasks at a time; 1 runs in this process")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parses ``D --to DIR --parts NAME=SHARE...``, splits, and prints each part's share of each
    class.
    """
    args = _parser().parse_args(argv)
    options = SplitOptions(
        shares=_shares(args.parts),
        seed=args.seed,
        group=args.group,
        group_field=args.group_field,
        groups=args.groups,
        stratify=args.stratify,
        join_duplicates=args.join_duplicates,
    )
    print(parts_table(split_data(args.data, args.to, options, workers=args.workers)))
    if args.data.endswith(".json"):
        print(
            f"note: {args.data}: only annotations were read, no image file; identical images may "
            "be in several parts"
        )
    return 0


def _shares(given: Sequence[str]) -> dict[str, float]:
    pairs = [text.partition("=") for text in given]
    try:
        shares = {name: float(share) for name, _, share in pairs}
    except ValueError:
        raise ValueError(
            f"--parts {' '.join(given)}: each must be NAME=SHARE, such as train=0.8"
        ) from None
    if len(shares) < len(pairs):
        raise ValueError(f"--parts {' '.join(given)}: a name is repeated")
    return shares


if __name__ == "__main__":
    run(main)
