"""Plugins that cannot be used: one sentence says which one and what to do."""

import pickle
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from jobs import convert
from mtl_ray.config.document import parse
from mtl_ray.config.tree import merge
from mtl_ray.config.validate import to_yaml
from mtl_ray.experiment import experiment_type, read_experiment
from mtl_ray.layout import annotation_kinds
from mtl_ray.plugin import installed_plugins, load_plugins

IMPORT = "from mtl_ray.plugin import Plugin\n"
HEAD = """\
from typing import Literal
from pydantic.dataclasses import dataclass
from mtl_ray.config.strict import STRICT
from mtl_ray.plugin import Plugin
from mtl_ray.tasks.task import HeadOptions
@dataclass(frozen=True, kw_only=True, config=STRICT)
class Mine(HeadOptions):
    TYPE
    levels: tuple[str, ...] = ("C5",)
PLUGIN = Plugin(heads=(Mine,))
"""
ENGINE = """\
from typing import Literal
from pydantic.dataclasses import dataclass
from mtl_ray.backends.onnxruntime import OnnxRuntimeEngine
from mtl_ray.config.strict import STRICT
from mtl_ray.plugin import Plugin
@dataclass(frozen=True, kw_only=True, config=STRICT)
class Mine(OnnxRuntimeEngine):
    type: Literal["mine"] = "mine"
PLUGIN = Plugin(engines=(Mine,))
"""
SOURCE = """\
from typing import Literal
from pydantic.dataclasses import dataclass
from mtl_ray.config.strict import STRICT
from mtl_ray.plugin import Plugin
from mtl_ray.sources.config import ImageFolder
@dataclass(frozen=True, kw_only=True, config=STRICT)
class Mine(ImageFolder):
    type: Literal["mine_too"] = "mine_too"
    depth: int = 1
PLUGIN = Plugin(sources=(Mine,))
"""
CONFIG = """\
model: {backbone: {name: resnet18}, necks: {pool: {type: pool}}, heads: {labels: {type: linear}}}
data: {train: {uri: a}, val: {uri: b}, canvas: {height: 64, width: 64}}
schedule: {steps: 1}
runtime: {name: a}
"""
KIND = """\
from mtl_ray.annotations.annotation import AnnotationKind
from mtl_ray.plugin import Plugin
class Mine(AnnotationKind):
    name = "NAME"
    COLUMNS
PLUGIN = Plugin(annotations=(Mine(),))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def all_of(name: str) -> None:
    """Loads a plugin as a config that names it does."""
    experiment_type(parse(f"plugins: [{name}]", "a.yaml"))
    annotation_kinds((name,))


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("e_syntax", "PLUGIN = (", r"has an error in it \(.*e_syntax.py, line 1\): SyntaxError"),
        ("e_zero", f"{IMPORT}1 / 0\nPLUGIN = Plugin()", r"e_zero.py, line 2\): ZeroDivisionError"),
        (
            "e_field",
            f"{IMPORT}PLUGIN = Plugin(hed=())",
            r"e_field.py, line 2\): TypeError: .*'hed'",
        ),
        ("e_exit", f"{IMPORT}raise SystemExit('no')\nPLUGIN = 1", r"line 2\): SystemExit: no"),
        (
            "e_tuple",
            f"{IMPORT}PLUGIN = Plugin(heads=int)",
            r"line 2\): .* heads of Plugin must be a",
        ),
        (
            "e_import",
            f"import lacking.part\n{IMPORT}PLUGIN = Plugin()",
            "install lacking, which it",
        ),
        (
            "e_name",
            f"from mtl_ray.plugin import Plugs\n{IMPORT}PLUGIN = 1",
            r"line 1\): ImportError",
        ),
        (
            "e_int",
            f"{IMPORT}PLUGIN = Plugin(heads=(int,))",
            "lists builtins.int in heads, which is no",
        ),
        ("e_type", HEAD.replace("TYPE", ""), "e_type.Mine in heads, which has no literal type"),
        (
            "e_task",
            HEAD.replace("TYPE", 'type: Literal["e"] = "e"'),
            "e_task.Mine in heads, which has no task, annotation, build",
        ),
        (
            "e_class",
            f"{IMPORT}from mtl_ray.annotations.labels import LabelsKind\n"
            "PLUGIN = Plugin(annotations=(LabelsKind,))",
            "lists <class .*LabelsKind'> in annotations, which is no kind of annotation",
        ),
        (
            "e_none",
            KIND.replace("COLUMNS", ""),
            "the kind of annotation e_none.Mine has no columns",
        ),
        (
            "e_double",
            KIND.replace("COLUMNS", "columns = {'a': 'float64'}"),
            "'a' of e_double.Mine is of the type 'float64'; a column is one of int32, ",
        ),
        (
            "e_built_in",
            KIND.replace("NAME", "labels").replace("COLUMNS", "columns = {}"),
            "the name 'labels', in mtl_ray.annotations.labels and e_built_in; rename one",
        ),
    ],
)
def test_a_plugin_with_a_mistake(folder: Path, name: str, source: str, expected: str) -> None:
    (folder / f"{name}.py").write_text(source)
    with pytest.raises(ValueError, match=expected):
        all_of(name)


def test_a_name_of_a_stranger_runs_nothing(folder: Path) -> None:
    """Neither the module nor the packages above it, unless its source names ``PLUGIN``."""
    for name in ("script.py", "pack/__init__.py", "pack/part.py", "pack/deep/part.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"open({str(folder / 'ran')!r}, 'w')")
    for name in ("script.part", "pack.part", "pack.deep", "pack.deep.part", "pack.lacking"):
        with pytest.raises(ValueError, match=f"plugin '{name}' is needed|'{name}' is no plugin"):
            load_plugins((name,))
    assert not (folder / "ran").exists()
    assert not {"script", "pack"} & sys.modules.keys()


@pytest.mark.parametrize("name", ["flat", "open.part", "open.inner.part", "shut.inner.part"])
def test_a_plugin_in_any_folder(folder: Path, name: str) -> None:
    file = folder.joinpath(*name.split(".")).with_suffix(".py")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{IMPORT}PLUGIN = Plugin()\n")
    if name.startswith("shut"):
        (folder / "shut" / "__init__.py").touch()
    assert list(load_plugins((name,))) == [name]


def test_a_section_that_is_left_out_may_be_changed(folder: Path) -> None:
    """An engine extends the section ``export``, which a config need not have."""
    (folder / "with_engine.py").write_text(ENGINE)
    plain = parse(CONFIG, "a.yaml")
    config = read_experiment(merge(plain, parse("plugins: [with_engine]", "a.yaml")))
    assert replace(config, runtime=replace(config.runtime, name="b")).export == config.export
    assert pickle.loads(pickle.dumps(config)) == config
    assert "onnxruntime" not in to_yaml(config), (
        "the default engine is left out, as without plugins"
    )


def test_a_source_without_a_word_of_documentation(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its options are there, and those of the source that it extends have their help."""
    (folder / "with_source.py").write_text(SOURCE)
    with pytest.raises(SystemExit, match="0"):
        convert.main(["--plugins", "with_source", "mine_too", "--help"])
    shown = capsys.readouterr().out
    assert "--depth" in shown
    assert "The folder below ROOT" in " ".join(shown.split())


def test_an_installed_package_that_does_not_load(folder: Path) -> None:
    info = folder / "other_name-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-name\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mtl_ray]\na = lacking_one:PLUGIN\n")
    assert "lacking_one" in installed_plugins()
    with pytest.raises(ValueError, match=r"'lacking_one' .*the installed package other-name names"):
        all_of("lacking_one")
