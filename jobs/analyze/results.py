"""The best and the worst images or clouds of stored predictions, ground truth and predictions
side by side, and a table of all.
"""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobs.run import run
from mtl_ray.distributed.outputs import absolute_output

if TYPE_CHECKING:
    from mtl_ray.analysis.results import Results


def _parser() -> argparse.ArgumentParser:
    example = (
        "example: python -m jobs.analyze results results/bccd/predictions.arrow --data "
        "shards/bccd/val --out best_and_worst --topk 10"
    )
    parser = argparse.ArgumentParser(
        prog="python -m jobs.analyze results", description=__doc__, epilog=example
    )
    parser.add_argument(
        "predictions",
        help="predictions.arrow, a COCO results file, or a result pickle of MMDetection",
    )
    parser.add_argument("--data", required=True, help="URI of a split, or a COCO annotation file")
    parser.add_argument("--out", required=True, help="folder or URI")
    parser.add_argument("--images", help="folder of the images of a COCO annotation file")
    parser.add_argument(
        "--topk", type=int, default=20, help="number of best and of worst images (default 20)"
    )
    parser.add_argument(
        "--score-thr",
        type=float,
        default=0.0,
        help="detections with a lower score are ignored (default 0)",
    )
    parser.add_argument(
        "--show-score-thr",
        type=float,
        default=0.3,
        help="detections with a lower score are not drawn (default 0.3)",
    )
    parser.add_argument(
        "--compat",
        action="store_true",
        help="as MMDetection 3.x: crowds must be found, images without objects are worst",
    )
    parser.add_argument(
        "--classes", nargs="+", metavar="NAME", help="names of the labels 0, 1, ... of a pickle"
    )
    parser.add_argument("--head", help="the detection head, if there are several")
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="Ray tasks at a time; 1 (default): this process, without Ray",
    )
    return parser


def _print_ends(found: "Results", show_score_thr: float) -> None:
    """The worst and the best, and what is not drawn."""
    for title, drawn in (("worst", found.bad), ("best", tuple(reversed(found.good)))):
        for each in drawn[:5]:
            line = found.table[each.place]
            print(
                f"{title:5}  {line.score:.3f}  {line.num_truth:4} to find, {line.num_predicted:4} "
                f"predicted  {line.image}"
            )
    if found.hidden:
        print(
            f"{found.hidden:,} detections with a score below {show_score_thr:g} are not "
            "drawn; --show-score-thr 0 draws all"
        )
    if found.without_picture:
        print(f"{found.without_picture} images were not found and are drawn on grey. Fix: --images")


def main(argv: Sequence[str] | None = None) -> int:
    """Writes images.json, images.csv, good/ and bad/, prints the ends of the table."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.topk < 0:
        parser.error("--topk must be at least 0")
    out = absolute_output("--out", args.out)

    from mtl_ray.analysis.cloud_results import cloud_results
    from mtl_ray.analysis.paired import open_pairs, pair_objects
    from mtl_ray.analysis.results import results
    from mtl_ray.distributed.executor import open_executor
    from mtl_ray.tasks.lidar.task import predicts_boxes_3d

    pairs = open_pairs(args.predictions, args.data, images=args.images, classes=args.classes)
    first = next(iter(pairs.stored.heads))
    head = args.head or (first if predicts_boxes_3d(pairs.head(first)) else None)
    of_clouds = head is not None and predicts_boxes_3d(pairs.head(head))
    paired = None if of_clouds else pair_objects(pairs, head)
    with open_executor(args.workers) as executor:
        found = (
            cloud_results(
                pairs,
                head or first,
                out,
                executor,
                topk=args.topk,
                min_score=args.score_thr,
                show_score=args.show_score_thr,
            )
            if paired is None
            else results(
                paired.usable().above(args.score_thr),
                out,
                executor,
                topk=args.topk,
                show_score=args.show_score_thr,
                compat=args.compat,
            )
        )
    _print_ends(found, args.show_score_thr)
    for note in pairs.notes if paired is None else paired.notes:
        print(note)
    drawn_of_each, unit = len(found.good), "clouds" if of_clouds else "images"
    print(
        f"{len(found.table)} {unit} in {out}/images.json and images.csv, {drawn_of_each} {unit} "
        "each in good/ and bad/"
    )
    return 0


if __name__ == "__main__":
    run(main)
