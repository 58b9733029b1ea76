"""Weights of another program under this project's names, checked against their network."""  # noqa: N999

import argparse
from collections.abc import Sequence

import yaml

from jobs.run import run
from mtl_ray.distributed.outputs import absolute_output
from mtl_ray.experiment import load_experiment
from mtl_ray.weights.families import KINDS


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the weights and prints unused and missing ones; 1 if no model of timm fits them."""
    args = _parser().parse_args(argv)
    out = absolute_output("OUT", args.to)
    config = load_experiment(args.config) if args.config else None

    from mtl_ray.weights.convert import convert_weights
    from mtl_ray.weights.edit import upgrade_file
    from mtl_ray.weights.read import read_weights
    from mtl_ray.weights.write import check_ending, write_weights

    check_ending(out)
    if args.upgrade_only:
        notes = upgrade_file(
            args.source, out, args.num_classes, args.old_version, key=args.key, compat=args.compat
        )
        print(
            "\n".join(notes)
            or "nothing was upgraded: the file does not state that it is older than MMDetection 2 "
            "(Fix: --old-version)"
        )
        return 0 if notes else 1
    taken = convert_weights(
        read_weights(args.source, args.key),
        args.kind,
        model=args.model,
        options={
            name: yaml.safe_load(value)
            for name, _, value in (each.partition("=") for each in args.option)
        },
        config=config,
        classes=args.classes,
        old_classes=args.num_classes,
        old_version=args.old_version,
        compat=args.compat,
    )
    write_weights(out, taken.tensors)
    print(taken.to_text())
    print(args.to)
    return 0 if taken.backbone is not None or config is not None else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.weights import",
        description=f"{__doc__} model.backbone.weights of a config reads the result, with --config "
        "runtime.load_from too.",
        epilog="example: python -m jobs.weights import RegNetX-3.2GF_dds_8gpu.pyth "
        "regnetx_032.safetensors",
    )
    parser.add_argument(
        "source", metavar="IN", help="the foreign file (.pth .pyth .pkl .safetensors .npz)"
    )
    parser.add_argument(
        "to",
        metavar="OUT",
        help="the new file; its ending sets the format (.pth .safetensors .npz)",
    )
    parser.add_argument(
        "--from",
        dest="kind",
        choices=KINDS,
        help="the program that wrote the file (default: by the names in it)",
    )
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="model of timm to fill (default: the first whose shapes fit)",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the model, as in model.backbone.options",
    )
    parser.add_argument(
        "--config",
        metavar="CONFIG",
        help="fill the network of this config instead: backbone, and neck and classifier where "
        "they fit",
    )
    parser.add_argument(
        "--classes",
        type=int,
        metavar="N",
        help="number of classes of a config whose data is not available",
    )
    parser.add_argument(
        "--num-classes",
        type=int,
        default=81,
        metavar="N",
        help="of an MMDetection 1.x model, with the background (default 81)",
    )
    parser.add_argument(
        "--old-version",
        metavar="V",
        help="of MMDetection that wrote the file, if the file does not state it",
    )
    parser.add_argument(
        "--upgrade-only",
        action="store_true",
        help="write an MMDetection 1.x model as of 2.x, in its own names",
    )
    parser.add_argument(
        "--compat", action="store_true", help="values exactly as the original converters leave them"
    )
    parser.add_argument(
        "--key", metavar="KEY", help="top-level key of the weights (default: the usual ones)"
    )
    return parser


if __name__ == "__main__":
    run(main)
