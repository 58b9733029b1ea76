"""Deploy configs of MMDeploy, and jobs.deploy with its arguments."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from jobs.deploy import main
from mtl_ray.export.deploy_config import read_deploy_config, read_literals
from tests.inference.tiny import HEADS, write_checkpoint

ONNX = """
onnx_config = dict(
    type='onnx', export_params=True, keep_initializers_as_inputs=False, opset_version=11,
    save_file='end2end.onnx', input_names=['input'], output_names=['output'], input_shape=None,
    optimize=True)
"""
DETECTION = """
_base_ = ['../_base_/onnx_config.py']
onnx_config = dict(
    output_names=['dets', 'labels'],
    dynamic_axes={'input': {0: 'batch', 2: 'height', 3: 'width'}, 'dets': {0: 'batch'}})
codebase_config = dict(
    type='mmdet', task='ObjectDetection', model_type='end2end',
    post_processing=dict(score_threshold=0.05, keep_top_k=100))
backend_config = dict(type='onnxruntime')
"""
STATIC = """
_base_ = ['./dynamic.py']
onnx_config = dict(_delete_=True, type='onnx', input_shape=[96, 64])
backend_config = dict(type='openvino', model_inputs=[dict(opt_shapes=dict(input=[1, 3, 64, 96]))])
"""
TENSORRT = """
_base_ = ['./dynamic.py']
backend_config = dict(
    _delete_=True, type='tensorrt', common_config=dict(int8_mode=True, max_workspace_size=1 << 30))
"""
QUANTIZED = """
_base_ = ['./static.py']
quantizer = dict(type='mmrazor.OpenvinoQuantizer', qconfig=dict(w_qscheme=dict(bit=8)))
"""
QUICK = ["--cfg-options", "export.samples=2", "export.min_agree=0.9"]


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    folder = tmp_path / "configs" / "mmdet"
    folder.mkdir(parents=True)
    (tmp_path / "configs" / "_base_").mkdir()
    (tmp_path / "configs" / "_base_" / "onnx_config.py").write_text(ONNX)
    (folder / "dynamic.py").write_text(DETECTION)
    (folder / "static.py").write_text(STATIC)
    (folder / "tensorrt.py").write_text(TENSORRT)
    (folder / "quantized.py").write_text(QUANTIZED)
    return folder


def test_what_a_config_asks_for(configs: Path) -> None:
    found = read_deploy_config(str(configs / "dynamic.py"))
    assert (found.engine, found.codebase, found.size, found.dynamic) == (
        "onnxruntime",
        "mmdet",
        None,
        True,
    )
    assert "post_processing" in found.notes[0]
    assert read_literals(str(configs / "dynamic.py"))["onnx_config"]["opset_version"] == 11
    found = read_deploy_config(str(configs / "static.py"))
    assert (found.engine, found.size, found.dynamic) == ("openvino", (64, 96), False)
    assert read_deploy_config(str(configs / "tensorrt.py")).engine == "tensorrt:int8"
    found = read_deploy_config(str(configs / "quantized.py"))
    assert found.engine == "openvino:int8"
    assert "quantizer" in found.notes[-1]
    assert "opset_version" not in read_literals(str(configs / "static.py"))["onnx_config"]


@pytest.mark.parametrize(
    ("backend", "engine"),
    [
        ("dict(type='openvino', precision='FP16')", "openvino:fp16"),
        ("dict(type='tensorrt', common_config=dict(fp16_mode=False, int8_mode=True))", "int8"),
        ("dict(type='ncnn', precision='FP32', use_vulkan=False)", "ncnn"),
        ("dict(type='onnxruntime', common_config=dict(precision='fp16'))", "onnxruntime:fp16"),
        ("dict(type='torchscript')", "torchscript"),
    ],
)
def test_engines_and_precisions(configs: Path, backend: str, engine: str) -> None:
    path = configs / "other.py"
    path.write_text(f"_base_ = './dynamic.py'\nbackend_config = {backend}\n")
    assert read_deploy_config(str(path)).engine.endswith(engine)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import os\nbackend_config = dict(type=os.name)", "line 2: backend_config is code"),
        ("backend_config = __import__('os').system('true')", "is code, which is not run"),
        ("backend_config = dict(type='rknn')\ncodebase_config = dict(type='mmdet')", "no engine"),
        ("codebase_config = dict(type='mmocr')\nbackend_config = dict(type='ncnn')", "'mmocr'"),
        ("_base_ = './bad.py'", "names more than 40 files, or itself"),
        ("_base_ = ['./bad.py', './bad.py']", "names more than 40 files, or itself"),
        ("x = (", "no Python file"),
        ("x = " + "(" * 5000 + ")" * 5000, "no Python file"),
        ("x = " + "-" * 200_000 + "1", "no Python file|is code"),
        ("x = '" + "a" * 1_000_001 + "'", "more than 1,000,000 bytes"),
        ("x = 1", "no codebase_config"),
        ("codebase_config = dict(type='mmdet')\nbackend_config = dict(type='sdk')", "jobs.predict"),
    ],
)
def test_what_is_refused_in_one_sentence(configs: Path, text: str, said: str) -> None:
    path = configs / "bad.py"
    path.write_text(text)
    with pytest.raises(ValueError, match=said) as refused:
        read_deploy_config(str(path))
    assert "\n" not in str(refused.value)


def _image(folder: Path) -> str:
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "a.png"), image)
    return str(folder / "a.png")


def test_a_model_of_ours_is_exported_and_compared(
    configs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(write_checkpoint(tmp_path / "run", {"labels": HEADS["labels"]}))
    out = tmp_path / "out"
    arguments = [str(configs / "dynamic.py"), run, run, _image(tmp_path), "--work-dir", str(out)]
    assert main([*arguments, "--device", "cpu", "--dump-info", *QUICK]) == 0
    said = capsys.readouterr().out
    assert "labels: 2 of 2 labels agree" in said
    assert "post_processing of the deploy config is not taken" in said
    for name in ("output_onnxruntime.jpg", "output_pytorch.jpg", "model.onnx", "end2end.onnx"):
        assert (out / name).is_file(), name
    assert json.loads((out / "deploy.json").read_text())["task"] == "Classifier"


def test_sizes_and_foreign_models_are_refused_with_what_to_do(
    configs: Path, tmp_path: Path
) -> None:
    run, image = str(write_checkpoint(tmp_path / "run", {"labels": HEADS["labels"]})), "a.png"
    (configs / "small.py").write_text(STATIC.replace("[96, 64]", "[32, 32]"))
    with pytest.raises(ValueError, match=r"fixes 32x32 pixels.*trained on 96x64"):
        main([str(configs / "small.py"), run, run, image])
    dynamic = str(configs / "dynamic.py")
    (tmp_path / "fcos.py").write_text("_base_ = []\nmodel = dict(type='FCOS')\nhook = f(1)\n")
    with pytest.raises(ValueError, match=r"jobs\.weights import a\.pth imported --config configs"):
        main([dynamic, str(tmp_path / "fcos.py"), "a.pth", image])
    (tmp_path / "odd.py").write_text("model = dict(type='Mystery')\n")
    with pytest.raises(ValueError, match="no counterpart here"):
        main([dynamic, str(tmp_path / "odd.py"), "a.pth", image])
    (configs / "pplnn.py").write_text("_base_ = './dynamic.py'\nbackend_config=dict(type='pplnn')")
    with pytest.raises(ValueError, match="engine pplnn is not available"):
        main([str(configs / "pplnn.py"), run, run, _image(tmp_path)])
    with pytest.raises(ValueError, match="--device is 'tpu'; it must be cpu or cuda"):
        main([dynamic, run, run, image, "--device", "tpu"])
