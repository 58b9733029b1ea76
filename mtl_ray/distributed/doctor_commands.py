"""Checks that the commands in a cluster file exist: programs, subcommands and options of ray,
jobs, scripts, make targets.
"""

import functools
import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
"""The checkout, which holds the scripts and the Makefile."""

OTHER_PROGRAMS = set(
    """
    apt-get az aws bash cat cd chmod chown cp curl docker echo exit export false gcloud grep helm id kill kubectl ln ls mkdir mount mv
    openssl pwd rm rsync sed set sleep source ssh sync tail test timeout touch true ulimit umask uv wait wget
    """.split()  # noqa: E501, SIM905
)
"""Programs of the shell, of Ubuntu and of the clouds; only their names are checked."""
BEFORE_A_COMMAND = frozenset(["sudo", "nohup", "exec", "env", "setsid", "time"])


def missing(command: str, mounted: Mapping[str, str]) -> Iterator[str]:
    """Sentences about what does not exist in a line of shell.

    Args:
        command: from a cluster file: simple commands joined by ``;``, ``&&``, ``||``, ``|``, ``&``,
            parentheses.
        mounted: paths on the machines (absolute, or starting with ``~/``) and the paths of the same
            files here.
    """
    try:
        simple = list(_simple_commands(command))
    except ValueError as error:
        yield f"`{command}` cannot be parsed as shell: {error}"
        return
    for words in simple:
        yield from _missing(words, mounted)


def _simple_commands(command: str) -> Iterator[list[str]]:
    """The words of each simple command, without assignments, redirections and programs that
    start another.
    """
    lexer = shlex.shlex(command, posix=True, punctuation_chars=";&|()<>\n")
    lexer.whitespace = " \t\r"
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    redirected = False
    for word in [*lexer, ";"]:
        if set(word) <= set("<>&") and set(word) & set("<>"):
            redirected = True
            if words and words[-1] in ("1", "2"):
                words.pop()
        elif set(word) <= set(";&|()\n"):
            yield from _one(words)
            words, redirected = [], False
        elif redirected:
            redirected = False
        else:
            words.append(word)


def _one(words: list[str]) -> Iterator[list[str]]:
    while words and (re.match(r"^\w+=", words[0]) or words[0] in BEFORE_A_COMMAND):
        words = words[1:]
    if words:
        yield words


def _missing(words: list[str], mounted: Mapping[str, str]) -> Iterator[str]:
    program = Path(words[0]).name
    if program == "ray":
        yield from _missing_of_ray(words[1:])
    elif re.fullmatch(r"python(3(\.\d+)?)?", program):
        yield from _missing_of_python(words[1:], mounted)
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        yield from (
            f"the Makefile has no target {word}"
            for word in words[1:]
            if not word.startswith("-") and word not in targets
        )
    elif program not in OTHER_PROGRAMS:
        yield f"there is no program {words[0]}"


def _missing_of_ray(words: list[str]) -> Iterator[str]:
    """Checks subcommands and options with the installed Ray."""
    command: Any = importlib.import_module("ray.scripts.scripts").cli
    name = "ray"
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        if words[0] not in command.commands:
            yield f"{name} has no subcommand {words[0]}"
            return
        command, name, words = command.commands[words[0]], f"{name} {words[0]}", words[1:]
    if hasattr(command, "commands") and not words:
        yield f"{name} alone is no command"
    known = {
        option
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    } | {"--help"}
    until = words.index("--") if "--" in words else len(words)
    yield from (
        f"{name} has no option {option}"
        for option in _options(words[:until])
        if option not in known
    )
    if until < len(words):
        yield from _missing(words[until + 1 :], {})


def _options(words: list[str]) -> list[str]:
    return [word.split("=")[0] for word in words if re.match(r"^--?[a-zA-Z]", word)]


def _missing_of_python(words: list[str], mounted: Mapping[str, str]) -> Iterator[str]:
    while words and words[0] in ("-u", "-q"):
        words = words[1:]
    if words[:1] == ["-m"] and len(words) > 1:
        module, arguments = words[1], words[2:]
        if module in ("pip", "venv"):
            return
        if (
            module.split(".")[0] not in ("jobs", "mtl_ray")
            or importlib.util.find_spec(module) is None
        ):
            yield f"there is no module {module} to run"
            return
        yield from _missing_of_script(module, ("-m", module), arguments)
    elif words[:1] == ["-c"]:
        return
    elif words and not words[0].startswith("-"):
        path = ROOT / mounted.get(words[0].replace("$HOME/", "~/"), words[0])
        if not path.is_file():
            yield f"there is no script {words[0]}" + (
                "" if path == ROOT / words[0] else f" ({path} is not there)"
            )
            return
        yield from _missing_of_script(words[0], (str(path),), words[1:])


def _missing_of_script(name: str, start: tuple[str, ...], arguments: list[str]) -> Iterator[str]:
    """Options that ``--help`` of the script does not show, and config files that do not exist."""
    options = _options(arguments)
    if options:
        known = set(re.findall(r"--?[a-zA-Z][\w-]*", _help(start)))
        yield from (f"{name} has no option {option}" for option in options if option not in known)
    for word in arguments:
        if re.match(r"^(configs|clusters)/.*\.ya?ml$", word) and not (ROOT / word).is_file():
            yield f"{word}, which {name} is given, is not there"


@functools.cache
def _help(start: tuple[str, ...]) -> str:
    done = subprocess.run(
        [sys.executable, *start, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode:
        raise ValueError(
            f"python {' '.join(start)} --help ends with {done.returncode}: "
            f"{done.stderr.strip()[-300:]}"
        )
    return done.stdout
