"""What a GPU alone can show: mixed precision, compiled trunks, and a checkpoint that means the
same on a CPU.
"""

import numpy as np
import pytest
import torch

from mtl_ray import storage
from mtl_ray.export.bundle import export
from mtl_ray.export.config import ExportConfig
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inference.checkpoint import find_checkpoint, open_checkpoint
from mtl_ray.training import checkpoint
from mtl_ray.training.context import RunContext, choose_device
from mtl_ray.training.launch import launch
from mtl_ray.training.resume import Summary
from mtl_ray.training.scalars import read_scalars
from mtl_ray.training.trainer import run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def losses(summary: Summary) -> list[float]:
    return [
        row["loss"]
        for row in read_scalars(storage.join(summary["run"], "scalars.jsonl"))
        if "loss" in row
    ]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("compiled", ["false", "true"])
def test_the_loss_falls(make_config, precision, compiled):
    options = (
        f"runtime.precision={precision}",
        f"runtime.compile={compiled}",
        "runtime.deterministic=false",
        "schedule.steps=60",
    )
    summary = launch(make_config("runtime.device=gpu", *options))
    assert summary["finished"]
    curve = losses(summary)
    assert np.mean(curve[-3:]) < 0.7 * np.mean(curve[:3])
    assert summary["metrics"]["labels/top1"] > 0.5


def test_a_stopped_run_ends_bit_for_bit_where_the_undisturbed_one_does(make_config, tmp_path):
    """With deterministic algorithms, as on a CPU."""
    whole, parts = (
        make_config("runtime.device=gpu", "runtime.precision=bf16", f"runtime.name={name}")
        for name in ("whole", "parts")
    )
    launch(whole)
    polls = iter(range(1000))
    run(
        parts,
        RunContext(
            rank=0,
            world_size=1,
            local_rank=0,
            device=choose_device("gpu", 0),
            should_stop=lambda: next(polls) >= 6,
        ),
    )
    ends = [tmp_path / "runs" / name for name in ("whole", "parts")]
    assert not checkpoint.read_state(find_checkpoint(str(ends[1]), "last")).finished
    launch(parts)
    first, second = (
        checkpoint.read_tensors(find_checkpoint(str(end), "last"), "model.safetensors")
        for end in ends
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_checkpoint_and_bundle_answer_as_the_gpu_does(make_config, tmp_path):
    summary = launch(make_config("runtime.device=gpu", "schedule.steps=60"))
    found = find_checkpoint(summary["run"])
    bundle = export(found, str(tmp_path / "bundle"), ExportConfig())
    images = [
        np.random.default_rng(k).integers(0, 256, (40, 50, 3)).astype(np.uint8) for k in range(4)
    ]
    predictors = (
        open_checkpoint(found, device="cuda"),
        open_checkpoint(found, device="cpu"),
        BundlePredictor(bundle.uri),
    )
    gpu, cpu, onnx = (predictor.predict(images) for predictor in predictors)
    for other in (cpu, onnx):
        for a, b in zip(gpu, other, strict=True):
            np.testing.assert_allclose(a["labels"].scores, b["labels"].scores, atol=2e-3)
            assert np.mean(a["semantic"].classes == b["semantic"].classes) > 0.99
