"""The rooms that must stay light: what they import is looked up in ``sys.modules`` of a fresh
process.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIGHT_TASK_PARTS = ("config", "decode", "metric", "draw", "task")
HEAVY = ("torch", "torchvision", "timm", "ray", "matplotlib", "pandas")


def _modules_of(*places: str) -> list[str]:
    files = [file for place in places for file in sorted(ROOT.glob(place))]
    assert files, places
    return [
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for file in files
    ]


def _brought_by(modules: list[str]) -> dict[str, list[str]]:
    """The heavy packages that appeared with the import of each module, all in one process, one
    after the other.
    """
    code = (
        "import importlib, json, sys\n"
        f"found, before = {{}}, set()\nfor name in {modules!r}:\n"
        f"    importlib.import_module(name)\n    now = {{heavy for heavy in {HEAVY!r} if heavy in sys.modules}}\n"  # noqa: E501
        "    found[name], before = sorted(now - before), now\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, list[str]] = json.loads(done.stdout)
    return {module: heavy for module, heavy in found.items() if heavy}


LIGHT = {
    "config": ("mtl_ray/config/*.py", "mtl_ray/*/config.py", "mtl_ray/tasks/*/config.py"),
    "geometry, samples, storage": (
        "mtl_ray/geometry/[!f]*.py",  # all but figures.py
        "mtl_ray/samples.py",
        "mtl_ray/storage.py",
        "mtl_ray/artifact.py",
    ),
    "experiment": ("mtl_ray/experiment.py",),
    "inputs, engines": ("mtl_ray/inputs/*.py", "mtl_ray/backends/*.py", "mtl_ray/plugin.py"),
    "sources": ("mtl_ray/sources/*.py",),
    "shards": ("mtl_ray/shards/*.py",),
    "serving": ("mtl_ray/serving/*.py",),
    "onnx and http predictors": ("mtl_ray/inference/bundle.py", "mtl_ray/inference/endpoint.py"),
    "all tasks": (
        "mtl_ray/tasks/task.py",
        "mtl_ray/tasks/difference.py",
        "mtl_ray/tasks/charts.py",
        "mtl_ray/tasks/*/difference.py",
    ),
    "tasks": tuple(f"mtl_ray/tasks/*/{part}.py" for part in LIGHT_TASK_PARTS),
}


@pytest.mark.parametrize("places", LIGHT.values(), ids=LIGHT.keys())
def test_light_rooms_import_nothing_heavy(places):
    assert _brought_by(_modules_of(*places)) == {}


def test_only_distributed_imports_ray():
    modules = [
        name
        for name in _modules_of("mtl_ray/**/*.py")
        if ".distributed" not in name and not name.endswith("__main__")
    ]
    assert [module for module, heavy in _brought_by(modules).items() if "ray" in heavy] == []


def test_the_search_sees_torch_where_it_is():
    assert "torch" in _brought_by(["mtl_ray.models.head"])["mtl_ray.models.head"]


def test_every_task_has_its_parts():
    for folder in sorted(ROOT.glob("mtl_ray/tasks/*/")):
        if folder.name != "__pycache__":
            assert {
                part for part in LIGHT_TASK_PARTS if not (folder / f"{part}.py").is_file()
            } == set(), folder.name


def test_packages_are_empty():
    assert [
        str(file)
        for file in [*ROOT.glob("mtl_ray/**/__init__.py"), ROOT / "jobs/__init__.py"]
        if file.read_text().strip()
    ] == []
