"""Which device a rank takes."""

import pytest
import torch

from mtl_ray.training.context import choose_device


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)


@pytest.mark.usefixtures("one_gpu")
def test_one_rank_takes_the_gpu_and_of_two_neither_does():
    assert choose_device("auto", 0) == torch.device("cuda", 0)
    assert choose_device("cpu", 1, 2) == torch.device("cpu")
    for rank in range(2):  # the first would wait for the second, which has none
        with pytest.raises(
            ValueError, match="2 workers on this machine need a GPU each, and it has 1"
        ):
            choose_device("auto", rank, 2)
