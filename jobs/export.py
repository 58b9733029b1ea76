"""Writes the bundle of a run or checkpoint: an ONNX graph, compared with torch, and its
signature.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from jobs.run import run
from mtl_ray import storage
from mtl_ray.distributed.outputs import absolute_output

if TYPE_CHECKING:
    from mtl_ray.export.bundle import WrittenBundle


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  python -m jobs.export runs/digits --to bundles/digits --layout raw "
        "export.names=triton\n  python -m jobs.export runs/digits --to bundles/digits "
        "--engine onnxruntime onnxruntime:int8 openvino openvino:int8\n  python -m jobs.export "
        "runs/digits --to triton_models/digits --layout triton\n  python -m jobs.export "
        "runs/digits --standalone edge/digits --engine onnxruntime:int8",
    )
    parser.add_argument(
        "target",
        help="run folder (its best checkpoint) or checkpoint, a path or URI; with --standalone "
        "also a bundle",
    )
    parser.add_argument(
        "--to",
        metavar="URI",
        help="folder or URI of the bundle, which must not exist",
    )
    parser.add_argument(
        "--standalone",
        metavar="DIR",
        help="a folder with the model and a predict.py that needs numpy, onnxruntime and Pillow "
        "alone; TARGET may be a bundle. The model is that of ONNX Runtime in the precision that "
        "--engine names (fp32 if it names none or both)",
    )
    parser.add_argument(
        "--layout",
        choices=["end2end", "raw", "triton"],
        help="end2end: suppression in the graph; raw: all candidates; triton: --to is "
        "REPOSITORY/MODEL of Triton Inference Server (config.pbtxt, and the bundle as the next "
        "version)",
    )
    _add_engine_options(parser)
    return parser


def _add_engine_options(parser: argparse.ArgumentParser) -> None:
    """The options of the engines, and changes to the config."""
    parser.add_argument(
        "--engine",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME[:PRECISION]",
        help="engines of the bundle, such as onnxruntime openvino:int8 ncnn torchscript; the first "
        "is its default. With a bundle as TARGET: the one that --standalone takes",
    )
    parser.add_argument(
        "--dump-info",
        action="store_true",
        help="also the files with which MMDeploy's runtime loads the folder",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="engines that are built at a time, as Ray tasks (1: in this process)",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="section.key=value",
        help="changes to the run's config, in YAML",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """0 if the bundle was written with all engines; 1 if an engine failed and is not in it, or if
    the graph differs from torch and nothing was written.
    """
    parser = _parser()
    arguments = parser.parse_intermixed_args(argv)
    if arguments.to is None and arguments.standalone is None:
        parser.error("the following arguments are required: --to (or --standalone)")
    if arguments.workers < 1:
        parser.error("--workers must be at least 1")
    if arguments.standalone is not None:
        arguments.standalone = absolute_output("--standalone", arguments.standalone)
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.to is None:
            return _standalone(arguments, storage.join(scratch, "bundle"))
        return _export(arguments, absolute_output("--to", arguments.to))


def _standalone(arguments: argparse.Namespace, to: str) -> int:
    """Writes the folder of a bundle, or of a run by way of a bundle at ``to``."""
    from mtl_ray.export.standalone import check_folder
    from mtl_ray.inference.predictor import artifact_kind

    check_folder(arguments.standalone)
    if artifact_kind(arguments.target) != "bundle":
        return _export(arguments, to)
    if arguments.overrides or arguments.layout or arguments.dump_info:
        raise ValueError("a bundle is taken as it is. Fix: name its run to change the config")
    if len(arguments.engine) > 1:
        raise ValueError("--standalone takes one engine of a bundle. Fix: name one with --engine")
    _write_standalone(arguments, arguments.target, *arguments.engine)
    return 0


def _write_standalone(
    arguments: argparse.Namespace, bundle: str, engine: str | None = None
) -> None:
    from mtl_ray.export.standalone import write_standalone

    files = write_standalone(bundle, arguments.standalone, engine)
    print(f"wrote {', '.join(files)} to {arguments.standalone}")


def _export(arguments: argparse.Namespace, to: str) -> int:
    """Writes the bundle, and the folder of --standalone."""
    from mtl_ray.backends.config import engine_overrides
    from mtl_ray.distributed.export import map_engines
    from mtl_ray.export.bundle import checkpoint_config, export
    from mtl_ray.export.parity import ParityError, parity_table
    from mtl_ray.export.standalone import standalone_engine
    from mtl_ray.export.triton import check_repository, next_version, write_config
    from mtl_ray.training.wandb_sync import send_bundle

    triton = arguments.layout == "triton"
    layout = [f"export.layout={arguments.layout}"] if arguments.layout and not triton else []
    layout += ["export.dump_info=true"] * arguments.dump_info
    engines = [name for name in arguments.engine if "=" not in name]
    overrides = [*arguments.overrides, *(each for each in arguments.engine if "=" in each)]
    config = checkpoint_config(arguments.target, [*engine_overrides(engines), *overrides, *layout])
    if triton:
        check_repository(config.export)
        to = next_version(to)
    try:
        bundle = export(
            arguments.target,
            to,
            config.export,
            config.data,
            config.plugins,
            partial(map_engines, workers=arguments.workers),
            config.evaluate.slide,
        )
    except ParityError as error:
        print(parity_table(error.parity))
        print(f"error: {error}; no bundle was written", file=sys.stderr)
        return 1
    _tell(arguments, bundle)
    if arguments.to is not None:
        send_bundle(arguments.target, bundle.uri, config)
    if triton:
        print(f"wrote {write_config(bundle.uri)}")
    failed = [row.name for row in bundle.engines if row.failure is not None]
    if arguments.standalone is not None:
        alone = standalone_engine(engines)
        if alone in failed:
            print(f"error: {alone} failed; {arguments.standalone} was not written", file=sys.stderr)
        else:
            _write_standalone(arguments, bundle.uri, alone)
    return int(bool(failed))


def _tell(arguments: argparse.Namespace, bundle: "WrittenBundle") -> None:
    """Prints what was written, and how it was checked."""
    from mtl_ray.export.engines_report import HTML_FILE, engines_table
    from mtl_ray.export.parity import parity_table

    print(parity_table(bundle.parity))
    print(f"checked on {bundle.samples}")
    if arguments.to is not None:
        print(f"wrote {bundle.uri} ({bundle.bytes / 1e6:.1f} MB)")
    for note in bundle.notes:
        print(f"note: {note}")
    if bundle.engines:
        print(f"\n{engines_table(bundle.engines)}\nsee {bundle.uri}/{HTML_FILE}")


if __name__ == "__main__":
    run(main)
