"""A search against the config that it started from, both with the same minute of training, on a
split that neither has seen.

``python -m benchmarks.tuning --raw BCCD`` converts the data, searches, trains the config searched
and the best trial by turns with three seeds each, and measures all on test. Given again, it goes on
where it stopped.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import jobs.convert
import jobs.tune
from mtl_ray import storage
from mtl_ray.config.load import load_tree
from mtl_ray.config.validate import validate
from mtl_ray.distributed.evaluate import evaluate_rows
from mtl_ray.distributed.train import train
from mtl_ray.evaluation.evaluate import EvaluationRequest
from mtl_ray.experiment import ExperimentConfig
from mtl_ray.inference.checkpoint import find_checkpoint

CONFIG = "configs/tuning/yolov3_bccd.yaml"
SEEDS = (1, 2, 3)
METRIC = "boxes/mAP50"


def main(argv: Sequence[str] | None = None) -> int:
    """Prints every figure; 1 if the mean difference is below the target."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--raw", help="the data set as Pascal VOC; needed if data/bccd is not there"
    )
    parser.add_argument("--target", type=float, default=0.03, help="the least mean difference")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    args = parser.parse_args(argv)
    for split in ("train", "val", "test"):
        if not storage.exists(f"data/bccd/{split}/manifest.json"):
            jobs.convert.main(["voc", args.raw, "--split", split, "--to", f"data/bccd/{split}"])
    status = jobs.tune.main([CONFIG, *args.overrides])
    if status:
        return status
    return compare(args.overrides, args.target)


def compare(overrides: Sequence[str], target: float) -> int:
    tree = load_tree(CONFIG, overrides)
    searched = validate(tree, ExperimentConfig)
    folder = Path(searched.runtime.storage) / searched.runtime.name
    built = folder / "tuned.yaml"
    built.write_text(f"_base_: [{Path(CONFIG).absolute()}, best.yaml]\n")
    assert searched.tune is not None
    seconds = f"schedule.seconds={searched.tune.seconds}"
    scores: dict[str, list[float]] = {"as it was": [], "best trial": []}
    for seed in SEEDS:
        for name, file in (("as it was", CONFIG), ("best trial", str(built))):
            own = [
                f"runtime.name={name.replace(' ', '_')}-{seed}",
                f"runtime.storage={folder}/compared",
                f"runtime.seed={seed}",
                seconds,
            ]
            config = validate(load_tree(file, [*overrides, *own]), ExperimentConfig)
            summary = train(config)
            report, _ = evaluate_rows(
                EvaluationRequest(target=find_checkpoint(summary["run"]), data="data/bccd/test"), 1
            )
            scores[name].append(report.figures[METRIC])
            print(
                f"seed {seed}  {name:<10}  {summary['step']:>5} steps  {METRIC} on test "
                f"{scores[name][-1]:.4f}",
                flush=True,
            )
    means = {name: statistics.fmean(values) for name, values in scores.items()}
    gain = means["best trial"] - means["as it was"]
    print(
        f"mean of {len(SEEDS)} seeds: {means['as it was']:.4f} as it was, "
        f"{means['best trial']:.4f} best trial: {100 * gain:+.1f} points"
    )
    return 0 if gain >= target else 1


if __name__ == "__main__":
    raise SystemExit(main())
