"""Metrics of stored predictions, by the evaluator of a config; of several datasets at once. Or of
result files of the lidar benchmarks KITTI and nuScenes.
"""

import argparse
from collections.abc import Sequence

from jobs.run import run
from mtl_ray.distributed.outputs import absolute_output
from mtl_ray.experiment import load_experiment


def _parser() -> argparse.ArgumentParser:
    example = (
        "example: python -m jobs.analyze eval-metric results/predictions.arrow --config "
        "configs/detection/yolov3_bccd.yaml; python -m jobs.analyze eval-metric results/kitti "
        "--data kitti/training/label_2"
    )
    parser = argparse.ArgumentParser(
        prog="python -m jobs.analyze eval-metric", description=__doc__, epilog=example
    )
    parser.add_argument(
        "predictions",
        nargs="+",
        metavar="DETECTIONS",
        help="predictions.arrow, COCO results or result pickles, one for each dataset; or one "
        "folder of KITTI's result files, or one results file of nuScenes",
    )
    parser.add_argument(
        "--config",
        help="the data is its data.val unless --data is given; its evaluate section applies",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        help="URIs of splits or COCO annotation files, in the order of the predictions; for lidar "
        "results a folder of KITTI, its labels, tables of nuScenes, or a split; its frames without "
        "results count as without detections",
    )
    parser.add_argument(
        "--frames",
        metavar="FILE",
        help="the frames to measure of KITTI's result files, an id in each line, such as "
        "ImageSets/val.txt; by default all of the data",
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="names of the labels 0, 1, ... of a pickle; the "
        "classes to evaluate of KITTI's result files",
    )
    parser.add_argument(
        "--classwise", action="store_true", help="also print the figures of each class"
    )
    parser.add_argument(
        "--out", "--json", metavar="FILE", help="file or URI for the reports in JSON"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a column of metrics for each dataset, and writes them to --out."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.config is None and args.data is None:
        parser.error("--config or --data is needed")
    out = None if args.out is None else absolute_output("--out", args.out)
    config = None if args.config is None else load_experiment(args.config)

    from mtl_ray.analysis.eval_metric import eval_metric, write_reports
    from mtl_ray.analysis.eval_metric_lidar import is_lidar_result
    from mtl_ray.evaluation.config import EvaluateConfig

    data = args.data
    if data is None and config is not None:
        data = (
            [config.data.val.uri]
            if isinstance(config.data.val.uri, str)
            else list(config.data.val.uri)
        )
    if len(args.predictions) == len(data) == 1 and is_lidar_result(args.predictions[0]):
        _print_lidar(args, data[0], out)
        return 0
    if args.frames is not None:
        parser.error("--frames is for a folder of KITTI's result files")
    measured = eval_metric(
        args.predictions,
        data,
        EvaluateConfig() if config is None else config.evaluate,
        args.classes,
    )
    print(measured.to_text())
    for name, notes in measured.notes.items():
        for note in notes:
            print(f"{name}: {note}")
    for each in measured.reports.values() if args.classwise else ():
        print(f"\n{each.to_text()}")
    if out is not None:
        write_reports(out, measured)
        print(out)
    return 0


def _print_lidar(args: argparse.Namespace, data: str, out: str | None) -> None:
    """Prints which objects count and the table, and writes the figures to ``out``."""
    from mtl_ray import storage
    from mtl_ray.analysis.eval_metric_lidar import eval_lidar

    found = eval_lidar(args.predictions[0], data, args.classes, args.frames)
    for note in found.notes:
        print(note)
    print(f"\n{found.to_text()}")
    if out is not None:
        storage.write(out, found.to_json())
        print(out)


if __name__ == "__main__":
    run(main)
