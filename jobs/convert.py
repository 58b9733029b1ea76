"""Converts one split of a dataset to shards, or to files for other programs. A finished
conversion is not repeated.
"""

import argparse
import sys
from collections.abc import Sequence

from jobs.run import run
from mtl_ray.config.describe import add_options, given_node, schema_of
from mtl_ray.config.extend import extended
from mtl_ray.config.fields import field_kinds, members, tag
from mtl_ray.config.validate import validate
from mtl_ray.distributed.convert import convert, summary
from mtl_ray.distributed.convert_files import convert_files, files_summary
from mtl_ray.plugin import installed_plugins
from mtl_ray.sources.config import ConvertConfig

EXAMPLES = """examples:
  python -m jobs.convert digits --split train --to shards/digits/train --num 3000
  python -m jobs.convert coco data/coco --split val --to s3://bucket/coco/val --keypoints
  python -m jobs.convert cityscapes data/cityscapes --split val --to out/cityscapes --format coco --no-pictures
  python -m jobs.convert pictures data/coco --split test2017 --classes names.txt --to test.json --format coco
  python -m jobs.convert shards shards/coco/val --split val --to out/yolo --format yolo
  python -m jobs.convert semantic_png data/camvid --split train --to shards/camvid/train --classes names.txt --ignore 11
  python -m jobs.convert instance_png data/PennFudanPed --split all --images PNGImages --labels PedMasks --class-name pedestrian --to shards/pedestrians
  python -m jobs.convert kitti data/kitti --split train --to shards/kitti/train
  python -m jobs.convert objects shards/kitti/train --split objects --to shards/kitti/objects
  python -m jobs.convert street --split train --to shards/street/train --num 600
  python -m jobs.convert --plugins my_package.plugin my_source data/mine --split train --to shards/mine/train"""  # noqa: E501


def main(argv: Sequence[str] | None = None) -> int:
    """Parses ``SOURCE ROOT --split NAME --to URI``, converts, and prints a summary."""
    argv = sys.argv[1:] if argv is None else argv
    plugins = (*installed_plugins(), *_named_plugins(argv))
    config_type = extended(ConvertConfig, plugins)
    parser = argparse.ArgumentParser(
        prog="python -m jobs.convert",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--plugins",
        action="append",
        metavar="MODULE",
        help="module of a plugin, which may add sources; before SOURCE",
    )
    sources = parser.add_subparsers(
        dest="type",
        metavar="SOURCE",
        required=True,
        help="kind of dataset; SOURCE --help shows its options",
    )
    kinds = {
        str(tag(kind)): schema_of(kind) for kind in members(field_kinds(config_type)["source"])
    }
    whole = schema_of(ConvertConfig)
    for name, of_kind in kinds.items():
        about = of_kind.get("description")
        source = sources.add_parser(
            name,
            help=about,
            description=about,
            epilog=EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add_options(source, of_kind, "root", leave_out=("type",))
        add_options(source, whole, "root", leave_out=("source", "plugins", *of_kind["properties"]))
    given = {
        key: value for key, value in vars(parser.parse_args(argv)).items() if value is not None
    }
    chosen = {key: value for key, value in given.items() if key in whole["properties"]} | {
        "plugins": list(plugins)
    }
    chosen["source"] = {
        key: value for key, value in given.items() if key in kinds[given["type"]]["properties"]
    }
    config = validate(given_node(chosen), config_type)
    print(
        summary(convert(config))
        if config.format in ("arrow", "tfrecord")
        else files_summary(convert_files(config))
    )
    return 0


def _named_plugins(argv: Sequence[str]) -> list[str]:
    """The plugins of the command line; they add sources, so they are read before the other
    options.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--plugins", action="append", default=[])
    found: list[str] = parser.parse_known_args(argv)[0].plugins
    return found


if __name__ == "__main__":
    run(main)
