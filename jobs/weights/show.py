"""Names, shapes, types and sums of the tensors in a file of weights; compared with a model."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from jobs.run import run


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.weights show",
        description=__doc__,
        epilog="example: python -m jobs.weights show resnet50.pth --model "
        "configs/detection/retinanet_bccd.yaml --classes 3",
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="IN",
        help="files of weights (.pth .safetensors .npz .pkl), checkpoints or runs",
    )
    parser.add_argument(
        "--key", metavar="KEY", help="top-level key of the weights (default: the usual ones)"
    )
    parser.add_argument(
        "--model",
        metavar="M",
        help="compare with: a config (.yaml), a checkpoint or run, or a model of timm",
    )
    parser.add_argument(
        "--classes",
        type=int,
        metavar="N",
        help="number of classes of a config whose data is not available",
    )
    parser.add_argument("--json", metavar="FILE", help="the same as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a table for each file; 1 if a file does not fill the named model."""
    args = _parser().parse_args(argv)

    from mtl_ray.weights.read import read_weights
    from mtl_ray.weights.show import compare_with_model, weights_table, write_tables
    from mtl_ray.weights.targets import model_state

    model = model_state(args.model, args.classes) if args.model else None
    shown, whole = [], True
    for uri in args.files:
        weights = read_weights(uri, args.key)
        shown.append((uri, weights_table(weights)))
        print(f"{uri}\n{shown[-1][1].to_text()}")
        if model is not None:
            agreement = compare_with_model(weights.tensors, model)
            print(f"against {args.model}:\n{agreement.to_text()}")
            whole = whole and agreement.whole
    if args.json:
        write_tables(args.json, shown)
        print(Path(args.json))
    return 0 if whole else 1


if __name__ == "__main__":
    run(main)
