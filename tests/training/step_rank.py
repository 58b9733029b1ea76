# ruff: noqa: F821
"""One rank of a few plain steps, run by ``runpy`` with RANK, WORLD_SIZE, STORE, OUT, SCHEDULE,
RUNTIME and SHARES given.
"""

from pathlib import Path
from runpy import run_path

import torch
import torch.distributed as dist

from mtl_ray.training.context import RunContext
from mtl_ray.training.step import Step

world = run_path(str(Path(__file__).with_name("plain_net.py")))
if WORLD_SIZE > 1:
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(STORE, WORLD_SIZE),
        rank=RANK,
        world_size=WORLD_SIZE,
    )
torch.set_num_threads(1)
net = world["Net"]()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
method = world["PlainMethod"](net)
step = Step(method, optimizer, SCHEDULE, RUNTIME, RunContext(rank=RANK, world_size=WORLD_SIZE))
first = sum(SHARES[:RANK])
losses = []
for number in range(4):
    batch = world["batch"](number)[first : first + SHARES[RANK]]
    losses.append(step(batch, number).losses)
assert method.after == [0, 1, 2, 3]
if RANK == 0:
    torch.save({"weights": net.state_dict(), "losses": torch.stack(losses)}, OUT)
