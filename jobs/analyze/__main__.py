"""Analysis of logs, predictions, models and datasets, as figures with their numbers."""

from jobs.run import run
from jobs.tools import main

TOOLS = {
    "curves": "values of training logs as curves",
    "train-time": "duration of the steps of a training",
    "results": "drawings of the best and worst images, with a table of all",
    "errors": "errors of a detector that lower its average precision",
    "confusion": "confusion matrix of the classes",
    "occlusion": "recall of occluded and of separated objects",
    "eval-metric": "metrics of stored predictions",
    "fuse": "fusion of stored predictions of several models",
    "robustness": "metrics of a model on corrupted images",
    "speed": "latency and throughput of a model, a loader or a dataset",
    "complexity": "FLOPs and parameters of a model, by module",
    "forward": "all that the heads of a network compute from given arrays",
    "dataset": "checks of a dataset before a training",
}

if __name__ == "__main__":
    run(lambda: main("jobs.analyze", __doc__ or "", TOOLS))
