"""However many ranks and micro-batches share a batch, the step is the one of the whole batch."""

from pathlib import Path
from runpy import run_path

import pytest
import torch

from mtl_ray.training.config import RuntimeConfig, ScheduleConfig

WORLD = run_path(str(Path(__file__).with_name("plain_net.py")))
RUNTIME = RuntimeConfig(name="step")


def reference(clip: float | None) -> dict[str, torch.Tensor]:
    """The same steps with nothing but torch, on whole batches."""
    net = WORLD["Net"]()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    losses = []
    for number in range(4):
        terms = net(WORLD["batch"](number), number)
        parts = [total / count for total, count in terms.values()]
        optimizer.zero_grad()
        sum(parts).backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
        optimizer.step()
        losses.append(torch.stack(parts).detach())
    return {"weights": net.state_dict(), "losses": torch.stack(losses)}


@pytest.mark.parametrize(
    ("shares", "accumulate", "clip"),
    [
        ((8,), 1, None),
        ((8,), 3, None),
        ((8,), 4, 0.05),
        ((4, 4), 1, 0.05),
        ((5, 3), 3, None),
        ((3, 2, 3), 1, None),
        ((3, 2, 3), 2, 0.05),
    ],
)
def test_step_is_that_of_the_whole_batch(start, tmp_path, shares, accumulate, clip):
    schedule = ScheduleConfig(steps=4, accumulate=accumulate, clip_grad_norm=clip)
    out = tmp_path / "out.pt"
    assert start(
        "step_rank.py", len(shares), OUT=str(out), SCHEDULE=schedule, RUNTIME=RUNTIME, SHARES=shares
    ) == [0] * len(shares)
    found, wanted = torch.load(out, weights_only=True), reference(clip)
    torch.testing.assert_close(found["losses"].float(), wanted["losses"], rtol=1e-5, atol=1e-6)
    for name, value in wanted["weights"].items():
        torch.testing.assert_close(found["weights"][name], value, rtol=1e-4, atol=1e-6)


def test_averaging_ranks_would_be_seen():
    """The control: the mean of the ranks' own losses is another loss, because their counts
    differ.
    """
    net, batch = WORLD["Net"](), WORLD["batch"](0)
    whole = net(batch, 0)["a/square"]
    parts = [net(batch[part], 0)["a/square"] for part in (slice(0, 5), slice(5, 8))]
    mean = sum(total / count for total, count in parts) / 2
    assert abs(mean - whole[0] / whole[1]) > 1e-3
