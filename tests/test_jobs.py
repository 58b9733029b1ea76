"""Every job is thin, explains itself, and ends with the status that ARCHITECTURE.md promises."""

import ast
import importlib
import json
from itertools import takewhile
from pathlib import Path

import pytest

from jobs.run import run

ROOT = Path(__file__).parents[1]
JOBS = sorted(
    path.stem for path in ROOT.glob("jobs/*.py") if path.stem not in ("__init__", "run", "tools")
)
TOOLS = sorted(
    f"{path.parent.name}.{path.stem}"
    for path in ROOT.glob("jobs/*/*.py")
    if not path.stem.startswith("__")
)
"""One module each of the jobs that hold several."""
MOST_LINES = 60
MOST_STATEMENTS = 40
"""Of one function; ``_parser`` is a list of options, of any number of lines."""


def command(job: str) -> str:
    """How it is started."""
    name, _, tool = job.partition(".")
    return f"python -m jobs.{name} {tool.replace('_', '-')}".strip()


def statements(function: ast.FunctionDef) -> int:
    return sum(isinstance(node, ast.stmt) for node in ast.walk(function))


@pytest.mark.parametrize("job", JOBS + TOOLS)
def test_help_shows_an_example_of_this_job(job, capsys):
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"jobs.{job}").main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "example" in said
    assert f"{command(job)} " in said.split("example")[1]


@pytest.mark.parametrize("job", [job for job in JOBS + TOOLS if job != "doctor"])
def test_a_job_without_its_arguments_is_a_wrong_request(job, capsys):
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"jobs.{job}").main([])
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["analyze", "weights"])
def test_the_tools_of_a_job_are_listed(name, capsys):
    main = importlib.import_module("jobs.tools").main
    listed = importlib.import_module(f"jobs.{name}.__main__").TOOLS
    assert {f"{name}.{tool.replace('-', '_')}" for tool in listed} == {
        tool for tool in TOOLS if tool.startswith(f"{name}.")
    }
    with pytest.raises(SystemExit):
        main(f"jobs.{name}", "About.", listed, ["--help"])
    said = capsys.readouterr().out
    assert all(f"{tool} " in said for tool in listed)
    with pytest.raises(SystemExit) as ended:
        main(f"jobs.{name}", "About.", listed, ["no-such-tool"])
    assert ended.value.code == 2


@pytest.mark.parametrize("job", JOBS + TOOLS)
def test_a_job_is_thin(job):
    """A class of a job's script would be pickled by value and be another class elsewhere."""
    text = (ROOT / "jobs" / f"{job.replace('.', '/')}.py").read_text()
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    assert [node.name for node in functions if statements(node) >= MOST_STATEMENTS] == []
    long = [node for node in functions if (node.end_lineno or 0) - node.lineno >= MOST_LINES]
    assert [node.name for node in long if node.name != "_parser"] == []
    assert not [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)]
    assert "." in job or text.rstrip().endswith('if __name__ == "__main__":\n    run(main)')


def ended(main) -> int:
    with pytest.raises(SystemExit) as ended:
        run(main)
    return ended.value.code


@pytest.mark.parametrize("kind", [ValueError, FileNotFoundError, PermissionError, ConnectionError])
def test_a_users_mistake_is_one_sentence_and_2(kind, capsys):
    def main():
        raise kind("a sentence")

    assert ended(main) == 2
    assert capsys.readouterr().err == "error: a sentence\n"


@pytest.mark.parametrize(
    ("job", "given"),
    [
        ("browse", ["split", "--out", "here"]),
        ("evaluate", ["run", "--data", "split", "--out", "here"]),
        ("export", ["run", "--to", "here"]),
        ("predict", ["run", "a.jpg", "--out", "here"]),
    ],
)
def test_a_submitted_job_does_not_write_where_nobody_will_look(job, given, monkeypatch, capsys):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert ended(lambda: importlib.import_module(f"jobs.{job}").main(given)) == 2
    assert "here is a relative path, and a submitted job" in capsys.readouterr().err


def test_no_job_writes_to_a_web_address(capsys):
    given = ["run", "--to", "https://example.org/bundle"]
    assert ended(lambda: importlib.import_module("jobs.export").main(given)) == 2
    assert "--to https://example.org/bundle cannot be written to" in capsys.readouterr().err


def test_engines_need_a_worker(capsys):
    given = ["run", "--to", "here", "--workers", "0"]
    assert ended(lambda: importlib.import_module("jobs.export").main(given)) == 2
    assert "--workers must be at least 1" in capsys.readouterr().err


def test_what_the_system_says_of_a_file_is_a_sentence_too(tmp_path, capsys):
    assert ended(lambda: len((tmp_path / "nothing").read_text())) == 2
    assert ended(lambda: len(tmp_path.read_text())) == 2
    assert (
        capsys.readouterr().err
        == f"error: {tmp_path}/nothing: No such file or directory\nerror: {tmp_path}: Is a "
        "directory\n"
    )


def test_our_own_mistake_keeps_its_traceback():
    def main():
        raise AssertionError("never")

    with pytest.raises(AssertionError):
        run(main)


def test_the_status_of_a_job_is_the_status_of_the_process():
    assert [ended(lambda status=status: status) for status in (0, 1, 2)] == [0, 1, 2]


def run_job(job: str, *arguments: str) -> int:
    module = importlib.import_module(f"jobs.{job}")
    return ended(lambda: module.main(list(arguments)))


@pytest.mark.parametrize("job", ["config print", "train", "pipeline"])
def test_a_config_that_is_not_there_is_named(job, capsys):
    name, *action = job.split()
    assert run_job(name, *action, "no/such.yaml") == 2
    assert "no/such.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("job", ["config print", "train"])
def test_a_misspelt_key_is_named_with_the_nearest(job, tmp_path, capsys):
    config = tmp_path / "conf.yaml"
    config.write_text("runtime:\n  name: x\n  wokers: 2\n")
    name, *action = job.split()
    assert run_job(name, *action, str(config)) == 2
    assert (
        f"{config}:3: unknown key runtime.wokers; did you mean runtime.workers?"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("target", ["evaluate", "predict", "export"])
def test_a_target_that_is_not_there_is_named(target, tmp_path, capsys):
    further = {
        "evaluate": ["--data", str(tmp_path / "split"), "--out", str(tmp_path / "out")],
        "predict": [str(tmp_path / "a.jpg"), "--out", str(tmp_path / "out")],
        "export": ["--to", str(tmp_path / "out")],
    }
    assert run_job(target, str(tmp_path / "nothing"), *further[target]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "config", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem
)
def test_every_config_is_valid_and_begins_with_its_command(config, capsys):
    assert run_job("config", "print", str(config)) == 0
    assert f"{config.name}:" in capsys.readouterr().out
    job = {"pipelines": "pipeline", "tuning": "tune"}.get(config.parent.name, "train")
    header = list(takewhile(lambda line: line.startswith("#"), config.read_text().splitlines()))
    assert any(
        line.startswith(f"# python -m jobs.{job} {config.relative_to(ROOT)}") for line in header
    )


def test_the_schema_is_written(tmp_path):
    assert run_job("config", "schema", "--out", str(tmp_path / "schema.json")) == 0
    assert "ScheduleConfig" in json.loads((tmp_path / "schema.json").read_text())["$defs"]
