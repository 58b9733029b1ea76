"""The confusion matrix of stored predictions, as figure and numbers."""

import argparse
from collections.abc import Sequence

from jobs.run import run
from mtl_ray.distributed.outputs import absolute_output


def _parser() -> argparse.ArgumentParser:
    example = (
        "example: python -m jobs.analyze confusion results/bccd/predictions.arrow --data "
        "shards/bccd/val --out confusion"
    )
    parser = argparse.ArgumentParser(
        prog="python -m jobs.analyze confusion", description=__doc__, epilog=example
    )
    parser.add_argument(
        "predictions",
        help="predictions.arrow, a COCO results file, or a result pickle of OpenMMLab",
    )
    parser.add_argument("--data", required=True, help="URI of a split, or a COCO annotation file")
    parser.add_argument("--out", required=True, help="folder or URI")
    parser.add_argument(
        "--score-thr",
        type=float,
        default=0.3,
        help="detections of a lower score are left out (default 0.3)",
    )
    parser.add_argument(
        "--iou-thr",
        type=float,
        default=0.5,
        help="least IoU of a detection and its object (default 0.5); of clouds that from above",
    )
    parser.add_argument(
        "--distance",
        type=float,
        metavar="M",
        help="of clouds: most metres between the centres from above, instead of an IoU",
    )
    parser.add_argument(
        "--nms-iou-thr",
        type=float,
        help="first suppress detections with more IoU to a better one of their class",
    )
    parser.add_argument(
        "--compat",
        action="store_true",
        help="MMDetection's rule: every object that a detection overlaps counts",
    )
    parser.add_argument(
        "--classes", nargs="+", metavar="NAME", help="names of the labels 0, 1, ... of a pickle"
    )
    parser.add_argument(
        "--head", help="the head, if there are several; labels and class maps have confusions too"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the counts, percentages, a table by class and a figure; prints the table."""
    args = _parser().parse_args(argv)
    out = absolute_output("--out", args.out)

    from mtl_ray.analysis.confusion import (
        cloud_confusion,
        confusion_table,
        head_confusion,
        object_confusion,
        write_confusion,
    )
    from mtl_ray.analysis.paired import open_pairs, pair_objects
    from mtl_ray.tasks.detection.task import predicts_objects
    from mtl_ray.tasks.lidar.confusion import ConfusionRule
    from mtl_ray.tasks.lidar.task import predicts_boxes_3d

    pairs = open_pairs(args.predictions, args.data, classes=args.classes)
    name = args.head or next(iter(pairs.stored.heads))
    if predicts_objects(pairs.head(name)):
        paired = pair_objects(pairs, name).usable()
        found = object_confusion(
            paired,
            min_score=args.score_thr,
            min_iou=args.iou_thr,
            nms_iou=args.nms_iou_thr,
            compat=args.compat,
        )
    elif predicts_boxes_3d(pairs.head(name)):
        rule = ConfusionRule(overlap=args.iou_thr, metres=args.distance)
        found = cloud_confusion(pairs, name, min_score=args.score_thr, rule=rule)
    else:
        found = head_confusion(pairs, name)
    print(
        f"{'class':24} {'annotated':>10} {'predicted':>10} {'correct':>10} {'precision':>10} "
        f"{'recall':>10} {'f1':>10}"
    )
    for label, annotated, predicted, correct, precision, recall, f1 in confusion_table(found):
        if annotated or predicted:
            print(
                f"{label[:24]:24} {annotated:10} {predicted:10} {correct:10} {precision:10.4f} "
                f"{recall:10.4f} {f1:10.4f}"
            )
    for line in (*pairs.notes, *write_confusion(out, name, found)):
        print(line)
    return 0


if __name__ == "__main__":
    run(main)
