"""Nobody asks for the name of a task or the type of a head: what depends on either is behind
``Task`` and the protocols of heads.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtl_ray.experiment import head_types

ROOT = Path(__file__).parents[1]
Where = tuple[str, str]
"""A file and what is asked there."""

ALLOWED: dict[Where, str] = {
    (
        "mtl_ray/distributed/doctor.py",
        "import_module",
    ): "looks which packages are installed, and whether they load",
    (
        "mtl_ray/distributed/doctor_commands.py",
        "import_module",
    ): "reads the command line of the installed Ray",
    (
        "mtl_ray/distributed/doctor_commands.py",
        "hasattr(command)",
    ): "a click command is a group or none",
    (
        "mtl_ray/distributed/doctor_file.py",
        "import_module",
    ): "reads the schemas of the installed Ray and botocore",
    (
        "mtl_ray/distributed/doctor_file.py",
        "getattr(error)",
    ): "errors of two libraries that validate",
    (
        "mtl_ray/distributed/doctor_kubernetes.py",
        "import_module",
    ): "imports what a Serve application names",
    (
        "mtl_ray/distributed/spare_workers.py",
        "import_module",
    ): "loads what a rank needs before it is needed",
    (
        "mtl_ray/distributed/elastic_trainer.py",
        "getattr(training_failed_error)",
    ): "an attribute that Ray sets in one case only",
    (
        "mtl_ray/training/rank_process.py",
        "import_module",
    ): "loads what a rank needs before it is needed",
    ("mtl_ray/analysis/networks.py", "import_module"): "MODULE:FUNCTION of the command line",
    ("mtl_ray/plugin.py", "import_module"): "a plugin by the name that the config gives",
    (
        "mtl_ray/config/extend.py",
        "getattr(value)",
    ): "a value of a union of configs, which pydantic asks about before it is one",
    ("jobs/tools.py", "import_module"): "a tool by its name on the command line",
    ("mtl_ray/storage.py", "getattr(error.__cause__)"): "botocore's errors",
    ("mtl_ray/inference/endpoint.py", "getattr(error)"): "urllib's errors",
    ("mtl_ray/sources/downloads/http_get.py", "getattr(error)"): "urllib's errors",
    ("mtl_ray/distributed/doctor.py", "getattr(module)"): "not every package says its version",
    ("mtl_ray/config/strict.py", "getattr(kind)"): "most config classes have no retired keys",
    ("mtl_ray/models/backbone.py", "getattr(self.net)"): "timm's networks",
    ("mtl_ray/models/backbone.py", "getattr(module.conv2)"): "timm's networks",
    ("mtl_ray/models/backbone.py", "hasattr(module)"): "timm's networks",
    (
        "mtl_ray/training/batch_norm.py",
        "hasattr(norm)",
    ): "timm's normalisation with an activation in it",
    ("mtl_ray/analysis/mmcv_rule.py", "getattr(layer)"): "layers of torch",
    (
        "mtl_ray/tuning/anchor_search.py",
        "isinstance(Yolov3Head)",
    ): "jobs.anchors fits an option that this config alone has",
    (
        "mtl_ray/models/head.py",
        "isinstance(DenseHead)",
    ): "the one place that tells which heads have candidates",
    (
        "mtl_ray/models/head.py",
        "isinstance(InspectedHead)",
    ): "the one place that asks whether the steps of a head can be looked at",
    (
        "mtl_ray/analysis/speed.py",
        "request.task",
    ): "the task of jobs.analyze speed: inference, loader, ...",
    (
        "mtl_ray/analysis/speed.py",
        "self.task",
    ): "the task of jobs.analyze speed: inference, loader, ...",
    (
        "mtl_ray/analysis/speed_report.py",
        "self.task",
    ): "the task of jobs.analyze speed: inference, loader, ...",
}
"""By file and question the reason."""
OF_TORCH = ("device.type",)
"""The one attribute of another library that is called ``type``."""


def questions(code: str) -> Iterator[str]:
    """What a module asks of things whose protocol should have answered."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call):
            yield from _of_call(node)
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            yield from (name for side in sides if _telling(name := ast.unparse(side)))
        elif isinstance(node, ast.Match) and _telling(name := ast.unparse(node.subject)):
            yield name


def _telling(name: str) -> bool:
    """Whether an expression is the name of a task or the type of a head; a call or a literal is
    neither.
    """
    return name.endswith((".type", ".task", "task.name", "task.view")) and not name.endswith(
        OF_TORCH
    )


def _of_call(node: ast.Call) -> Iterator[str]:
    called = ast.unparse(node.func).rpartition(".")[2]
    if called == "import_module":
        yield called
    elif called == "hasattr" or (
        called == "getattr" and len(node.args) == 3 and isinstance(node.args[1], ast.Constant)
    ):
        yield f"{called}({ast.unparse(node.args[0])})"
    elif called in ("isinstance", "issubclass"):
        heads = {
            each
            for part in ast.walk(node.args[1])
            if (each := _name(part)).endswith("Head") and each != "Head"
        }
        yield from (f"{called}({name})" for name in sorted(heads))


def _name(node: ast.AST) -> str:
    return (
        node.id
        if isinstance(node, ast.Name)
        else node.attr
        if isinstance(node, ast.Attribute)
        else ""
    )


def asked() -> set[Where]:
    files = [file for package in ("mtl_ray", "jobs") for file in (ROOT / package).rglob("*.py")]
    names = {file: file.relative_to(ROOT).as_posix() for file in files}
    return {
        (names[file], each)
        for file in files
        if not names[file].startswith("mtl_ray/tasks/")
        for each in questions(file.read_text())
    }


def test_nobody_asks_for_a_task_or_the_type_of_a_head() -> None:
    assert asked() - ALLOWED.keys() == set(), (
        "give Task or the head's config what is wanted here, or say why not in ALLOWED"
    )


def unnarrowed(code: str) -> Iterator[str]:
    """Calls of a head's task with a vocabulary that may not be the head's, and metrics that take
    samples of the run as they are.
    """
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call) or ".task." not in (called := ast.unparse(node.func)):
            continue
        given = [
            ast.unparse(each) for each in (*node.args, *(word.value for word in node.keywords))
        ]
        whole = [
            each for each in given if each.endswith("vocabulary") and each != "classes.vocabulary"
        ]
        if whole or called.endswith(".metric"):
            yield called


def test_a_task_gets_the_vocabulary_of_the_head() -> None:
    """By ``head_vocabulary``, ``HeadClasses`` or ``head_metric`` of ``tasks/head_classes.py``."""
    files = [
        file
        for package in ("mtl_ray", "jobs")
        for file in (ROOT / package).rglob("*.py")
        if file.name != "head_classes.py"
    ]
    found = {
        (file.relative_to(ROOT).as_posix(), each)
        for file in files
        for each in unnarrowed(file.read_text())
    }
    assert found == set()
    assert list(unnarrowed("head.task.to_response(found, predictor.vocabulary, 0.5)"))
    assert list(unnarrowed("head.task.metric(head, head_vocabulary(head, vocabulary))"))


def test_every_exception_is_still_one() -> None:
    assert ALLOWED.keys() - asked() == set()


def test_tasks_ask_neither() -> None:
    """Not even within a task: its object has the head's config, which answers."""
    folder = ROOT / "mtl_ray" / "tasks"
    found = {
        (file.relative_to(folder).as_posix(), each)
        for file in folder.rglob("*.py")
        for each in questions(file.read_text())
    }
    assert found == {
        ("detection/fuse.py", "isinstance(SelectingHead)"),
        ("detection/options.py", "isinstance(AnchoredHead)"),
        ("detection/decode.py", "isinstance(LevelledHead)"),
        ("lidar/config.py", "isinstance(Anchor3dHead)"),
    }


@pytest.mark.parametrize(
    "planted",
    [
        "import importlib\nx = importlib.import_module(f'mtl_ray.tasks.{head.task}.metric')",
        "from importlib import import_module\nx = import_module(name)",
        "if hasattr(part, 'picture'): pass",
        "x = getattr(head, 'train_only', False)",
        "if head.task == 'detection': pass",
        "if 'linear' == head.type: pass",
        "if head.type in ('linear', 'multilabel'): pass",
        "if head.task.name != 'detection' and self.heads[0].task is DETECTION: pass",
        "if head.task.view == 'boxes': pass",
        "if task.name in known: pass",
        "match head.type:\n    case 'linear': pass",
        *(f"if isinstance(head, {kind.__name__}): pass" for kind in head_types()),
        "if isinstance(head, config.Yolov3Head | config.RetinaNetHead): pass",
    ],
)
def test_a_planted_question_is_found(planted: str) -> None:
    assert list(questions(planted))


@pytest.mark.parametrize(
    "code",
    [
        "x = device.type == 'cuda'",
        "x = head.task.view",
        "x = getattr(a, name)",
        "isinstance(x, Head)",
    ],
)
def test_what_may_be_asked(code: str) -> None:
    assert list(questions(code)) == []
