"""CPU seconds to evaluate 500,000 detections on 5,000 images: jobs.evaluate beside pycocotools, and
whether their figures are equal.

    python -m benchmarks.evaluation [--images N] [--rounds R]

Objects and detections come from a seed: 80 classes, about 7 objects an image with crowds among
them, 100 detections an image, most of them near an object and some of a wrong class, in the two
JSON files of COCO. Each program runs from the files to its twelve figures in a process of its own,
imports left out; jobs.evaluate also writes its report, its predictions and its charts.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

CLASSES, OBJECTS, DETECTIONS = 80, 7, 100
WIDTH, HEIGHT = 640, 480
TARGET, EQUAL = 10.0, 1e-9
FIGURES = (
    "mAP",
    "mAP50",
    "mAP75",
    "mAP_s",
    "mAP_m",
    "mAP_l",
    "AR@1",
    "AR@10",
    "AR@100",
    "AR_s",
    "AR_m",
    "AR_l",
)

REFERENCE = """
import json, sys, time
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
started = time.process_time()
sys.stdout = sys.stderr
truth = COCO(sys.argv[1])
evaluation = COCOeval(truth, truth.loadRes(sys.argv[2]), "bbox")
evaluation.evaluate()
evaluation.accumulate()
evaluation.summarize()
seconds = time.process_time() - started
print(json.dumps([seconds, evaluation.stats.tolist()]), file=sys.__stdout__)
"""
OURS = """
import json, sys, time
from mtl_ray.evaluation import charts
from mtl_ray.evaluation.evaluate import Request, evaluate, write_results
from mtl_ray.tasks.detection import metric
started = time.process_time()
report, part = evaluate(Request(target=sys.argv[2], data=sys.argv[1]))
measured = time.process_time() - started
write_results(sys.argv[3], report, part)
written = time.process_time() - started
print(json.dumps([measured, written, {name.partition("/")[2]: value for name, value in report.figures.items()}]))
"""  # noqa: E501


def make_files(folder: Path, images: int) -> tuple[Path, Path]:
    """An annotation file and a results file."""
    rng = np.random.default_rng(0)
    annotations: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image in range(1, images + 1):
        count = int(rng.poisson(OBJECTS))
        boxes, kinds = _boxes(rng, count), rng.integers(1, CLASSES + 1, count)
        for box, kind in zip(boxes.tolist(), kinds.tolist(), strict=True):
            entry = {
                "id": len(annotations) + 1,
                "image_id": image,
                "category_id": kind,
                "bbox": box,
                "area": box[2] * box[3],
            }
            annotations.append(entry | {"iscrowd": int(rng.random() < 0.01)})
        guesses, guessed = _boxes(rng, DETECTIONS), rng.integers(1, CLASSES + 1, DETECTIONS)
        if count:
            near = rng.integers(0, count, DETECTIONS * 6 // 10)
            guesses[: len(near)] = (
                boxes[near] * rng.normal(1, 0.06, (len(near), 4)).clip(0.5)
            ).round(2)
            guessed[: len(near)] = np.where(
                rng.random(len(near)) < 0.85, kinds[near], guessed[: len(near)]
            )
        scores = rng.beta(1, 3, DETECTIONS).round(3)
        for box, kind, score in zip(
            guesses.tolist(), guessed.tolist(), scores.tolist(), strict=True
        ):
            found.append({"image_id": image, "category_id": kind, "bbox": box, "score": score})
    gt = {
        "images": [
            {"id": i, "file_name": f"{i:012d}.jpg", "height": HEIGHT, "width": WIDTH}
            for i in range(1, images + 1)
        ],
        "annotations": annotations,
        "categories": [
            {"id": number, "name": f"class {number}"} for number in range(1, CLASSES + 1)
        ],
    }
    (folder / "truth.json").write_text(json.dumps(gt))
    (folder / "found.json").write_text(json.dumps(found))
    return folder / "truth.json", folder / "found.json"


def _boxes(rng: np.random.Generator, count: int) -> Any:
    sides = np.exp(rng.uniform(np.log(8), np.log(400), (count, 2)))
    corners = rng.uniform(0, 1, (count, 2)) * np.maximum([WIDTH, HEIGHT] - sides, 1)
    return np.concatenate([corners, sides], axis=1).round(2)


def _run(program: str, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument(
        "--rounds", type=int, default=3, help="by turns; the ratio is that of the medians"
    )
    args = parser.parse_args()
    theirs, measured, written = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        files = [str(file) for file in make_files(Path(folder), args.images)]
        for turn in range(args.rounds):
            seconds, stats = _run(REFERENCE, *files)
            first, second, figures = _run(OURS, *files, folder)
            theirs.append(seconds), measured.append(first), written.append(second)
            apart = max(abs(stats[i] - figures[name]) for i, name in enumerate(FIGURES))
            print(
                f"round {turn + 1}: pycocotools {seconds:.2f} s, report {first:.2f} s, all files "
                f"{second:.2f} s, figures differ {apart:.1e}"
            )
    ratios = (
        float(np.median(theirs) / np.median(measured)),
        float(np.median(theirs) / np.median(written)),
    )
    print(
        f"ratio of medians: to the report {ratios[0]:.1f} (target {TARGET:g}), with all files "
        f"{ratios[1]:.1f}"
    )
    return 0 if ratios[0] >= TARGET and apart <= EQUAL else 1


if __name__ == "__main__":
    sys.exit(main())
