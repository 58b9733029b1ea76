"""Weights of another program under this project's names, checked against their network."""  # noqa: N999

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

import yaml

from jobs.run import run
from mtl_ray.distributed.outputs import absolute_output
from mtl_ray.experiment import ExperimentConfig, load_experiment
from mtl_ray.weights.families import KINDS

if TYPE_CHECKING:
    from mtl_ray.weights.weights import Weights


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the weights and prints unused and missing ones; 1 if no model of timm fits them."""
    args = _parser().parse_args(argv)
    out = absolute_output("OUT", args.to)
    report = absolute_output("--report", args.report) if args.report else None
    config = load_experiment(args.config) if args.config else None

    from mtl_ray.weights.convert import convert_weights
    from mtl_ray.weights.edit import upgrade_file
    from mtl_ray.weights.read import read_weights
    from mtl_ray.weights.write import ENDINGS, check_ending, write_weights

    folder = config is not None and not out.endswith(ENDINGS) and "." not in _name(out)
    if not folder:
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
    weights = read_weights(args.source, args.key)
    if config is not None and _import_whole(args, weights, config, out, report, folder=folder):
        print(args.to)
        return 0
    if report is not None:
        raise ValueError("--report is of whole detectors: no head of a config is in this file")
    taken = convert_weights(
        weights,
        args.kind,
        model=args.model,
        options={
            name: yaml.safe_load(value)
            for name, _, value in (each.partition("=") for each in args.option)
        },
        config=config,
        classes=_count(args.classes),
        old_classes=args.num_classes,
        old_version=args.old_version,
        compat=args.compat,
    )
    write_weights(out, taken.tensors)
    print(taken.to_text())
    print(args.to)
    return 0 if taken.backbone is not None or config is not None else 1


def _import_whole(
    args: argparse.Namespace,
    weights: "Weights",
    config: ExperimentConfig,
    out: str,
    report: str | None,
    *,
    folder: bool,
) -> bool:
    """Imports a whole detector; False if the file is of a backbone, or of an unknown program."""
    from mtl_ray.weights.imported import check_alone, to_text, write_checkpoint, write_import_report
    from mtl_ray.weights.network import finds_heads, import_network
    from mtl_ray.weights.original import (
        PROGRAMS,
        find_program,
        read_class_list,
        read_original,
    )
    from mtl_ray.weights.write import write_weights

    program = find_program(weights.tensors) if args.kind is None else args.kind
    if program not in PROGRAMS:
        if folder:
            raise ValueError(
                f"{args.source} is of no detector of {', '.join(PROGRAMS)}, so it does not fill a "
                f"checkpoint. Fix: --from, or an OUT with the ending of a file of weights"
            )
        return False
    original = read_original(
        weights,
        program,
        old_classes=args.num_classes,
        old_version=args.old_version,
        generation=args.generation,
        uri=args.source,
    )
    if not folder and not finds_heads(original, config):
        return False
    count = _count(args.classes)
    names = read_class_list(args.classes) if args.classes and count is None else None
    network = import_network(
        original, config, classes=names or count, compat=args.compat, partial=args.partial
    )
    if folder:
        write_checkpoint(out, network)
    else:
        if not args.partial:
            check_alone(network, config)
        write_weights(out, network.tensors)
    if report is not None:
        write_import_report(report, network)
    print(to_text(network))
    return True


def _count(classes: str | None) -> int | None:
    return int(classes) if classes is not None and classes.isdecimal() else None


def _name(uri: str) -> str:
    return uri.rstrip("/").rpartition("/")[2]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.weights import",
        description=f"{__doc__} model.backbone.weights of a config reads the result, with --config "
        "runtime.load_from too.",
        epilog="examples: python -m jobs.weights import RegNetX-3.2GF_dds_8gpu.pyth "
        "regnetx_032.safetensors; python -m jobs.weights import fcos_r50.pth fcos_coco --config "
        "configs/detection/fcos_r50_coco.yaml --classes coco.txt",
    )
    parser.add_argument(
        "source",
        metavar="IN",
        help="the foreign file (.pth .pyth .pkl .safetensors .npz), or the folder of a model of "
        "Hugging Face",
    )
    parser.add_argument(
        "to",
        metavar="OUT",
        help="the new file; its ending sets the format (.pth .safetensors .npz). Without an "
        "ending, and with --config: the folder of a checkpoint of this project",
    )
    parser.add_argument(
        "--from",
        dest="kind",
        choices=(*KINDS, "huggingface"),
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
        help="fill the network of this config instead: of a detector (openmmlab, torchvision, "
        "huggingface) backbone, necks and heads whole; of others the backbone, and neck and "
        "classifier where they fit",
    )
    parser.add_argument(
        "--classes",
        metavar="N|FILE",
        help="the classes of the file, if it does not state them: their number, or a file with "
        "their names, one a line or a JSON list",
    )
    parser.add_argument(
        "--report", metavar="FILE", help="of a whole detector: what was used, as JSON"
    )
    _add_old_file_options(parser)
    return parser


def _add_old_file_options(parser: argparse.ArgumentParser) -> None:
    """What a file does not say itself, and how exactly it is followed."""
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
        "--generation",
        type=int,
        choices=(0, 1),
        help="of a detector of point clouds: MMDetection3D 0.x or 1.x, if the file does not state "
        "it",
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
        "--partial",
        action="store_true",
        help="import a whole detector even if the network has only a part of some layers, such as "
        "no bias; it is then not equal to the original",
    )
    parser.add_argument(
        "--key", metavar="KEY", help="top-level key of the weights (default: the usual ones)"
    )


if __name__ == "__main__":
    run(main)
