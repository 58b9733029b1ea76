"""Recall of occluded and of separated objects, in percent, from stored predictions."""

import argparse
import json
from collections.abc import Sequence

from jobs.run import run
from mtl_ray import storage
from mtl_ray.distributed.outputs import absolute_output


def _parser() -> argparse.ArgumentParser:
    example = (
        "example: python -m jobs.analyze occlusion masks.pkl --data instances_val2017.json "
        "--out occlusion.json"
    )
    parser = argparse.ArgumentParser(
        prog="python -m jobs.analyze occlusion", description=__doc__, epilog=example
    )
    parser.add_argument(
        "predictions",
        help="predictions.arrow, a COCO results file, or a result pickle of MMDetection",
    )
    parser.add_argument("--data", required=True, help="URI of a split, or a COCO annotation file")
    parser.add_argument(
        "--occluded",
        help="list of the occluded objects: occluded_coco.pkl or JSON; by default computed from "
        "the masks",
    )
    parser.add_argument(
        "--separated",
        help="list of the separated objects: separated_coco.pkl or JSON; by default computed from "
        "the masks",
    )
    parser.add_argument(
        "--score-thr",
        type=float,
        default=0.3,
        help="detections with a lower score are ignored (default 0.3)",
    )
    parser.add_argument("--iou-thr", type=float, default=0.75, help="least IoU (default 0.75)")
    parser.add_argument(
        "--type",
        choices=("segm", "bbox"),
        help="compare masks or boxes; by default masks if the predictions have them",
    )
    parser.add_argument("--out", required=True, help="file or URI for the figures in JSON")
    parser.add_argument(
        "--lists",
        help="folder or URI: also write the lists there, for other predictions and for a config",
    )
    parser.add_argument(
        "--classes", nargs="+", metavar="NAME", help="names of the labels 0, 1, ... of a pickle"
    )
    parser.add_argument("--head", help="the detection head, if there are several")
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="Ray tasks that compute the lists; 1 (default): without Ray",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the two figures, prints them with their counts."""
    args = _parser().parse_args(argv)
    out = absolute_output("--out", args.out)
    folder = None if args.lists is None else absolute_output("--lists", args.lists)

    from mtl_ray.analysis.occlusion import KINDS, lists_of, occlusion, write_lists
    from mtl_ray.analysis.paired import open_pairs, pair_objects
    from mtl_ray.distributed.executor import open_executor

    pairs = open_pairs(args.predictions, args.data, classes=args.classes)
    kind = args.type or pairs.likeness()
    paired = pair_objects(pairs, args.head, kind=kind)
    with open_executor(args.workers) as executor:
        lists = lists_of(paired, args.occluded, args.separated, executor)
    found = occlusion(paired, lists, kind=kind, score=args.score_thr, iou=args.iou_thr)
    storage.write(out, (json.dumps(found.to_json(), indent=1) + "\n").encode())
    for name in KINDS:
        shown = f"{found.recall[name]:6.2f}%" if found.looked_for[name] else "      -"
        print(f"{name:10} recall {shown}  {found.found[name]} of {found.looked_for[name]}")
    if found.elsewhere:
        print(
            f"{found.elsewhere} listed objects belong to images that are not in the data; they do "
            "not count"
        )
    for line in (
        *([] if kind == "segm" else ["boxes were compared, not masks"]),
        *paired.notes,
        out,
    ):
        print(line)
    for line in write_lists(folder, lists) if folder is not None else ():
        print(line)
    return 0


if __name__ == "__main__":
    run(main)
