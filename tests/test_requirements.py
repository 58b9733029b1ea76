"""What the code imports is declared, and what is declared is pinned within its range."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED = [Requirement(text) for text in PROJECT["dependencies"]]
STORAGE = {"gcs": "gcp", "azure": "azure"}
"""Extras that only the cluster files of their cloud install."""
UNPINNED = {"executorch"}
"""Extras that the tests do not install: what executorch needs is large."""
OPTIONAL = [
    Requirement(text)
    for name, texts in PROJECT["optional-dependencies"].items()
    for text in texts
    if name not in {*STORAGE, *UNPINNED}
]
ENGINES = [
    Requirement(text)
    for name in ("openvino", "ncnn", "executorch")
    for text in PROJECT["optional-dependencies"][name]
]
NVIDIA = [Requirement("tensorrt")]
"""Comes from NVIDIA's index alone."""
PINNED = [Requirement(line) for line in (ROOT / "requirements.txt").read_text().splitlines()]
OWN = {"mtl_ray", "jobs", "tests", "benchmarks", "pulse_counting"}
"""The last is the plugin below `tests/plugin`."""
ELSEWHERE = {"mmdeploy_runtime", "tritonclient"}
"""Clients in environments of their own (`tests/environments.py`)."""


def imported(*folders: str) -> set[str]:
    """Top-level names that are imported anywhere below the folders."""
    names = set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - OWN


def undeclared(names: set[str], declared: list[Requirement]) -> list[str]:
    known = {canonicalize_name(need.name) for need in declared}
    distributions = packages_distributions()
    return sorted(
        name
        for name in names
        if not {canonicalize_name(one) for one in distributions.get(name, [name])} & known
    )


def test_the_package_imports_what_it_declares():
    assert (
        undeclared(
            imported("mtl_ray", "jobs"),
            [
                *(*DECLARED, *ENGINES, *NVIDIA),
                *(need for need in OPTIONAL if need.name == "tensorboard"),
            ],
        )
        == []
    )


def test_the_tests_import_what_is_declared_for_development():
    names = imported("tests", "benchmarks") - ELSEWHERE
    assert undeclared(names, DECLARED + OPTIONAL) == []


def test_every_declared_package_is_pinned_within_its_range():
    pins = {canonicalize_name(pin.name): str(pin.specifier) for pin in PINNED}
    for need in DECLARED + OPTIONAL:
        if need.name != PROJECT["name"]:
            pin = pins[canonicalize_name(need.name)]
            assert need.specifier.contains(pin.removeprefix("=="), prereleases=True), (
                f"{need} is pinned {pin}"
            )


@pytest.mark.parametrize("extra", STORAGE)
def test_a_cluster_installs_the_storage_of_its_cloud(extra):
    (need,) = map(Requirement, PROJECT["optional-dependencies"][extra])
    pin = re.search(
        rf" {need.name}==(\S+)", (ROOT / "clusters" / f"{STORAGE[extra]}.yaml").read_text()
    )
    assert pin
    assert need.specifier.contains(pin[1])


def test_pins_are_exact_names_and_versions():
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._]+( ; .+)?", line), line


def test_every_dependency_has_a_reason_beside_it():
    text = (ROOT / "pyproject.toml").read_text()
    for need in DECLARED + OPTIONAL:
        line = next(
            line
            for line in text.splitlines()
            if f'"{need.name}' in line and ("==" in line or ">=" in line or "[" in line)
        )
        assert re.search(r"# \w+", line), line
