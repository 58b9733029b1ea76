"""Downloads well-known datasets or files by their URLs; resumes, checks and unpacks. Exit status
1 if a file failed.
"""

import argparse
from collections.abc import Sequence

from jobs.run import run
from mtl_ray.sources.downloads.catalog import CATALOG
from mtl_ray.sources.downloads.download import (
    Downloaded,
    Options,
    download_files,
    file_at,
    files_of,
)
from mtl_ray.sources.downloads.fetch import RetryPolicy

EXAMPLE = """examples:
  python -m jobs.download coco2017 --to data/coco --only val2017 annotations_trainval2017
  python -m jobs.download voc2007 voc2012 --to data/voc --mirror https://mirror.example.org/voc
  python -m jobs.download https://example.org/x.zip --to data/x --digest sha256:HEX
  python -m jobs.download cityscapes-instructions"""
NAMES = "datasets:\n" + "\n".join(f"  {name:<24}{about.about}" for name, about in CATALOG.items())


def main(argv: Sequence[str] | None = None) -> int:
    """Parses ``WHAT... --to DIR``, downloads, and prints the status of each file."""
    args = _parser().parse_args(argv)
    instructions = [
        CATALOG[name].instructions
        for name in args.what
        if name in CATALOG and CATALOG[name].instructions
    ]
    names = [name for name in args.what if name not in CATALOG or CATALOG[name].files]
    if args.digest and len(args.what) > 1:
        raise ValueError("--digest is for a single URL")
    files = [
        file
        for name in names
        for file in ([file_at(name, args.digest)] if "://" in name else files_of(name, args.only))
    ]
    options = Options(
        to=args.to,
        mirrors=tuple(args.mirror),
        unpack=args.unpack,
        delete=args.delete,
        check=args.check,
        threads=args.threads,
        retry=RetryPolicy(attempts=args.attempts, timeout_s=args.timeout),
        max_bytes=None if args.max_gigabytes is None else int(args.max_gigabytes * 1e9),
    )
    done = download_files(files, options) if files else []
    print("\n".join([*instructions, *map(_line, done)]))
    return int(any(one.status == "failed" for one in done))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.download",
        description=__doc__,
        epilog=f"{NAMES}\n\n{EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "what", metavar="WHAT", nargs="+", help="a dataset listed below, or the URL of a file"
    )
    parser.add_argument("--to", default="data", help="a local folder (data)")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="FILE",
        help="only these files of a dataset, such as val2017",
    )
    parser.add_argument(
        "--mirror",
        action="append",
        default=[],
        help="use BASE/NAME instead of the original URL; may be repeated",
    )
    parser.add_argument("--digest", help="digest of a single file: sha256:HEX or md5:HEX")
    flag = argparse.BooleanOptionalAction
    parser.add_argument(
        "--check",
        action=flag,
        default=True,
        help="compare files with the catalog's sizes and checksums (yes)",
    )
    parser.add_argument("--unpack", action=flag, default=True, help="unpack archives (yes)")
    parser.add_argument("--delete", action="store_true", help="remove archives after unpacking")
    parser.add_argument(
        "--threads", type=int, default=4, help="files downloaded at the same time (4)"
    )
    parser.add_argument(
        "--attempts", type=int, default=5, help="attempts without progress before a file fails (5)"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=30.0,
        help="seconds without a byte before an attempt fails (30)",
    )
    parser.add_argument(
        "--max-gigabytes",
        type=float,
        help="maximum unpacked size of an archive (100 times its own size)",
    )
    return parser


def _line(one: Downloaded) -> str:
    unpacked = "" if one.files is None else f", {one.files:,} files unpacked"
    return f"{one.status:<8} {one.name}{unpacked}" + (f": {one.reason}" if one.reason else "")


if __name__ == "__main__":
    run(main)
