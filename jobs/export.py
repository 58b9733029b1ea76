"""Writes the bundle of a run or checkpoint: an ONNX graph, compared with torch, and its
signature.
"""

import argparse
import sys
from collections.abc import Sequence

from jobs.run import run
from mtl_ray.distributed.outputs import absolute_output


def main(argv: Sequence[str] | None = None) -> int:
    """0 if the bundle was written; 1 if the graph differs from torch, and nothing was written."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python -m jobs.export runs/digits --to bundles/digits --layout raw "
        "export.names=triton",
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
        "overrides",
        nargs="*",
        metavar="section.key=value",
        help="changes to the run's config, in YAML",
    )
    arguments = parser.parse_intermixed_args(argv)
    from mtl_ray.export.bundle import checkpoint_config, export
    from mtl_ray.export.parity import ParityError, parity_table
    from mtl_ray.training.wandb_sync import send_bundle

    to = absolute_output("--to", arguments.to)
    layout = [f"export.layout={arguments.layout}"] if arguments.layout else []
    config = checkpoint_config(arguments.target, [*arguments.overrides, *layout])
    try:
        bundle = export(arguments.target, to, config.export, config.data, config.plugins)
    except ParityError as error:
        print(parity_table(error.parity))
        print(f"error: {error}; no bundle was written", file=sys.stderr)
        return 1
    send_bundle(arguments.target, bundle.uri, config)
    print(parity_table(bundle.parity))
    print(f"checked on {bundle.samples}\nwrote {bundle.uri} ({bundle.bytes / 1e6:.1f} MB)")
    for note in bundle.notes:
        print(f"note: {note}")
    return 0


if __name__ == "__main__":
    run(main)
