"""Files of weights: show, rename, wash, average, publish, and import from other projects."""

from jobs.run import run
from jobs.tools import main

TOOLS = {
    "show": "names, shapes, types and sums; compared with a model",
    "rename": "rename tensors by prefix, part or pattern",
    "wash": "keep some tensors, drop the rest",
    "wrap": "the weights under another top-level key",
    "publish": "a file for distribution, named after its content",
    "average": "the mean of several checkpoints",
    "import": "weights of another project under this project's names",
}

if __name__ == "__main__":
    run(lambda: main("jobs.weights", __doc__ or "", TOOLS))
