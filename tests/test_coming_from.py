"""Every command of docs/coming_from.md runs, on small data made for it; what would run long is
tried elsewhere, and that place is named.
"""

import itertools
import pickle
import re
import shlex
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
import torchvision

from jobs.convert import main as convert
from mtl_ray.evaluation.evaluate import EvaluationRequest, evaluate, write_results
from mtl_ray.export.bundle import export
from mtl_ray.export.config import ExportConfig
from mtl_ray.inference.checkpoint import open_checkpoint
from tests.analysis.coco_json import write_coco_json
from tests.analysis.mmdet_pickles import entries_3x
from tests.analysis.openmmlab_logs import mmcv1, mmengine, write_log
from tests.evaluation.conftest import make_samples, write_split
from tests.inference.tiny import HEADS, write_checkpoint
from tests.inference.tiny_lidar import lidar_config, write_lidar_checkpoint
from tests.loading.clouds import cloud_sample, write_clouds
from tests.tasks.random_objects import HEIGHT, WIDTH, random_images
from tests.test_readme import write_voc
from tests.weights.foreign_files import caffe2, detectron2, jax_vit, mit, pycls, swin

pytestmark = pytest.mark.jobs

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "coming_from.md").read_text()
ROWS = [
    line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| there |")
]
COMMANDS = list(
    dict.fromkeys(command for row in ROWS for command in re.findall(r"`python -m ([^`]+)`", row))
)
ELSEWHERE = {
    "jobs.train": "tests/distributed/test_train.py",
    "jobs.pipeline": "tests/distributed/test_pipeline.py",
    "jobs.serve compare": "tests/distributed/test_serve.py",
    "jobs.serve": "tests/distributed/test_serve.py",
    "jobs.export runs/mine --to bundles/int8": "tests/export/test_engines.py",
    "jobs.doctor": "tests/distributed/test_doctor.py",
    "jobs.convert cityscapes": "tests/sources/test_cityscapes.py",
    "jobs.convert nuimages": "tests/sources/test_nuimages.py",
    "jobs.convert nuscenes": "tests/sources/test_nuscenes.py",
    "jobs.convert lyft": "tests/sources/test_nuscenes.py",
    "jobs.convert waymo": "tests/sources/test_waymo.py",
    "jobs.convert openmmlab_infos": "tests/sources/test_openmmlab_infos.py",
}
"""Commands that start servers or trainings, or want a large data set in its own layout: of these
the options alone are tried here.
"""
ADDED = {
    "jobs.convert": ["--workers", "1"],
    "jobs.split": ["--workers", "1"],
    "jobs.export": [
        *("export.size=fixed", "export.samples=2", "export.min_agree=0.9"),
        *("export.max_metric_drop=1", "export.metric_samples=4", "export.calibration.samples=4"),
    ],
    "jobs.deploy": ["--cfg-options", "export.samples=2", "export.min_agree=0.9"],
}
"""To have them in this process, without Ray, and quick; the weights are random, so that scores
lie close together.
"""
CONFIG = """
model:
  backbone: {name: resnet18, levels: [C4, C5], options: {layers: [1, 1, 1, 1], channels: [8, 8, 16, 16]}}
  heads:
    boxes: {type: retinanet, levels: [C4], channels: 8, convs: 1}
data:
  train: {uri: shards/val}
  val: {uri: shards/val}
  canvas: {height: 64, width: 96}
  augment: [{type: flip}]
  batch: 4
schedule: {steps: 1}
runtime: {name: mine}
"""  # noqa: E501


def test_every_row_has_a_command_or_says_that_there_is_none() -> None:
    assert len(ROWS) > 100
    for row in ROWS:
        cells = row.strip("|").split(" | ")
        assert len(cells) == 3, row
        assert re.fullmatch(r" ?`python -m [^`]+`", cells[1]) or cells[1].startswith(
            "no counterpart"
        ), row


def test_the_page_is_linked_from_the_readme() -> None:
    assert "docs/coming_from.md" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(("command", "place"), ELSEWHERE.items())
def test_what_is_not_run_here_is_run_elsewhere(command: str, place: str) -> None:
    module, *words = command.split()
    assert any(each.startswith(command) for each in COMMANDS)
    assert (words or [module.rpartition(".")[2]])[0] in (ROOT / place).read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the page's commands name."""
    made = tmp_path_factory.mktemp("coming_from")
    (made / "configs").symlink_to(ROOT / "configs")
    (made / "mine.yaml").write_text(CONFIG)
    write_log(made / "old.log.json", mmcv1())
    write_log(made / "new.json", mmengine())
    _models(made)
    _detections(made)
    _pictures(made)
    _weights(made)
    _clouds(made)
    _deploy(made)
    return made


def _clouds(folder: Path) -> None:
    """A split of clouds, the same as KITTI objects, and models of them."""
    uri = write_clouds(folder / "shards" / "clouds", [cloud_sample(seed) for seed in range(4)])
    arguments = ["--split", "val", "--to", str(folder / "data" / "kitti"), "--format", "kitti"]
    assert convert(["shards", uri, *arguments, "--workers", "1"]) == 0
    checkpoint = write_lidar_checkpoint(folder / "runs" / "lidar", lidar_config(split=uri))
    quick = ExportConfig(samples=2, min_agree=0.9)
    export(checkpoint, str(folder / "bundles" / "lidar"), quick)
    (folder / "cloud.bin").write_bytes(cloud_sample(9).inputs["points"].data)


def _deploy(folder: Path) -> None:
    """A deploy config of MMDeploy with its base, and an image."""
    (folder / "deploy").mkdir()
    (folder / "deploy" / "onnx.py").write_text(
        "onnx_config = dict(type='onnx', opset_version=11, input_names=['input'], "
        "input_shape=None)\n"
    )
    (folder / "deploy" / "detection_onnxruntime_static.py").write_text(
        "_base_ = ['./onnx.py']\nbackend_config = dict(type='onnxruntime')\n"
        "codebase_config = dict(type='mmdet', task='ObjectDetection', model_type='end2end')\n"
    )
    noise = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "picture.png"), noise)


def _models(folder: Path) -> None:
    write_checkpoint(folder / "runs" / "mine", HEADS)
    (folder / "shards").mkdir()
    write_split(
        folder / "shards" / "val", make_samples(open_checkpoint(str(folder / "runs" / "mine")))
    )
    request = EvaluationRequest(
        target=str(folder / "runs" / "mine"), data=str(folder / "shards" / "val")
    )
    write_results(str(folder / "results" / "stored"), *evaluate(request))
    quick = ExportConfig(size="fixed", samples=2, min_agree=0.9)
    export(str(folder / "runs" / "mine"), str(folder / "bundles" / "mine"), quick)


def _detections(folder: Path) -> None:
    images = random_images(11, count=8, classes=5)
    (folder / "coco" / "pictures").mkdir(parents=True)
    gt, found = (Path(name) for name in write_coco_json(folder / "coco", images))
    gt.rename(folder / "coco" / "val.json")
    found.rename(folder / "results.json")
    (folder / "results.pkl").write_bytes(pickle.dumps(entries_3x(images, masks=True)))
    for number, image in enumerate(images):
        cv2.imwrite(
            str(folder / "coco" / "pictures" / image.key),
            np.full((HEIGHT, WIDTH, 3), 20 * number, np.uint8),
        )


def _pictures(folder: Path) -> None:
    """Data sets in other layouts."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / "data" / "voc" / name).mkdir(parents=True)
    for number in range(4):
        write_voc(folder / "data" / "voc", number)
    (folder / "data" / "voc" / "ImageSets" / "Main" / "train.txt").write_text(
        "".join(f"{number:04d}\n" for number in range(4))
    )
    semantic, classes = folder / "data" / "semantic", folder / "data" / "classes" / "train"
    semantic.mkdir(parents=True)
    (semantic / "classes.txt").write_text("sky\nroad\ntree\n")
    for number in range(3):
        picture = np.full((20, 30, 3), 50 * number, np.uint8)
        cv2.imwrite(str(semantic / f"{number}.png"), picture)
        cv2.imwrite(str(semantic / f"{number}_label.png"), np.full((20, 30), number, np.uint8))
        (classes / str(number)).mkdir(parents=True)
        cv2.imwrite(str(classes / str(number) / "a.png"), picture)
    (semantic / "train.txt").write_text(
        "".join(f"{number}.png {number}_label.png\n" for number in range(3))
    )


def _weights(folder: Path) -> None:
    net = torchvision.models.resnet18()
    state = {
        f"backbone.{name}": value
        for name, value in net.state_dict().items()
        if not name.startswith("fc.")
    }
    for epoch in (11, 12):
        content = {
            "meta": {"epoch": epoch, "CLASSES": ["car"]},
            "state_dict": state,
            "optimizer": {"state": {}, "param_groups": []},
        }
        torch.save(content, folder / f"epoch_{epoch}.pth")
    torch.save(
        {"state_dict": {f"backbone_q.{name}": value for name, value in net.state_dict().items()}},
        folder / "moco.pth",
    )
    torch.save(
        {"model_state": pycls(timm.create_model("regnetx_002").state_dict())},
        folder / "regnet.pyth",
    )
    resnet = torchvision.models.resnet50().state_dict()
    (folder / "R-50.pkl").write_bytes(pickle.dumps({"blobs": caffe2(resnet)}, protocol=2))
    (folder / "detectron2.pkl").write_bytes(
        pickle.dumps({"model": detectron2(resnet), "__author__": "Detectron2 Model Zoo"})
    )
    small = timm.create_model("resnet18", layers=(1, 1, 1, 1), channels=(8, 8, 16, 16)).state_dict()
    old = {f"backbone.{name}": value for name, value in small.items()} | {
        "bbox_head.retina_cls.weight": torch.zeros(12, 8, 3, 3)
    }
    torch.save(
        {"meta": {"mmdet_version": "1.1.0", "config": ""}, "state_dict": old},
        folder / "old_retinanet.pth",
    )
    ssd = {
        "backbone.extra.0.weight": torch.zeros(1),
        "bbox_head.cls_convs.0.weight": torch.zeros(8, 2, 3, 3),
    }
    torch.save({"meta": {"mmdet_version": "2.5.0"}, "state_dict": ssd}, folder / "old_ssd.pth")
    torch.save(
        {"model": swin(timm.create_model("swin_tiny_patch4_window7_224").state_dict())},
        folder / "swin.pth",
    )
    torch.save(
        mit(timm.create_model("pvt_v2_b0", mlp_ratios=(4, 4, 4, 4)).state_dict()),
        folder / "mit_b0.pth",
    )
    vit = timm.create_model("vit_tiny_patch16_224").state_dict()
    torch.save({"model": vit}, folder / "vit.pth")
    np.savez(folder / "vit.npz", **jax_vit(vit, heads=3))


def _elsewhere(command: str) -> bool:
    return command.startswith(tuple(ELSEWHERE))


@pytest.mark.parametrize("command", [each for each in COMMANDS if _elsewhere(each)])
def test_the_options_of_what_runs_long(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    module, *arguments = shlex.split(command)
    words = [arguments[0]] if module == "jobs.convert" else []
    with pytest.raises(SystemExit) as stop:
        import_module(module).main([*words, "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert all(each in said for each in arguments if each.startswith("--"))
    assert all((ROOT / each).exists() for each in arguments if each.startswith("configs/"))


@pytest.mark.parametrize("command", [each for each in COMMANDS if not _elsewhere(each)])
def test_a_command_of_the_page(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    module, *arguments = shlex.split(command)
    if module in ("jobs.analyze", "jobs.weights"):
        module, arguments = f"{module}.{arguments[0].replace('-', '_')}", arguments[1:]
    try:
        added = [
            each
            for each in ADDED.get(module, [])
            # the number of voxels is always open
            if "runs/lidar" not in arguments or each != "export.size=fixed"
        ]
        status = import_module(module).main([*arguments, *added])
    except SystemExit as stop:  # --help
        status = stop.code
    assert status == 0
    assert capsys.readouterr().out
    written = [
        each
        for option, each in itertools.pairwise(arguments)
        if option in ("--out", "--to", "--json")
    ]
    assert all((folder / each).exists() or list(folder.glob(f"{each}*")) for each in written)
