"""Why a model does what it does: logs, predictions, models and data sets, as figures with their numbers beside them."""

from jobs.run import run
from jobs.tools import main

TOOLS = {
    "curves": "values of training logs as curves",
    "train-time": "how long the steps of a training took",
    "results": "the best and the worst images, drawn, with a table of all",
    "errors": "what keeps a detector from full average precision",
    "confusion": "which classes are taken for which",
    "occlusion": "recall of occluded and of separated objects",
    "eval-metric": "metrics of stored predictions",
    "fuse": "stored predictions of several models as one",
    "robustness": "how a model bears corrupted images",
    "speed": "latency and throughput of a model, a loader or a data set",
    "complexity": "FLOPs and parameters of a model, by module",
    "dataset": "the health of a data set before a training",
}

if __name__ == "__main__":
    run(lambda: main("jobs.analyze", __doc__ or "", TOOLS))
