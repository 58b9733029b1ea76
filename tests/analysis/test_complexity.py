"""Operations and parameters: the published figures, torch's own counter, and layers counted by
hand.
"""

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import mobilenet_v3_small, vit_b_16

from jobs.analyze import complexity as job
from mtl_ray.analysis.complexity import complexity
from mtl_ray.analysis.complexity_report import (
    complexity_report,
    flops_text,
    input_shape,
    params_text,
)
from tests.analysis.small_networks import layers
from tests.inference.tiny import HEADS, write_checkpoint

PUBLISHED = "mtl_ray.analysis.published"
NETWORKS = "tests.analysis.small_networks"


def test_published_figures() -> None:
    """To the last digit of what a run of the original gave."""
    retina = complexity_report(f"{PUBLISHED}:retinanet_r50_fpn", (1280, 800), rule="mmcv")
    assert (retina.found.flops, retina.found.params, retina.found.modules[0].params) == (
        239_316_500_520,
        37_743_348,
        37_968_692,
    )
    assert retina.to_text().splitlines()[:5] == [
        "==============================",
        "Input shape: (3, 1280, 800)",
        "Flops: 239.32 GFLOPs",
        "Params: 37.74 M",
        "==============================",
    ]
    psp = complexity_report(f"{PUBLISHED}:pspnet_r50_d8", (2048, 1024), rule="mmcv")
    assert "Flops: 1429.68 GFLOPs\nParams: 48.98 M" in psp.to_text()
    assert psp.found.params == 48_975_494
    assert complexity_report(f"{PUBLISHED}:pspnet_r50_d8", (512,)).found.macs == 178_322_931_712


def test_layers_by_hand() -> None:
    """The rule of mmcv on an input of 3 x 8 x 12: bias counts in convolutions, not in linear
    layers.
    """
    model, image = layers().eval(), torch.zeros(1, 3, 8, 12)
    found = complexity(model, lambda: model(image), "mmcv")
    wanted = [
        (27 * 8 + 8) * 24,
        8 * 24 * 2,
        8 * 24,
        9 * 8 * 2 * 24,
        8 * 24,
        8 * 24,
        8 * 24,
        4 * 8 * 4 * 24 + 4 * 8 * 8,
        4 * 8 * 12,
        0,
        4 * 5,
    ]
    assert [module.macs for module in found.modules[1:]] == wanted
    assert (found.macs, found.flops) == (sum(wanted), sum(wanted))
    assert found.params == sum(parameter.numel() for parameter in model.parameters())


def test_attention_is_invisible_to_the_rule_of_mmcv() -> None:
    """As it is there: the projections are no layers of their own. The operators are there all
    the same.
    """
    model, tokens = (
        torch.nn.MultiheadAttention(16, 4, batch_first=True).eval(),
        torch.zeros(1, 10, 16),
    )
    assert complexity(model, lambda: model(tokens, tokens, tokens), "mmcv").macs == 0
    assert (
        complexity(model, lambda: model(tokens, tokens, tokens)).macs
        == 4 * 10 * 16 * 16 + 2 * 10 * 10 * 16
    )


@pytest.mark.parametrize("build", [vit_b_16, mobilenet_v3_small])
def test_dispatch_equals_torchs_counter(build: object) -> None:
    """Which gives two for a multiply-add; attention is counted; a module's share is that of what
    is inside.
    """
    assert callable(build)
    model = build().eval().to("meta")
    image = torch.empty(1, 3, 224, 224, device="meta")
    found = complexity(model, lambda: model(image))
    with FlopCounterMode(display=False) as counter:
        model(image)
    assert found.flops == counter.get_total_flops()
    assert (
        sum(each.macs for each in found.modules if each.name and "." not in each.name) == found.macs
    )
    assert {each.operator for each in found.uncounted} & {
        "aten.add",
        "aten.hardswish_",
        "aten.gelu",
    }
    assert not {each.operator for each in found.uncounted} & {"aten.view", "aten.transpose"}


def test_any_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A config and the checkpoint made of it cost the same; the auxiliary head only where it is
    asked for.
    """
    uri = str(write_checkpoint(tmp_path / "checkpoint", HEADS))
    assert job.main([uri, "--json", str(tmp_path / "a.json")]) == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["shape"] == [3, 64, 96]
    assert found["flops"] == 2 * found["macs"] > 0
    assert (
        found["params"]
        == found["params_total"]
        == sum(m["params"] for m in found["modules"] if m["name"] in ("trunk", "heads"))
    )
    whole = complexity_report(uri, auxiliary=True).found
    assert whole.macs > found["macs"]
    assert whole.params > found["params"]
    config = tmp_path / "config.yaml"
    config.write_text((tmp_path / "checkpoint" / "config.yaml").read_text())
    with pytest.raises(ValueError, match="--classes"):
        complexity_report(str(config))
    assert (
        complexity_report(str(config), (64, 96), classes=3).found.modules[1].macs
        == complexity_report(uri).found.modules[1].macs
    )
    assert "heads" in capsys.readouterr().out


def test_clouds_and_shapes() -> None:
    """A network of points takes the shape of a cloud; one of images says that it does not."""
    found = complexity_report(f"{NETWORKS}:points", (1000, 4), modality="point")
    assert found.shape == (1000, 4)
    assert found.found.macs == 1000 * 4 * 16 + 16 * 3
    assert input_shape((500,), "point") == (500, 4)
    assert input_shape((64,)) == (3, 64, 64)
    assert input_shape((1, 2, 3, 4)) == (1, 2, 3, 4)
    assert complexity_report(f"{NETWORKS}:layers", (50, 33), divisor=32).shape == (3, 64, 64)
    with pytest.raises(ValueError, match="at least 1"):
        input_shape((0, 4))


def test_what_cannot_be_counted_is_said(tmp_path: Path) -> None:
    """In one sentence each."""
    uri = str(write_checkpoint(tmp_path / "checkpoint", {"labels": HEADS["labels"]}))
    with pytest.raises(ValueError, match="takes images"):
        complexity_report(uri, (40000, 4), modality="point")
    with pytest.raises(ValueError, match="does not take an input of the shape"):
        complexity_report(f"{NETWORKS}:points", (8, 8))
    with pytest.raises(ValueError, match="--device cpu"):
        complexity_report(f"{NETWORKS}:asks", (8,))
    assert complexity_report(f"{NETWORKS}:asks", (8,), device="cpu").found.macs == 2 * 64 * 6
    for target, why in (
        ("nowhere:net", "cannot be imported"),
        (f"{NETWORKS}:nothing", "cannot be imported"),
        (f"{NETWORKS}:no_module", "int"),
    ):
        with pytest.raises(ValueError, match=why):
            complexity_report(target, (8,))
    with pytest.raises(ValueError, match="set one with --shape"):
        complexity_report(f"{NETWORKS}:layers")
    with pytest.raises(FileNotFoundError):
        complexity_report(str(tmp_path / "nothing"))


def test_words() -> None:
    """As mmcv writes them."""
    assert flops_text(239_316_500_520) == "239.32 GFLOPs"
    assert flops_text(5_780_300_000) == "5.78 GFLOPs"
    assert params_text(953_830) == "953.83 k"
    assert params_text(48_975_494) == "48.98 M"
