"""Writes the bundle of a run or checkpoint: an ONNX graph, compared with torch, and its
signature.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from jobs.run import run
from mtl_ray.distributed.outputs import absolute_output


def main(argv: Sequence[str] | None = None) -> int:
    """0 if the bundle was written with all engines; 1 if an engine failed and is not in it, or if
    the graph differs from torch and nothing was written.
    """
    parser = argparse.ArgumentParser(
        prog="python -m jobs.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  python -m jobs.export runs/digits --to bundles/digits --layout raw "
        "export.names=triton\n  python -m jobs.export runs/digits --to bundles/digits "
        "--engine onnxruntime onnxruntime:int8 openvino openvino:int8",
    )
    parser.add_argument(
        "target", help="run folder (its best checkpoint) or checkpoint, a path or URI"
    )
    parser.add_argument(
        "--to",
        required=True,
        metavar="URI",
        help="folder or URI of the bundle, which must not exist",
    )
    parser.add_argument(
        "--layout",
        choices=["end2end", "raw"],
        help="end2end: suppression in the graph; raw: all candidates",
    )
    parser.add_argument(
        "--engine",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME[:PRECISION]",
        help="engines of the bundle, such as onnxruntime openvino:int8 ncnn torchscript; the first "
        "is its default",
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
    arguments = parser.parse_intermixed_args(argv)
    from mtl_ray.backends.config import engine_overrides
    from mtl_ray.distributed.export import map_engines
    from mtl_ray.export.bundle import checkpoint_config, export
    from mtl_ray.export.engines_report import HTML_FILE, engines_table
    from mtl_ray.export.parity import ParityError, parity_table
    from mtl_ray.training.wandb_sync import send_bundle

    to = absolute_output("--to", arguments.to)
    layout = [f"export.layout={arguments.layout}"] if arguments.layout else []
    engines = [name for name in arguments.engine if "=" not in name]
    overrides = [*arguments.overrides, *(each for each in arguments.engine if "=" in each)]
    config = checkpoint_config(arguments.target, [*engine_overrides(engines), *overrides, *layout])
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
    send_bundle(arguments.target, bundle.uri, config)
    print(parity_table(bundle.parity))
    print(f"checked on {bundle.samples}\nwrote {bundle.uri} ({bundle.bytes / 1e6:.1f} MB)")
    for note in bundle.notes:
        print(f"note: {note}")
    if not bundle.engines:
        return 0
    print(f"\n{engines_table(bundle.engines)}\nsee {bundle.uri}/{HTML_FILE}")
    return int(any(row.failure is not None for row in bundle.engines))


if __name__ == "__main__":
    run(main)
