"""The metric of every engine of some bundles on a whole split, and its agreement with torch.

python -m benchmarks.engine_metrics RUN BUNDLE [BUNDLE ...] [--data URI]
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtl_ray.evaluation.data import class_converter
from mtl_ray.evaluation.measure import measure
from mtl_ray.evaluation.metrics import head_metrics
from mtl_ray.export.bundle import checkpoint_config, checkpoint_of
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inference.checkpoint import open_checkpoint
from mtl_ray.inference.predictor import Predictions, Predictor
from mtl_ray.inputs.image_header import MAX_PIXELS
from mtl_ray.samples import Sample
from mtl_ray.shards.split import Split, open_split
from mtl_ray.tasks.difference import Comparison

SIDES, SCORE_THRESHOLD = ("torch", "the engine"), 0.3
"""Objects with lower scores are not compared."""


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a row for torch and for each engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="run or checkpoint")
    parser.add_argument("bundles", nargs="+", help="local folders of bundles")
    parser.add_argument("--data", help="split (by default the validation split of the run)")
    args = parser.parse_args(argv)
    split = open_split(args.data or checkpoint_config(args.run, []).data.val.uris[0])
    torch = open_checkpoint(checkpoint_of(args.run))
    expected: dict[str, Predictions] = {}
    print(f"{'torch':18}", measured(torch, split, expected, None))
    done: set[str] = set()
    for bundle in args.bundles:
        default = BundlePredictor(bundle, threads=1)
        for name in default.signature.engine_names:
            if name in done:
                continue
            done.add(name)
            engine = BundlePredictor(bundle, threads=1, engine=name)
            size = sum((Path(bundle) / file).stat().st_size for file in engine.signature.files)
            row = measured(engine, split, None, expected)
            print(f"{name:18}", row, f"{size:,} bytes", engine.about, sep="  ", flush=True)


def measured(
    predictor: Predictor,
    split: Split,
    keep: dict[str, Predictions] | None,
    expected: dict[str, Predictions] | None,
) -> str:
    """The main metric of each head, and the share of objects, pixels or labels that agree."""
    agreeing, count = Counter[str](), Counter[str]()

    def compare(sample: Sample, found: Predictions) -> None:
        if keep is not None:
            keep[sample.key] = found
        if expected is None:
            return
        kind = predictor.canvas.input
        frame = kind.own_frame(kind.decode(sample.inputs[kind.name], MAX_PIXELS))
        how = Comparison(frame=frame, sides=SIDES, score_threshold=SCORE_THRESHOLD, cut=True)
        for head, config in predictor.heads.items():
            first, second = expected[sample.key][head], found[head]
            apart: Any = config.task.difference(first, second, how)
            of_both, together = apart.count, apart.agreeing
            if apart.unit == "boxes":
                of_both = sum(int((s.scores >= SCORE_THRESHOLD).sum()) for s in (first, second))
                together = of_both - len(apart.alone)
            agreeing[head] += together
            count[head] += of_both

    metrics = head_metrics(predictor.heads, predictor.vocabulary)
    convert, _ = class_converter(split, predictor.vocabulary)
    measure(predictor, map(convert, split.read(0, split.num_samples)), metrics, compare)
    cells = []
    for head, metric in metrics.items():
        cell = f"{head}/{metric.main} {float(metric.result()[metric.main]):.4f}"
        if count[head]:
            cell += f" ({agreeing[head] / count[head]:.2%} of {count[head]:,} agree)"
        cells.append(cell)
    return "  ".join(cells)


if __name__ == "__main__":
    main()
