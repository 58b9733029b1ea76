# ruff: noqa: F821
"""One rank of a validation, run by ``runpy`` with CONFIG, RANK, WORLD_SIZE, STORE and OUT given."""

import json
from pathlib import Path

import torch
import torch.distributed as dist

from mtl_ray.experiment import build_model
from mtl_ray.shards.split import open_split
from mtl_ray.training.context import Collective, RunContext
from mtl_ray.training.validation import Validation

torch.set_num_threads(1)
if WORLD_SIZE > 1:
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(STORE, WORLD_SIZE),
        rank=RANK,
        world_size=WORLD_SIZE,
    )
context = RunContext(rank=RANK, world_size=WORLD_SIZE)
vocabulary = open_split(CONFIG.data.train.uri).vocabulary
torch.manual_seed(0)
model = build_model(CONFIG.model, vocabulary).eval()
figures, shown = Validation(CONFIG, vocabulary, context, Collective(context)).measure(model)
images = len(shown.metrics["boxes"].images) if shown.metrics else None
Path(OUT, f"{RANK}.json").write_text(json.dumps({"figures": figures, "images": images}))
