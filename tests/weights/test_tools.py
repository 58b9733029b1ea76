"""The jobs on files of weights: show, rename, wash, wrap, publish, average."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from jobs.run import run
from jobs.weights import average, publish, rename, show, wash, wrap
from mtl_ray.weights.read import read_weights
from mtl_ray.weights.write import content_hash
from tests.inference.tiny import HEADS, write_checkpoint

STATE = {
    "backbone.conv.weight": torch.arange(6.0).reshape(2, 3),
    "backbone.norm.num_batches_tracked": torch.tensor(3),
    "head.weight": torch.ones(2),
}


def _file(
    folder: Path, name: str = "in.pth", state: dict[str, Tensor] = STATE, **rest: object
) -> str:
    torch.save({"state_dict": state, **rest}, folder / name)
    return str(folder / name)


def _tensors(uri: object) -> dict[str, Tensor]:
    return read_weights(str(uri)).tensors


def _refused(capsys: pytest.CaptureFixture[str], tool: object, arguments: Sequence[object]) -> str:
    """The message on stderr of a tool that ends with status 2."""
    with pytest.raises(SystemExit) as stop:
        run(lambda: tool.main(list(map(str, arguments))))  # type: ignore[attr-defined]
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def test_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show.main([_file(tmp_path, epoch=3), "--json", str(tmp_path / "out.json")]) == 0
    said = capsys.readouterr().out
    assert re.search(r"backbone.conv.weight +2x3 +float32 +15\n", said)
    assert (
        f"3 tensors under 'state_dict', 9 numbers, 40 bytes; content {content_hash(STATE)}" in said
    )
    assert "beside them: epoch (int)" in said
    (file,) = json.loads((tmp_path / "out.json").read_text())
    assert file["rows"][0] == {
        "name": "backbone.conv.weight",
        "shape": [2, 3],
        "dtype": "float32",
        "sum": 15.0,
    }


def test_show_compares_with_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import timm

    state = dict(timm.create_model("resnet18", features_only=True).state_dict())
    assert show.main([_file(tmp_path, state=state), "--model", "resnet18"]) == 0
    del state["conv1.weight"]
    state |= {"bn1.weight": torch.zeros(3), "odd": torch.zeros(1)}
    assert show.main([_file(tmp_path, state=state), "--model", "resnet18"]) == 1
    said = capsys.readouterr().out
    assert "1 missing in the file:\n  conv1.weight\n1 not used by the model:\n  odd\n" in said
    assert "1 of another shape:\n  bn1.weight: (3,) in the file, (64,)" in said
    assert "neither a config" in _refused(capsys, show, [_file(tmp_path), "--model", "nothing"])


def test_rename(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = [
        "--prefix",
        "backbone.",
        "net.",
        "--part",
        "norm",
        "bn",
        "--pattern",
        r"^head\.(\w+)$",
        r"fc.\1",
    ]
    assert rename.main([_file(tmp_path, epoch=1), str(tmp_path / "out.pth"), *rules]) == 0
    assert list(_tensors(tmp_path / "out.pth")) == [
        "net.conv.weight",
        "net.bn.num_batches_tracked",
        "fc.weight",
    ]
    assert torch.load(tmp_path / "out.pth", weights_only=True)["epoch"] == 1
    assert "head.weight -> fc.weight" in capsys.readouterr().out


def test_rename_refuses_collisions_and_rules_without_effect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {"a.x": torch.zeros(1), "b.x": torch.zeros(1)}
    source, out = _file(tmp_path, state=state), tmp_path / "out.pth"
    assert "'a.x' and 'b.x' would both get the name 'b.x'" in _refused(
        capsys, rename, [source, out, "--prefix", "a.", "b."]
    )
    assert "no name has the prefix 'c.'" in _refused(
        capsys, rename, [source, out, "--prefix", "c.", "d."]
    )
    assert "not a regular expression" in _refused(
        capsys, rename, [source, out, "--pattern", "(", "d"]
    )
    assert "at least one of --prefix" in _refused(capsys, rename, [source, out])
    assert not out.exists()


def test_wash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = _file(tmp_path, meta={"CLASSES": ["car"]}, optimizer={}), tmp_path / "out.pth"
    assert wash.main([source, str(out), "--keep", "backbone.", "--strip"]) == 0
    assert list(_tensors(out)) == ["conv.weight", "norm.num_batches_tracked"]
    assert read_weights(str(out)).rest == {"meta": {"CLASSES": ["car"]}}
    assert wash.main([source, str(out), "--drop", "head."]) == 0
    assert list(_tensors(out)) == ["backbone.conv.weight", "backbone.norm.num_batches_tracked"]
    assert "no name starts with 'neck.'; they start with backbone., head." in _refused(
        capsys, wash, [source, out, "--keep", "neck."]
    )
    twice = _file(tmp_path, "twice.pth", {"a.x": torch.zeros(1), "b.x": torch.zeros(1)})
    assert "would both get the name 'x'" in _refused(
        capsys, wash, [twice, out, "--keep", "a.", "b.", "--strip"]
    )


def test_wrap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.pth"
    assert wrap.main([_file(tmp_path, epoch=3), str(out), "--to-key", "model"]) == 0
    content = torch.load(out, weights_only=True)
    assert list(content) == ["model", "epoch"]
    assert list(content["model"]) == list(STATE)
    assert wrap.main([str(out), str(tmp_path / "plain.pth"), "--to-key", ""]) == 0
    assert list(torch.load(tmp_path / "plain.pth", weights_only=True)) == list(STATE)
    assert "another entry 'epoch'" in _refused(capsys, wrap, [out, out, "--to-key", "epoch"])


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_publish(ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = _file(tmp_path, meta={"epoch": 3}, optimizer={"state": {}}, param_schedulers=[1, 2])
    assert publish.main([source, str(tmp_path / f"yolo{ending}")]) == 0
    said = capsys.readouterr().out
    (written,) = tmp_path.glob(f"yolo-*{ending}")
    digest = hashlib.sha256(written.read_bytes()).hexdigest()
    assert written.name == f"yolo-{digest[:8]}{ending}"
    assert digest in said
    assert "removed: optimizer (1 entries)\nremoved: param_schedulers (2 entries)" in said
    assert content_hash(_tensors(written)) == content_hash(STATE)
    assert content_hash(STATE) in said
    if ending == ".pth":
        assert list(torch.load(written, weights_only=True)) == ["state_dict", "meta"]


def test_publish_again_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("a.pth", "b.pth"):
        publish.main(
            [
                _file(tmp_path, name, optimizer={"lr": 1} if name == "a.pth" else {}),
                str(tmp_path / "out"),
            ]
        )
    assert len(list(tmp_path.glob("out-*.pth"))) == 1


def _second(factor: float, prefix: str = "") -> dict[str, Tensor]:
    return {prefix + name: (value * factor).to(value.dtype) for name, value in STATE.items()}


@pytest.mark.parametrize(
    ("rest", "factors"),
    [
        (
            {"ema_state_dict": {**_second(2, "module."), "steps": torch.tensor(9)}},
            {"averaged": 1, "raw": 2},
        ),
        ({"state_dict_ema": _second(2)}, {"averaged": 2, "raw": 1}),
    ],
)
def test_publish_chooses_a_copy_of_the_weights(
    rest: dict[str, object], factors: dict[str, float], tmp_path: Path
) -> None:
    for ema, factor in factors.items():
        publish.main([_file(tmp_path, **rest), str(tmp_path / f"{ema}.pth"), "--ema", ema])
        (written,) = tmp_path.glob(f"{ema}-*.pth")
        assert content_hash(_tensors(written)) == content_hash(_second(factor))
        assert list(torch.load(written, weights_only=True)) == ["state_dict"]


def test_publish_leaves_the_buffers_of_mmcv_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {
        **STATE,
        **{f"ema_{name.replace('.', '_')}": value for name, value in _second(2).items()},
    }
    for ema, factor in (("averaged", 1), ("raw", 2)):
        publish.main([_file(tmp_path, state=state), str(tmp_path / f"{ema}.pth"), "--ema", ema])
        (written,) = tmp_path.glob(f"{ema}-*.pth")
        assert content_hash(_tensors(written)) == content_hash(_second(factor))
    assert "removed: 3 buffers ema_*" in capsys.readouterr().out


def test_a_checkpoint_of_this_project_is_a_file_of_weights_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    averaged = {"labels.weight": torch.full((2,), 7.0)}
    write_checkpoint(
        tmp_path / "run" / "checkpoint", HEADS, ema__safetensors=safetensors.torch.save(averaged)
    )
    raw = read_weights(str(tmp_path / "run" / "checkpoint"), "model").tensors
    for ema, wanted in (("averaged", averaged), ("raw", raw)):
        publish.main(
            [str(tmp_path / "run" / "checkpoint"), str(tmp_path / f"{ema}.pth"), "--ema", ema]
        )
        (written,) = tmp_path.glob(f"{ema}-*.pth")
        assert content_hash(_tensors(written)) == content_hash(wanted)
        assert "resnet18" in read_weights(str(written)).rest["meta"]["config"]
    assert "removed: ema.safetensors of the checkpoint" in capsys.readouterr().out
    assert "only ema, model" in _refused(
        capsys, show, [tmp_path / "run" / "checkpoint", "--key", "nothing"]
    )


def test_average(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = {**_second(3), "backbone.norm.num_batches_tracked": torch.tensor(8)}
    files, out = [_file(tmp_path), _file(tmp_path, "b.pth", other)], tmp_path / "mean.safetensors"
    assert average.main([*files, str(out)]) == 0
    assert _tensors(out)["head.weight"].tolist() == [2, 2]
    assert _tensors(out)["backbone.norm.num_batches_tracked"] == 8
    assert average.main([*files, str(out), "--shares", "3", "1"]) == 0
    assert _tensors(out)["head.weight"].tolist() == [1.5, 1.5]
    assert "3 shares for 2 files" in _refused(
        capsys, average, [*files, out, "--shares", "1", "1", "1"]
    )
    assert "1 shares for 2 files" in _refused(capsys, average, [*files, out, "--shares", "1"])
    assert "at least two files" in _refused(capsys, average, [files[0], out])
    lacking = _file(tmp_path, "c.pth", {"head.weight": torch.ones(2)})
    assert re.search(
        "is in .*in.pth but not in .*c.pth", _refused(capsys, average, [files[0], lacking, out])
    )
    wider = _file(tmp_path, "d.pth", {**STATE, "head.weight": torch.ones(3)})
    assert "head.weight is float32 (2,) in" in _refused(capsys, average, [files[0], wider, out])
    index = {**STATE, "index": torch.tensor([0, 1])}
    files = [
        _file(tmp_path, "e.pth", index),
        _file(tmp_path, "f.pth", {**index, "index": torch.tensor([1, 0])}),
    ]
    assert "integers, which have no mean" in _refused(capsys, average, [*files, out])


def test_the_mean_of_many_halves_is_not_rounded_on_the_way(tmp_path: Path) -> None:
    files = [
        _file(tmp_path, f"{i}.pth", {"a": torch.full((1,), 1 + i / 1024).half()}) for i in range(8)
    ]
    average.main([*files, str(tmp_path / "out.pth")])
    assert _tensors(tmp_path / "out.pth")["a"] == torch.tensor(1 + 3.5 / 1024).half()
